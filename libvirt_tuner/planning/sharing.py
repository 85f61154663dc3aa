"""Chooses CPUs that a domain shares with others, if there are too few or the policy says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from libvirt_tuner import cpuset
from libvirt_tuner.planning.case import Case, Choice
from libvirt_tuner.planning.plan import Reason
from libvirt_tuner.topology import NO_CPUS, Cpus, NumaCell

ALIKE = 0.95
"""CPU shares with at least this ratio count as equal."""


def share(case: Case, cells: Sequence[NumaCell]) -> tuple[Choice, tuple[Reason, ...]]:
    """Choose the CPUs over which a domain floats."""
    if case.policy.placement == "shared" and (cpus := _apart(case, cells)):
        why = "the policy says shared"
        nodes = tuple(cell.id for cell in cells if cell.cpus & cpus)
        pins = dict.fromkeys(case.to_pin, cpus)
        return Choice("shared", case.home or nodes, pins, cpus), (_floats(cpus, why),)
    cpus = _everybodys(case)
    if not cpus:
        why = "other domains have claimed all CPUs that are not isolated"
        why = why if case.pool else "none of the CPUs that it may use is online and not isolated"
        return Choice("keep"), (Reason("vcpus", "not changed", why),)
    return _with_everybody(case, cpus)


def _floats(cpus: Cpus, why: str) -> Reason:
    return Reason("vcpus", f"share CPUs {cpuset.format(cpus)}", why)


def _with_everybody(case: Case, cpus: Cpus) -> tuple[Choice, tuple[Reason, ...]]:
    """Float over all unclaimed CPUs, like every domain without a claim."""
    pins: dict[int, Cpus] = {}
    for vcpu in case.to_pin:
        own = _on_isolated(case, vcpu)
        pins[vcpu] = own if own and own not in pins.values() else cpus | _beside(case, vcpu)
    emulator = cpus
    now = case.previous.vcpupin if case.previous else {}
    if not now and cpus == case.pool:
        pins, emulator = {}, NO_CPUS
    why = "fewer CPUs than running vCPUs; all domains share them"
    memory = case.previous.numatune.memory if case.running and case.previous and case.plans_memory else None
    return Choice("shared", case.home, pins, emulator, memory, unneeded=True), (_floats(cpus, why),)


def _on_isolated(case: Case, vcpu: int) -> Cpus:
    """Return the isolated CPU of a running vCPU. It can keep it, because isolated CPUs are not shared."""
    pin = case.previous.vcpupin.get(vcpu, NO_CPUS) if case.running and case.previous else NO_CPUS
    good = len(pin) == 1 and pin <= case.host.isolated & case.allowed and not pin & case.taken
    return pin if good else NO_CPUS


def _beside(case: Case, vcpu: int) -> Cpus:
    """Return CPUs that a running vCPU has and to which a user has pinned another domain since: it is not
    moved off."""
    if not (case.was_placed and case.previous):
        return NO_CPUS
    before = case.previous.vcpupin.get(vcpu, NO_CPUS)
    return before & case.others.fixed & case.pool - case.others.given


def _everybodys(case: Case) -> Cpus:
    """Return the CPUs that all share. CPUs with vCPUs pinned by users are only included if needed for
    fairness."""
    cpus = case.pool - case.others.claimed
    fixed = cpus & (case.others.fixed | case.users_held)
    sharing = case.others.sharing() + len(case.to_pin)
    apart, together = len(cpus) - len(fixed), len(cpus)
    if fixed and apart * (sharing + len(fixed)) >= ALIKE * together * sharing:
        return cpus - fixed
    return cpus


def _apart(case: Case, cells: Sequence[NumaCell]) -> Cpus:
    """Return the nearest unreserved CPUs, one for each floating vCPU; none if there are too few."""
    others = case.others
    wanted = len(case.to_pin) + sum(others.floating.values()) + sum(others.loose.values())
    held = others.held | case.users_held | case.own_service
    before = _before(case)
    if before and not before & held and len(before) >= len(case.to_pin) + others.confined_to(before):
        return before
    for spared in (held | others.workers_cpus | others.service, held | others.workers_cpus, held):
        found: Cpus = NO_CPUS
        for cell in cells:
            found |= (cell.cpus & case.pool) - case.host.siblings(spared)
            if len(found) >= wanted:
                return found
    found = case.pool - held
    return found if len(found) >= wanted else NO_CPUS


def _before(case: Case) -> Cpus:
    """Return the CPUs of a running domain, so that it is not moved at each start of another domain."""
    if not (case.running and case.previous and case.to_pin):
        return NO_CPUS
    sets = {case.previous.vcpupin.get(vcpu, NO_CPUS) for vcpu in case.to_pin}
    cpus = sets.pop()
    return cpus if not sets and len(cpus) > 1 and cpus <= case.pool else NO_CPUS
