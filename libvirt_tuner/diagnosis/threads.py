"""Findings about threads that wait for a CPU, and the threads that ran there meanwhile. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import (
    Finding,
    Fix,
    Kind,
    apply_live,
    node_of,
    percent,
    room,
    thread_fix,
    worker_fix,
)
from libvirt_tuner.diagnosis.sample import Interval, Queue, Use

WAITS = 0.05
"""Share of time on the run queue above which a thread counts as waiting."""
RUNS = 0.05
"""Share of time on a CPU above which a thread counts as the cause."""
BUSY_SIBLING = 0.5
STEALS = 0.05


def contended(look: Interval) -> Iterator[Finding]:
    """Find a waiting vCPU or vhost worker and each thread that used its CPU: one finding per pair."""
    said: set[frozenset[int]] = set()
    for victim in sorted(look.of("vcpu", "vhost"), key=lambda use: -use.wait):
        if victim.wait < WAITS:
            continue
        for other in _suspects(look, victim):
            pair = frozenset({victim.task.tid, other.task.tid})
            if pair not in said:
                said.add(pair)
                yield _pair(look, victim, other, min(victim.wait, other.run))


def _suspects(look: Interval, victim: Use) -> list[Use]:
    """Who may have run where a thread waited: those that stayed there; passers-by where nobody did."""
    ran = [
        other
        for other in look.on_cpu[victim.task.cpu]
        if other is not victim and other.task.role != "ksoftirqd" and min(victim.wait, other.run) >= RUNS
    ]
    return [other for other in ran if other.stayed] or ran


def _pair(look: Interval, victim: Use, other: Use, taken: float) -> Finding:
    cpu = victim.task.cpu
    # What each waited while the other ran: a vhost worker that waits stalls its vCPU's packets, too.
    cost = taken + min(other.wait, victim.run)
    kind, fix, what = _judged(look, victim, other)
    return Finding(
        kind=kind,
        cost=cost,
        what=what,
        culprit=_named(look, other if kind != "vhost-on-vcpu" else _worker(victim, other)),
        fix=fix,
        vm=victim.task.vm,
        thread=victim.task.says,
        cpus=frozenset({cpu}),
        evidence=(_times(victim), _times(other)),
    )


def _worker(one: Use, two: Use) -> Use:
    return one if one.task.role == "vhost" else two


def _judged(look: Interval, victim: Use, other: Use) -> tuple[Kind, Fix, str]:
    cpu, roles = victim.task.cpu, {victim.task.role, other.task.role}
    what = f"{victim.task.full} and {other.task.full} share CPU {cpu}"
    if roles == {"vcpu", "vhost"}:
        worker = _worker(victim, other)
        return "vhost-on-vcpu", worker_fix(look, worker), what + _serves(look, worker)
    if other.task.role in ("vcpu", "vhost"):
        return "vms-share-cpu", apply_live(_stranger(look, victim, other).task.vm), what
    if other.task.vm:
        target = room(look, node_of(look, cpu), isolated=True, but={cpu})
        return "neighbour", thread_fix(other, target), what
    return "neighbour", _neighbour_fix(look, other, cpu), what


def _stranger(look: Interval, victim: Use, other: Use) -> Use:
    """Which of two to place anew: the one that is not where this tool pinned it, else the one that floats."""
    for use in (other, victim):
        vm = look.scene.vms.get(use.task.vm)
        planned = vm.pins.get(use.task.number) if vm and use.task.role == "vcpu" else None
        if planned and planned != use.task.allowed:
            return use
    return victim if len(victim.task.allowed) == 1 else other


def _queue(look: Interval, worker: Use) -> Queue | None:
    vm = look.scene.vms.get(worker.task.vm)
    served = vm.workers if vm else ()
    return served[worker.task.number] if worker.task.number < len(served) else None


def _serves(look: Interval, worker: Use) -> str:
    queue = _queue(look, worker)
    if queue is None:
        return ""
    tap = f" ({queue.tap})" if queue.tap else ""
    return f"; the worker serves queue {queue.queue} of vNIC {queue.vnic}{tap}"


def _named(look: Interval, use: Use) -> str:
    if use.task.role == "vhost" and (queue := _queue(look, use)) is not None:
        return f"{use.task.full}, queue {queue.queue} of vNIC {queue.vnic}"
    return use.task.full


def _times(use: Use) -> str:
    """Return how long it ran and waited. For threads of no VM only the run time is known."""
    waited = f" and waited {percent(use.wait)}" if use.task.role != "other" else ""
    return f"{use.task.full} ran {percent(use.run)}{waited}"


_BOUND = re.compile(r"(kworker|migration|cpuhp|rcuc|rcuop?|watchdog|idle_inject|irq_work)/")
"""Names of kernel threads that nobody can move (PF_NO_SETAFFINITY)."""


def _neighbour_fix(look: Interval, other: Use, cpu: int) -> Fix:
    if _BOUND.match(other.task.name):
        return Fix("libvirt-tuner host isolate")
    host = look.scene.host
    elsewhere = (
        host.online
        - host.isolated
        - host.siblings(frozenset(use.task.cpu for use in look.of("vcpu")))
        - {cpu}
    )
    process = other.task.process
    threads = tuple(use.task.tid for use in look.uses if use.task.process == process)
    if not elsewhere:
        return Fix(f"renice -n 19 -p $(ls /proc/{process}/task)", "nice", threads)
    return Fix(f"taskset -a -p -c {cpuset.format(elsewhere)} {process}", "thread", threads, elsewhere)


def crowded_core(look: Interval) -> Iterator[Finding]:
    """Find a vCPU on a busy housekeeping CPU, or with a busy SMT sibling."""
    host = look.scene.host
    first = frozenset(host.cores[0].cpus) if host.cores else frozenset()
    own = {use.task.cpu for use in look.of("vcpu")}
    for use in look.of("vcpu"):
        cpu = use.task.cpu
        if use.run < RUNS or len(use.task.allowed) != 1:
            continue
        # Threads that are named by themselves are no unknown work of the host.
        named = sum(mate.run for mate in look.on_cpu[cpu] if mate is not use and mate.run >= RUNS)
        rest = look.busy(cpu) - use.run - named
        if cpu in first and rest >= RUNS and use.wait >= WAITS / 2:
            yield _crowded(
                look, use, cpu, "the host's own work (housekeeping)", min(rest, use.wait), "shares"
            )
        for sibling in sorted(host.siblings(frozenset({cpu})) - {cpu}):
            mates = [mate for mate in look.on_cpu.get(sibling, ()) if mate.run >= RUNS]
            same = any(mate.task.vm == use.task.vm and mate.task.role == "vcpu" for mate in mates)
            if look.busy(sibling) >= BUSY_SIBLING and use.run >= 0.2 and not same:
                names = ", ".join(mate.task.full for mate in mates) or f"what runs on CPU {sibling}"
                if sibling in own and not mates:
                    continue
                cost = 0.3 * min(use.run, look.busy(sibling))
                found = _crowded(look, use, sibling, names, cost, "has a busy sibling:")
                strangers = [mate for mate in mates if not mate.task.vm and mate.task.role == "other"]
                yield evolve(found, fix=_neighbour_fix(look, strangers[0], sibling)) if strangers else found


def _crowded(look: Interval, use: Use, cpu: int, who: str, cost: float, how: str) -> Finding:
    shared = cpu == use.task.cpu
    what = f"{use.task.full} on CPU {use.task.cpu} {how} " + (f"it with {who}" if shared else f"CPU {cpu}")
    return Finding(
        kind="busy-core",
        cost=cost,
        what=what,
        culprit=who,
        fix=apply_live(use.task.vm),
        vm=use.task.vm,
        thread=use.task.says,
        cpus=frozenset({use.task.cpu, cpu}),
        evidence=(
            f"{use.task.says} ran {percent(use.run)} and waited {percent(use.wait)}",
            f"CPU {cpu} was busy {percent(look.busy(cpu))}",
        ),
        basis=("scheduler", "sampled"),
    )


def stolen(look: Interval) -> Iterator[Finding]:
    """Find steal time: the hypervisor below this host gave its CPUs to others."""
    used = {use.task.cpu for use in look.of("vcpu", "vhost") if use.run + use.wait >= RUNS}
    hit = {cpu: look.steal(cpu) for cpu in used if look.steal(cpu) >= STEALS}
    if hit:
        total = sum(hit.values())
        yield Finding(
            kind="steal",
            cost=total,
            what=f"the hypervisor below this host runs other work on CPUs {cpuset.format(hit)}",
            culprit="the hypervisor below this host",
            fix=Fix("libvirt-tuner diagnose   # on the hypervisor that runs this host"),
            cpus=frozenset(hit),
            evidence=(f"steal time: {percent(total / len(hit))} of these CPUs",),
            basis=("counts",),
        )
