"""The threads of a QEMU process: vCPUs, iothreads and vhost workers, and where they may run.

Import budget: what the probe imports. This file is on the hook's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.topology import Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.sysfs import Sysfs

KTHREADD = 2


def _number(text: str, path: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise HostError("not a number", where=path, value=text, expected="a decimal number") from None


class Threads(NamedTuple):
    """The threads of a QEMU process that are placed.

    Attributes:
        pid: The process, which is also its main (emulator) thread.
        vcpus: vCPU id to thread id.
        iothreads: iothread id to thread id.
        vhost: Thread ids of the vhost workers, in the order they were made.
        others: Thread ids of the rest, the main thread first.
    """

    pid: int
    vcpus: Mapping[int, int]
    iothreads: Mapping[int, int]
    vhost: tuple[int, ...]
    others: tuple[int, ...]


def _stat(sysfs: Sysfs, pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the third (state) on; the second may hold any character."""
    path = f"/proc/{pid}/stat"
    text = sysfs.read(path)
    fields = text.rpartition(")")[2].split()
    # One more field than is used, because the last field of a truncated line may be truncated too.
    if len(fields) < 21:
        raise HostError("too few fields", where=path, value=text, expected="proc_pid_stat(5)")
    return fields


def process_start(sysfs: Sysfs, pid: int) -> int:
    """Return when a process was started, in clock ticks since boot. It distinguishes a later process with the
    same id.

    Raises:
        MissingError: It has ended.
        HostError: The file cannot be read.
    """
    return _number(_stat(sysfs, pid)[19], f"/proc/{pid}/stat")


def is_domains(sysfs: Sysfs, pid: int, uuid: str) -> bool:
    """Return whether a process is the QEMU of the domain with that UUID. libvirt starts it with ``-uuid
    UUID``.

    libvirt's pid file stays if both libvirtd and QEMU have ended, and another process may have the id now.

    Raises:
        HostError: The command line cannot be read.
    """
    try:
        return b"\0-uuid\0%b\0" % uuid.encode() in sysfs.read_bytes(f"/proc/{pid}/cmdline")
    except MissingError:
        # A captured host has no command lines. On a live host, the next read shows that the process has
        # ended.
        return not sysfs.live


def user(sysfs: Sysfs, pid: int) -> int:
    """The user a process runs as (the effective one of ``Uid``).

    Raises:
        MissingError: It has ended.
        HostError: The file cannot be read, or lacks the line.
    """
    path = f"/proc/{pid}/status"
    for line in sysfs.read(path).splitlines():
        if line.startswith("Uid:"):
            return _number(line.split()[2], path)
    raise HostError("no Uid", where=path, expected="proc_pid_status(5)")


def affinity(sysfs: Sysfs, tid: int) -> Cpus:
    """CPUs a thread may run on (``Cpus_allowed_list``).

    Raises:
        MissingError: It has ended.
        HostError: The file cannot be read, or lacks the line.
    """
    path = f"/proc/{tid}/status"
    for line in sysfs.read(path).splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return cpuset.parse(line.partition(":")[2].strip(), where=path)
    raise HostError("no Cpus_allowed_list", where=path, expected="proc_pid_status(5)")


