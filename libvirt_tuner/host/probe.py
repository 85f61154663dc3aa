"""The host read from sysfs and procfs into :class:`~libvirt_tuner.topology.HostTopology`.

Everything is read through a :class:`~libvirt_tuner.host.sysfs.Sysfs`, so a captured host is read as the
running one is. The hook calls this on every start: read what is asked for and no more. Never
``/proc/interrupts`` (4,096 lines of 1,024 columns on a large host), one ``thread_siblings_list`` per
core and not per CPU, interrupts of the NICs asked for only.

Import budget: attrs, cpuset, errors, sysfs, topology, uplink (and lxml with it, which the hook has anyway).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host.sysfs import component
from libvirt_tuner.topology import (
    NO_CPUS,
    Core,
    Cpus,
    HostTopology,
    HugePages,
    Irq,
    Nic,
    NumaCell,
    QueueMask,
    Xfrm,
    is_pci_address,
)
from libvirt_tuner.uplink.path import TUNNELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.commands import Run
    from libvirt_tuner.host.sysfs import Sysfs
    from libvirt_tuner.topology import Link, Route

CPU = "/sys/devices/system/cpu"
NODE = "/sys/devices/system/node"
HUGEPAGES = "/sys/kernel/mm/hugepages"
NET = "/sys/class/net"
PCI = "/sys/bus/pci/devices"
IRQ_ACTIONS = "/sys/kernel/irq"
IRQ = "/proc/irq"


def _cpus(text: str, path: str) -> Cpus:
    # "(null)" is what nohz_full says on kernels that were booted without the parameter.
    return cpuset.parse(text, where=path) if text and text != "(null)" else NO_CPUS


def _number(text: str, path: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise HostError("not a number", where=path, value=text, expected="a decimal number") from None


# CPUs, cores and NUMA cells


def cells(sysfs: Sysfs) -> tuple[NumaCell, ...]:
    """NUMA nodes by ascending id; one cell 0 with everything on a kernel without NUMA.

    Raises:
        HostError: A file is missing or cannot be read, or does not hold what the kernel writes.
        CpusetError: A cpulist that is none.
    """
    path = f"{NODE}/online"
    ids = sorted(_cpus(sysfs.read_or(path, ""), path))
    pools = _pools(sysfs)
    if not ids:
        return (_whole_host(sysfs, pools),)
    return tuple(_cell(sysfs, node, ids, pools) for node in ids)


def _cell(sysfs: Sysfs, node: int, ids: list[int], pools: Mapping[int, int]) -> NumaCell:
    base = f"{NODE}/node{node}"
    cpulist = f"{base}/cpulist"
    memory = _meminfo(sysfs.read(f"{base}/meminfo"), f"{base}/meminfo")
    total = memory.get("MemTotal", 0)
    return NumaCell(
        id=node,
        # The kernel lists online CPUs only (drivers/base/node.c: node_read_cpumap).
        cpus=_cpus(sysfs.read(cpulist), cpulist),
        memory_kib=total,
        free_kib=_free(memory, "FilePages"),
        # A memory-less node has no hugepages directory.
        hugepages=_hugepages(sysfs, f"{base}/hugepages", pools) if total else (),
        distances=_distances(sysfs, f"{base}/distance", ids),
    )


def _whole_host(sysfs: Sysfs, pools: Mapping[int, int]) -> NumaCell:
    memory = _meminfo(sysfs.read("/proc/meminfo"), "/proc/meminfo")
    online = f"{CPU}/online"
    return NumaCell(
        id=0,
        cpus=_cpus(sysfs.read(online), online),
        memory_kib=memory.get("MemTotal", 0),
        free_kib=_free(memory, "Cached") + memory.get("Buffers", 0),
        hugepages=_hugepages(sysfs, HUGEPAGES, pools),
        distances={0: 10},
    )


def _meminfo(text: str, path: str) -> dict[str, int]:
    """``Node 0 MemTotal:  16384 kB`` or ``MemTotal:  16384 kB`` to field and KiB."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        key = name.rpartition(" ")[2]
        if key in ("MemTotal", "MemFree", "FilePages", "Cached", "Buffers", "Shmem"):
            found[key] = _number(rest.partition("kB")[0], path)
    return found


