"""A sample of a running host, as values. Two samples make an :class:`Interval`. Pure.

Times are nanoseconds as in ``/proc/TID/schedstat`` or clock ticks as in ``/proc/stat``; sizes are KiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

from attrs import field, frozen

from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology

Role = Literal["vcpu", "vhost", "emulator", "iothread", "ksoftirqd", "other"]
NS = 1e9


@frozen
class Task:
    """A thread.

    Attributes:
        tid, start: Thread id and start time (field 22 of ``/proc/TID/stat``): together they are unique.
        name: ``comm``.
        role, number, vm: ``vcpu`` 3 of VM ``web``; ``vm`` is "" for what belongs to no VM.
        run_ns, wait_ns: Time on a CPU, and time on a run queue.
        cpu: Where it ran last.
        allowed: Where it may run; empty where it was not read.
        process: The process it belongs to.
    """

    tid: int
    name: str = ""
    role: Role = "other"
    number: int = 0
    vm: str = ""
    run_ns: int = 0
    wait_ns: int = 0
    cpu: int = 0
    allowed: Cpus = NO_CPUS
    process: int = 0
    start: int = 0

    @property
    def says(self) -> str:
        """A short name for people."""
        if self.role in ("vcpu", "iothread"):
            return f"{'vCPU' if self.role == 'vcpu' else 'iothread'} {self.number}"
        if self.role == "vhost":
            return f"vhost worker {self.number}"
        return "emulator" if self.role == "emulator" else self.name

    @property
    def full(self) -> str:
        """:attr:`says` with the VM's name."""
        return f"{self.says} of {self.vm}" if self.vm else f"{self.name} ({self.tid})"


@frozen
class Ticks:
    """A CPU's line of ``/proc/stat``, in clock ticks since boot."""

    total: int = 0
    idle: int = 0
    softirq: int = 0
    steal: int = 0


@frozen
class IrqCount:
    """An interrupt: where it may go and goes, and how often it came, by CPU."""

    allowed: Cpus = NO_CPUS
    effective: Cpus = NO_CPUS
    counts: Mapping[int, int] = field(factory=dict)


@frozen
class Sample:
    """One sample. Attributes:
    seconds: Since boot (``/proc/uptime``).
    cpus: By CPU.
    net_rx, net_tx: Runs of the softirq, by CPU (``/proc/softirqs``).
    tasks: By thread id.
    irqs: Those of the network cards, by number.
    pages: By VM: KiB on each node (``numa_maps``); read once, at the end.
    devices: Counters of network devices (statistics and ``ethtool -S``), by device.
    network: ``Ip.FragCreates`` and so on (/proc/net/snmp), ``Ip6FragCreates`` and so on (/proc/net/snmp6),
        ``Xfrm.`` (/proc/net/xfrm_stat).
    unread: What could not be read, and why.
    """

    seconds: float = 0.0
    cpus: Mapping[int, Ticks] = field(factory=dict)
    net_rx: Mapping[int, int] = field(factory=dict)
    net_tx: Mapping[int, int] = field(factory=dict)
    tasks: Mapping[int, Task] = field(factory=dict)
    irqs: Mapping[int, IrqCount] = field(factory=dict)
    pages: Mapping[str, Mapping[int, int]] = field(factory=dict)
    devices: Mapping[str, Mapping[str, int]] = field(factory=dict)
    network: Mapping[str, int] = field(factory=dict)
    unread: tuple[str, ...] = ()


@frozen
class Queue:
    """What a vhost worker serves: a queue pair of a vNIC."""

    vnic: int
    queue: int
    tap: str = ""


@frozen
class Adapter:
    """A vNIC: its MTU now, and the largest that fits through its uplink (0: not known)."""

    index: int
    tap: str = ""
    macvtap: bool = False
    mtu: int = 0
    largest: int = 0
    uplinks: tuple[str, ...] = ()


@frozen
class Vm:
    """A running VM.

    Attributes:
        name, uuid: As libvirt has them.
        process: QEMU's id.
        adapters: Its vNICs.
        workers: What each vhost worker serves, in order.
        node: The uplink's NUMA node; None where it is not known.
        nodes: Nodes that it was planned for, the uplink's (or nearest) first; empty where it was not.
        emulators: CPUs that it was given for its emulator and vhost workers.
        pins, emulatorpin: Where this tool pinned its vCPUs and its emulator; empty where it did not.
        waiting: Settings that the definition has and the running VM has not.
    """

    name: str
    uuid: str = ""
    process: int = 0
    adapters: tuple[Adapter, ...] = ()
    workers: tuple[Queue, ...] = ()
    node: int | None = None
    nodes: tuple[int, ...] = ()
    emulators: Cpus = NO_CPUS
    pins: Mapping[int, Cpus] = field(factory=dict)
    emulatorpin: Cpus = NO_CPUS
    waiting: tuple[str, ...] = ()


