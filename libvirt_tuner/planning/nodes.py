"""Chooses the node, CPUs and memory of a domain, with reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml.spec import GuestCell
from libvirt_tuner.planning import cores, memory
from libvirt_tuner.planning.case import Case, Choice, worker_count
from libvirt_tuner.planning.cores import Assignment
from libvirt_tuner.planning.plan import Reason
from libvirt_tuner.topology import NO_CPUS, Binding, Cpus, NumaCell

Found = tuple[Choice, tuple[Reason, ...]]


def choose(case: Case, uplink: int | None) -> Found:
    """Place the domain: a CPU for each vCPU, else shared CPUs, else no change.

    Args:
        case: The request and the host.
        uplink: The NUMA node of the uplink, None where it is not known.
    """
    if kept := _keep_reason(case):
        return Choice("keep"), (Reason("vcpus", "not changed", kept),)
    cells, why = _cell_order(case, uplink)
    reasons: tuple[Reason, ...] = (why,)
    if case.policy.placement != "shared":
        found, more = _dedicated(case, cells, uplink)
        reasons += more
        if found:
            return found, reasons
    if case.spec.realtime:
        said = "real-time vCPUs (vcpusched) must not share a CPU"
        return Choice("keep"), (*reasons, Reason("vcpus", "not changed", said))
    # Here: the hook plans at each start, and seldom for lack of room.
    from libvirt_tuner.planning.sharing import share

    choice, more = share(case, cells)
    return choice, reasons + more


def _keep_reason(case: Case) -> str:
    if case.policy.placement == "keep":
        return "the policy says keep"
    if case.spec.placement == "auto" or case.spec.numatune.placement == "auto":
        return "placement='auto' in the XML: numad places it"
    return ""


def _cell_order(case: Case, uplink: int | None) -> tuple[list[NumaCell], Reason]:
    """Return the cells to try, best first, limited by the user's own settings. A running domain keeps its
    cells."""
    host = case.host
    if uplink is not None and host.cell(uplink):
        cells = memory.by_distance(host, uplink)
        why = f"the uplink is on node {uplink}"
    else:
        free = {cell.id: len(cell.cpus & case.pool - case.others.held) for cell in host.cells}
        cells = sorted(host.cells, key=lambda cell: (case.bars_memory(cell), -free[cell.id], cell.id))
        why = "the uplink's node is unknown: node with most free CPUs first"
    for bound, name in (
        (frozenset(case.home), ""),
        (case.users_nodes, "vcpupin"),
        (case.spec.numatune.nodeset, "numatune"),
    ):
        if bound and any(cell.id in bound and cell.cpus & case.allowed for cell in cells):
            cells = [cell for cell in cells if cell.id in bound]
            named = f"your {name} uses" if name else "it runs on"
            why = f"{named} node {cpuset.format(bound)}"
    cells = [cell for cell in cells if cell.cpus & case.allowed]
    order = ", ".join(str(cell.id) for cell in cells)
    decision = f"search order {order}" if cells else "none: no usable CPU is online"
    return cells, Reason("node", decision, why)


# A CPU for each vCPU


def _dedicated(
    case: Case, cells: Sequence[NumaCell], uplink: int | None
) -> tuple[Choice | None, tuple[Reason, ...]]:
    if not cells:
        return None, ()
    reasons: list[Reason] = []
    found = _as_before(case, cells) if case.home else _on_one_node(case, cells, uplink, reasons)
    if found is None and not case.home and (across := _across(case, cells)):
        return across
    if found is None:
        found = next(_elsewhere(case, cells), None)
    if found is None:
        free = len(case.allowed & _cpus(case, cells) - case.free.held)
        why = f"{free} CPUs free, {len(case.to_pin)} needed"
        return None, (*reasons, Reason("vcpus", "no CPU for each vCPU", why))
    settled = case.insists or (case.claims and case.home)
    if not settled and not case.others.leaves_room(case.pool, found.cpus):
        why = f"with {len(found.cpus)} CPUs for it, too few are left for the vCPUs that share CPUs"
        return None, (*reasons, Reason("vcpus", "no CPU for each vCPU", why))
    return _settled(case, cells, found, reasons)


def _on_one_node(
    case: Case, cells: Sequence[NumaCell], uplink: int | None, reasons: list[Reason]
) -> Assignment | None:
    """Find whole cores on the first node that also has the memory, else on the first with the cores."""
    first: Assignment | None = None
    for cell in _where_it_was_first(case, cells, uplink):
        found = _stands(case, cell) or cores.assign(case.host, (cell,), case.free, case.demand)
        if found is None:
            reasons.append(Reason("node", f"{cell.id} rejected", _too_few(case, cell)))
            continue
        short = _short_of_memory(case, cell)
        if not short:
            return found
        reasons.append(Reason("node", f"{cell.id} used only if no other node has the memory", short))
        first = first or found
    return first


def _elsewhere(case: Case, cells: Sequence[NumaCell]) -> Iterator[Assignment]:
    """Yield other assignments if no node has the whole cores, best first."""
    host, free, demand = case.host, case.free, case.demand
    near = _by_need(case, cells)
    for last in (False, True):
        for cell in cells:
            if found := cores.single(host, (cell,), free, demand, last=last):
                yield found
    if len(cells) > 1:
        for some in near:
            if found := cores.assign(host, some, free, demand):
                yield found._replace(note=f"{found.note}; too large for one node")
        for last in (False, True):
            for some in near:
                if found := cores.single(host, some, free, demand, last=last):
                    yield found._replace(note=f"{found.note}; no single node has enough CPUs")
    # A real-time vCPU on the last CPU would stop the threads of the host and of all emulators.
    for some in (*((cell,) for cell in cells), tuple(cells)) if not case.spec.realtime else ():
        if found := cores.remaining(host, some, free, demand):
            yield found
    if case.insists:
        yield from _claimed(case, cells)


def _by_need(case: Case, cells: Sequence[NumaCell]) -> list[tuple[NumaCell, ...]]:
    """The two nearest nodes, the three nearest, and so on."""
    return [tuple(cells[:count]) for count in range(2, len(cells) + 1)]


def _claimed(case: Case, cells: Sequence[NumaCell]) -> Iterator[Assignment]:
    """Yield assignments that take CPUs from domains without a claim. These share the rest."""
    others = case.others
    free = case.free._replace(
        held=others.claimed | others.fixed | case.users_held | case.own_service,
        workers=NO_CPUS,
        service=NO_CPUS,
    )
    for some in (*((cell,) for cell in cells), tuple(cells)):
        if found := cores.single(case.host, some, free, case.demand, last=True):
            left = sorted((case.pool - free.held - found.cpus - free.last) or free.last)
            near = [cpu for cpu in left if any(cpu in cell.cpus for cell in some)] or left
            yield found._replace(emulator=frozenset(near[:1]), note='placement = "dedicated" in the policy')


def _cpus(case: Case, cells: Sequence[NumaCell]) -> Cpus:
    return NO_CPUS.union(*(cell.cpus for cell in cells))


def _as_before(case: Case, cells: Sequence[NumaCell]) -> Assignment | None:
    """Keep a running domain's CPUs that are still usable, and find others on its nodes for the rest."""
    kept = _still_good(case)
    missing = tuple(vcpu for vcpu in case.to_pin if vcpu not in kept)
    crowded = tuple(vcpu for vcpu, pin in sorted(kept.items()) if _needs_another(case, pin))
    taken = NO_CPUS.union(*kept.values())
    if not (missing or crowded):
        return Assignment(kept, _service_before(case, taken), "same CPUs as before")
    found = _more(case, cells, taken, (*missing, *crowded))
    if found is None and case.claims:
        found = _more(case, cells, taken, missing) if missing else Assignment({}, note="same CPUs as before")
    if found is None:
        return None
    emulator = _service_before(case, taken | found.cpus) if kept else found.emulator
    pins = {vcpu: kept.get(vcpu, NO_CPUS) | found.vcpupin.get(vcpu, NO_CPUS) for vcpu in case.to_pin}
    return Assignment(pins, emulator, found.note)