def _free(memory: Mapping[str, int], cache: str) -> int:
    """Free KiB with the page cache ``cache``; shared memory is in the cache and cannot be dropped."""
    return memory.get("MemFree", 0) + max(0, memory.get(cache, 0) - memory.get("Shmem", 0))


def _distances(sysfs: Sysfs, path: str, ids: list[int]) -> dict[int, int]:
    """The node's SLIT row: one number per online node, in the order of their ids."""
    row = sysfs.read(path).split()
    if len(row) != len(ids):
        raise HostError(
            "not the distances of all nodes", where=path, value=row, expected=f"{len(ids)} numbers"
        )
    return {node: _number(distance, path) for node, distance in zip(ids, row, strict=True)}


def _pools(sysfs: Sysfs) -> dict[int, int]:
    """Page size in KiB to the number of pages of the whole host, by ascending size."""
    pools = {}
    for name in sysfs.listdir_or_empty(HUGEPAGES):
        path = f"{HUGEPAGES}/{name}"
        size = _number(name.removeprefix("hugepages-").removesuffix("kB"), path)
        pools[size] = _number(sysfs.read(f"{path}/nr_hugepages"), path)
    return dict(sorted(pools.items()))


def _hugepages(sysfs: Sysfs, base: str, pools: Mapping[int, int]) -> tuple[HugePages, ...]:
    default = _default_size(sysfs) if any(pools.values()) else 0
    return tuple(
        _pool(sysfs, f"{base}/hugepages-{size}kB", size, pages, default=size == default)
        for size, pages in pools.items()
    )


def _default_size(sysfs: Sysfs) -> int:
    """KiB of the size the kernel takes where none is named (``default_hugepagesz=``); 0: not said."""
    text = sysfs.read_or("/proc/meminfo", "")
    return _meminfo(text, "/proc/meminfo").get("Hugepagesize", 0) if text else 0


def _pool(sysfs: Sysfs, base: str, size: int, host_pages: int, *, default: bool) -> HugePages:
    # Most hosts have no pool of most sizes: what the whole host lacks need not be read per node.
    if not host_pages:
        return HugePages(size, 0, 0, default)
    total = _number(sysfs.read_or(f"{base}/nr_hugepages", "0"), base)
    return HugePages(size, total, _number(sysfs.read_or(f"{base}/free_hugepages", "0"), base), default)


def cores(sysfs: Sysfs, of: Iterable[NumaCell]) -> tuple[Core, ...]:
    """The online cores of the cells given, by their first CPU.

    Raises:
        HostError: A file cannot be read.
        CpusetError: A cpulist that is none.
    """
    # Without the file (no CONFIG_HOTPLUG_SMT) there may be siblings all the same.
    smt = sysfs.read_or(f"{CPU}/smt/active", "1") != "0"
    found = [core for cell in of for core in _cell_cores(sysfs, cell, smt=smt)]
    return tuple(sorted(found, key=lambda core: core.cpus))


def _cell_cores(sysfs: Sysfs, cell: NumaCell, *, smt: bool) -> list[Core]:
    if not smt:
        return [Core((cpu,), cell.id) for cpu in cell.cpus]
    found = []
    seen: set[int] = set()
    for cpu in sorted(cell.cpus):
        if cpu not in seen:
            path = f"{CPU}/cpu{cpu}/topology/thread_siblings_list"
            cpus = (_cpus(sysfs.read_or(path, ""), path) & cell.cpus) | {cpu}
            seen |= cpus
            found.append(Core(tuple(sorted(cpus)), cell.id))
    return found


def cpus_and_cells(sysfs: Sysfs) -> tuple[tuple[NumaCell, ...], tuple[Core, ...]]:
    """:func:`cells` and :func:`cores` of the whole host."""
    found = cells(sysfs)
    return found, cores(sysfs, found)


def isolated(sysfs: Sysfs) -> Cpus:
    """CPUs without load balancing: ``isolcpus=`` of type ``domain``, no other."""
    path = f"{CPU}/isolated"
    return _cpus(sysfs.read_or(path, ""), path)


def nohz_full(sysfs: Sysfs) -> Cpus:
    """CPUs with the adaptive tick off (``nohz_full=``)."""
    path = f"{CPU}/nohz_full"
    return _cpus(sysfs.read_or(path, ""), path)


# PCI functions and network devices


