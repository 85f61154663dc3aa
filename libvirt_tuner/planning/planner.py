"""Decide where a domain goes: (host, domain, policy, CPUs of others) -> :class:`Plan`. Pure; never fails.

Dedicated CPUs where they can be had, shared ones else, and the domain left as it is when there is nothing
better; each decision with its reason. The same input gives the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.planning import cores, interrupts, queue_masks
from libvirt_tuner.planning.mtu import choose as choose_mtu
from libvirt_tuner.planning.mtu import host_side
from libvirt_tuner.planning.nodes import VIRTIO, Case, Places, has_vhost, site, worker_count
from libvirt_tuner.planning.plan import NOBODY, IrqMove, LinkMtu, MtuChoice, Plan, Reason, Taken
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, QueueMask
from libvirt_tuner.uplink import domain
from libvirt_tuner.uplink.path import Path, nic_of

ASSUMED_LIBVIRT = (9, 0, 0)
"""Where nobody could ask: the version of Debian 12."""


@frozen(repr=False)
class _Uplink:
    """Where the packets leave: a path per vNIC index, the hardware in order of use, the node wanted."""

    paths: Mapping[int, Path]
    functions: tuple[str, ...]
    node: int | None


def plan(
    host: HostTopology,
    spec: DomainSpec,
    policy: Policy,
    taken: Taken,
    avoid: Taken = NOBODY,
    *,
    previous: DomainSpec | None = None,
    running: bool = False,
    libvirt: tuple[int, ...] = ASSUMED_LIBVIRT,
) -> Plan:
    """Plan one domain.

    Args:
        host: The host as it is.
        spec: The domain as its user wrote it (:func:`libvirt_tuner.transforms.record.revert`): every pin is
            law.
        policy: The effective policy.
        taken: CPUs of other running domains.
        avoid: CPUs that defined but inactive domains would like: used when nothing else is left; and the
            memory that all other definitions bind.
        previous: The domain as it stands, with what this tool wrote before: kept where it is still good.
        running: The domain runs already; it is not moved to another node then.
        libvirt: Version; what can carry an MTU into the guest depends on it.
    """
    if not policy.select:
        return Plan(
            spec.name, spec.uuid, reasons=(Reason("domain", "left alone", "the policy does not select it"),)
        )
    reasons: list[Reason] = []
    way = _uplink(host, spec, policy, reasons)
    # Of the definitions only: a domain that runs is among them, and its memory must not count twice.
    taken = evolve(taken, memory=avoid.memory)
    both = evolve(
        taken, vcpus=taken.vcpus | avoid.vcpus | taken.floats, emulators=taken.emulators | avoid.emulators
    )
    case = Case(host, spec, policy, taken, previous, running)
    places, notes = site(evolve(case, taken=both), way.node)
    if places.placement != "dedicated" and (avoid.all or taken.floats):
        places, notes = site(case, way.node)
    reasons += notes
    return _assemble(case, way, places, libvirt, reasons)


def _assemble(
    case: Case, way: _Uplink, places: Places, libvirt: tuple[int, ...], reasons: list[Reason]
) -> Plan:
    spec, policy = case.spec, case.policy
    dedicated = places.placement == "dedicated"
    pinned = frozenset().union(*places.vcpupin.values()) if dedicated else NO_CPUS
    emulator = places.emulator or spec.emulatorpin
    rings = _rings(spec, policy, reasons)
    polled = _polled(spec, policy, reasons)
    mtus = _mtus(case, way, libvirt, reasons)
    vhost = _vhost(spec, places, reasons) if dedicated else ()
    moves, stays = _irqs(case, way, places, pinned, emulator, reasons)
    return Plan(
        domain=spec.name,
        uuid=spec.uuid,
        placement=places.placement,
        nodes=places.nodes,
        vcpupin=places.vcpupin,
        emulatorpin=None if spec.emulatorpin else places.emulator or None,
        iothreadpin=_iothreads(spec, places.emulator),
        vhost=vhost,
        numatune=places.numatune,
        memnodes=places.memnodes,
        rx_queue_size=policy.rx_queue_size if rings else None,
        ring_vnics=rings,
        poll_us=policy.poll_us if polled else None,
        poll_vnics=polled,
        unknown=_unknown(case, way),
        mtus=mtus,
        link_mtus=_link_mtus(case, mtus),
        irqs=moves,
        irqs_kept=stays,
        masks=_masks(case, way, pinned, (*moves, *stays), reasons),
        holds=Taken(pinned | case.users_held, _held_emulators(case, emulator, dedicated=dedicated)),
        reasons=tuple(reasons),
    )


def _held_emulators(case: Case, emulator: Cpus, *, dedicated: bool) -> Cpus:
    """The emulator's CPUs that no vCPU of another domain goes on: none where the user lets it float."""
    if cores.floats(case.host, case.spec.emulatorpin):
        return NO_CPUS
    return emulator if dedicated else case.spec.emulatorpin