def _more(case: Case, cells: Sequence[NumaCell], taken: Cpus, vcpus: tuple[int, ...]) -> Assignment | None:
    """Find CPUs on a running domain's nodes in addition to ``taken``."""
    free = case.free._replace(held=case.free.held | taken)
    demand = case.demand._replace(vcpus=vcpus)
    found = None
    for cell in cells:
        found = found or cores.assign(case.host, (cell,), free, demand)
    for last in (False, True):
        found = found or cores.single(case.host, cells, free, demand, last=last)
    if not case.spec.realtime:
        found = found or cores.remaining(case.host, cells, free, demand)
    return found


def _needs_another(case: Case, pin: Cpus) -> bool:
    """Return whether a vCPU shares all its CPUs with vCPUs that users have pinned there.

    Another CPU does not help on isolated CPUs (nothing is balanced there) and a real-time vCPU (it never
    yields).
    """
    return pin <= case.others.fixed - case.host.isolated and not case.spec.realtime


def _still_good(case: Case) -> dict[int, Cpus]:
    """Return the earlier CPUs of the domain's vCPUs that no other has now: one for each.

    A CPU to which a user has pinned another domain since stays in addition (:attr:`Case.taken`).
    """
    kept: dict[int, Cpus] = {}
    used = case.taken | case.free.kept
    before = case.previous.vcpupin if case.previous else {}
    for vcpu in sorted(case.to_pin, key=lambda vcpu: len(before.get(vcpu, NO_CPUS))):
        pin = before.get(vcpu, NO_CPUS)
        good = pin & case.allowed - used if len(pin) == 1 or pin <= case.seats else NO_CPUS
        if good:
            shared = good & case.others.fixed
            kept[vcpu] = shared.union(sorted(good - shared)[:1])
            used |= kept[vcpu]
    return kept


