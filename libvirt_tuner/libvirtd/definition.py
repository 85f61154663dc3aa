"""Tunes a domain's persistent definition. Used by ``daemon``, ``settle`` and ``apply``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from attrs import evolve, frozen

from libvirt_tuner.config.policy import CONFIG_FILE
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import DomainXmlError, PolicyError, TunerError
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding
from libvirt_tuner.hostside.reverted import is_reverted
from libvirt_tuner.libvirtd.connection import Connection, Domain
from libvirt_tuner.planning import memory, tuning
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import Placement, Plan, Reserved
from libvirt_tuner.planning.request import plan_request, policy_is_broken, read_request
from libvirt_tuner.topology import NO_CPUS, HostTopology

Outcome = Literal["complete", "proposed", "changed", "overtaken", "held back"]
Versions = tuple[tuple[int, ...], tuple[int, ...]]
Recorded = Callable[[Sysfs, str], tuple[list[Neighbour], Placement | None]]
"""What other domains hold, and what this one was given: :func:`libvirt_tuner.hostside.holding.recorded`."""


@frozen
class Completion:
    """The result for a definition.

    Attributes:
        outcome: ``complete`` (nothing to change), ``proposed``, ``changed``, ``overtaken`` (another program
            changed or removed it during planning, so it was not written), or ``held back`` (the policy has a
            mistake, and nothing is changed until it is fixed).
        before: The definition as it was read.
        text: The definition now, or the proposed one.
        plan: What was planned.
        problems: Ignored layers of the policy.
        manager: Another program that places the domain.
    """

    outcome: Outcome
    before: str
    text: str
    plan: Plan
    problems: tuple[PolicyError | DomainXmlError, ...] = ()
    manager: str = ""


class Neighbours:
    """CPUs and memory of definitions, by domain. Each document is read only once."""

    def __init__(self) -> None:
        self._held: dict[str, Reserved] = {}

    def note(self, uuid: str, definition: str | None) -> None:
        """Add a definition; None: it no longer exists."""
        if definition is None:
            self._held.pop(uuid, None)
        else:
            self._held[uuid] = placed(definition)

    def learn(self, conn: Connection, domains: Iterable[Domain]) -> None:
        """:meth:`note` the definitions of all ``domains``, and forget the others."""
        self._held = {}
        for domain in domains:
            self.note(domain.uuid, _definition_or_none(conn, domain))

    def but(self, uuid: str) -> Reserved:
        """Return what all definitions except one hold."""
        others = [each for owner, each in self._held.items() if owner != uuid]
        return Reserved(
            NO_CPUS.union(*(each.vcpus for each in others)),
            NO_CPUS.union(*(each.emulators for each in others)),
            memory=sum((Counter(each.memory) for each in others), Counter()),
        )


def _definition_or_none(conn: Connection, domain: Domain) -> str | None:
    try:
        return conn.definition(domain)
    except TunerError as error:
        if getattr(error, "kind", "") == "missing":
            return None
        raise


def placed(definition: str) -> Reserved:
    """Return what a definition needs for itself: CPUs of vCPUs pinned to one CPU, emulator CPUs, and memory.

    A vCPU that may float over several CPUs reserves none of them. An unreadable definition holds nothing.
    """
    if "<vcpupin" not in definition and "<numatune" not in definition:
        return Reserved()
    try:
        spec = read_spec(document.parse(definition))
    except TunerError:
        return Reserved()
    pins = (cpus for vcpu, cpus in spec.vcpupin.items() if vcpu in spec.online)
    vcpus = NO_CPUS.union(*(cpus for cpus in pins if len(cpus) == 1))
    return Reserved(
        vcpus,
        spec.emulatorpin if vcpus else NO_CPUS,
        memory=memory.bound_by(spec, spec.numatune.memory, spec.numatune.memnodes),
    )


def proposal(
    conn: Connection,
    sysfs: Sysfs,
    domain: Domain,
    versions: Versions,
    reserved: Reserved,
    *,
    recorded: Recorded = holding.recorded,
    live: bool = False,
) -> Completion:
    """Plan a domain's definition on this host without changing it; a transient domain as it runs.

    A running domain keeps its placement in the ledger.

    Args:
        conn: For reading.
        sysfs: The host.
        domain: Which.
        versions: Of libvirt and QEMU (:meth:`libvirt_tuner.libvirtd.connection.Connection.versions`).
        reserved: CPUs and memory of other definitions.
        recorded: What reads the ledger.
        live: The domain is to be pinned as it runs: to the node where its memory lies.

    Raises:
        DomainXmlError, HostError, LedgerError, ConnectionFailed: By what went wrong.
    """
    before = conn.definition(domain) or conn.xml(domain)
    request = read_request(before, sysfs.read_or(CONFIG_FILE, "") or None)
    neighbours, given = recorded(sysfs, domain.uuid)

    def survey(devices: Iterable[str], partition: str) -> HostTopology:
        return probe.topology(sysfs, devices, queues=True, partition=partition)

    libvirt, qemu = versions
    plan = plan_request(
        request,
        survey,
        neighbours,
        reserved,
        before=given if domain.active else None,
        running=domain.active,
        memory_on=holding.memory_home(sysfs, domain.name, domain.uuid) if live and domain.active else (),
        libvirt=libvirt,
    )
    after = tuning.tune(request, plan, libvirt=libvirt, qemu=qemu)
    if after is None:
        return Completion("complete", before, before, plan, request.problems, request.manager)
    return Completion("proposed", before, after.decode(), plan, request.problems, request.manager)


def complete(
    conn: Connection,
    sysfs: Sysfs,
    domain: Domain,
    versions: Versions,
    reserved: Reserved,
    *,
    asked: bool = False,
    live: bool = False,
) -> Completion | None:
    """Define a domain again with its :func:`proposal` if that changes it.

    Args:
        conn, sysfs, domain, versions, reserved, live: As for :func:`proposal`.
        asked: The user asked for this domain, so it is tuned even if it was reverted.

    Returns:
        The result; None for a domain without definition, or a reverted one.

    Raises:
        DomainXmlError, HostError, LedgerError, ConnectionFailed: Nothing was changed.
    """
    if not domain.persistent:
        return None
    if not asked and is_reverted(sysfs, domain.uuid):
        return None
    found = proposal(conn, sysfs, domain, versions, reserved, live=live)
    if found.outcome == "complete":
        return found
    if policy_is_broken(found.problems) or (found.manager and not asked):
        return evolve(found, outcome="held back", text=found.before)
    if conn.redefine(domain, before=found.before, after=found.text):
        return evolve(found, outcome="changed")
    return evolve(found, outcome="overtaken", text=found.before)
