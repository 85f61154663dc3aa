"""CPUs, cores and NUMA nodes of the host, from sysfs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError
from libvirt_tuner.topology import (
    NO_CPUS,
    Core,
    Cpus,
    HugePages,
    NumaCell,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.sysfs import Sysfs

CPU = "/sys/devices/system/cpu"
NODE = "/sys/devices/system/node"
HUGEPAGES = "/sys/kernel/mm/hugepages"


def cpulist(text: str, path: str) -> Cpus:
    """Return the CPUs in a sysfs file; none if it is empty.

    Raises:
        CpusetError: Not a cpulist; ``where`` is the path.
    """
    # nohz_full contains "(null)" on kernels that were booted without the parameter.
    return cpuset.parse(text, where=path) if text and text != "(null)" else NO_CPUS


def decimal(text: str, path: str) -> int:
    """Return the decimal number in a file.

    Raises:
        HostError: Something else.
    """
    try:
        return int(text)
    except ValueError:
        raise HostError("not a number", where=path, value=text, expected="a decimal number") from None


def cells(sysfs: Sysfs) -> tuple[NumaCell, ...]:
    """Return NUMA nodes by ascending id. On a kernel without NUMA, return one cell 0 with everything.

    Raises:
        HostError: A file is missing, cannot be read, or has unexpected content.
        CpusetError: A cpulist that is none.
    """
    path = f"{NODE}/online"
    ids = sorted(cpulist(sysfs.read_or(path, ""), path))
    pools = _pools(sysfs)
    if not ids:
        return (_whole_host(sysfs, pools),)
    return tuple(_cell(sysfs, node, ids, pools) for node in ids)


def _cell(sysfs: Sysfs, node: int, ids: list[int], pools: Mapping[int, int]) -> NumaCell:
    base = f"{NODE}/node{node}"
    path = f"{base}/cpulist"
    memory = _meminfo(sysfs.read(f"{base}/meminfo"), f"{base}/meminfo")
    total = memory.get("MemTotal", 0)
    return NumaCell(
        id=node,
        # The kernel lists online CPUs only (drivers/base/node.c: node_read_cpumap).
        cpus=cpulist(sysfs.read(path), path),
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
        cpus=cpulist(sysfs.read(online), online),
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
            found[key] = decimal(rest.partition("kB")[0], path)
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
    return {node: decimal(distance, path) for node, distance in zip(ids, row, strict=True)}


def _pools(sysfs: Sysfs) -> dict[int, int]:
    """Page size in KiB to the number of pages of the whole host, by ascending size."""
    pools = {}
    for name in sysfs.listdir_or_empty(HUGEPAGES):
        path = f"{HUGEPAGES}/{name}"
        size = decimal(name.removeprefix("hugepages-").removesuffix("kB"), path)
        pools[size] = decimal(sysfs.read(f"{path}/nr_hugepages"), path)
    return dict(sorted(pools.items()))


def _hugepages(sysfs: Sysfs, base: str, pools: Mapping[int, int]) -> tuple[HugePages, ...]:
    default = _default_size(sysfs) if any(pools.values()) else 0
    return tuple(
        _pool(sysfs, f"{base}/hugepages-{size}kB", size, pages, default=size == default)
        for size, pages in pools.items()
    )


def _default_size(sysfs: Sysfs) -> int:
    """Return the default huge page size in KiB (``default_hugepagesz=``); 0: unknown."""
    text = sysfs.read_or("/proc/meminfo", "")
    return _meminfo(text, "/proc/meminfo").get("Hugepagesize", 0) if text else 0


def _pool(sysfs: Sysfs, base: str, size: int, host_pages: int, *, default: bool) -> HugePages:
    # Most hosts have pools of few sizes. Sizes that the whole host lacks are not read per node.
    if not host_pages:
        return HugePages(size, 0, 0, default)
    total = decimal(sysfs.read_or(f"{base}/nr_hugepages", "0"), base)
    return HugePages(size, total, decimal(sysfs.read_or(f"{base}/free_hugepages", "0"), base), default)


def cores(sysfs: Sysfs, of: Iterable[NumaCell]) -> tuple[Core, ...]:
    """The online cores of the cells given, by their first CPU.

    Raises:
        HostError: A file cannot be read.
        CpusetError: A cpulist that is none.
    """
    # Without the file (no CONFIG_HOTPLUG_SMT) there may still be siblings.
    smt = sysfs.read_or(f"{CPU}/smt/active", "1") != "0"
    found = [core for cell in of for core in _cell_cores(sysfs, cell, smt=smt)]
    found.sort(key=lambda core: core.cpus)
    speeds, caches = _capacities(sysfs, found), _caches(sysfs, found)
    return tuple(
        core._replace(capacity=speeds.get(core.cpus[0], 0), cache=caches.get(core.cpus[0], -1))
        for core in found
    )


_SLOWER = 0.8
"""A core below this share of the fastest core's performance is of another kind. Preferred cores of the same
kind differ by less."""


def _capacities(sysfs: Sysfs, of: Sequence[Core]) -> dict[int, int]:
    """Return how fast each core is, by its first CPU; empty if all are alike.

    Intel's hybrid processors have a PMU for each kind. Arm has the capacity (Documentation/devicetree).
    Otherwise the firmware's highest performance is used, if some of the cores differ. At most 32 are asked
    for that: the firmware may take long, and processors with two kinds of cores are small.
    """
    kinds = [f"/sys/devices/{name}/cpus" for name in ("cpu_atom", "cpu_core")]
    members = [cpulist(sysfs.read_or(path, ""), path) for path in kinds]
    if all(members):
        return {cpu: kind for kind, cpus in enumerate(members) for cpu in cpus}
    first = [core.cpus[0] for core in of]
    for file in ("cpu_capacity", "acpi_cppc/highest_perf"):
        if not _perf(sysfs, first[0], file):
            continue
        some = {_perf(sysfs, cpu, file) for cpu in (*first[:: -(-len(first) // 31)], first[-1])}
        if len(some) > 1 and 0 not in some:
            found = {cpu: _perf(sysfs, cpu, file) for cpu in first}
            return {cpu: int(speed >= _SLOWER * max(found.values())) for cpu, speed in found.items()}
    return {}


def _perf(sysfs: Sysfs, cpu: int, file: str) -> int:
    path = f"{CPU}/cpu{cpu}/{file}"
    text = sysfs.read_or(path, "")
    return decimal(text, path) if text else 0


def _caches(sysfs: Sysfs, of: Sequence[Core]) -> dict[int, int]:
    """The first CPU of each core's L3, by the core's first CPU; read once for each L3."""
    found: dict[int, int] = {}
    for core in of:
        if core.cpus[0] in found:
            continue
        path = f"{CPU}/cpu{core.cpus[0]}/cache/index3/shared_cpu_list"
        shared = cpulist(sysfs.read_or(path, ""), path)
        if not shared:
            break
        found |= dict.fromkeys(shared, min(shared))
    return found


def _cell_cores(sysfs: Sysfs, cell: NumaCell, *, smt: bool) -> list[Core]:
    if not smt:
        return [Core((cpu,), cell.id) for cpu in cell.cpus]
    found = []
    seen: set[int] = set()
    for cpu in sorted(cell.cpus):
        if cpu not in seen:
            path = f"{CPU}/cpu{cpu}/topology/thread_siblings_list"
            cpus = (cpulist(sysfs.read_or(path, ""), path) & cell.cpus) | {cpu}
            seen |= cpus
            found.append(Core(tuple(sorted(cpus)), cell.id))
    return found


def cpus_and_cells(sysfs: Sysfs) -> tuple[tuple[NumaCell, ...], tuple[Core, ...]]:
    """:func:`cells` and :func:`cores` of the whole host."""
    found = cells(sysfs)
    return found, cores(sysfs, found)


def present(sysfs: Sysfs) -> Cpus:
    """CPUs that are there, those that are offline included; none where the kernel does not say."""
    path = f"{CPU}/present"
    return cpulist(sysfs.read_or(path, ""), path)


def isolated(sysfs: Sysfs) -> Cpus:
    """CPUs without load balancing: ``isolcpus=`` of type ``domain``, and isolated partitions of cgroup v2."""
    paths = (f"{CPU}/isolated", "/sys/fs/cgroup/cpuset.cpus.isolated")
    return NO_CPUS.union(*(cpulist(sysfs.read_or(path, ""), path) for path in paths))


def nohz_full(sysfs: Sysfs) -> Cpus:
    """CPUs with the adaptive tick off (``nohz_full=``)."""
    path = f"{CPU}/nohz_full"
    return cpulist(sysfs.read_or(path, ""), path)