def _service_before(case: Case, seats: Cpus) -> Cpus:
    """Return the emulator's earlier CPUs, if no vCPU runs there now."""
    before = case.previous.emulatorpin if case.previous else NO_CPUS
    good = before <= case.allowed and not before & (seats | case.others.held)
    return before if good else NO_CPUS


def _where_it_was_first(case: Case, cells: Sequence[NumaCell], uplink: int | None) -> list[NumaCell]:
    """A domain whose uplink is not known for now stays on its node."""
    if case.previous is None or uplink is not None:
        return list(cells)
    return sorted(cells, key=lambda cell: not _stands(case, cell))


def _stands(case: Case, cell: NumaCell) -> Assignment | None:
    """Return its definition's earlier CPUs, if all are still free and on ``cell``."""
    previous = case.previous
    if previous is None or not case.to_pin or not previous.emulatorpin:
        return None
    kept = _still_good(case)
    seats = NO_CPUS.union(*kept.values())
    whole = not case.others.held & case.host.siblings(seats)
    apart = not seats & (case.others.service | case.others.workers_cpus | case.others.strangers)
    service = _service_before(case, seats)
    if len(kept) == len(case.to_pin) and whole and apart and seats <= cell.cpus and service:
        return Assignment(kept, service, "same CPUs as before")
    return None


def _too_few(case: Case, cell: NumaCell) -> str:
    free = len(cell.cpus & case.allowed - case.free.held)
    return f"{free} CPUs free, too few whole cores for {len(case.to_pin)} vCPUs"


def _settled(
    case: Case, cells: Sequence[NumaCell], found: Assignment, reasons: list[Reason]
) -> tuple[Choice, tuple[Reason, ...]]:
    seats = found.cpus
    used = [cell for cell in _nearest_first(case, cells) if cell.cpus & (seats or case.users_vcpus)]
    used = used or list(cells[:1])
    nodes = case.home or tuple(cell.id for cell in used)
    for vcpu, cpus in sorted(case.spec.vcpupin.items()):
        reasons.append(Reason(f"vcpu {vcpu}", cpuset.format(cpus), "your own vcpupin"))
    if found.vcpupin:
        pins = ",".join("+".join(map(str, sorted(cpus))) for _, cpus in sorted(found.vcpupin.items()))
        kind = "isolated CPUs" if seats <= case.host.isolated else "free CPUs"
        on = ",".join(str(cell.id) for cell in used)
        reasons.append(Reason("vcpus", f"{pins} on node {on}", f"{kind}, {found.note}"))
        reasons += _half_isolated(case, seats)
        if crowd := seats & case.others.fixed:
            why = "other domains' users have pinned vCPUs there since; 'libvirt-tuner status' names them"
            reasons.append(Reason("vcpus", f"CPU {cpuset.format(crowd)} is shared", why))
    emulator, why = _service(case, used, found)
    reasons.append(Reason("emulator and vhost", cpuset.format(emulator) or "not pinned", why))
    numatune, said = numa(case, used)
    wide = any(len(pin) > 1 for pin in found.vcpupin.values())
    choice = Choice("dedicated", nodes, found.vcpupin, emulator, numatune, unneeded=wide)
    return choice, (*reasons, *said)


def _half_isolated(case: Case, seats: Cpus) -> Iterator[Reason]:
    host = case.host
    if open_ := host.half_isolated & host.siblings(seats & host.isolated):
        yield Reason(
            "isolation",
            f"warning: CPUs {cpuset.format(host.half_isolated)} are not isolated",
            f"they are SMT siblings of isolated CPUs; tasks on CPUs {cpuset.format(open_)} slow these vCPUs"
            " down; 'libvirt-tuner host isolate' isolates whole cores",
        )


def _nearest_first(case: Case, cells: Sequence[NumaCell]) -> list[NumaCell]:
    rest = [cell for cell in case.host.cells if cell not in cells]
    return [*cells, *rest]


