"""Takes samples of a running host: threads, CPUs, softirqs, interrupts, counters, memory by node.

Every file is read below the root, so that two captured samples are replayed as two hosts.

Sources: Documentation/scheduler/sched-stats.rst, Documentation/filesystems/proc.rst,
Documentation/ABI/testing/sysfs-kernel-irq, proc_pid_numa_maps(5), net/ipv4/proc.c of the kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.sample import IrqCount, Role, Sample, Task, Ticks
from libvirt_tuner.errors import HostError, MissingError, TunerError
from libvirt_tuner.host import commands, processes
from libvirt_tuner.host.sysfs import Sysfs, component
from libvirt_tuner.topology import NO_CPUS, Cpus

TICK_NS = 1_000_000_000 // (os.sysconf("SC_CLK_TCK") or 100)
_KSOFTIRQD = "ksoftirqd/"
_PAGES = re.compile(r" N(\d+)=(\d+)")
_SIZE = " kernelpagesize_kB="


class Sampler:
    """Takes samples of the same objects.

    Args:
        sysfs: The host.
        vms: QEMU's process id by VM.
        irqs: Interrupts to count.
        devices: Network devices whose statistics count (taps and uplinks).
        cards: Those of them for which ``ethtool -S`` is run.
        run: What runs programs.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        vms: Mapping[str, int],
        irqs: Iterable[int] = (),
        devices: Iterable[str] = (),
        cards: Sequence[str] = (),
        run: commands.Run = commands.run,
    ) -> None:
        self._sysfs = sysfs
        self._vms = dict(vms)
        self._irqs = tuple(irqs)
        self._devices = tuple(devices)
        self._cards = tuple(cards)
        self._run = run
        self._unread: list[str] = []

    def look(self, sysfs: Sysfs | None = None, *, memory: bool = False) -> Sample:
        """Take one sample. Args:
            sysfs: Another root than the sampler's: the next captured sample.
            memory: Read ``numa_maps`` as well; the kernel walks the page tables for it.

        Raises:
            HostError: /proc/uptime or /proc/stat cannot be read. Other errors are in ``unread``.
        """
        if sysfs is not None:
            self._sysfs = sysfs
        self._unread = []
        root = self._sysfs
        softirqs: dict[str, dict[int, int]] = {}
        with self._noting():
            softirqs = read_softirqs(root)
        return Sample(
            seconds=uptime(root),
            cpus=read_stat(root),
            net_rx=softirqs.get("NET_RX", {}),
            net_tx=softirqs.get("NET_TX", {}),
            tasks=self._tasks(),
            irqs=self._interrupts(),
            devices={name: self._counters(name) for name in self._devices},
            network=self._network(),
            pages=self._pages() if memory else {},
            unread=tuple(self._unread),
        )

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Missing files are ignored. Unreadable ones are ignored and noted."""
        try:
            yield
        except MissingError:
            pass
        except (TunerError, ValueError) as err:
            self._unread.append(str(err))

    def _tasks(self) -> dict[int, Task]:
        found: dict[int, Task] = {}
        for vm, pid in self._vms.items():
            with self._noting():
                found |= self._vm_tasks(vm, pid)
        known = {*self._vms.values(), *found}
        if self._sysfs.live:
            known.add(os.getpid())  # who looks is no neighbour
        for name in self._sysfs.listdir("/proc"):
            if name.isdecimal() and int(name) not in known:
                with self._noting():
                    found |= {task.tid: task for task in self._others(int(name))}
        return found

    def _vm_tasks(self, vm: str, pid: int) -> dict[int, Task]:
        threads = processes.threads(self._sysfs, pid)
        roles: list[tuple[Role, int, int]] = [("vcpu", number, tid) for number, tid in threads.vcpus.items()]
        roles += [("iothread", number, tid) for number, tid in threads.iothreads.items()]
        roles += [("vhost", number, tid) for number, tid in enumerate(threads.vhost)]
        roles += [("emulator", number, tid) for number, tid in enumerate(threads.others)]
        found = {}
        for role, number, tid in roles:
            try:
                run, wait = read_schedstat(self._sysfs, tid)
                name, fields = read_task(self._sysfs, f"/proc/{tid}")
                allowed = processes.affinity(self._sysfs, tid)
            except MissingError:  # ended meanwhile
                continue
            found[tid] = Task(
                tid, name, role, number, vm, run, wait, int(fields[36]), allowed, pid, int(fields[19])
            )
        return found

    def _others(self, pid: int) -> Iterator[Task]:
        """Read the threads of a process that is not a VM: CPU time in ticks, for ksoftirqd exact."""
        name, fields = read_task(self._sysfs, f"/proc/{pid}")
        if name.startswith(_KSOFTIRQD):
            run, wait = read_schedstat(self._sysfs, pid)
            cpu = int(name.removeprefix(_KSOFTIRQD))
            yield Task(pid, name, "ksoftirqd", cpu, "", run, wait, cpu, process=pid, start=int(fields[19]))
            return
        if int(fields[17]) == 1:
            yield _other(pid, name, fields, pid)
            return
        for tid in self._sysfs.listdir_or_empty(f"/proc/{pid}/task"):
            try:
                yield _other(int(tid), *read_task(self._sysfs, f"/proc/{pid}/task/{tid}"), pid)
            except MissingError:
                continue

    def _interrupts(self) -> dict[int, IrqCount]:
        if not self._irqs:
            return {}
        possible = sorted(cpus_in(self._sysfs, "/sys/devices/system/cpu/possible"))
        found = {}
        for irq in self._irqs:
            with self._noting():
                found[irq] = read_irq(self._sysfs, irq, possible)
        return found

    def _counters(self, device: str) -> dict[str, int]:
        base = f"/sys/class/net/{component(device)}/statistics"
        found = {}
        for name in self._sysfs.listdir_or_empty(base):
            with self._noting():
                found[name] = int(self._sysfs.read(f"{base}/{name}"))
        if device in self._cards:
            with self._noting():
                found |= _numbers(self._run(self._sysfs, ("ethtool", "-S", device)), ":", "ethtool.")
        return found

    def _network(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._noting():
            found |= snmp(self._sysfs.read("/proc/net/snmp"))
        with self._noting():
            found |= _numbers(self._sysfs.read("/proc/net/snmp6"), None, "")
        with self._noting():
            found |= _numbers(self._sysfs.read("/proc/net/xfrm_stat"), None, "Xfrm.")
        return found

    def _pages(self) -> dict[str, dict[int, int]]:
        found = {}
        for vm, pid in self._vms.items():
            with self._noting():
                found[vm] = pages_by_node(self._sysfs.read(f"/proc/{pid}/numa_maps"))
        return found


def _other(tid: int, name: str, fields: Sequence[str], process: int) -> Task:
    run = (int(fields[11]) + int(fields[12])) * TICK_NS
    return Task(tid, name, run_ns=run, cpu=int(fields[36]), process=process, start=int(fields[19]))


def uptime(sysfs: Sysfs) -> float:
    """Seconds since boot."""
    text = sysfs.read("/proc/uptime")
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        raise HostError("not a time", where="/proc/uptime", value=text, expected="two numbers") from None


def read_task(sysfs: Sysfs, directory: str) -> tuple[str, list[str]]:
    """``comm``, and the fields of ``stat`` from the third (state) on; the second may hold any character.

    Raises:
        MissingError: It has ended.
        HostError: Too few fields.
    """
    path = f"{directory}/stat"
    text = sysfs.read(path)
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    if len(fields) < 37:
        raise HostError("too few fields", where=path, value=text, expected="proc_pid_stat(5)")
    return head.partition("(")[2], fields


def read_schedstat(sysfs: Sysfs, tid: int) -> tuple[int, int]:
    """Nanoseconds on a CPU, and on a run queue.

    Raises:
        MissingError: It has ended.
        HostError: The file is not as expected (``schedstats`` left out of the kernel: zeros).
    """
    path = f"/proc/{tid}/schedstat"
    fields = sysfs.read(path).split()
    if len(fields) < 2 or not (fields[0].isdecimal() and fields[1].isdecimal()):
        raise HostError("not as expected", where=path, value=" ".join(fields), expected="three numbers")
    return int(fields[0]), int(fields[1])


def read_stat(sysfs: Sysfs) -> dict[int, Ticks]:
    """``/proc/stat``: user nice system idle iowait irq softirq steal guest guest_nice, by CPU.

    user already includes guest.
    """
    found = {}
    for line in sysfs.read("/proc/stat").splitlines():
        name, *values = line.split()
        number = name.removeprefix("cpu")
        if name.startswith("cpu") and number.isdecimal():
            ticks = [int(value) for value in values[:8]] + [0] * (8 - len(values))
            found[int(number)] = Ticks(sum(ticks[:8]), ticks[3] + ticks[4], ticks[6], ticks[7])
    return found


def read_softirqs(sysfs: Sysfs) -> dict[str, dict[int, int]]:
    """``/proc/softirqs``: runs by name and CPU; its head names the CPUs (offline ones are left out)."""
    lines = sysfs.read("/proc/softirqs").splitlines()
    cpus = [int(name.removeprefix("CPU")) for name in lines[0].split()] if lines else []
    found = {}
    for line in lines[1:]:
        name, _, values = line.partition(":")
        found[name.strip()] = dict(zip(cpus, map(int, values.split()), strict=False))
    return found


def read_irq(sysfs: Sysfs, irq: int, possible: Sequence[int]) -> IrqCount:
    """An interrupt; ``per_cpu_count`` has a column for each possible CPU.

    Raises:
        MissingError: It is gone.
    """
    text = sysfs.read(f"/sys/kernel/irq/{irq}/per_cpu_count")
    counts = zip(possible, map(int, text.split(",")), strict=False)
    return IrqCount(
        allowed=cpus_in(sysfs, f"/proc/irq/{irq}/smp_affinity_list"),
        effective=cpus_in(sysfs, f"/proc/irq/{irq}/effective_affinity_list"),
        counts={cpu: count for cpu, count in counts if count},
    )


def cpus_in(sysfs: Sysfs, path: str) -> Cpus:
    """The CPUs that a file lists; none where it is missing or empty."""
    text = sysfs.read_or(path, "")
    return cpuset.parse(text, where=path) if text else NO_CPUS


def snmp(text: str) -> dict[str, int]:
    """``/proc/net/snmp``: pairs of lines, names and values, as ``Ip.FragCreates``."""
    lines = text.splitlines()
    found = {}
    for head, values in zip(lines[::2], lines[1::2], strict=False):
        table, _, names = head.partition(":")
        numbers = values.partition(":")[2].split()
        for name, number in zip(names.split(), numbers, strict=False):
            if number.isdecimal():
                found[f"{table}.{name}"] = int(number)
    return found


def pages_by_node(text: str) -> dict[int, int]:
    """``numa_maps``: KiB on each node, of mappings of all page sizes."""
    found: dict[int, int] = {}
    for line in text.splitlines():
        # The kernel writes blanks in names of files as \040: what follows a blank is a field of its own.
        pages = _PAGES.findall(f" {line}")
        if pages:
            size = int(line.rpartition(_SIZE)[2]) if _SIZE in line else 4
            for node, count in pages:
                found[int(node)] = found.get(int(node), 0) + int(count) * size
    return found


def _numbers(text: str, separator: str | None, prefix: str) -> dict[str, int]:
    """A name and a number a line, with ``separator`` or white space in between; other lines are left out."""
    found = {}
    for line in text.splitlines():
        fields = line.rsplit(separator, 1)
        if len(fields) == 2 and fields[1].strip().isdecimal():
            found[prefix + fields[0].strip()] = int(fields[1])
    return found
