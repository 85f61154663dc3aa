"""What a host is: frozen values, read by :mod:`libvirt_tuner.host.probe`, used by the planner.

The hook imports this at every start. attrs compiles each method when the module is imported, so that values
here have no ``__repr__`` of their own; the small ones are named tuples, which cost a fifth of that.

A "cpu" is a logical CPU id, as in ``/sys/devices/system/cpu/cpuN``. Sizes are KiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from attrs import field, frozen

Cpus = frozenset[int]
NO_CPUS: Cpus = frozenset()

NumaMode = Literal["strict", "preferred", "interleave", "restrictive"]
"""How firmly memory is bound (``<numatune>``, docs/formatdomain.rst of libvirt)."""


class Binding(NamedTuple):
    """Where memory comes from: how firmly, and from which host nodes."""

    mode: NumaMode
    nodes: frozenset[int]


def is_pci_address(name: str) -> bool:
    """Whether this is a PCI function's name in sysfs: ``0000:17:00.0``."""
    domain, _, rest = name.partition(":")
    bus, _, rest = rest.partition(":")
    device, _, function = rest.partition(".")
    parts = (domain, bus, device, function)
    sized = len(domain) >= 4 and [*map(len, parts[1:])] == [2, 2, 1]
    return sized and not "".join(parts).strip("0123456789abcdefABCDEF")


class HugePages(NamedTuple):
    """One page size's pool on one node (``/sys/devices/system/node/nodeN/hugepages``).

    ``default`` marks the size the kernel takes where none is named (``Hugepagesize`` in /proc/meminfo).
    """

    size_kib: int
    total: int
    free: int
    default: bool = False


@frozen(repr=False)
class NumaCell:
    """A NUMA node, by the kernel's own id (ids may be sparse).

    Attributes:
        id: Node id.
        cpus: Online CPUs of the node; empty on a CPU-less node.
        memory_kib: ``MemTotal``; 0 on a memory-less node.
        free_kib: ``MemFree`` plus what the page cache gives back (``FilePages`` less ``Shmem``).
        hugepages: The node's pools, by ascending page size.
        distances: Node id to SLIT distance; the node itself is 10.
    """

    id: int
    cpus: Cpus
    memory_kib: int = 0
    free_kib: int = 0
    hugepages: tuple[HugePages, ...] = ()
    distances: Mapping[int, int] = field(factory=dict)


class Core(NamedTuple):
    """A physical core.

    Attributes:
        cpus: Its online SMT siblings in ascending order.
        node: Its NUMA node.
        capacity: How fast it is, in any unit: cores of one number are alike.
        cache: The first CPU that shares its L3; -1 where there is none, or the kernel does not say.
    """

    cpus: tuple[int, ...]
    node: int
    capacity: int = 0
    cache: int = -1


class Irq(NamedTuple):
    """An interrupt of a PCI function.

    Attributes:
        number: As in ``/proc/irq/N``.
        action: The driver's name for it (``mlx5_comp3@pci:0000:17:00.0``); "" when not requested.
        affinity: ``smp_affinity_list``: where it may go.
        effective: ``effective_affinity_list``: where it goes.
    """

    number: int
    action: str = ""
    affinity: Cpus = NO_CPUS
    effective: Cpus = NO_CPUS


class Nic(NamedTuple):
    """A network device with hardware below it.

    Attributes:
        name: Interface name.
        address: PCI address ``0000:17:00.0``; "" for a device on another bus.
        node: NUMA node, or None where the firmware does not say (numa_node is -1).
        driver: Kernel driver.
        irqs: Interrupts of the PCI function (its ``msi_irqs``), ascending.
        speed: Mbit/s of the link; 0 where it is down or not known.
    """

    name: str
    address: str = ""
    node: int | None = None
    driver: str = ""
    irqs: tuple[Irq, ...] = ()
    speed: int = 0


class QueueMask(NamedTuple):
    """Which CPUs software ties to one queue of a NIC (Documentation/networking/scaling.rst of the kernel).

    Attributes:
        nic: Interface name.
        queue: ``rx-0``: the CPUs its packets are sent on to (``rps_cpus``, RPS). ``tx-0``: the CPUs that
            transmit through it (``xps_cpus``, XPS).
        cpus: Empty where it is off.
    """

    nic: str
    queue: str
    cpus: Cpus = NO_CPUS


@frozen(repr=False)
class Link:
    """A network device as the stack sees it (sysfs and ``ip -json -details link``).

    Attributes:
        name: Interface name.
        kind: ``bridge``, ``bond``, ``team``, ``geneve``, ``vxlan``, ``vlan``, ``macvlan``, ``macvtap``,
            ``tun``, ``veth``, ``openvswitch``...; "" for hardware.
        mtu: Bytes.
        lower: Devices below: the ports of a bridge, the slaves of a bond, the parent of a VLAN or
            macvtap. For a bond the active slave comes first.
        active: The bond's active slave.
        remote: Tunnel: address of the other end (or the multicast group); "" in metadata mode.
        external: Tunnel in metadata (collect_md) mode, as Open vSwitch and OVN use it.
        detail: Other facts worth showing, e.g. ``{"vni": "100", "mode": "active-backup"}``.
    """

    name: str
    kind: str = ""
    mtu: int = 1500
    lower: tuple[str, ...] = ()
    active: str | None = None
    remote: str = ""
    external: bool = False
    detail: Mapping[str, str] = field(factory=dict)