def _service(case: Case, used: Sequence[NumaCell], found: Assignment) -> tuple[Cpus, str]:
    """Return CPUs for the emulator and the vhost workers, and the reason."""
    if case.spec.emulatorpin:
        return case.spec.emulatorpin, "your own emulatorpin"
    if isinstance(case.demand.emulator, frozenset):
        return case.demand.emulator, "set in the policy"
    before = case.previous.emulatorpin if case.home and case.previous else NO_CPUS
    least = 1 if isinstance(case.demand.emulator, int) else min(2, worker_count(case.spec)) or 1
    # Domains that float and have room elsewhere are taken off these CPUs when this one is placed.
    leaves = case.others.leaves_room(case.pool, found.cpus | found.emulator)
    crowd = case.others.strangers if leaves else case.others.floats
    enough = len(found.emulator) >= least
    if enough and (found.emulator == before or not found.emulator & crowd):
        return found.emulator, "same node, no vCPU runs there"
    near = memory.by_distance(case.host, used[0].id)
    free = case.free._replace(workers=case.free.workers | crowd)
    cpus, cell = cores.service(case.host, near, free, found.cpus, least)
    if found.emulator and (cpus & crowd or len(cpus) < least):
        shared = found.emulator & crowd
        return found.emulator, f"same node, {'vCPUs float there' if shared else 'no vCPU runs there'}"
    if cell is None:
        return cpus, "every CPU of the host runs a vCPU; shares the domain's own CPUs"
    if cell.id != used[0].id:
        return cpus, f"every CPU of node {used[0].id} runs a vCPU; uses the nearest other CPUs"
    return cpus, f"no spare core on the node; shares CPUs {cpuset.format(cpus)} with the host"


def spare(case: Case, choice: Choice) -> dict[int, Cpus]:
    """Where vCPUs that may still be plugged in will run, so that libvirt pins them at once.

    On free CPUs of the domain's nodes, which are not reserved for them; else with the domain's others: where
    those float, or where its emulator runs.
    """
    vcpus = tuple(sorted(frozenset(range(case.spec.vcpus)).difference(case.vcpus, case.spec.vcpupin)))
    if not vcpus or not choice.vcpupin:
        return {}
    seats = NO_CPUS.union(*choice.vcpupin.values())
    if choice.placement == "dedicated":
        cells = [cell for node in choice.nodes if (cell := case.host.cell(node))]
        free = case.free._replace(held=case.free.held | case.others.service | seats | choice.emulator)
        before = {vcpu: case.previous.vcpupin.get(vcpu, NO_CPUS) for vcpu in vcpus} if case.previous else {}
        if before and all(len(pin) == 1 and pin <= case.allowed - free.held for pin in before.values()):
            return before
        if found := cores.single(case.host, cells, free, case.demand._replace(vcpus=vcpus)):
            return found.vcpupin
        seats = (choice.emulator & case.allowed) or seats
    seats = (seats - case.host.isolated) or seats
    if alone := sorted(seats & case.host.isolated):
        return {vcpu: frozenset({alone[vcpu % len(alone)]}) for vcpu in vcpus}
    return dict.fromkeys(vcpus, seats)


# Memory


def numa(case: Case, cells: Sequence[NumaCell]) -> tuple[Binding | None, tuple[Reason, ...]]:
    """Return the memory binding of a domain on ``cells``; None: not changed."""
    why = _memory_left(case, cells)
    near = case.memory_near(cells[0].id) if not why else None
    if near is None:
        return None, (Reason("memory", "not changed", why or "no node has memory"),)
    if bound := _bound_already(case):
        why = "the memory of a running domain is not moved"
        return bound, (Reason("memory", f"{bound.mode} on node {cpuset.format(bound.nodes)}", why),)
    binding, why = _binding(case, cells[0], near)
    if near.id != cells[0].id and not case.bars_memory(cells[0]):
        why += f"; node {cells[0].id} has no memory"
    return binding, (Reason("memory", f"{binding.mode} on node {near.id}", why),)


def _binding(case: Case, cell: NumaCell, near: NumaCell) -> tuple[Binding, str]:
    nodes = frozenset({near.id})
    if case.policy.numa_memory == "strict":
        return Binding("strict", nodes), "set in the policy"
    if case.policy.numa_memory == "preferred":
        return Binding("preferred", nodes), "set in the policy"
    if short := _short_of_memory(case, cell):
        return Binding("preferred", nodes), short
    if None in case.spec.memory_by_page:
        return Binding("preferred", nodes), "ordinary pages; other nodes are used when this one is full"
    return Binding("strict", nodes), "huge pages; the node has enough"


