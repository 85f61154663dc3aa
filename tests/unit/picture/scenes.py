"""Pictures that several tests draw."""

from __future__ import annotations

from pathlib import Path

from libvirt_tuner.host.probe import topology
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.picture.host import Picture, Tenant, arrange, interrupts
from libvirt_tuner.planning.cores import housekeeping
from libvirt_tuner.topology import Core, HostTopology, NumaCell
from tests import hosts


def host(cpus: int, *, nodes: int = 1, threads: int = 1, l3: int = 0) -> HostTopology:
    """A host of so many CPUs; the siblings of CPU n are n + cpus / threads...; ``l3`` cores share one."""
    cores = cpus // threads
    each = cores // nodes
    found = tuple(
        Core(
            tuple(core + cores * thread for thread in range(threads)),
            core // each,
            cache=core - core % l3 if l3 else -1,
        )
        for core in range(cores)
    )
    cells = tuple(
        NumaCell(
            node,
            frozenset(cpu for core in found if core.node == node for cpu in core.cpus),
            memory_kib=64 << 20,
            free_kib=48 << 20,
        )
        for node in range(nodes)
    )
    return HostTopology(cells, found)


def of(name: str, *tenants: Tenant) -> Picture:
    """One of the hosts of fixtures/hosts, with tenants in addition to its interrupts."""
    found = topology(Sysfs(str(hosts.FIXTURES / name)))
    return arrange(found, [*tenants, *interrupts(found)], housekeeping=housekeeping(found, None))


def large(target: Path) -> Picture:
    """The host of 1,024 CPUs and 4,096 interrupts, written to ``target`` and read."""
    hosts.make_large(target)
    found = topology(Sysfs(str(target)))
    return arrange(found, interrupts(found), housekeeping=housekeeping(found, None))


def vm(
    name: str = "web", vcpus: tuple[int, ...] = (20, 22), emulator: tuple[int, ...] = (16, 18)
) -> list[Tenant]:
    """A VM pinned one to one, its vhost workers in turn on the emulator's CPUs."""
    pinned = [Tenant("vcpu", number, name, frozenset({cpu})) for number, cpu in enumerate(vcpus)]
    workers = [
        Tenant("vhost", number, name, frozenset({cpu}), f"vnet0 queue {number}")
        for number, cpu in enumerate(emulator)
    ]
    return [*pinned, *workers, Tenant("emulator", -1, name, frozenset(emulator))]


NASTY = "</title><script>alert(1)</script>\x1b[31m\u202e\r\n\"&'"
"""A name that no output may take for anything but text."""
