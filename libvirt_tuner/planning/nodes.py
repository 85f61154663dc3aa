"""On which node, on which CPUs and with whose memory a domain runs. Pure; gives its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import VHOST_TYPES, VIRTIO_MODELS, DomainSpec, Vnic
from libvirt_tuner.planning import cores, memory
from libvirt_tuner.planning.cores import Demand, Room, Seats
from libvirt_tuner.planning.plan import PlacementKind, Reason, Taken
from libvirt_tuner.topology import NO_CPUS, Binding, Cpus, HostTopology, NumaCell, NumaMode

CROWD = 4
"""vCPUs that may float over one CPU."""


@frozen(repr=False)
class Places:
    """The CPU and memory part of a plan."""

    placement: PlacementKind
    nodes: tuple[int, ...] = ()
    vcpupin: Mapping[int, Cpus] = field(factory=dict)
    emulator: Cpus = NO_CPUS
    numatune: Binding | None = None
    memnodes: Mapping[int, Binding] = field(factory=dict)


@frozen(repr=False)
class Case:
    """The input of one planning, and what follows from it directly.

    Attributes:
        host, spec, policy, previous, running: As in :func:`libvirt_tuner.planning.planner.plan`.
        taken: CPUs of others that newcomers keep off: held, or only to be avoided.
        held: Those that other running domains hold; nothing less moves a domain that runs.
    """

    host: HostTopology
    spec: DomainSpec
    policy: Policy
    taken: Taken
    previous: DomainSpec | None
    running: bool
    held: Taken = field()

    @held.default
    def _all_of_them(self) -> Taken:
        return self.taken

    @property
    def to_pin(self) -> tuple[int, ...]:
        """vCPUs the user has not pinned."""
        online = sorted(self.spec.enabled) or range(self.spec.current)
        return tuple(vcpu for vcpu in online if vcpu not in self.spec.vcpupin)

    @property
    def users_vcpus(self) -> Cpus:
        """CPUs the user's own vcpupins name."""
        return frozenset().union(*self.spec.vcpupin.values())

    @property
    def users_held(self) -> Cpus:
        """Those of them that are a vCPU's own: one pinned wider than a core floats, and keeps nobody off."""
        pins = frozenset(self.spec.vcpupin.values())
        if not pins:
            return NO_CPUS
        beside = {cpu: core.cpus for core in self.host.cores for cpu in core.cpus}
        return NO_CPUS.union(*(pin for pin in pins if pin.issubset(beside.get(min(pin), ()))))

    @property
    def users_nodes(self) -> frozenset[int]:
        """Nodes the user's own vcpupins name."""
        return frozenset(cell.id for cell in self.host.cells if cell.cpus & self.users_vcpus)

    @property
    def allowed(self) -> Cpus:
        """CPUs the domain may use: its ``<vcpu cpuset>``, else all that are online."""
        return self.host.online & self.spec.cpuset if self.spec.cpuset else self.host.online

    @property
    def blocked(self) -> Cpus:
        """CPUs no vCPU of ours may come near: those of other domains and the user's own pins."""
        return self.taken.all | self.users_held

    @property
    def plans_memory(self) -> bool:
        """Whether numatune is ours to decide."""
        own = self.spec.numatune
        return (
            self.policy.numa_memory != "keep" and own.nodeset is None and not (own.placement or own.memnodes)
        )


def site(case: Case, uplink: int | None) -> tuple[Places, list[Reason]]:
    """Find the domain a place: dedicated CPUs, else shared ones, else where it is.

    Args:
        case: What is asked for and what there is.
        uplink: The NUMA node of the uplink, None where it is not known.
    """
    reasons: list[Reason] = []
    kept = _keep_reason(case)
    if kept:
        return Places("keep"), [Reason("vcpus", "left as they are", kept)]
    cells = _cell_order(case, uplink, reasons)
    if case.policy.placement in ("auto", "dedicated"):
        places = _dedicated(case, cells, uplink, reasons) or _across(case, cells, reasons)
        if places:
            return places, reasons
    return _shared(case, cells, reasons), reasons


def _keep_reason(case: Case) -> str:
    if case.policy.placement == "keep":
        return "the policy says keep"
    if case.spec.placement == "auto" or case.spec.numatune.placement == "auto":
        return "placement='auto': numad decides"
    return ""


