"""Assigns CPUs to a domain's vCPUs, emulator and vhost workers. Pure, deterministic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from libvirt_tuner.topology import NO_CPUS, Core, Cpus, HostTopology, NumaCell

HOUSEKEEPING_SHARE = 8
"""One of this many cores (at least one) is for the host if the policy has no housekeeping."""


class Demand(NamedTuple):
    """What has to be placed.

    Attributes:
        vcpus: vCPU ids to pin, ascending.
        threads: SMT threads per guest core. Guest siblings are placed on host siblings.
        helpers: Other threads: emulator, vhost workers, iothreads.
        emulator: CPUs for them: a number, a set, or None for as many as there is room for.
    """

    vcpus: tuple[int, ...]
    threads: int = 1
    helpers: int = 2
    emulator: int | Cpus | None = None

    @property
    def helper_cpus(self) -> int:
        """CPUs that the helpers get if there is room: one each, but not more than the vCPUs have."""
        if isinstance(self.emulator, int):
            return self.emulator
        return 0 if self.emulator else min(max(2, self.helpers), max(2, len(self.vcpus)))


class Candidate(NamedTuple):
    """Free CPUs of one core."""

    cpus: tuple[int, ...]
    isolated: bool
    capacity: int
    cache: int


class Free(NamedTuple):
    """CPUs of the host from the view of one domain.

    Attributes:
        allowed: CPUs the domain may use.
        held: CPUs that belong to others: never used.
        workers: CPUs of other domains' vhost workers: used if little else is left.
        service: CPUs of other domains' emulators: used before siblings are.
        housekeeping: CPUs for the host, by node.
        last: The last CPU for the threads of the host and of all emulators.
        kept: Housekeeping CPUs of the policy: never used by a vCPU.
    """

    allowed: Cpus
    held: Cpus = NO_CPUS
    workers: Cpus = NO_CPUS
    service: Cpus = NO_CPUS
    housekeeping: Cpus = NO_CPUS
    last: Cpus = NO_CPUS
    kept: Cpus = NO_CPUS


class Assignment(NamedTuple):
    """A CPU per vCPU, the emulator's own CPUs (empty: it shares CPUs), and a note for people."""

    vcpupin: dict[int, Cpus]
    emulator: Cpus = NO_CPUS
    note: str = ""

    @property
    def cpus(self) -> Cpus:
        """All CPUs of the vCPUs."""
        return NO_CPUS.union(*self.vcpupin.values())


class Level(NamedTuple):
    """How much is spared: ``whole`` cores that nobody else uses, or single CPUs.

    Attributes:
        spared: CPUs that are excluded in addition to the held ones.
        per_core: vCPUs for each core; 0 takes single CPUs.
        note: For people.
    """

    spared: Cpus
    per_core: int
    note: str


