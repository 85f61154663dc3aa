"""Frozen values that describe a host. :mod:`libvirt_tuner.host.probe` reads them; the planner uses them.

The hook imports this at every start. attrs compiles each method at import, so values here have no
``__repr__``. Small ones are named tuples, which cost a fifth of that.

A "cpu" is a logical CPU id, as in ``/sys/devices/system/cpu/cpuN``. Sizes are KiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from attrs import field, frozen

from libvirt_tuner.cpuset import NO_CPUS as NO_CPUS
from libvirt_tuner.cpuset import Binding as Binding
from libvirt_tuner.cpuset import Cpus as Cpus
from libvirt_tuner.cpuset import NumaMode as NumaMode


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

    ``default`` marks the kernel's default size (``Hugepagesize`` in /proc/meminfo).
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
        free_kib: ``MemFree`` plus the reclaimable page cache (``FilePages`` less ``Shmem``).
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
        capacity: Speed in any unit. Cores with the same number are alike.
        cache: The first CPU that shares its L3; -1 if there is none or it is unknown.
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
        affinity: ``smp_affinity_list``: CPUs to which it may go. effective: ``effective_affinity_list``: CPUs
            to which it goes.
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
        device_class: PCI class of the function (0x020000 is Ethernet); 0 if unknown.
        speed: Mbit/s of the link; 0 if it is down or unknown. For a function without network device, its
            physical function's.
        threaded: Whether NAPI polls in threads (``/sys/class/net/X/threaded``) instead of on the interrupts'
            CPUs.
    """

    name: str
    address: str = ""
    node: int | None = None
    driver: str = ""
    irqs: tuple[Irq, ...] = ()
    device_class: int = 0
    speed: int = 0
    threaded: bool = False


class QueueMask(NamedTuple):
    """RPS or XPS mask of one queue of a NIC (Documentation/networking/scaling.rst of the kernel).

    Attributes:
        nic: Interface name.
        queue: ``rx-0``: CPUs to which its packets are sent (``rps_cpus``, RPS). ``tx-0``: CPUs that transmit
            through it (``xps_cpus``, XPS).
        cpus: Empty where it is off.
    """

    nic: str
    queue: str
    cpus: Cpus = NO_CPUS


class Tunnel(NamedTuple):
    """Encapsulation and remote ends of a tunnel device.

    Attributes:
        remotes: Outer addresses of the remote ends: the configured one, the multicast group, or those from
            Open vSwitch, the forwarding database or WireGuard's peers.
        local: Its own outer address; "" if the route decides.
        port: Destination UDP port; None if it is unknown or not UDP.
        vni: Tunnel id; None where it has none.
        external: Metadata (collect_md) mode: the remote end is set per packet, as in Open vSwitch and OVN.
        vrf: The VRF whose routes it uses; "" for the main ones.
        extras: Optional parts of its packets, name and bytes: Geneve's options, GRE's key...
        ethernet: Whether it carries Ethernet frames; None: the default of its kind.
        notes: Unknown facts for which the largest value was assumed.
    """

    remotes: tuple[str, ...] = ()
    local: str = ""
    port: int | None = None
    vni: int | None = None
    external: bool = False
    vrf: str = ""
    extras: tuple[tuple[str, int], ...] = ()
    ethernet: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Outer addresses, remote ends first."""
        return (*self.remotes, self.local) if self.local else self.remotes


@frozen(repr=False)
class Link:
    """A network device of the kernel (sysfs and ``ip -json -details link``).

    Attributes:
        name: Interface name.
        kind: ``bridge``, ``bond``, ``team``, ``geneve``, ``vxlan``, ``vlan``, ``macvlan``, ``macvtap``,
            ``tun``, ``veth``, ``openvswitch``...; "" for hardware.
        mtu: Bytes.
        lower: Devices below: the ports of a bridge, the slaves of a bond, the parent of a VLAN or
            macvtap. For a bond the active slave comes first.
        active: The bond's active slave.
        mode: A bond's: ``active-backup``...
        vlan: A VLAN's id.
        tunnel: A tunnel's facts; None for everything else.
        owner: Name (else PCI address) of the physical function of a virtual function.
        peer: The peer of a veth, if it is in this namespace.
        attach: How a libvirt network attaches its guests: ``bridge``, ``direct`` or ``hostdev``.
        wireless: Wi-Fi.
        asked: MTU that the network asks for (libvirt's ``<network><mtu>``, Open vSwitch's ``mtu_request``, an
            external id of OVN or Neutron); 0 without one.
        problem: Why more is not known.
    """

    name: str
    kind: str = ""
    mtu: int = 1500
    lower: tuple[str, ...] = ()
    active: str | None = None
    mode: str = ""
    vlan: int | None = None
    tunnel: Tunnel | None = None
    owner: str = ""
    peer: str = ""
    attach: str = ""
    wireless: bool = False
    asked: int = 0
    problem: str = ""


class Route(NamedTuple):
    """The route to a tunnel's remote end (``ip -json route get ADDRESS``), or the device of its own address.

    Attributes:
        address: Outer address.
        device: Device by which packets leave. source: Source address of the packets.
        mtu: MTU of the route, or the learnt path MTU; 0: that of the device.
        others: Devices of other next hops (ECMP).
        labels: MPLS labels the route adds.
        encap: Another encapsulation of the route (``seg6``...); "" for none.
        encap_bytes: What it adds; 0: unknown.
        stands_on: Set if only the tunnel's own address is known, and it is on this device without a path to
            hardware (``lo``). ``device`` and ``others`` are then all uplinks of the host.
    """

    address: str
    device: str
    source: str = ""
    mtu: int = 0
    others: tuple[str, ...] = ()
    labels: int = 0
    encap: str = ""
    stands_on: str = ""
    encap_bytes: int = 0

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device by which packets may leave."""
        return (self.device, *self.others)