def _cell_order(case: Case, uplink: int | None, reasons: list[Reason]) -> list[NumaCell]:
    """Cells to try, best first, within what the user's own settings leave."""
    host = case.host
    if uplink is not None and host.cell(uplink):
        cells = memory.by_distance(host, uplink)
        why = f"node {uplink} is the uplink's"
    else:
        free = {cell.id: len(_room(case, cell).cores) for cell in host.cells}
        cells = sorted(host.cells, key=lambda cell: (-free[cell.id], cell.id))
        why = "no uplink with a known node: most free cores first"
    for bound, name in ((case.users_nodes, "vcpupin"), (case.spec.numatune.nodeset, "numatune")):
        if bound and any(cell.id in bound for cell in cells):
            cells = [cell for cell in cells if cell.id in bound]
            why = f"your {name} names node {cpuset.format(bound)}"
    cells = [cell for cell in cells if cell.cpus & case.allowed]
    order = ", ".join(str(cell.id) for cell in cells)
    decision = f"tried in the order {order}" if cells else "none: no CPU it may use is online"
    reasons.append(Reason("node", decision, why))
    return cells


def _room(case: Case, cell: NumaCell) -> Room:
    return cores.room(
        case.host, cell, allowed=case.allowed, taken=case.blocked, housekeeping=case.policy.housekeeping
    )


def _demand(case: Case, vcpus: tuple[int, ...]) -> Demand:
    spec = case.spec
    emulator: int | Cpus | None = case.policy.emulator_cpus
    if spec.emulatorpin:
        emulator = spec.emulatorpin
    elif isinstance(emulator, frozenset):
        emulator = (emulator & case.host.online) or None
    apart = not cores.floats(case.host, spec.emulatorpin)
    return Demand(vcpus, spec.threads, 1 + worker_count(spec) + len(spec.iothreads), emulator, apart)


def worker_count(spec: DomainSpec) -> int:
    """vhost workers the domain will have: one per queue of a virtio NIC that vhost-net serves."""
    return sum(vnic.queues or 1 for vnic in spec.vnics if has_vhost(spec, vnic))


def has_vhost(spec: DomainSpec, vnic: Vnic) -> bool:
    """Whether vhost-net serves this interface: virtio, on a tap or macvtap, and not driver name='qemu'."""
    served = vnic.model in VIRTIO_MODELS and vnic.type in VHOST_TYPES
    return spec.type == "kvm" and served and vnic.driver != "qemu"


def _dedicated(
    case: Case, cells: Sequence[NumaCell], uplink: int | None, reasons: list[Reason]
) -> Places | None:
    """All vCPUs on one node: the first with the cores and the memory, else the first with the cores."""
    demand = _demand(case, case.to_pin)
    seated: list[tuple[NumaCell, Seats]] = []
    for cell in _where_it_was_first(case, cells, uplink):
        seats = _as_before(case, cell) or cores.seat(_room(case, cell), demand)
        if seats is None:
            reasons.append(Reason("node", f"not {cell.id}", _too_few(case, cell, demand)))
            continue
        seated.append((cell, seats))
        short = _short_of_memory(case, cell)
        if not short:
            return _settled(case, cell, seats, reasons)
        reasons.append(Reason("node", f"not {cell.id} if another has the memory", short))
    if seated:
        return _settled(case, *seated[0], reasons)
    return None


def _where_it_was_first(case: Case, cells: Sequence[NumaCell], uplink: int | None) -> list[NumaCell]:
    """A running domain stays on its node, as moving it would drag its memory along; so does one whose uplink
    is not known for now."""
    if case.previous is None or not (case.running or uplink is None):
        return list(cells)
    return sorted(cells, key=lambda cell: not _as_before(case, cell))


def _as_before(case: Case, cell: NumaCell) -> Seats | None:
    """The seats this tool gave the domain before, when they are still whole, free and on ``cell``."""
    previous = case.previous
    if previous is None or not case.to_pin or not previous.emulatorpin:
        return None
    pins = {vcpu: previous.vcpupin.get(vcpu, NO_CPUS) for vcpu in case.to_pin}
    cpus = frozenset().union(*pins.values())
    one_each = all(len(pin) == 1 for pin in pins.values()) and len(cpus) == len(pins)
    others = case.held if case.running else case.taken
    blocked = others.all | case.users_held
    free = not blocked & case.host.siblings(cpus) and not others.vcpus & previous.emulatorpin
    apart = not cpus & (case.policy.housekeeping or NO_CPUS) and not cpus & previous.emulatorpin
    here = cpus <= cell.cpus & case.allowed and previous.emulatorpin <= case.host.online
    if one_each and free and apart and here:
        return Seats(pins, previous.emulatorpin, "where they were before")
    return None


