"""Which CPUs of a node a domain's vCPUs, emulator and vhost workers get. Pure, deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from libvirt_tuner.topology import NO_CPUS, Core, Cpus, HostTopology, NumaCell

HOUSEKEEPING_SHARE = 8
"""One core in so many stays with the host (at least one) when the policy names no housekeeping."""


@frozen(repr=False)
class Demand:
    """What has to be placed on one node.

    Attributes:
        vcpus: vCPU ids to pin, ascending.
        threads: SMT threads per guest core; siblings of the guest go on siblings of the host.
        helpers: Threads beside the vCPUs: emulator, vhost workers, iothreads.
        emulator: CPUs for them: how many, exactly which, or None for what there is room for.
        apart: Whether vCPUs keep off those CPUs; not where they are most of a node (:func:`floats`).
    """

    vcpus: tuple[int, ...]
    threads: int = 1
    helpers: int = 2
    emulator: int | Cpus | None = None
    apart: bool = True


@frozen(repr=False)
class Room:
    """What one node has left for a domain.

    Attributes:
        cell: The node.
        isolated: Whole free cores without load balancing.
        common: Whole free cores of the scheduler, housekeeping left out.
        housekeeping: CPUs of the node that stay with the host.
    """

    cell: NumaCell
    isolated: tuple[Core, ...]
    common: tuple[Core, ...]
    housekeeping: Cpus

    @property
    def cores(self) -> tuple[Core, ...]:
        """Every whole free core, isolated ones first."""
        return self.isolated + self.common


@frozen(repr=False)
class Seats:
    """One node's outcome: a CPU per vCPU, the emulator's CPUs, and how the siblings are used."""

    vcpupin: dict[int, Cpus]
    emulator: Cpus
    note: str


def room(
    host: HostTopology, cell: NumaCell, *, allowed: Cpus, taken: Cpus, housekeeping: Cpus | None
) -> Room:
    """What ``cell`` offers: whole cores within ``allowed`` of which no CPU is ``taken``."""
    cores = [core for core in host.cores if core.node == cell.id]
    kept = _housekeeping(host, cores) if housekeeping is None else housekeeping & cell.cpus
    free = [core for core in cores if allowed.issuperset(core.cpus) and not taken.intersection(core.cpus)]
    usable = [core for core in free if not kept.intersection(core.cpus)]
    return Room(
        cell=cell,
        isolated=tuple(core for core in usable if host.isolated.issuperset(core.cpus)),
        common=tuple(core for core in usable if not host.isolated.intersection(core.cpus)),
        housekeeping=kept,
    )


def _housekeeping(host: HostTopology, cores: Sequence[Core]) -> Cpus:
    common = [core for core in cores if not host.isolated.intersection(core.cpus)]
    share = max(1, len(cores) // HOUSEKEEPING_SHARE)
    return frozenset(cpu for core in common[:share] for cpu in core.cpus)


def seat(place: Room, demand: Demand) -> Seats | None:
    """Seat every vCPU of ``demand`` 1:1 in ``place``; None when it has not the cores.

    Siblings of one guest core share a host core; other vCPUs get a core each while there are enough,
    and share cores two by two (four by four on SMT-4) only when there are not.
    """
    if isinstance(demand.emulator, frozenset) and demand.apart:
        place = _without(place, demand.emulator)
    for per_core, note in _densities(place, demand):
        groups = (
            _guest_cores(demand.vcpus, per_core) if demand.threads > 1 else _groups(demand.vcpus, per_core)
        )
        able = _with_siblings(place, per_core)
        if len(groups) <= len(able.cores):
            emulator, seats = _split(able, len(groups), demand)
            return Seats(_pins(groups, seats), emulator, note)
    return None


def floats(host: HostTopology, emulator: Cpus) -> bool:
    """Whether an emulator may run on most cores of a node: it keeps no vCPU off them then."""
    for cell in host.cells:
        cores = [core for core in host.cores if core.node == cell.id]
        if 2 * sum(not emulator.isdisjoint(core.cpus) for core in cores) > len(cores):
            return True
    return False


def _densities(place: Room, demand: Demand) -> Iterable[tuple[int, str]]:
    """vCPUs per core to try, the fastest arrangement first."""
    smt = max((len(core.cpus) for core in place.cores), default=1)
    if demand.threads > 1 and smt > 1:
        yield min(smt, demand.threads), "guest siblings on host siblings"
        return
    yield 1, "a core each, siblings idle" if smt > 1 else "a core each"
    if smt > 1:
        yield smt, "siblings in use: too few free cores for one each"


def _groups(vcpus: Sequence[int], per_core: int) -> list[tuple[int, ...]]:
    return [tuple(vcpus[start : start + per_core]) for start in range(0, len(vcpus), per_core)]


def _guest_cores(vcpus: Sequence[int], per_core: int) -> list[tuple[int, ...]]:
    """Siblings of the guest together, also where some of them are pinned by the user and not among these."""
    cores: dict[int, list[int]] = {}
    for vcpu in vcpus:
        cores.setdefault(vcpu // per_core, []).append(vcpu)
    return [tuple(siblings) for siblings in cores.values()]


def _split(place: Room, needed: int, demand: Demand) -> tuple[Cpus, tuple[Core, ...]]:
    """Cores for the emulator (the lowest), then ``needed`` cores for vCPUs, isolated ones first."""
    if len(place.isolated) >= needed:
        spare = len(place.isolated) - needed
        first = place.isolated[: _emulator_cores(place.isolated, spare, demand)]
        seats = place.isolated[len(first) : len(first) + needed]
        pool = place.common
    else:
        spare = len(place.cores) - needed
        first = place.common[: _emulator_cores(place.common, spare, demand)]
        seats = (place.isolated + place.common[len(first) :])[:needed]
        pool = ()
    if isinstance(demand.emulator, frozenset):
        return demand.emulator, seats
    if not first:
        first = pool[: _emulator_cores(pool, len(pool), demand)]
    return _limited(first, demand) or place.housekeeping, seats


def _emulator_cores(cores: Sequence[Core], spare: int, demand: Demand) -> int:
    """How many cores the helpers get out of ``spare``: a CPU each, but no more than the vCPUs have."""
    if isinstance(demand.emulator, frozenset) or not cores:
        return 0
    most = max(2, len(demand.vcpus))
    wanted = demand.emulator or min(max(2, demand.helpers), most)
    return min(spare, -(-wanted // len(cores[0].cpus)))


def _limited(cores: Sequence[Core], demand: Demand) -> Cpus:
    cpus = [cpu for core in cores for cpu in core.cpus]
    return frozenset(cpus[: demand.emulator] if isinstance(demand.emulator, int) else cpus)


def _without(place: Room, cpus: Cpus) -> Room:
    def rest(cores: Iterable[Core]) -> tuple[Core, ...]:
        return tuple(core for core in cores if not cpus.intersection(core.cpus))

    return Room(place.cell, rest(place.isolated), rest(place.common), place.housekeeping)


def _with_siblings(place: Room, count: int) -> Room:
    """The cores with so many CPUs online."""

    def able(cores: Iterable[Core]) -> tuple[Core, ...]:
        return tuple(core for core in cores if len(core.cpus) >= count)

    return Room(place.cell, able(place.isolated), able(place.common), place.housekeeping)


def _pins(groups: Sequence[Sequence[int]], seats: Sequence[Core]) -> dict[int, Cpus]:
    return {
        vcpu: frozenset({cpu})
        for group, core in zip(groups, seats, strict=True)
        for vcpu, cpu in zip(group, core.cpus, strict=False)
    }


def workers(emulator: Cpus, count: int) -> tuple[int, ...]:
    """A CPU per vhost worker out of ``emulator``, its first CPU left to QEMU's main loop where it can be."""
    cpus = sorted(emulator)
    if not cpus or not count:
        return ()
    spare = 1 if len(cpus) > count else 0
    return tuple(cpus[spare + number % (len(cpus) - spare)] for number in range(count))


def floating(
    host: HostTopology, cells: Iterable[NumaCell], *, allowed: Cpus, taken: Cpus, wanted: int
) -> Cpus:
    """CPUs to float over: those of the nearest cells that are not ``taken``, until there are ``wanted``.

    Isolated CPUs are left out: without load balancing everything would pile up on one of them.
    """
    found: Cpus = NO_CPUS
    for cell in cells:
        found |= (cell.cpus & allowed) - host.isolated - host.siblings(taken)
        if len(found) >= wanted:
            break
    return found