def _memory_left(case: Case, cells: Sequence[NumaCell]) -> str:
    """Return why this tool does not bind the memory, or ""."""
    if not case.plans_memory:
        own = case.spec.numatune
        asked = own.nodeset is not None or own.placement or own.memnodes
        return "your own numatune" if asked else "the policy says keep"
    if len(case.users_nodes) > 1:
        return f"your vcpupin spans nodes {cpuset.format(case.users_nodes)}"
    if len(cells) > 1:
        nodes = cpuset.format(cell.id for cell in cells)
        return f"the vCPUs use nodes {nodes}: each allocates memory near its CPU"
    return ""


def _bound_already(case: Case) -> Binding | None:
    """Return how we have bound a running domain's memory."""
    if not (case.running and case.previous) or case.policy.numa_memory != "auto":
        return None
    return case.previous.numatune.memory


def _short_of_memory(case: Case, cell: NumaCell) -> str:
    """Return why the domain's memory does not fit near ``cell``; "" if it fits or is not bound by us."""
    if not case.plans_memory or _bound_already(case):
        return ""
    near = case.memory_near(cell.id)
    if near is None:
        return "no node has memory"
    if case.bars_memory(cell):
        return f"the domain's cgroup allows no memory of node {cell.id}"
    for page, need in case.spec.memory_by_page.items():
        bound = memory.bound(case.reserved.memory, near.id, page)
        if not memory.fits(near, need, page, bound):
            return memory.shortage(near, need, page, bound)
    return ""


# A node for each guest cell


def _across(case: Case, cells: Sequence[NumaCell]) -> tuple[Choice, tuple[Reason, ...]] | None:
    """Place a guest with NUMA cells that is too large for one node: one host node per guest cell."""
    guest = case.spec.cells
    if len(guest) < 2 or case.users_vcpus or not case.plans_memory:
        return None
    pins: dict[int, Cpus] = {}
    memnodes: dict[int, Binding | None] = {}
    reasons: list[Reason] = []
    emulator = NO_CPUS
    left = list(cells)
    for part in guest:
        vcpus = tuple(vcpu for vcpu in case.to_pin if vcpu in part.vcpus)
        demand = case.demand._replace(vcpus=vcpus, emulator=emulator or case.demand.emulator)
        found = next(
            ((cell, made) for cell in left if (made := cores.assign(case.host, (cell,), case.free, demand))),
            None,
        )
        if found is None:
            return None
        cell, made = found
        left.remove(cell)
        pins |= made.vcpupin
        emulator = emulator or made.emulator
        memnodes[part.id] = binding = _cell_memory(case, cell, part)
        cpus = ",".join(cpuset.format(made.vcpupin[vcpu]) for vcpu in vcpus)
        mode = binding.mode if binding else "not changed"
        reasons.append(
            Reason(
                f"guest cell {part.id}",
                f"vCPUs {cpus} on node {cell.id}, memory {mode}",
                "too large for one node; one host node for each guest cell",
            )
        )
    used = [cell for cell in cells if cell not in left]
    seats = Assignment(pins, emulator)
    if not case.others.leaves_room(case.pool, seats.cpus) and not case.insists:
        return None
    emulator, why = _service(case, used, seats)
    reasons.append(Reason("emulator and vhost", cpuset.format(emulator), why))
    nodes = tuple(cell.id for cell in used)
    if None in memnodes.values():
        reasons.append(Reason("memory", "not changed", "a guest cell's memory does not fit on its node"))
        return Choice("dedicated", nodes, pins, emulator), tuple(reasons)
    bound = {number: each for number, each in memnodes.items() if each}
    whole = frozenset().union(*(each.nodes for each in bound.values()))
    all_of_it = Binding("strict", whole)
    if any(each.mode != "strict" for each in bound.values()):
        # libvirt before 9.3 takes a single node for "preferred". QEMU's own memory is all it is for.
        all_of_it = Binding("preferred", frozenset(nodes[:1]))
    return Choice("dedicated", nodes, pins, emulator, all_of_it, bound), tuple(reasons)


def _cell_memory(case: Case, cell: NumaCell, part: GuestCell) -> Binding | None:
    """Return the binding of a guest cell's memory; None if it does not fit."""
    near = case.memory_near(cell.id) or cell
    bound = memory.bound(case.reserved.memory, near.id, part.hugepage_kib)
    if not memory.fits(near, part.memory_kib, part.hugepage_kib, bound):
        return None
    mode = case.policy.numa_memory
    return Binding(
        "strict" if mode == "strict" or (mode == "auto" and part.hugepage_kib is not None) else "preferred",
        frozenset({near.id}),
    )