def _too_few(case: Case, cell: NumaCell, demand: Demand) -> str:
    free = len(_room(case, cell).cores)
    return f"{free} whole free cores there, {len(demand.vcpus)} vCPUs to place"


def _short_of_memory(case: Case, cell: NumaCell) -> str:
    """Why the domain's memory does not fit near ``cell``; "" when it does, or is not ours to place."""
    if not case.plans_memory or _memory_stays(case, cell):
        return ""
    near = memory.nearest_with_memory(case.host, cell.id)
    if near is None:
        return "no node has memory"
    need, page = case.spec.memory_kib, case.spec.hugepage_kib
    bound = memory.bound(case.taken.memory, near.id, page)
    return "" if memory.fits(near, need, page, bound) else memory.shortage(near, need, page, bound)


def _memory_stays(case: Case, cell: NumaCell) -> bool:
    """The domain runs with its memory already bound where it would be bound again."""
    before = case.previous.numatune if case.running and case.previous else None
    near = memory.nearest_with_memory(case.host, cell.id)
    return bool(before and near and before.mode == "strict" and before.nodeset == frozenset({near.id}))


def _runs_preferred(case: Case, near: NumaCell) -> str:
    """Why the mode stays that the domain runs with; "" where that is not ``preferred``."""
    before = case.previous.numatune if case.running and case.previous else None
    if before and before.memory == Binding("preferred", frozenset({near.id})):
        return "it runs so, and libvirt changes no mode of a running domain"
    return ""


def _settled(case: Case, cell: NumaCell, seats: Seats, reasons: list[Reason]) -> Places:
    for vcpu, cpus in sorted(case.spec.vcpupin.items()):
        reasons.append(Reason(f"vcpu {vcpu}", cpuset.format(cpus), "your own vcpupin"))
    if seats.vcpupin:
        pins = ",".join(cpuset.format(cpus) for _, cpus in sorted(seats.vcpupin.items()))
        isolated = frozenset().union(*seats.vcpupin.values()) <= case.host.isolated
        kind = "isolated CPUs" if isolated else "free CPUs"
        reasons.append(Reason("vcpus", f"{pins} on node {cell.id}", f"{kind}, {seats.note}"))
    if case.spec.emulatorpin:
        why = "your own emulatorpin"
    elif case.policy.emulator_cpus is not None:
        why = "as the policy says"
    elif seats.emulator & case.taken.emulators or not seats.emulator.isdisjoint(
        _room(case, cell).housekeeping
    ):
        why = "the node has no core to spare for them: with the host's own work"
    else:
        why = "on the node, apart from every vCPU"
    reasons.append(Reason("emulator and vhost", cpuset.format(seats.emulator) or "not pinned", why))
    return Places("dedicated", (cell.id,), seats.vcpupin, seats.emulator, _numatune(case, (cell,), reasons))


def _numatune(case: Case, cells: Sequence[NumaCell], reasons: list[Reason]) -> Binding | None:
    if not case.plans_memory:
        own = case.spec.numatune
        asked = own.nodeset is not None or own.placement or own.memnodes
        why = "your own numatune" if asked else "the policy says keep"
        reasons.append(Reason("memory", "left as it is", why))
        return None
    if len(case.users_nodes) > 1:
        why = f"your vcpupin spans nodes {cpuset.format(case.users_nodes)}"
        reasons.append(Reason("memory", "left as it is", why))
        return None
    near = memory.nearest_with_memory(case.host, cells[0].id)
    if near is None:
        return None
    mode: NumaMode = "preferred" if case.policy.numa_memory == "preferred" else "strict"
    why = "as the policy says"
    if case.policy.numa_memory == "auto":
        short = _short_of_memory(case, cells[0]) or _runs_preferred(case, near)
        mode, why = ("preferred", short) if short else ("strict", "it fits beside the vCPUs")
    if near.id != cells[0].id:
        why += f"; node {cells[0].id} has no memory of its own"
    reasons.append(Reason("memory", f"{mode} on node {near.id}", why))
    return Binding(mode, frozenset({near.id}))