class XfrmState(NamedTuple):
    """An IPsec state (``ip xfrm state``); its keys are never held.

    Attributes:
        src, dst: Outer addresses.
        proto: ``esp``, ``ah``...
        reqid: Ties it to a policy's template; 0 for none.
        mode: ``transport`` or ``tunnel``.
        algorithms: Names as the kernel has them: ``rfc4106(gcm(aes))``, or cipher and hash.
        icv_bits: Length of the integrity check value; None if unknown.
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
    """A template of a policy: it needs a state of this kind (``tmpl`` in ``ip xfrm policy``)."""

    src: str
    dst: str
    proto: str = "esp"
    reqid: int = 0
    mode: str = "transport"


class XfrmPolicy(NamedTuple):
    """An IPsec policy (``ip xfrm policy``): packets that match go through its templates, in order.

    Attributes:
        src, dst: Prefixes (``192.168.1.2/32``).
        direction: ``out``, ``in``, ``fwd``.
        proto: ``udp``..., "" for any.
        sport, dport: Source and destination port, None for any.
        narrow: Whether it only applies to one device or mark.
        block: Packets that match are dropped.
        priority: The lowest number wins.
        if_id: If not 0, it only applies to packets of the xfrm interface with this id.
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


class Xfrm(NamedTuple):
    """The kernel's IPsec states and policies; ``problem`` says why they could not be read."""

    states: tuple[XfrmState, ...] = ()
    policies: tuple[XfrmPolicy, ...] = ()
    problem: str = ""


NO_XFRM = Xfrm()


@frozen(repr=False)
class HostTopology:
    """All that the planner knows about a host.

    Attributes:
        cells: NUMA nodes by ascending id.
        cores: Online cores by their first CPU.
        isolated: CPUs without load balancing (isolcpus=domain).
        nohz_full: CPUs with the adaptive tick off.
        busy: CPUs of other threads that never sleep (poll mode drivers of Open vSwitch).
        irq_default: CPUs that new interrupts may go to (``/proc/irq/default_smp_affinity``); empty: all.
        allowed: CPUs of the domain's cgroup, ``allowed_nodes`` its nodes; empty: all.
        nics: Hardware network devices that matter here, by name.
        links: Network devices that matter here, by name.
        routes: Routes to the far ends of tunnels, by address.
        xfrm: IPsec states and policies, read where there is a tunnel.
        queues: Masks of the NICs' queues; only read on request.
    """

    cells: tuple[NumaCell, ...]
    cores: tuple[Core, ...]
    isolated: Cpus = NO_CPUS
    nohz_full: Cpus = NO_CPUS
    busy: Cpus = NO_CPUS
    irq_default: Cpus = NO_CPUS
    allowed: Cpus = NO_CPUS
    allowed_nodes: frozenset[int] = NO_CPUS
    nics: Mapping[str, Nic] = field(factory=dict)
    links: Mapping[str, Link] = field(factory=dict)
    routes: Mapping[str, Route] = field(factory=dict)
    xfrm: Xfrm = NO_XFRM
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
        """CPUs that are not isolated, on cores with an isolated CPU."""
        return self.siblings(self.isolated) - self.isolated

    def siblings(self, cpus: Cpus) -> Cpus:
        """The CPUs given and their online SMT siblings."""
        return frozenset(cpu for core in self.cores if cpus & set(core.cpus) for cpu in core.cpus)


NETWORK = "network:"
"""Prefix for the name of a libvirt network, to use it like a device name."""