# Uplink


def devices(spec: DomainSpec, policy: Policy) -> tuple[str, ...]:
    """Host devices a plan for this domain starts from."""
    return domain.devices(spec, policy.uplink or "")


def _uplink(host: HostTopology, spec: DomainSpec, policy: Policy, reasons: list[Reason]) -> _Uplink:
    found = domain.device_paths(spec, host, policy.uplink or "")
    for device in found:
        why = "followed down from it"
        if policy.uplink and not device.passed_through:
            why = f"down to {policy.uplink}, the policy's uplink"
        decision = device.path.describe() if device.path.functions else "not known"
        reasons.append(Reason(f"uplink of {device.subject}", decision, device.path.problem or why))
    paths = {device.vnic: device.path for device in found if device.vnic is not None}
    carrying = [device.path.functions for device in found if device.network]
    functions = tuple(dict.fromkeys(name for names in carrying for name in names))
    node = next((device.node for device in domain.by_weight(found) if device.node is not None), None)
    return _Uplink(paths, functions, node)


# Threads, rings, MTU


def _iothreads(spec: DomainSpec, emulator: Cpus) -> dict[int, Cpus]:
    if not emulator:
        return {}
    return {number: emulator for number in spec.iothreads if number not in spec.iothreadpin}


def _vhost(spec: DomainSpec, places: Places, reasons: list[Reason]) -> tuple[int, ...]:
    count = worker_count(spec)
    if spec.emulatorpin or not count:
        return ()
    cpus = cores.workers(places.emulator, count)
    if cpus:
        enough = "a CPU each" if len(set(cpus)) == count else "round the emulator's CPUs: fewer than workers"
        reasons.append(Reason("vhost workers", ",".join(map(str, cpus)), enough))
    return cpus


def _rings(spec: DomainSpec, policy: Policy, reasons: list[Reason]) -> tuple[int, ...]:
    if policy.rx_queue_size is None:
        return ()
    able = [vnic for vnic in spec.vnics if vnic.model in VIRTIO and vnic.type not in ("hostdev", "vdpa")]
    chosen = tuple(vnic.index for vnic in able if vnic.rx_queue_size is None)
    if chosen:
        reasons.append(
            Reason("rx_queue_size", str(policy.rx_queue_size), "absorbs bursts; no throughput by itself")
        )
    for vnic in able:
        if vnic.rx_queue_size is not None:
            reasons.append(Reason(f"rx_queue_size of vNIC {vnic.index}", str(vnic.rx_queue_size), "your own"))
    return chosen


def _polled(spec: DomainSpec, policy: Policy, reasons: list[Reason]) -> tuple[int, ...]:
    if policy.poll_us is None:
        return ()
    chosen = tuple(vnic.index for vnic in spec.vnics if has_vhost(spec, vnic))
    why = "as the policy says" if chosen else "no virtio NIC served by vhost-net"
    reasons.append(Reason("poll-us", str(policy.poll_us) if chosen else "not set", why))
    return chosen