def physical_function(sysfs: Sysfs, address: str) -> str:
    """The physical function of a virtual one (SR-IOV, ``physfn``), or ``address`` itself.

    Raises:
        RejectedError: ``address`` is no name.
    """
    return sysfs.link_name(f"{PCI}/{component(address)}/physfn") or address


def function_netdevs(sysfs: Sysfs, address: str) -> tuple[str, ...]:
    """Names of the network devices of a PCI function, sorted; none where VFIO holds it.

    Raises:
        RejectedError: ``address`` is no name.
    """
    return tuple(sysfs.listdir_or_empty(f"{PCI}/{component(address)}/net"))


def function_node(sysfs: Sysfs, address: str) -> int | None:
    """NUMA node of a PCI function; None where the firmware does not say.

    Raises:
        MissingError: There is no such function.
        RejectedError: ``address`` is no name.
    """
    path = f"{PCI}/{component(address)}/numa_node"
    node = _number(sysfs.read(path), path)
    return node if node >= 0 else None


def irqs(sysfs: Sysfs, address: str) -> tuple[Irq, ...]:
    """Interrupts of a PCI function, ascending; the legacy line where it has no MSI.

    Raises:
        HostError: A file cannot be read.
        RejectedError: ``address`` is no name.
    """
    base = f"{PCI}/{component(address)}"
    numbers = [_number(name, f"{base}/msi_irqs") for name in sysfs.listdir_or_empty(f"{base}/msi_irqs")]
    if not numbers:
        legacy = _number(sysfs.read_or(f"{base}/irq", "0"), f"{base}/irq")
        numbers = [legacy] if legacy and sysfs.exists(f"{IRQ}/{legacy}") else []
    # Most interrupts may go everywhere: "0-1023" is parsed once, not for each of them.
    parsed: dict[str, Cpus] = {}
    return tuple(_irq(sysfs, number, parsed) for number in sorted(numbers))


def irq(sysfs: Sysfs, number: int) -> Irq:
    """One interrupt; action and CPUs are empty where the driver has not requested it.

    Raises:
        HostError: A file cannot be read.
    """
    return _irq(sysfs, number, {})


def _irq(sysfs: Sysfs, number: int, parsed: dict[str, Cpus]) -> Irq:
    def cpus(name: str) -> Cpus:
        path = f"{IRQ}/{number}/{name}"
        text = sysfs.read_or(path, "")
        if text not in parsed:
            parsed[text] = _cpus(text, path)
        return parsed[text]

    return Irq(
        number=number,
        action=_action(sysfs, number),
        affinity=cpus("smp_affinity_list"),
        effective=cpus("effective_affinity_list"),
    )


def _action(sysfs: Sysfs, number: int) -> str:
    try:
        return sysfs.read(f"{IRQ_ACTIONS}/{number}/actions")
    except MissingError:
        # No /sys/kernel/irq (CONFIG_SPARSE_IRQ off): each action is a directory in procfs.
        base = f"{IRQ}/{number}"
        names = sysfs.listdir_or_empty(base)
        return ",".join(name for name in names if name not in _IRQ_FILES)


_IRQ_FILES = frozenset(
    {
        "affinity_hint",
        "effective_affinity",
        "effective_affinity_list",
        "node",
        "smp_affinity",
        "smp_affinity_list",
        "spurious",
    }
)


def is_hardware(sysfs: Sysfs, name: str) -> bool:
    """Whether a network device has a device of a bus below it."""
    return bool(sysfs.link_name(f"{NET}/{component(name)}/device"))


def nic(sysfs: Sysfs, name: str) -> Nic:
    """A hardware network device with its PCI function and interrupts.

    The PCI function of a virtio or auxiliary device (mlx5 subfunction) is the one above it. A device
    on another bus (USB) has no address and no interrupts of its own, but the node of its controller.

    Raises:
        MissingError: There is no such device, or nothing below it.
        RejectedError: ``name`` is no name.
        HostError: A file cannot be read.
    """
    device = sysfs.realpath(f"{NET}/{component(name)}/device")
    bus = sysfs.link_name(f"{device}/subsystem")
    above = [part for part in device.split("/") if is_pci_address(part)]
    function = above[-1] if above else ""
    address = function if bus in ("pci", "virtio", "auxiliary") else ""
    return Nic(
        name=name,
        address=address,
        node=function_node(sysfs, function) if function else None,
        driver=sysfs.link_name(f"{device}/driver"),
        irqs=irqs(sysfs, address) if address else (),
    )


