"""A host as a picture shows it: nodes, L3s, cores, and the users of each CPU. Pure.

``picture/__init__`` is empty: each way of drawing is a module of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import printable
from libvirt_tuner.topology import NO_CPUS, Core, Cpus, HostTopology, Nic, NumaCell

Kind = Literal["vcpu", "vhost", "emulator", "iothread", "irq"]
WORDS: Mapping[Kind, str] = {
    "vcpu": "vCPU",
    "vhost": "vhost",
    "emulator": "emulator",
    "iothread": "iothread",
    "irq": "IRQ",
}
"""The name of each kind, in the order in which they are listed."""
_ORDER = tuple(WORDS)

Mark = Literal["polled", "housekeeping", "isolated"]
MARKS: Mapping[Mark, str] = {
    "polled": "poll mode driver",
    "housekeeping": "housekeeping",
    "isolated": "isolated",
}
FREE, OFFLINE = "free", "offline"
MOST = 4
"""CPUs of a tooltip."""


@frozen
class Tenant:
    """A thread of a VM, or an interrupt.

    Attributes:
        kind: What it is.
        number: The vCPU's, vhost worker's, iothread's or interrupt's; -1 for an emulator.
        of: Its VM, or the network card of an interrupt.
        cpus: Where it may run; of an interrupt, where it goes.
        note: For people: the queue that a vhost worker serves, the driver's name of an interrupt.
    """

    kind: Kind
    number: int
    of: str
    cpus: Cpus
    note: str = ""

    @property
    def says(self) -> str:
        """``vCPU 3 of web``, fit for any output."""
        number = f" {self.number}" if self.number >= 0 else ""
        note = f" ({printable(self.note)})" if self.note else ""
        return f"{WORDS[self.kind]}{number} of {printable(self.of)}{note}"


@frozen
class Seat:
    """An online CPU, and who uses it."""

    cpu: int
    tenants: tuple[Tenant, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def sort(self) -> str:
        """What it is first of all: the kind of a tenant, else a mark, else ``free``."""
        kinds = {tenant.kind for tenant in self.tenants}
        first = next((kind for kind in _ORDER if kind in kinds), "")
        return first or next(iter(self.marks), FREE)

    @property
    def like(self) -> object:
        """Equal for CPUs that look the same but for the numbers."""
        return self.marks, frozenset((tenant.kind, tenant.of) for tenant in self.tenants)


@frozen
class CoreBox:
    """A core: its online SMT siblings."""

    seats: tuple[Seat, ...]

    @property
    def like(self) -> object:
        """Equal for cores that look the same but for the numbers."""
        return tuple(seat.like for seat in self.seats)


@frozen
class CacheBox:
    """The cores that share an L3; ``first`` is its first CPU, -1 where the kernel names no L3."""

    first: int
    cores: tuple[CoreBox, ...]


@frozen
class NodeBox:
    """A NUMA node, with its network cards."""

    cell: NumaCell
    nics: tuple[Nic, ...]
    caches: tuple[CacheBox, ...]


@frozen
class Picture:
    """A host.

    Attributes:
        nodes: By ascending id.
        floating: Tenants that may run on a whole node or more; they are at no CPU.
        offline: CPUs that are there and do not run; their node and core are not known.
    """

    nodes: tuple[NodeBox, ...]
    floating: tuple[Tenant, ...] = ()
    offline: Cpus = NO_CPUS

    @property
    def seats(self) -> Iterator[Seat]:
        """Every online CPU, node by node."""
        for node in self.nodes:
            for cache in node.caches:
                for core in cache.cores:
                    yield from core.seats


def interrupts(host: HostTopology, moved: Mapping[int, Cpus] | None = None) -> Iterator[Tenant]:
    """The interrupts of the host's network cards, each once.

    Args:
        host: The host.
        moved: Interrupts that go elsewhere, by number.
    """
    seen = set()
    for nic in host.nics.values():
        for irq in nic.irqs:
            if irq.action and irq.number not in seen:
                seen.add(irq.number)
                cpus = (moved or {}).get(irq.number) or irq.effective or irq.affinity
                yield Tenant("irq", irq.number, nic.name, cpus, irq.action)


def arrange(
    host: HostTopology, tenants: Iterable[Tenant], *, housekeeping: Cpus = NO_CPUS, offline: Cpus = NO_CPUS
) -> Picture:
    """Everybody at their places.

    Args:
        host: The host, with its network cards.
        tenants: Threads and interrupts.
        housekeeping: CPUs that stay with the host.
        offline: CPUs that are offline.
    """
    seated: dict[int, list[Tenant]] = {cpu: [] for cpu in host.online}
    floating = []
    ordered = sorted(tenants, key=lambda one: (_ORDER.index(one.kind), one.of, one.number))
    for tenant in ordered:
        if floats(host, tenant.cpus):
            floating.append(tenant)
            continue
        for cpu in tenant.cpus & host.online:
            seated[cpu].append(tenant)
    marked: dict[Mark, Cpus] = {
        "polled": host.busy,
        "housekeeping": housekeeping,
        "isolated": host.isolated,
    }

    def seat(cpu: int) -> Seat:
        return Seat(cpu, tuple(seated[cpu]), tuple(mark for mark, cpus in marked.items() if cpu in cpus))

    def box(core: Core) -> CoreBox:
        return CoreBox(tuple(map(seat, core.cpus)))

    nodes = []
    for cell in host.cells:
        caches: dict[int, list[CoreBox]] = {}
        for core in host.cores_of(cell.id):
            caches.setdefault(core.cache, []).append(box(core))
        boxes = tuple(CacheBox(first, tuple(cores)) for first, cores in caches.items())
        nics = tuple(nic for nic in host.nics.values() if nic.node == cell.id)
        nodes.append(NodeBox(cell, nics, boxes))
    return Picture(tuple(nodes), tuple(floating), offline - host.online)


def floats(host: HostTopology, cpus: Cpus) -> bool:
    """Whether these CPUs are all of a node, its isolated ones aside: too many to be drawn at each."""
    if not cpus:
        return True
    nodes = (cell.cpus - host.isolated or cell.cpus for cell in host.cells if cell.cpus)
    return len(cpus) > 1 and any(node <= cpus for node in nodes)


def labels(seats: Sequence[Seat]) -> list[str]:
    """Tenants of CPUs that look the same: ``vCPU 0-5 web``, ``IRQ 229 eth0``, ``isolated``."""
    found: dict[tuple[Kind, str], set[int]] = {}
    for seat in seats:
        for tenant in seat.tenants:
            found.setdefault((tenant.kind, tenant.of), set()).add(tenant.number)
    said = [
        " ".join((WORDS[kind], *([cpuset.format(numbers)] if min(numbers) >= 0 else []), printable(of)))
        for (kind, of), numbers in found.items()
    ]
    marks = [MARKS[mark] for mark in seats[0].marks]
    busy = said or {"polled", "housekeeping"} & set(seats[0].marks)
    return said + marks if busy else [FREE, *marks]


def title(seats: Sequence[Seat]) -> str:
    """All that is known of CPUs, a line each: for a tooltip. Of many the first ones."""
    lines = []
    for seat in seats[:MOST]:
        who = [tenant.says for tenant in seat.tenants] + [MARKS[mark] for mark in seat.marks]
        lines.append(f"CPU {seat.cpu}: {', '.join(who) or FREE}")
    more = len(seats) - len(lines)
    return "\n".join([*lines, *([f"and {more} more CPUs"] if more else [])])


def node_name(node: NodeBox) -> str:
    """``node 0: 16 CPUs, 64 GiB, 48 GiB free``."""
    cell = node.cell
    count = len(cell.cpus)
    cpus = f"{count} CPU{'s' * (count != 1)}" if count else "no CPUs"
    memory = f"{_gib(cell.memory_kib)}, {_gib(cell.free_kib)} free" if cell.memory_kib else "no memory"
    return f"node {cell.id}: {cpus}, {memory}"


def nic_names(node: NodeBox) -> list[str]:
    """``NIC enp23s0f0np0 (mlx5_core, 25 Gbit/s)``."""
    found = []
    for nic in node.nics:
        facts = [printable(nic.driver)] if nic.driver else []
        facts += [f"{nic.speed / 1000:g} Gbit/s"] if nic.speed else []
        found.append(f"NIC {printable(nic.name)}" + (f" ({', '.join(facts)})" if facts else ""))
    return found


def summary(picture: Picture) -> str:
    """``32 CPUs: 6 with vCPUs, 2 with vhost workers, 8 housekeeping, 16 free``."""
    sorts = [seat.sort for seat in picture.seats]
    words: dict[str, str] = {
        "vcpu": "with vCPUs",
        "vhost": "with vhost workers",
        "emulator": "with emulators",
        "iothread": "with iothreads",
        "irq": "with interrupts",
        **{str(mark): word for mark, word in MARKS.items()},
        FREE: FREE,
    }
    parts = [f"{sorts.count(sort)} {word}" for sort, word in words.items() if sort in sorts]
    if picture.offline:
        parts.append(f"{len(picture.offline)} {OFFLINE}")
    return f"{len(sorts)} CPU{'s' * (len(sorts) != 1)}: {', '.join(parts)}"


def floating_lines(picture: Picture) -> list[str]:
    """``vCPU 0-3 of web: anywhere on CPUs 0-31``, one for each VM and kind; and the CPUs that are offline."""
    found: dict[tuple[Kind, str, Cpus], set[int]] = {}
    for tenant in picture.floating:
        found.setdefault((tenant.kind, tenant.of, tenant.cpus), set()).add(tenant.number)
    lines = []
    for (kind, of, cpus), numbers in found.items():
        number = f" {cpuset.format(numbers)}" if min(numbers) >= 0 else ""
        where = f"anywhere on CPUs {cpuset.format(cpus)}" if cpus else "on any CPU"
        lines.append(f"{WORDS[kind]}{number} of {printable(of)}: {where}")
    if picture.offline:
        lines.append(f"{OFFLINE}: CPU {cpuset.format(picture.offline)}")
    return lines


def _gib(kib: int) -> str:
    return f"{kib / 1048576:.3g} GiB"