class Route(NamedTuple):
    """How the host reaches a tunnel's far end: ``ip -json route get ADDRESS``.

    ``mtu`` is the route's own or the path's as the kernel has learnt it; 0 where the device's holds.
    """

    address: str
    device: str
    source: str = ""
    mtu: int = 0


@frozen(repr=False)
class XfrmState:
    """An IPsec state (``ip xfrm state``); its keys are never held.

    Attributes:
        src, dst: Outer addresses.
        proto: ``esp``, ``ah``...
        reqid: Ties it to a policy's template; 0 for none.
        mode: ``transport`` or ``tunnel``.
        algorithms: Names as the kernel has them: ``rfc4106(gcm(aes))``, or cipher and hash.
        icv_bits: Length of the integrity check value; None when the kernel does not say.
        encap: ``espinudp`` with NAT traversal, else "".
        offload, direction: Device and direction (``in``, ``out``) of crypto or packet offload, else "".
    """

    src: str
    dst: str
    proto: str = "esp"
    reqid: int = 0
    mode: str = "transport"
    algorithms: tuple[str, ...] = ()
    icv_bits: int | None = None
    encap: str = ""
    offload: str = ""
    direction: str = ""


class XfrmTemplate(NamedTuple):
    """What a policy asks for: a state of this kind (``tmpl`` in ``ip xfrm policy``)."""

    src: str
    dst: str
    proto: str = "esp"
    reqid: int = 0
    mode: str = "transport"


@frozen(repr=False)
class XfrmPolicy:
    """An IPsec policy (``ip xfrm policy``): packets that match go through its templates, in order.

    Attributes:
        src, dst: Prefixes (``192.168.1.2/32``).
        direction: ``out``, ``in``, ``fwd``.
        proto: ``udp``..., "" for any.
        sport, dport: Source and destination port, None for any.
        narrow: For one device or mark only; who can tell whether a packet has that.
        block: Packets that match are dropped.
        priority: The lowest number wins.
        if_id: Not 0: only packets of the xfrm interface of that id.
    """

    src: str
    dst: str
    direction: str = "out"
    proto: str = ""
    dport: int | None = None
    sport: int | None = None
    priority: int = 0
    if_id: int = 0
    narrow: bool = False
    block: bool = False
    templates: tuple[XfrmTemplate, ...] = ()


@frozen(repr=False)
class Xfrm:
    """IPsec as the kernel has it; ``problem`` says why it could not be read."""

    states: tuple[XfrmState, ...] = ()
    policies: tuple[XfrmPolicy, ...] = ()
    problem: str = ""


@frozen(repr=False)
class HostTopology:
    """All the planner knows of a host.

    Attributes:
        cells: NUMA nodes by ascending id.
        cores: Online cores by their first CPU.
        isolated: CPUs without load balancing (isolcpus=domain).
        nohz_full: CPUs with the adaptive tick off.
        busy: CPUs of threads that never sleep and are no VM's (poll mode drivers of Open vSwitch).
        allowed: CPUs that the domain's cgroup has, ``allowed_nodes`` its nodes; empty: all.
        nics: Hardware network devices that matter here, by name.
        links: Network devices that matter here, by name.
        routes: Routes to the far ends of tunnels, by address.
        xfrm: IPsec states and policies, read where there is a tunnel.
        queues: Masks of the NICs' queues; empty unless they were asked for.
    """

    cells: tuple[NumaCell, ...]
    cores: tuple[Core, ...]
    isolated: Cpus = NO_CPUS
    nohz_full: Cpus = NO_CPUS
    busy: Cpus = NO_CPUS
    allowed: Cpus = NO_CPUS
    allowed_nodes: frozenset[int] = NO_CPUS
    nics: Mapping[str, Nic] = field(factory=dict)
    links: Mapping[str, Link] = field(factory=dict)
    routes: Mapping[str, Route] = field(factory=dict)
    xfrm: Xfrm = Xfrm()
    queues: tuple[QueueMask, ...] = ()

    @property
    def online(self) -> Cpus:
        """Every online CPU."""
        return frozenset(cpu for core in self.cores for cpu in core.cpus)

    def cell(self, node: int) -> NumaCell | None:
        """The NUMA node of that id, or None."""
        return next((cell for cell in self.cells if cell.id == node), None)

    def cores_of(self, node: int) -> list[Core]:
        """The online cores of a node."""
        return [core for core in self.cores if core.node == node]

    @property
    def half_isolated(self) -> Cpus:
        """CPUs that are not isolated, on cores of which another CPU is."""
        return self.siblings(self.isolated) - self.isolated

    def siblings(self, cpus: Cpus) -> Cpus:
        """The CPUs given and their online SMT siblings."""
        return frozenset(cpu for core in self.cores if cpus & set(core.cpus) for cpu in core.cpus)


NETWORK = "network:"
"""Before the name of a libvirt network, where a device's name would stand otherwise."""


TUNNELS = frozenset({"geneve", "vxlan", "gretap", "ip6gretap", "bareudp"})