def _unknown(case: Case, way: _Uplink) -> frozenset[str]:
    """What cannot be judged now: the way down of a vNIC is not whole, and may have been before."""
    lost = any(path.problem for path in way.paths.values())
    found: set[str] = set()
    if lost and case.policy.mtu in ("auto", "jumbo"):
        found |= {"mtu", "host_mtu"}
    if lost and not way.functions:
        found.add("irq")
    return frozenset(found)


def _mtus(case: Case, way: _Uplink, libvirt: tuple[int, ...], reasons: list[Reason]) -> tuple[MtuChoice, ...]:
    if case.policy.mtu == "keep":
        return ()
    chosen: list[MtuChoice] = []
    for vnic in case.spec.vnics:
        if vnic.model in VIRTIO:
            choice, reason = choose_mtu(
                vnic, way.paths[vnic.index], case.host, case.policy.mtu, libvirt=libvirt
            )
            reasons.append(reason)
            chosen += [choice] if choice else []
    return tuple(chosen)


def _link_mtus(case: Case, mtus: tuple[MtuChoice, ...]) -> tuple[LinkMtu, ...]:
    """What the host's side needs where the running domain has its MTU already; the rest waits for a boot."""
    now = {vnic.index: vnic.mtu for vnic in (case.previous or case.spec).vnics}
    held = [choice for choice in mtus if choice.how == "host_mtu" or now.get(choice.index) == choice.size]
    pairs = [pair for choice in held for pair in host_side(choice.target, choice.size, case.host)]
    return tuple(LinkMtu(device, size) for device, size in pairs) if case.running else ()


# Interrupts


def _irqs(
    case: Case, way: _Uplink, places: Places, pinned: Cpus, emulator: Cpus, reasons: list[Reason]
) -> tuple[tuple[IrqMove, ...], tuple[IrqMove, ...]]:
    """Interrupts to move, and those that stay where they are."""
    if case.policy.irq != "steer" or not way.functions:
        return (), ()
    vcpus = case.taken.vcpus | pinned | case.users_held
    floats = places.emulator if places.placement == "shared" else NO_CPUS
    held = case.taken.emulators | case.taken.floats | emulator | floats
    host = case.host
    moves: list[IrqMove] = []
    stays: list[IrqMove] = []
    for name in way.functions:
        nic = nic_of(name, case.host)
        if nic is None:
            continue
        home = nic.node if nic.node is not None else next(iter(places.nodes), None)
        cpus, why = interrupts.choose_cpus(host, home, vcpus, held)
        queues = len(interrupts.queue_irqs(nic))
        wanted = interrupts.spread(nic, cpus)
        moves += wanted
        stays += interrupts.kept(nic, cpus, wanted)
        if queues:
            decision = (
                f"{queues} queue interrupts on {cpuset.format(cpus)}, {len(wanted)} to move"
                if cpus
                else "kept"
            )
            reasons.append(Reason(f"irq {name}", decision, why))
    return tuple(moves), tuple(stays)


def _masks(
    case: Case, way: _Uplink, pinned: Cpus, moves: Iterable[IrqMove], reasons: list[Reason]
) -> tuple[QueueMask, ...]:
    """RPS and XPS masks to write; without :attr:`HostTopology.queues` there are none, and nothing to say."""
    vcpus = case.taken.vcpus | pinned | case.users_held
    steer = case.policy.rps == "steer"
    found: list[QueueMask] = []
    for name in way.functions if case.host.queues else ():
        masks = [mask for mask in case.host.queues if mask.nic == name]
        instead = NO_CPUS.union(*(move.cpus for move in moves if move.nic == name))
        wanted = queue_masks.mended(masks, vcpus, instead) if steer else ()
        reasons += queue_masks.reasons(name, masks, vcpus, wanted, steer=steer)
        found += wanted
    return tuple(found)