def function(sysfs: Sysfs, address: str) -> Nic:
    """A PCI function without network device (VFIO has it, or another driver), named by its address.

    Raises:
        MissingError: There is no such function.
        RejectedError: ``address`` is no name.
        HostError: A file cannot be read.
    """
    return Nic(
        name=address,
        address=address,
        node=function_node(sysfs, address),
        driver=sysfs.link_name(f"{PCI}/{address}/driver"),
        irqs=irqs(sysfs, address),
    )


def nics(sysfs: Sysfs, names: Iterable[str] | None = None) -> dict[str, Nic]:
    """Those of the network devices named (None: all) that are hardware, by name.

    A PCI address stands for the function itself. Names the host does not have are left out.

    Raises:
        HostError: A file cannot be read.
    """
    wanted = sysfs.listdir_or_empty(NET) if names is None else sorted(set(names))
    found = {}
    for name in wanted:
        try:
            if is_pci_address(name):
                found[name] = function(sysfs, name)
            elif "/" not in name and is_hardware(sysfs, name):
                found[name] = nic(sysfs, name)
        except MissingError:  # never there, or unplugged meanwhile
            continue
    return found


def queue_masks(sysfs: Sysfs, name: str) -> tuple[QueueMask, ...]:
    """RPS and XPS of every queue of a network device, in the order of their numbers.

    A device with a single transmit queue has no XPS. A file per queue, 8 ms for 127 of each direction: not
    on the hook's path unless the policy asks for it.

    Raises:
        RejectedError: ``name`` is no name.
    """
    base = f"{NET}/{component(name)}/queues"
    found = []
    for queue in sorted(sysfs.listdir_or_empty(base), key=lambda queue: (queue[:3], len(queue), queue)):
        path = f"{base}/{queue}/{'rps_cpus' if queue.startswith('rx-') else 'xps_cpus'}"
        try:
            text = sysfs.read(path)
        except HostError:
            continue
        found.append(QueueMask(name, queue, cpuset.parse_mask(text, where=path)))
    return tuple(found)


def topology(
    sysfs: Sysfs,
    devices: Iterable[str] | None = None,
    run: Run | None = None,
    *,
    queues: bool = False,
) -> HostTopology:
    """The host, with the network devices below ``devices`` (None: all there are).

    Args:
        sysfs: The host.
        devices: Where to begin: names as :func:`libvirt_tuner.host.links.network` takes them. Each is
            followed down to hardware, a tunnel through the route to its far end. None reads every
            network device; an empty iterable none, and runs no program.
        run: What runs programs; :func:`libvirt_tuner.host.commands.run` unless said.
        queues: Read the NICs' RPS and XPS masks as well.

    Raises:
        HostError: A file is missing or cannot be read.
        CpusetError: A cpulist that is none.
    """
    found, found_cores = cpus_and_cells(sysfs)
    links, routes = _network(sysfs, devices, run)
    hardware = nics(sysfs, (name for name, link in links.items() if link.kind in _HARDWARE))
    return HostTopology(
        cells=found,
        cores=found_cores,
        isolated=isolated(sysfs),
        nohz_full=nohz_full(sysfs),
        nics=hardware,
        links=links,
        routes=routes,
        xfrm=_xfrm(sysfs, links, run),
        queues=tuple(mask for name in hardware for mask in queue_masks(sysfs, name)) if queues else (),
    )


_HARDWARE = ("", "pci")


def _xfrm(sysfs: Sysfs, links: Mapping[str, Link], run: Run | None) -> Xfrm:
    """IPsec's states and policies, which concern a tunnel's packets only."""
    if not any(link.kind in TUNNELS for link in links.values()):
        return Xfrm()
    from libvirt_tuner.host import xfrm

    return xfrm.xfrm(sysfs, *([run] if run else []))


def _network(
    sysfs: Sysfs, devices: Iterable[str] | None, run: Run | None
) -> tuple[dict[str, Link], dict[str, Route]]:
    wanted = None if devices is None else tuple(devices)
    if wanted == ():
        return {}, {}
    # Here, because a host without devices to follow needs none of it.
    from libvirt_tuner.host import links as netprobe

    return netprobe.network(sysfs, wanted, *([run] if run else []))