def housekeeping(host: HostTopology, policy: Cpus | None) -> Cpus:
    """Return CPUs for the host: the policy's, or the first cores of each node, slower ones before others."""
    if policy is not None:
        return policy
    found: set[int] = set()
    for cell in host.cells:
        cores = [core for core in host.cores if core.node == cell.id]
        common = [core for core in cores if host.isolated.isdisjoint(core.cpus)]
        common.sort(key=lambda core: core.capacity)
        for core in common[: max(1, len(cores) // HOUSEKEEPING_SHARE)]:
            found.update(core.cpus)
    return frozenset(found)


def assign(host: HostTopology, cells: Sequence[NumaCell], free: Free, demand: Demand) -> Assignment | None:
    """Assign a CPU of ``cells`` to each vCPU of ``demand``; None if there are too few.

    Prefers unused whole cores, performance cores first, then siblings of the domain's own vCPUs. If no node
    has them, the caller tries :func:`single` CPUs and several nodes.
    """
    smt = max((len(core.cpus) for core in host.cores), default=1)
    whole = _candidates(host, cells, free, whole=True)
    classes = sorted({core.capacity for core in whole}, reverse=True)
    for capacity in [*classes, None] if len(classes) > 1 else [None]:
        for level in _levels(free, smt, demand):
            found = [
                core
                for core in whole
                if capacity in (None, core.capacity)
                and level.spared.isdisjoint(core.cpus)
                and len(core.cpus) >= level.per_core
            ]
            if made := _assigned(found, level, demand):
                return made
    return None


def single(
    host: HostTopology, cells: Sequence[NumaCell], free: Free, demand: Demand, *, last: bool = False
) -> Assignment | None:
    """Assign single CPUs of ``cells``, including siblings of other domains' vCPUs.

    Args:
        host, cells, free, demand: As for :func:`assign`.
        last: Also use other domains' service CPUs and the host's: all except :attr:`Free.last`.
    """
    spared = free.last if last else free.workers | free.housekeeping
    note = "only service CPUs are left" if last else "SMT siblings of CPUs in use"
    return _singles(host, cells, free._replace(held=free.held | spared), demand, note)


def remaining(host: HostTopology, cells: Sequence[NumaCell], free: Free, demand: Demand) -> Assignment | None:
    """Assign any remaining CPUs, including the host's last one."""
    return _singles(host, cells, free, demand, "every CPU is in use")


def _levels(free: Free, smt: int, demand: Demand) -> Iterator[Level]:
    rooms = (free.workers | free.service | free.housekeeping, free.workers | free.housekeeping)
    if demand.threads > 1 and smt > 1:
        for spared in rooms:
            yield Level(
                spared, min(smt, demand.threads), "SMT siblings of the guest on SMT siblings of the host"
            )
        return
    for spared in rooms:
        yield Level(spared, 1, "one core per vCPU, SMT siblings idle" if smt > 1 else "one core per vCPU")
    if smt > 1:
        yield Level(rooms[1], smt, "SMT siblings used: too few free cores for one per vCPU")


def _candidates(host: HostTopology, cells: Iterable[NumaCell], free: Free, *, whole: bool) -> list[Candidate]:
    """Return cores with only free CPUs (``whole``), or the free CPUs of all cores; isolated ones first.

    If only one sibling of a core is isolated, it counts as a core: the scheduler uses the other.
    """
    usable = free.allowed - free.held - free.kept
    found = []
    for place, cell in enumerate(cells):
        for core in host.cores_of(cell.id):
            cpus = [cpu for cpu in core.cpus if cpu in usable]
            if not cpus or (whole and len(cpus) < len(core.cpus)):
                continue
            alone = [cpu for cpu in cpus if cpu in host.isolated]
            common = [cpu for cpu in cpus if cpu not in host.isolated]
            if alone:
                found.append((place, _candidate(core, alone, isolated=True)))
            if common and not (whole and alone):
                found.append((place, _candidate(core, common, isolated=False)))
    found.sort(key=lambda each: (not each[1].isolated, -each[1].capacity, each[0], each[1].cpus))
    return [candidate for _, candidate in found]


def _candidate(core: Core, cpus: Sequence[int], *, isolated: bool) -> Candidate:
    return Candidate(tuple(cpus), isolated, core.capacity, core.cache)


def _assigned(cores: Sequence[Candidate], level: Level, demand: Demand) -> Assignment | None:
    groups = _groups(demand, level.per_core)
    count = len(groups)
    isolated = [core for core in cores if core.isolated]
    common = [core for core in cores if not core.isolated]
    pool = isolated if len(isolated) >= count else list(cores)
    if len(pool) < count:
        return None
    most, least = _helper_cores(cores, demand)
    pool = _near_cache(pool, count, most)
    near = pool if len(isolated) >= count or not isolated else common
    spare = min(len(pool) - count, len(near), most)
    if spare >= least:
        first = near[:spare]
        seats = [core for core in pool if core not in first][:count]
    else:
        seats = pool[:count]
        rest = [core for core in common if core not in seats]
        first = rest[:most] if len(rest) >= least else []
    return Assignment(_pins(groups, seats), _own_service(first, demand), level.note)


def _helper_cores(cores: Sequence[Candidate], demand: Demand) -> tuple[int, int]:
    """Return the most cores for the helpers, and the fewest that are useful."""
    if not isinstance(demand.emulator, int) and demand.emulator:
        return 0, 0
    smallest = min((len(core.cpus) for core in cores), default=1)
    most = -(-demand.helper_cpus // smallest)
    return most, -(-min(2, demand.helper_cpus) // smallest)


def _own_service(cores: Sequence[Candidate], demand: Demand) -> Cpus:
    cpus = [cpu for core in cores for cpu in core.cpus]
    return frozenset(cpus[: demand.emulator] if isinstance(demand.emulator, int) else cpus)


def _near_cache(cores: Sequence[Candidate], needed: int, helpers: int) -> list[Candidate]:
    """Sort the cores by L3: first the fullest L3 with room for all vCPUs, and for helpers if possible."""
    caches: dict[int, list[Candidate]] = {}
    for core in cores:
        caches.setdefault(core.cache, []).append(core)
    if len(caches) < 2:
        return list(cores)
    for wanted in (needed + helpers, needed):
        if fitting := [each for each in caches.values() if len(each) >= wanted]:
            return min(fitting, key=lambda each: (len(each), each[0].cpus))
    order = sorted(caches.values(), key=lambda each: (-len(each), each[0].cpus))
    return [core for each in order for core in each]


def _groups(demand: Demand, per_core: int) -> list[tuple[int, ...]]:
    """Group vCPUs per core: guest siblings together, even if the user pinned some."""
    vcpus = demand.vcpus
    if demand.threads <= 1:
        return [tuple(vcpus[start : start + per_core]) for start in range(0, len(vcpus), per_core)]
    cores: dict[int, list[int]] = {}
    for vcpu in vcpus:
        cores.setdefault(vcpu // per_core, []).append(vcpu)
    return [tuple(siblings) for siblings in cores.values()]


def _pins(groups: Sequence[Sequence[int]], seats: Sequence[Candidate]) -> dict[int, Cpus]:
    return {
        vcpu: frozenset({cpu})
        for group, core in zip(groups, seats, strict=True)
        for vcpu, cpu in zip(group, core.cpus, strict=False)
    }


def _singles(
    host: HostTopology, cells: Sequence[NumaCell], free: Free, demand: Demand, note: str
) -> Assignment | None:
    cores = _candidates(host, cells, free, whole=False)
    cores.sort(key=lambda core: (not core.isolated, -core.capacity, -len(core.cpus)))
    cpus = [cpu for core in cores for cpu in core.cpus]
    if len(cpus) < len(demand.vcpus):
        return None
    pins = {vcpu: frozenset({cpu}) for vcpu, cpu in zip(demand.vcpus, cpus, strict=False)}
    return Assignment(pins, NO_CPUS, note)


def service(
    host: HostTopology, cells: Iterable[NumaCell], free: Free, seats: Cpus, least: int = 1
) -> tuple[Cpus, NumaCell | None]:
    """Return CPUs and node for emulator threads without their own CPUs: CPUs without vCPUs.

    Uses the first of ``cells`` with such CPUs, and the next ones until there are ``least`` CPUs. CPUs of
    other domains' vhost workers are used last, then isolated ones.
    """
    known = list(cells)
    found: Cpus = NO_CPUS
    home: NumaCell | None = None
    for unwanted in (free.workers | host.isolated, host.isolated, NO_CPUS):
        for cell in known:
            cpus = (cell.cpus & free.allowed) - free.held - seats - unwanted - found
            found |= frozenset(sorted(cpus)[: least - len(found)]) if home else cpus
            home = home or (cell if cpus else None)
            if len(found) >= least:
                return found, home
    return found or seats, home


def workers(service: Cpus, count: int, others: Iterable[int] = ()) -> tuple[int, ...]:
    """Assign a CPU of ``service`` to each vhost worker. Its first CPU is left to QEMU's main loop if
    possible.

    Args:
        service: CPUs of the domain's helpers.
        count: Workers.
        others: CPUs of other workers, one for each: those with the fewest are taken, and free ones first.
    """
    cpus = sorted(service)
    if not cpus or not count:
        return ()
    able = cpus[1:] if len(cpus) > count else cpus
    # Use the last ones: vCPUs are assigned from the first, so the last ones stay free longer.
    load = Counter(others)
    free = [cpu for cpu in able if cpu not in load]
    chosen = free[-count:] or sorted(sorted(cpus, key=lambda cpu: (load[cpu], -cpu))[:count])
    return tuple(chosen[number % len(chosen)] for number in range(count))


def floats(host: HostTopology, emulator: Cpus) -> bool:
    """Return whether an emulator may run on most cores of a node. It then reserves none of them."""
    for cell in host.cells:
        cores = host.cores_of(cell.id)
        if 2 * sum(not emulator.isdisjoint(core.cpus) for core in cores) > len(cores):
            return True
    return False
