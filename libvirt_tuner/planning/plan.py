"""A plan: who goes where, what changes on the host, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from libvirt_tuner.topology import NO_CPUS, Binding, Cpus, QueueMask

PlacementKind = Literal["dedicated", "shared", "keep"]
MtuSetting = Literal["mtu", "host_mtu", "guest"]


@frozen(repr=False)
class Held:
    """What a running domain has.

    Attributes:
        vcpus: A CPU for each of its vCPUs.
        emulators: Those its other threads run on.
        memory: What is to come from one node, as in :class:`Reserved`.
    """

    vcpus: Cpus = NO_CPUS
    emulators: Cpus = NO_CPUS
    memory: Mapping[tuple[int, int | None], int] = field(factory=dict)

    def __add__(self, other: Held) -> Held:
        """What both hold together."""
        memory = Counter(self.memory)
        memory.update(other.memory)
        return Held(self.vcpus | other.vcpus, self.emulators | other.emulators, memory)

    def __repr__(self) -> str:
        vcpus, emulators = sorted(self.vcpus), sorted(self.emulators)
        return f"<held: vCPUs {vcpus}, emulators {emulators}, memory {dict(self.memory)}>"


HELD_NOTHING = Held()


@frozen(repr=False)
class Reserved:
    """What definitions ask for, whether they run or not: avoided while there is something else.

    Attributes:
        vcpus, emulators: CPUs they name.
        memory: KiB that may come from one node only, by node and page size as in
            :attr:`libvirt_tuner.domainxml.spec.DomainSpec.hugepage_kib`: free for now perhaps, and needed any
            moment.
    """

    vcpus: Cpus = NO_CPUS
    emulators: Cpus = NO_CPUS
    memory: Mapping[tuple[int, int | None], int] = field(factory=dict)

    @property
    def all(self) -> Cpus:
        """Both together."""
        return self.vcpus | self.emulators


NOTHING = Reserved()
"""No definition asks for a CPU."""


@frozen(repr=False)
class Reason:
    """One decision: ``subject`` (``vcpus``, ``memory``, ``irq eth0``), what was decided, and why."""

    subject: str
    decision: str
    why: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.decision} ({self.why})"

    def __repr__(self) -> str:
        return f"<{self}>"


@frozen(repr=False)
class IrqMove:
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


@frozen(repr=False)
class LinkMtu:
    """The MTU of a device on the host's side of a vNIC, in bytes."""

    device: str
    size: int


@frozen(repr=False)
class Placement:
    """Where a domain runs: what stays true for as long as it does, and what the ledger keeps of it.

    Attributes:
        domain, uuid: Whose.
        placement: ``dedicated``, ``shared`` or ``keep``.
        nodes: Host NUMA nodes used, the uplink's (or nearest) first.
        vcpupin, iothreadpin: vCPU or iothread id to CPUs; only what this tool sets, never the user's own.
            vCPUs that may still be plugged in are among them; no CPU is kept for those.
        emulatorpin: None leaves it.
        vhost: CPU per vhost worker, in order of the workers.
        numatune: None leaves it. ``memnodes``: the same for each guest cell.
        holds: CPUs the domain holds when it runs this way (its vCPUs and emulator, user's pins included).
        vcpus: Each vCPU that runs to where it may run, the user's pins included; empty: anywhere.
        reach: CPUs the domain's threads may be moved to; isolated ones are left out. Empty: it is not ours to
            move.
        claimed: ``placement = "dedicated"``: its CPUs are shared with nobody, whatever comes.
        tuned: False: the domain is only noted down, so that others keep off its CPUs.
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
        """CPUs of the vhost worker ``number``: one of its own, else the emulator's; none where it stays."""
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
        mtus: One per vNIC that gets an MTU.
        link_mtus: Host-side devices to set once the domain runs with these.
        irqs: Interrupts to steer.
        irqs_kept: Those that go where they should already, held too: another domain may have steered them.
        spared: CPUs that interrupts of all devices are kept off: those of its vCPUs, and their siblings.
        alone: CPUs of vCPUs that the host's services are kept off, too.
        masks: RPS and XPS masks to write, as they shall be.
        unknown: Transforms (and ``irq``) whose need could not be judged on the host as it is now (its uplink
            is down, say): what an earlier plan put in stays.
        reasons: In the order of the decisions.
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