@frozen
class Scene:
    """The parts that do not change while sampling.

    Attributes:
        host: CPUs, nodes, network cards.
        vms: Running VMs by name.
        wanted: Where the ledger says that an interrupt goes, by number.
        held: CPUs that VMs hold for their vCPUs.
    """

    host: HostTopology
    vms: Mapping[str, Vm] = field(factory=dict)
    wanted: Mapping[int, Cpus] = field(factory=dict)
    held: Cpus = NO_CPUS


@frozen
class Use:
    """What a thread did between two looks: shares of one CPU, from 0 to 1, and its CPU at the first look."""

    task: Task
    run: float
    wait: float
    first: int

    @property
    def stayed(self) -> bool:
        """Whether all it did, as far as is known, it did on its CPU: pinned there, or found there twice."""
        return len(self.task.allowed) == 1 or self.first == self.task.cpu


@frozen(slots=False)
class Interval:
    """Two samples of a host, and the differences between them."""

    scene: Scene
    before: Sample
    after: Sample

    @cached_property
    def seconds(self) -> float:
        """Seconds between the samples; never 0."""
        return max(self.after.seconds - self.before.seconds, 0.001)

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Every thread that existed in both samples."""
        return tuple(self._uses())

    def _uses(self) -> Iterator[Use]:
        for tid, task in self.after.tasks.items():
            old = self.before.tasks.get(tid)
            if old is not None and old.start == task.start:
                run, wait = task.run_ns - old.run_ns, task.wait_ns - old.wait_ns
                yield Use(task, max(run, 0) / NS / self.seconds, max(wait, 0) / NS / self.seconds, old.cpu)

    def of(self, *roles: Role) -> list[Use]:
        """The threads of these roles."""
        return [use for use in self.uses if use.task.role in roles]

    @cached_property
    def on_cpu(self) -> Mapping[int, list[Use]]:
        """Threads by the CPU that they ran on at the end."""
        found: dict[int, list[Use]] = {}
        for use in self.uses:
            found.setdefault(use.task.cpu, []).append(use)
        return found

    def busy(self, cpu: int) -> float:
        """Share of time that the CPU was not idle."""
        return 1 - self._share(cpu, "idle") if self._total(cpu) else 0.0

    def softirq(self, cpu: int) -> float:
        """Share of time in softirqs, as the kernel sampled it."""
        return self._share(cpu, "softirq")

    def steal(self, cpu: int) -> float:
        """Share of time that the hypervisor below gave to others."""
        return self._share(cpu, "steal")

    def _total(self, cpu: int) -> int:
        old, new = self.before.cpus.get(cpu), self.after.cpus.get(cpu)
        return max(new.total - old.total, 0) if old and new else 0

    def _share(self, cpu: int, column: Literal["idle", "softirq", "steal"]) -> float:
        total = self._total(cpu)
        if not total:
            return 0.0
        change: int = getattr(self.after.cpus[cpu], column) - getattr(self.before.cpus[cpu], column)
        return min(max(change, 0) / total, 1.0)

    def net_rx(self, cpu: int) -> float:
        """Runs of NET_RX on a CPU, per second."""
        return max(self.after.net_rx.get(cpu, 0) - self.before.net_rx.get(cpu, 0), 0) / self.seconds

    def interrupts(self, irq: int) -> Mapping[int, int]:
        """How often an interrupt came, by CPU, without zeros."""
        old, new = self.before.irqs.get(irq), self.after.irqs.get(irq)
        if old is None or new is None:
            return {}
        change = {cpu: count - old.counts.get(cpu, 0) for cpu, count in new.counts.items()}
        return {cpu: count for cpu, count in change.items() if count > 0}

    def counters(self, device: str) -> Mapping[str, int]:
        """Increase of a network device's counters, without zeros."""
        return _grown(self.before.devices.get(device, {}), self.after.devices.get(device, {}))

    @cached_property
    def network(self) -> Mapping[str, int]:
        """Increase of the counters of IP and IPsec, without zeros."""
        return _grown(self.before.network, self.after.network)


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    change = {name: value - before[name] for name, value in after.items() if name in before}
    return {name: value for name, value in change.items() if value > 0}
