"""Findings, and the search for a free CPU for a fix. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.cpuset import EMPTY
from libvirt_tuner.diagnosis.sample import Interval, Use
from libvirt_tuner.planning.memory import by_distance
from libvirt_tuner.topology import NO_CPUS, Cpus

Kind = Literal[
    "vhost-on-vcpu",
    "irq-on-vcpu",
    "ksoftirqd-remote",
    "remote-node",
    "vms-share-cpu",
    "busy-core",
    "neighbour",
    "fragments",
    "drops",
    "one-queue",
    "moved-back",
    "restart-pending",
    "steal",
]

Basis = Literal["scheduler", "counts", "sampled", "settings"]
BASES: dict[Basis, str] = {
    "scheduler": "times from the scheduler (schedstat): exact",
    "counts": "kernel counters: exact",
    "sampled": "CPU time that the kernel samples at each tick: an estimate",
    "settings": "settings, not measurements",
}
"""The basis of a finding, in words."""


FixKind = Literal["", "irq", "thread", "rps", "nice", "flow-hash", "apply", "apply --live", "pages"]
"""``irq`` to ``flow-hash`` are changes of the host, ``apply`` of a VM's definition, ``apply --live`` also of
its pins. ``pages`` moves memory, and cannot be undone. "" needs the guest or a person."""


@frozen
class Fix:
    """How to fix it.

    Attributes:
        command: A line for the shell.
        kind: What it changes, for the journal of ``--fix`` (:data:`FixKind`).
        targets: Thread ids.
        cpus: Where they go.
        irqs: Interrupts, and where each goes.
        where: The device, its queue (``eth0/rx-0``), or the VM.
    """

    command: str
    kind: FixKind = ""
    targets: tuple[int, ...] = ()
    cpus: Cpus = NO_CPUS
    where: str = ""
    irqs: Mapping[int, Cpus] = EMPTY

    @property
    def alone(self) -> bool:
        """Whether ``--fix`` can run it."""
        return bool(self.kind)


@frozen
class Finding:
    """Something that costs performance.

    Attributes:
        kind: Which sort.
        cost: Cost in CPUs (0.4: 40 % of one CPU). A cost that cannot be measured is estimated low.
        vm, thread: The affected VM and thread; "" for the host.
        cpus: Where.
        culprit: The cause.
        what: The finding in one sentence.
        evidence: The measured numbers.
        basis: Kinds of evidence.
        fix: One command.
    """

    kind: Kind
    cost: float
    what: str
    culprit: str
    fix: Fix
    vm: str = ""
    thread: str = ""
    cpus: Cpus = NO_CPUS
    evidence: tuple[str, ...] = ()
    basis: tuple[Basis, ...] = field(default=("scheduler",))


def percent(share: float) -> str:
    """``40.4 %``."""
    return f"{share * 100:.1f} %"


def vcpu_cpus(look: Interval) -> Cpus:
    """Return CPUs that vCPUs use: CPUs of pinned vCPUs, and CPUs where floating vCPUs ran."""
    found = set(look.scene.held)
    for use in look.of("vcpu"):
        found |= use.task.allowed if len(use.task.allowed) == 1 else {use.task.cpu}
    return frozenset(found)


def room(look: Interval, node: int | None, *, isolated: bool = False, but: Iterable[int] = ()) -> int | None:
    """Return the least busy CPU near a node that runs no vCPU and no SMT sibling of one; None without one.

    Args:
        look: The interval.
        node: Search near this node; None: anywhere.
        isolated: Whether isolated CPUs are allowed (for a thread that is pinned to one CPU).
        but: CPUs to exclude.
    """
    host = look.scene.host
    vcpus = vcpu_cpus(look)
    without = frozenset(but) | (NO_CPUS if isolated else host.isolated | host.nohz_full)
    for guarded in (host.siblings(vcpus), vcpus):
        for cell in by_distance(host, node) if node is not None else host.cells:
            free = cell.cpus - guarded - without
            if free:
                return min(free, key=lambda cpu: (round(look.busy(cpu), 1), cpu == min(host.online), cpu))
    return None


def node_of(look: Interval, cpu: int) -> int | None:
    """The NUMA node of a CPU."""
    return next((cell.id for cell in look.scene.host.cells if cpu in cell.cpus), None)


def argument(name: str) -> str:
    """A domain's name as the last argument of a command: any text may be one, ``--all`` and ``;`` too."""
    return f"-- {shlex.quote(name)}" if name.startswith("-") else shlex.quote(name)


def apply_live(vm: str) -> Fix:
    """Place the VM again while it runs."""
    return Fix(f"libvirt-tuner apply --live {argument(vm)}", "apply --live", where=vm)


def apply_later(vm: str) -> Fix:
    """Write the plan into the VM's definition, for its next start."""
    return Fix(f"libvirt-tuner apply {argument(vm)}", "apply", where=vm)


def thread_fix(use: Use, target: int | None) -> Fix:
    """Move one thread to one CPU. taskset fails if the cgroup's cpuset forbids it."""
    if target is None:
        return apply_live(use.task.vm)
    return Fix(f"taskset -p -c {target} {use.task.tid}", "thread", (use.task.tid,), frozenset({target}))


def worker_fix(look: Interval, worker: Use) -> Fix:
    """Move a vhost worker to a free emulator CPU of the VM, else near its uplink."""
    fix = _worker_fix(look, worker)
    vm = look.scene.vms.get(worker.task.vm)
    own = [use.task.allowed for use in look.of("vhost", "emulator") if use.task.vm == worker.task.vm]
    if fix.kind != "thread" or vm is None or fix.cpus <= frozenset[int]().union(*own):
        return fix
    # The emulator's cgroup holds it: its cpuset has to change first, which is libvirt's to do.
    if vm.emulatorpin and vm.emulatorpin not in own:
        return apply_live(vm.name)
    cpus = cpuset.format(fix.cpus)
    return Fix(f"virsh emulatorpin --live --cpulist {cpus} {argument(vm.name)}")


def _worker_fix(look: Interval, worker: Use) -> Fix:
    vm = look.scene.vms.get(worker.task.vm)
    own = (vm.emulators if vm else NO_CPUS) & look.scene.host.online
    if vm is not None and vm.node is not None:
        own = frozenset(cpu for cpu in own if node_of(look, cpu) == vm.node)
    free = sorted(own - vcpu_cpus(look), key=lambda cpu: (round(look.busy(cpu), 1), cpu))
    if free and look.busy(free[0]) + worker.run <= 1:
        return thread_fix(worker, free[0])
    near = vm.node if vm and vm.node is not None else node_of(look, worker.task.cpu)
    taken = {use.task.cpu for use in look.of("vcpu", "vhost")}
    return thread_fix(worker, room(look, near, isolated=True, but=taken))
