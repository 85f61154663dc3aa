"""Threads and interrupts on each CPU of this host, now and with a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from libvirt_tuner.diagnosis.sample import Queue, Scene, Vm
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import MissingError, TunerError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.picture.host import Kind, Tenant
from libvirt_tuner.planning.case import has_vhost
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.topology import NO_CPUS, Cpus


def threads(sysfs: Sysfs, scene: Scene) -> tuple[list[Tenant], list[str]]:
    """The threads of every running VM where the kernel lets them run, and what could not be read.

    Args:
        sysfs: The host, or one look at a captured one.
        scene: Its VMs.
    """
    found: list[Tenant] = []
    troubles: list[str] = []
    for vm in scene.vms.values():
        try:
            found += _threads(sysfs, vm)
        except MissingError:
            continue  # stopped meanwhile
        except TunerError as err:
            troubles.append(f"{vm.name}: {err}")
    return found, troubles


def _threads(sysfs: Sysfs, vm: Vm) -> Iterator[Tenant]:
    its = processes.threads(sysfs, vm.process)
    ids: list[tuple[Kind, int, int]] = [("vcpu", number, tid) for number, tid in its.vcpus.items()]
    ids += [("iothread", number, tid) for number, tid in its.iothreads.items()]
    ids += [("vhost", number, tid) for number, tid in enumerate(its.vhost)]
    ids.append(("emulator", -1, vm.process))
    for kind, number, tid in ids:
        try:
            cpus = processes.affinity(sysfs, tid)
        except MissingError:
            continue  # ended meanwhile
        serves = vm.workers[number] if kind == "vhost" and number < len(vm.workers) else None
        yield Tenant(kind, number, vm.name, cpus, _served(serves) if serves else "")


def _served(queue: Queue) -> str:
    return f"{queue.tap or f'vNIC {queue.vnic}'} queue {queue.queue}"


def planned(plan: Plan, spec: DomainSpec) -> Iterator[Tenant]:
    """The threads of a domain where a plan puts them, its user's own pins included.

    Args:
        plan: The plan.
        spec: What the domain's user wrote.
    """
    name = plan.domain
    emulator = plan.emulatorpin or spec.emulatorpin or NO_CPUS
    for vcpu, cpus in plan.vcpus.items():
        yield Tenant("vcpu", vcpu, name, plan.vcpupin.get(vcpu) or cpus)
    for iothread, cpus in {**spec.iothreadpin, **plan.iothreadpin}.items():
        yield Tenant("iothread", iothread, name, cpus)
    for number, queue in enumerate(_workers(plan, spec)):
        yield Tenant("vhost", number, name, plan.worker_cpus(number) or emulator, _served(queue))
    yield Tenant("emulator", -1, name, emulator)


def _workers(plan: Plan, spec: DomainSpec) -> Iterator[Queue]:
    count, chosen = plan.driver.get("queues", (0, ()))
    for vnic in spec.vnics:
        if has_vhost(spec, vnic):
            pairs = count if vnic.index in chosen else vnic.queues or 1
            yield from (Queue(vnic.index, queue, vnic.target) for queue in range(pairs))


def moved(plan: Plan) -> dict[int, Cpus]:
    """The interrupts that a plan moves, and where to."""
    return {move.irq: move.cpus for move in plan.irqs}


def without(tenants: Sequence[Tenant], domain: str) -> list[Tenant]:
    """Everybody but the threads of a domain."""
    return [tenant for tenant in tenants if tenant.kind == "irq" or tenant.of != domain]
