"""CPUs and nodes that the cgroup of a domain allows (cgroup v1 and v2).

A pin outside keeps a domain from starting: the kernel returns EINVAL for an affinity without a CPU of the
task's cpuset. libvirt ignores that error only for affinities that the XML does not set
(qemuProcessInitCpuAffinity).

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/cpusets.rst; docs/cgroups.rst of libvirt.
"""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner.host.cpus import cpulist
from libvirt_tuner.topology import NO_CPUS, Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.sysfs import Sysfs

ROOT = "/sys/fs/cgroup"
PARTITION = "/machine"
"""Where libvirt puts a domain without ``<resource><partition>``."""
_TOP = frozenset({"machine", "system", "user"})
"""Partitions whose groups have no suffix without systemd (virCgroupSetPartitionSuffix)."""
_PLAIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")


def allowed(sysfs: Sysfs, partition: str = PARTITION) -> tuple[Cpus, frozenset[int]]:
    """Return CPUs and nodes that a domain of that partition may use; empty: all.

    Reads the partition's group, or its nearest existing parent, because systemd creates a slice when its
    first member starts.

    Raises:
        HostError: A file cannot be read.
        CpusetError: The file has no list.
    """
    cpus: Cpus = NO_CPUS
    nodes: frozenset[int] = NO_CPUS
    for group in _groups(partition):
        cpus = cpus or _first(sysfs, group, "cpus")
        nodes = nodes or _first(sysfs, group, "mems")
        if cpus and nodes:
            break
    return cpus, nodes


def _first(sysfs: Sysfs, group: str, what: str) -> frozenset[int]:
    for base, name in (
        (ROOT, f"cpuset.{what}.effective"),
        (f"{ROOT}/cpuset", f"cpuset.effective_{what}"),
        (f"{ROOT}/cpuset", f"cpuset.{what}"),
    ):
        path = f"{base}{group}/{name}"
        if text := sysfs.read_or(path, ""):
            return cpulist(text, path)
    return NO_CPUS


def _groups(partition: str) -> Iterator[str]:
    """Yield groups from the partition's up to the root, with the names of systemd and those of libvirt
    without systemd."""
    parts = [part for part in partition.split("/") if part not in ("", ".", "..")]
    slices = [_escaped(part) for part in parts]
    plain = [
        part if "." in part or (not at and part in _TOP) else f"{part}.partition"
        for at, part in enumerate(parts)
    ]
    for length in range(len(parts), 0, -1):
        # Children of a slice repeat its name: machine.slice/machine-web.slice.
        yield "".join(f"/{'-'.join(slices[: end + 1])}.slice" for end in range(length))
        yield "/" + "/".join(plain[:length])
    yield ""


def _escaped(part: str) -> str:
    r"""Return the name as it is in a slice's (virSystemdEscapeName): ``web\x2d1`` for ``web-1``."""
    return "".join(
        char if char in _PLAIN else "".join(f"\\x{byte:02x}" for byte in char.encode()) for char in part
    )
