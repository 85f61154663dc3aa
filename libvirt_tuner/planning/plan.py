"""A plan: who goes where, what changes on the host, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from libvirt_tuner.topology import NO_CPUS, Binding, Cpus, QueueMask

PlacementKind = Literal["dedicated", "shared", "keep"]
MtuSetting = Literal["mtu", "host_mtu", "guest"]


@frozen(repr=False)
class Taken:
    """CPUs other domains hold: no vCPU is pinned to either; emulators and those who float may share
    ``emulators`` in need.

    ``floats`` are not held: domains of placement ``shared`` run there, ``floating`` vCPUs in all; others keep
    off while there is room elsewhere.
    ``memory`` is what is bound to one node (``strict``), in KiB, by node and page size as in
    :attr:`libvirt_tuner.domainxml.spec.DomainSpec.hugepage_kib`: free for now perhaps, and needed any moment.
    """

    vcpus: Cpus = NO_CPUS
    emulators: Cpus = NO_CPUS
    floats: Cpus = NO_CPUS
    floating: int = 0
    memory: Mapping[tuple[int, int | None], int] = field(factory=dict)

    @property
    def all(self) -> Cpus:
        """Both together."""
        return self.vcpus | self.emulators

    def __add__(self, other: Taken) -> Taken:
        """What both hold together."""
        pages = self.memory.keys() | other.memory.keys()
        return Taken(
            self.vcpus | other.vcpus,
            self.emulators | other.emulators,
            self.floats | other.floats,
            self.floating + other.floating,
            {page: self.memory.get(page, 0) + other.memory.get(page, 0) for page in pages},
        )


NOBODY = Taken()
"""No other domain holds a CPU."""


@frozen(repr=False)
class Reason:
    """One decision: ``subject`` (``vcpus``, ``memory``, ``irq eth0``), what was decided, and why."""

    subject: str
    decision: str
    why: str


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
        emulatorpin: None leaves it.
        vhost: CPU per vhost worker, in order of the workers.
        numatune: None leaves it. ``memnodes``: the same for each guest cell.
        holds: CPUs the domain holds when it runs this way (its vCPUs and emulator, user's pins included).
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
    holds: Taken = NOBODY

    @property
    def takes(self) -> Taken:
        """What it leaves other domains less: what it holds, and the CPUs over which its vCPUs float."""
        if self.placement != "shared":
            return self.holds
        floats = Taken(floats=NO_CPUS.union(*self.vcpupin.values()), floating=len(self.vcpupin))
        return self.holds + floats

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
    masks: tuple[QueueMask, ...] = ()
    unknown: frozenset[str] = frozenset()
    reasons: tuple[Reason, ...] = ()
