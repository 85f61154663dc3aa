"""Findings about wrong nodes, and about settings that need a restart of the VM. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import Finding, Fix, apply_live, argument, node_of, percent, worker_fix
from libvirt_tuner.diagnosis.sample import Interval, Use, Vm
from libvirt_tuner.topology import Cpus

RUNS = 0.05
REMOTE_SHARE = 0.1
REMOTE_KIB = 64 * 1024
"""Pages on other nodes that are ignored: QEMU's own, shared libraries."""


def home_nodes(look: Interval, vm: Vm) -> Cpus:
    """Return the right nodes of the VM: the uplink's, or all planned ones if it does not fit on one."""
    if vm.node is None:
        return frozenset(vm.nodes)
    cell = look.scene.host.cell(vm.node)
    vcpus = sum(1 for use in look.of("vcpu") if use.task.vm == vm.name)
    fits = cell is not None and len(cell.cpus) >= vcpus and cell.memory_kib > 0
    if vm.nodes and (len(vm.nodes) > 1 or not fits):
        return frozenset(vm.nodes)
    return frozenset({vm.node}) if fits else frozenset()


def remote(look: Interval) -> Iterator[Finding]:
    """Find vCPUs, vhost workers and memory off the uplink's node: one finding for each kind and VM."""
    for vm in look.scene.vms.values():
        home = home_nodes(look, vm)
        if not home:
            continue
        uses = [use for use in look.of("vcpu", "vhost") if use.task.vm == vm.name and use.run >= RUNS]
        for role, plural in (("vcpu", "vCPUs"), ("vhost", "vhost workers")):
            far = [use for use in uses if use.task.role == role and node_of(look, use.task.cpu) not in home]
            if far:
                yield _far_threads(look, vm, home, far, plural)
        yield from _far_memory(look, vm, home, sum(use.run for use in uses))


def _called(vm: Vm, home: Cpus) -> str:
    """The nodes, and why them."""
    return f"node {cpuset.format(home)} " + ("of the uplink" if vm.node is not None else "it was planned for")


def _far_threads(look: Interval, vm: Vm, home: Cpus, far: list[Use], plural: str) -> Finding:
    cpus = frozenset(use.task.cpu for use in far)
    numbers = cpuset.format(use.task.number for use in far)
    who = f"{plural} {numbers}" if len(far) > 1 else far[0].task.says
    name = argument(vm.name)
    fix = Fix(f"libvirt-tuner apply {name}   # from the next start of {name}")
    if far[0].task.role == "vhost":
        fix = worker_fix(look, far[0])
    elif all((vm.pins.get(use.task.number) or use.task.allowed) != use.task.allowed for use in far):
        fix = apply_live(vm.name)
    return Finding(
        kind="remote-node",
        cost=0.3 * sum(use.run for use in far),
        what=f"{who} of {vm.name} on CPU {cpuset.format(cpus)}: not on {_called(vm, home)}",
        culprit=f"the pins of {vm.name}" if all(len(use.task.allowed) == 1 for use in far) else "no pins",
        fix=fix,
        vm=vm.name,
        thread=who,
        cpus=cpus,
        evidence=tuple(
            f"{use.task.says} ran {percent(use.run)} on node {node_of(look, use.task.cpu)}" for use in far[:4]
        ),
        basis=("scheduler", "settings"),
    )


def _far_memory(look: Interval, vm: Vm, home: Cpus, run: float) -> Iterator[Finding]:
    pages = look.after.pages.get(vm.name, {})
    total = sum(pages.values())
    far = {node: kib for node, kib in pages.items() if node not in home}
    away = sum(far.values())
    if run < RUNS or away < REMOTE_KIB or away < REMOTE_SHARE * total:
        return
    said = ", ".join(f"node {node}: {kib // 1024} MiB" for node, kib in sorted(pages.items()))
    yield Finding(
        kind="remote-node",
        cost=0.2 * run * away / total,
        what=f"{percent(away / total)} of the memory of {vm.name} is not on {_called(vm, home)}",
        culprit="memory that was allocated before the VM was placed, or without numatune",
        fix=Fix(f"migratepages {vm.process} {cpuset.format(far)} {min(home)}", "pages"),
        vm=vm.name,
        thread="memory",
        evidence=(said,),
        basis=("counts",),
    )


def waiting(look: Interval) -> Iterator[Finding]:
    """Find settings that a running VM only gets at its next start."""
    for vm in look.scene.vms.values():
        if vm.waiting:
            name = argument(vm.name)
            yield Finding(
                kind="restart-pending",
                cost=0.01 * len(vm.waiting),
                what=f"{vm.name} gets some settings of its definition only at its next start",
                culprit=f"the definition of {vm.name} changed after its start",
                fix=Fix(f"virsh shutdown {name}   # and 'virsh start {name}' once it is off"),
                vm=vm.name,
                evidence=vm.waiting,
                basis=("settings",),
            )