def threads(sysfs: Sysfs, pid: int, status_threads: Mapping[int, int] | None = None) -> Threads:
    """vCPU, iothread and vhost threads of a QEMU process, by their names.

    libvirt starts QEMU with ``debug-threads=on``, which names them ``CPU 0/KVM`` and ``IO iothread1``.
    vhost workers are tasks of QEMU since Linux 6.4, and kernel threads before. Both are searched.

    Args:
        sysfs: The host.
        pid: QEMU's process id.
        status_threads: vCPU id to thread id from libvirt's status file, used instead of thread names.

    Raises:
        MissingError: The process has ended.
        HostError: A file cannot be read.
    """
    worker = f"vhost-{pid}"
    vcpus: dict[int, int] = {}
    iothreads: dict[int, int] = {}
    vhost: list[int] = []
    others: list[int] = []
    known = {tid: vcpu for vcpu, tid in (status_threads or {}).items()}
    for tid in sorted(int(name) for name in sysfs.listdir(f"/proc/{pid}/task") if name.isdecimal()):
        name = sysfs.read_or(f"/proc/{pid}/task/{tid}/comm", "")
        if tid in known:
            vcpus[known[tid]] = tid
        elif not known and (vcpu := _vcpu(name)) is not None:
            vcpus[vcpu] = tid
        elif (iothread := _iothread(name)) is not None:
            iothreads[iothread] = tid
        elif name == worker:
            vhost.append(tid)
        elif name:
            others.append(tid)
    return Threads(
        pid=pid,
        vcpus=dict(sorted(vcpus.items())),
        iothreads=dict(sorted(iothreads.items())),
        vhost=tuple(vhost or _kernel_threads(sysfs, worker, process_start(sysfs, pid))),
        others=tuple(sorted(others, key=lambda tid: (tid != pid, tid))),
    )


def _vcpu(name: str) -> int | None:
    """vCPU id of ``CPU 3/KVM`` or ``CPU 3/TCG``."""
    if not name.startswith("CPU ") or not name.endswith(("/KVM", "/TCG")):
        return None
    number = name[4:-4]
    return int(number) if number.isdecimal() else None


def _iothread(name: str) -> int | None:
    """iothread id of ``IO iothread1``; ``IO mon_iothread`` is the monitor's."""
    number = name.removeprefix("IO iothread")
    return int(number) if number != name and number.isdecimal() else None


def _kernel_threads(sysfs: Sysfs, name: str, since: int) -> list[int]:
    """Kernel threads of that name made at or after ``since`` (clock ticks), in the order they were made."""
    if sysfs.read_or(f"/proc/{KTHREADD}/comm", "") != "kthreadd":
        return []  # in a PID namespace, kernel threads are not visible
    return [tid for tid in _made_since(sysfs, since) if sysfs.read_or(f"/proc/{tid}/comm", "") == name]


def timers(sysfs: Sysfs, pid: int) -> tuple[int, ...]:
    """Kernel threads that KVM made for the timer of a QEMU process: its emulator's, in a thread of kthreadd.

    Raises:
        MissingError: The process has ended.
        HostError: A file cannot be read.
    """
    return tuple(_kernel_threads(sysfs, f"kvm-pit/{pid}", process_start(sysfs, pid)))


def _made_since(sysfs: Sysfs, since: int) -> list[int]:
    """Kernel threads made at or after ``since``; few reads among thousands of them.

    kthreadd's children are listed in order of creation (``list_add_tail`` in kernel/fork.c), so a binary
    search finds the first one that is young enough. Their ids cannot be used, because they wrap around.
    """
    path = f"/proc/{KTHREADD}/task/{KTHREADD}/children"
    try:
        children = [_number(text, path) for text in sysfs.read(path).split()]
    except MissingError:
        return _made_since_among_all(sysfs, since)
    low, high = 0, len(children)
    while low < high:
        middle = (low + high) // 2
        try:
            young = process_start(sysfs, children[middle]) >= since
        except MissingError:  # ended meanwhile
            del children[middle]
            high -= 1
            continue
        low, high = (low, middle) if young else (middle + 1, high)
    return children[low:]


def _made_since_among_all(sysfs: Sysfs, since: int) -> list[int]:
    """The same without a list of children (CONFIG_PROC_CHILDREN): check every process."""
    found = []
    for pid in sorted(int(name) for name in sysfs.listdir("/proc") if name.isdecimal()):
        try:
            fields = _stat(sysfs, pid)
        except MissingError:
            continue
        if fields[1] == str(KTHREADD) and int(fields[19]) >= since:
            found.append(pid)
    return found
