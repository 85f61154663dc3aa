"""Small hosts and domains for tests of the pure core."""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner.domainxml.spec import DomainSpec, Vnic
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.topology import NO_CPUS, Core, Cpus, HostTopology, HugePages, Irq, Link, Nic, NumaCell

GIB = 1 << 20
"""KiB in a GiB."""


def cpus(*ids: int) -> Cpus:
    return frozenset(ids)


def nic(
    name: str = "p0", node: int | None = 0, queues: int = 4, at: Iterable[int] = (), first_irq: int = 100
) -> Nic:
    """A ConnectX function whose queue interrupts sit on the CPUs ``at``, all on CPU 0 by default."""
    seats = list(at) or [0] * queues
    control = Irq(first_irq, "mlx5_async0@pci:0000:17:00.0", cpus(0), cpus(0))
    vectors = (
        Irq(first_irq + 1 + n, f"mlx5_comp{n}@pci:0000:17:00.0", cpus(cpu), cpus(cpu))
        for n, cpu in enumerate(seats)
    )
    return Nic(name, "0000:17:00.0", node, "mlx5_core", (control, *vectors))


def host(
    nodes: int = 2,
    cores: int = 8,
    threads: int = 1,
    *,
    isolated: Iterable[int] = (),
    free_gib: int = 64,
    hugepages: tuple[HugePages, ...] = (),
    nics: Iterable[Nic] = (nic(),),
) -> HostTopology:
    """``nodes`` nodes of ``cores`` cores each; CPU ids run through the nodes, then through the threads.

    Every NIC is a port of bridge ``br0``.
    """
    width = nodes * cores
    cells = tuple(
        NumaCell(
            node,
            frozenset(
                node * cores + core + width * thread for core in range(cores) for thread in range(threads)
            ),
            64 * GIB,
            free_gib * GIB,
            hugepages,
            {other: 10 if other == node else 20 + abs(other - node) for other in range(nodes)},
        )
        for node in range(nodes)
    )
    known = {found.name: found for found in nics}
    links = {name: Link(name) for name in known} | {"br0": Link("br0", "bridge", lower=tuple(known))}
    return HostTopology(
        cells=cells,
        cores=tuple(
            Core(tuple(core + width * thread for thread in range(threads)), core // cores)
            for core in range(width)
        ),
        isolated=frozenset(isolated),
        nics=known,
        links=links,
    )


def domain(vcpus: int = 2, memory_gib: int = 4, **changes: object) -> DomainSpec:
    """A kvm domain with one virtio NIC on ``br0``."""
    given: dict[str, object] = {
        "name": "vm",
        "uuid": "5b1d0a52-0000-4000-8000-000000000001",
        "vcpus": vcpus,
        "current": vcpus,
        "memory_kib": memory_gib * GIB,
        "vnics": (Vnic(0, mac="52:54:00:00:00:01", type="bridge", source="br0", model="virtio"),),
    }
    return DomainSpec(**(given | changes))  # type: ignore[arg-type]


def beside(
    vcpus: Cpus = NO_CPUS, service: Cpus = NO_CPUS, *, floating: int = 0, over: Cpus = NO_CPUS
) -> tuple[Neighbour, ...]:
    """A neighbour of ours with a vCPU on each of ``vcpus``, and one with ``floating`` vCPUs ``over`` CPUs."""
    seats = tuple(frozenset({cpu}) for cpu in sorted(vcpus))
    reach = over or frozenset(range(4096))
    return (
        Neighbour(ours=seats, service=service, reach=reach),
        Neighbour(ours=(over,) * floating, reach=reach),
    )
