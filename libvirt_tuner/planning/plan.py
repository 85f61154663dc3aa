"""A plan: the placement of a domain, the changes of the host, and the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

from attrs import field, frozen

from libvirt_tuner.cpuset import EMPTY
from libvirt_tuner.topology import NO_CPUS, Binding, Cpus, QueueMask

PlacementKind = Literal["dedicated", "shared", "keep"]
MtuSetting = Literal["mtu", "host_mtu", "guest"]


@frozen(repr=False)
class Held:
    """CPUs and memory of a running domain.

    Attributes:
        vcpus: A CPU for each of its vCPUs.
        emulators: CPUs of its other threads.
        memory: Memory that must come from one node, as in :class:`Reserved`.
    """

    vcpus: Cpus = NO_CPUS
    emulators: Cpus = NO_CPUS
    memory: Mapping[tuple[int, int | None], int] = field(factory=dict)

    def __add__(self, other: Held) -> Held:
        """Return the sum of both."""
        memory = Counter(self.memory)
        memory.update(other.memory)
        return Held(self.vcpus | other.vcpus, self.emulators | other.emulators, memory)

    def __repr__(self) -> str:
        vcpus, emulators = sorted(self.vcpus), sorted(self.emulators)
        return f"<held: vCPUs {vcpus}, emulators {emulators}, memory {dict(self.memory)}>"


HELD_NOTHING = Held()


class Reserved(NamedTuple):
    """CPUs and memory of definitions, running or not. They are avoided if possible.

    Attributes:
        vcpus, emulators: CPUs they name.
        memory: KiB that may come from one node only, by node and page size as in
            :attr:`libvirt_tuner.domainxml.spec.DomainSpec.hugepage_kib`: it may be free now, but can be
            needed at any moment.
    """

    vcpus: Cpus = NO_CPUS
    emulators: Cpus = NO_CPUS
    memory: Mapping[tuple[int, int | None], int] = EMPTY

    @property
    def all(self) -> Cpus:
        """Return the sum of both."""
        return self.vcpus | self.emulators


NOTHING = Reserved()
"""No definition asks for a CPU."""


class Reason(NamedTuple):
    """One decision: ``subject`` (``vcpus``, ``memory``, ``irq eth0``), what was decided, and why."""

    subject: str
    decision: str
    why: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.decision} ({self.why})"

    def __repr__(self) -> str:
        return f"<{self}>"


class IrqMove(NamedTuple):
    """Interrupt ``irq`` of ``nic`` goes to ``cpus``."""

    irq: int
    nic: str
    cpus: Cpus
    action: str = ""


@frozen(repr=False)
class MtuChoice:
    """The MTU of one vNIC.

    Attributes:
        index, mac, alias, target: Which vNIC (:class:`libvirt_tuner.domainxml.spec.Vnic`).
        size: Bytes.
        how: ``mtu`` (``<mtu size>``), ``host_mtu`` (qemu:override) or ``guest`` (only DHCP or the guest can).
    """

    index: int
    size: int
    how: MtuSetting
    mac: str = ""
    alias: str = ""
    target: str = ""


class LinkMtu(NamedTuple):
    """The MTU of a device on the host's side of a vNIC, in bytes."""

    device: str
    size: int


@frozen(repr=False)
class Placement:
    """The placement of a domain: it is valid while the domain runs, and is stored in the ledger.

    Attributes:
        domain, uuid: The domain.
        placement: ``dedicated``, ``shared`` or ``keep``.
        nodes: Host NUMA nodes used, the uplink's (or nearest) first.
        vcpupin, iothreadpin: vCPU or iothread id to CPUs; only pins of this tool, never the user's own.
            vCPUs that may still be plugged in are among them; no CPU is kept for those.
        emulatorpin: None: not changed.
        vhost: CPU of each vhost worker, in order.
        numatune: None: not changed. ``memnodes``: the same for each guest cell.
        holds: CPUs that the domain occupies (vCPUs and emulator, including the user's pins).
        vcpus: Each online vCPU to its CPUs, including the user's pins; empty: anywhere.
        reach: CPUs to which the domain's threads may be moved, without isolated ones. Empty: it must not be
            moved.
        claimed: ``placement = "dedicated"``: its CPUs are never shared.
        tuned: False: the domain is only recorded, so that others avoid its CPUs.
    """

    domain: str
    uuid: str = ""
    placement: PlacementKind = "keep"
    nodes: tuple[int, ...] = ()
    vcpupin: Mapping[int, Cpus] = field(factory=dict)
    emulatorpin: Cpus | None = None
    iothreadpin: Mapping[int, Cpus] = field(factory=dict)
    vhost: tuple[int, ...] = ()
    numatune: Binding | None = None
    memnodes: Mapping[int, Binding] = field(factory=dict)
    holds: Held = HELD_NOTHING
    vcpus: Mapping[int, Cpus] = field(factory=dict)
    reach: Cpus = NO_CPUS
    claimed: bool = False
    tuned: bool = True

    def worker_cpus(self, number: int) -> Cpus:
        """Return CPUs of vhost worker ``number``: its own CPU, else the emulator's; empty: not moved."""
        if self.vhost:
            return frozenset({self.vhost[number % len(self.vhost)]})
        return self.emulatorpin or NO_CPUS


@frozen(repr=False)
class Plan(Placement):
    """Everything decided for one domain; see :func:`libvirt_tuner.planning.planner.plan`.

    Attributes:
        driver: Transform of an attribute of ``<driver>`` (``rx_queue_size``, ``queues``...) to its value, and
            the vNICs that get it (indices).
        poll_us: For the virtio NICs in ``poll_vnics`` (indices).
        mtus: One for each vNIC that gets an MTU.
        link_mtus: Devices of the host to set after the domain has started with these MTUs.
        irqs: Interrupts to move.
        irqs_kept: Interrupts that are already in place. They are held too, because another domain may have
            moved them.
        spared: CPUs that interrupts of all devices are kept off: those of its vCPUs, and their siblings.
        alone: CPUs of vCPUs that the host's services are kept off, too.
        masks: RPS and XPS masks to write.
        unknown: Transforms (and ``irq``) that cannot be planned now, for example because the uplink is down.
            Settings of an earlier plan stay.
        reasons: Decisions with reasons, in order.
    """

    driver: Mapping[str, tuple[int, tuple[int, ...]]] = field(factory=dict)
    poll_us: int | None = None
    poll_vnics: tuple[int, ...] = ()
    mtus: tuple[MtuChoice, ...] = ()
    link_mtus: tuple[LinkMtu, ...] = ()
    irqs: tuple[IrqMove, ...] = ()
    irqs_kept: tuple[IrqMove, ...] = ()
    spared: Cpus = NO_CPUS
    alone: Cpus = NO_CPUS
    masks: tuple[QueueMask, ...] = ()
    unknown: frozenset[str] = frozenset()
    reasons: tuple[Reason, ...] = ()