def _across(case: Case, cells: Sequence[NumaCell], reasons: list[Reason]) -> Places | None:
    """A guest with NUMA cells of its own that is too large for one node: a node per guest cell."""
    guest = case.spec.cells
    if len(guest) < 2 or case.users_vcpus or not case.plans_memory:
        return None
    pins: dict[int, Cpus] = {}
    memnodes: dict[int, Binding] = {}
    emulator: Cpus = NO_CPUS
    left = list(cells)
    for number, part in enumerate(guest):
        vcpus = tuple(vcpu for vcpu in case.to_pin if vcpu in part.vcpus)
        demand = _demand(case, vcpus)
        if number and not isinstance(demand.emulator, frozenset):
            demand = evolve(demand, emulator=emulator, apart=True)
        found = next(((c, s) for c in left if (s := cores.seat(_room(case, c), demand))), None)
        if found is None:
            reasons.append(Reason("node", "not split", f"no node left for guest cell {part.id}"))
            return None
        cell, seats = found
        left.remove(cell)
        pins |= seats.vcpupin
        emulator = emulator or seats.emulator
        near = memory.nearest_with_memory(case.host, cell.id) or cell
        bound = memory.bound(case.taken.memory, near.id, case.spec.hugepage_kib)
        fits = memory.fits(near, part.memory_kib, case.spec.hugepage_kib, bound)
        memnodes[part.id] = Binding("strict" if fits else "preferred", frozenset({near.id}))
        cpus = ",".join(cpuset.format(seats.vcpupin[vcpu]) for vcpu in vcpus)
        reasons.append(
            Reason(f"guest cell {part.id}", f"vCPUs {cpus}, memory {memnodes[part.id][0]} on node {near.id}",
                   "too large for one node: a node for each guest cell")
        )  # fmt: skip
    reasons.append(
        Reason("emulator and vhost", cpuset.format(emulator), "on the node of the first guest cell")
    )
    nodes = tuple(cell.id for cell in cells if cell not in left)
    whole = frozenset().union(*(nodeset for _, nodeset in memnodes.values()))
    if any(mode != "strict" for mode, _ in memnodes.values()):
        reasons.append(Reason("memory", "left as it is", "a guest cell's memory does not fit on its node"))
        return Places("dedicated", nodes, pins, emulator)
    return Places("dedicated", nodes, pins, emulator, Binding("strict", whole), memnodes)


def _shared(case: Case, cells: Sequence[NumaCell], reasons: list[Reason]) -> Places:
    """Float over the nearest CPUs there are; leave everything when there are none, or far too few.

    Who floats on too few CPUs would be better off with the whole host, as without this tool.
    """
    everyone = len(case.to_pin) + case.taken.floating
    cpus = _floating_as_before(case) or _floating(case, cells, everyone)
    if everyone > CROWD * len(cpus) > 0:
        why = f"{everyone} vCPUs would float over the {len(cpus)} CPUs that are left"
        reasons.append(Reason("vcpus", "left as they are", why))
        return Places("keep")
    if not cpus:
        reasons.append(Reason("vcpus", "left as they are", "no CPU outside isolation that no other VM holds"))
        return Places("keep")
    nodes = tuple(cell.id for cell in cells if cell.cpus & cpus)
    asked = case.policy.placement == "shared"
    why = "the policy says shared" if asked else "too few whole free cores for one each"
    reasons.append(Reason("vcpus", f"float over {cpuset.format(cpus)}", why))
    numatune = None
    if len(nodes) == 1 and (home := case.host.cell(nodes[0])):
        numatune = _numatune(case, (home,), reasons)
    return Places("shared", nodes, dict.fromkeys(case.to_pin, cpus), cpus, numatune)


def _floating(case: Case, cells: Sequence[NumaCell], vcpus: int) -> Cpus:
    """CPUs nobody holds; those of others' emulators as well where there are two threads for each of them.

    A vCPU and its vhost worker on one CPU have a third of the speed that they have apart (docs/results.md).
    As long as there is more, others' vhost workers are spared.
    """
    threads = vcpus + worker_count(case.spec)
    unheld = _nearest(case, cells, taken=case.blocked, wanted=vcpus)
    if 2 * len(unheld) > threads:
        return unheld
    return _nearest(case, cells, taken=case.taken.vcpus | case.users_held, wanted=threads)


def _nearest(case: Case, cells: Sequence[NumaCell], *, taken: Cpus, wanted: int) -> Cpus:
    return cores.floating(case.host, cells, allowed=case.allowed, taken=taken, wanted=wanted)


def _floating_as_before(case: Case) -> Cpus:
    """Where a running domain floats already, while that is free; it is not moved for each that comes."""
    if not (case.running and case.previous and case.to_pin):
        return NO_CPUS
    sets = {case.previous.vcpupin.get(vcpu, NO_CPUS) for vcpu in case.to_pin}
    cpus = sets.pop()
    fine = len(cpus) > 1 and cpus <= case.allowed and not cpus & case.host.isolated
    held = case.host.siblings(case.held.vcpus | case.users_held)
    return cpus if fine and not sets and not cpus & held else NO_CPUS
