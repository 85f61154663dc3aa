"""Decide where a domain goes: (host, domain, policy, neighbours) -> :class:`Plan`. Pure; never fails.

Each vCPU gets a CPU while there is one for every running vCPU. Otherwise CPUs are shared. If nothing is
better, the domain is not changed. Each decision has a reason. The same input gives the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.config.values import AtMost
from libvirt_tuner.domainxml.parts import VHOST_TYPES, VIRTIO_MODELS
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.planning import cores, driver, interrupts, memory, nodes
from libvirt_tuner.planning.case import Case, Choice, has_vhost, worker_count
from libvirt_tuner.planning.mtu import choose as choose_mtu
from libvirt_tuner.planning.mtu import host_side
from libvirt_tuner.planning.neighbours import Neighbour, Population
from libvirt_tuner.planning.plan import NOTHING, Held, IrqMove, LinkMtu, MtuChoice, Plan, Reason, Reserved
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, QueueMask
from libvirt_tuner.uplink import domain
from libvirt_tuner.uplink.path import Path, nic_of, trace

ASSUMED_LIBVIRT = (9, 0, 0)
"""The version of Debian 12, if nobody could ask libvirt."""

PINS = frozenset({"vcpupin", "emulatorpin", "iothreadpin", "numatune"})


class _Uplink(NamedTuple):
    """Where the packets leave: a path per vNIC index, the hardware in order of use, the node wanted."""

    paths: Mapping[int, Path]
    functions: tuple[str, ...]
    node: int | None


def plan(
    host: HostTopology,
    spec: DomainSpec,
    policy: Policy,
    neighbours: Iterable[Neighbour] = (),
    reserved: Reserved = NOTHING,
    *,
    previous: DomainSpec | None = None,
    running: bool = False,
    home: tuple[int, ...] = (),
    seats: Cpus = NO_CPUS,
    libvirt: tuple[int, ...] = ASSUMED_LIBVIRT,
) -> Plan:
    """Plan one domain.

    Args:
        host: The host as it is.
        spec: The domain as its user wrote it (:func:`libvirt_tuner.transforms.record.revert`). Its pins are
            kept.
        policy: The effective policy.
        neighbours: The other domains that run.
        reserved: CPUs and memory of definitions: used if nothing else is left. For a running domain, only the
            memory counts.
        previous: The current document, with earlier settings of this tool. They are kept if still usable.
        running: Whether the domain runs. It is then not moved to another node.
        home: The nodes on which it runs, if known.
        seats: CPUs of its own that it has since it was placed; none if it does not run.
        libvirt: Version; decides how an MTU can be set.
    """
    if not policy.select:
        return Plan(
            spec.name, spec.uuid, reasons=(Reason("domain", "not tuned", "the policy does not select it"),)
        )
    reasons: list[Reason] = []
    way = _uplink(host, spec, policy, reasons)
    settings, about_settings = driver.choose(spec, policy)
    spec = driver.with_queues(spec, settings, previous)
    known = tuple(neighbours)
    case = Case(
        host,
        spec,
        policy,
        Population(host, known),
        reserved,
        previous=previous,
        running=running,
        home=home,
        seats=seats,
    )
    choice, notes = nodes.choose(case if case.home else case.avoiding(known), way.node)
    if choice.placement != "dedicated" and reserved.all and not case.home:
        choice, notes = nodes.choose(case, way.node)
    reasons += [*notes, *about_settings]
    return evolve(_assemble(case, way, choice, libvirt, reasons), driver=settings)


def _assemble(
    case: Case, way: _Uplink, choice: Choice, libvirt: tuple[int, ...], reasons: list[Reason]
) -> Plan:
    spec, policy = case.spec, case.policy
    dedicated = choice.placement == "dedicated"
    pins = choice.vcpupin.values()
    pinned = NO_CPUS.union(*(pin for pin in pins if dedicated or case.others.single(pin)))
    emulator = choice.emulator or spec.emulatorpin
    polled = _polled(spec, policy, reasons)
    mtus = _mtus(case, way, libvirt, reasons)
    vhost = _vhost(case, choice, reasons) if dedicated else ()
    iothreads = _iothreads(case, choice.emulator, vhost)
    workers = case.others.workers_cpus | frozenset(vhost)
    moves, stays = _irqs(case, way, choice, pinned, emulator, workers, reasons)
    return Plan(
        domain=spec.name,
        uuid=spec.uuid,
        placement=choice.placement,
        nodes=choice.nodes,
        vcpupin={**choice.vcpupin, **nodes.spare(case, choice)},
        emulatorpin=None if spec.emulatorpin else choice.emulator or None,
        iothreadpin=iothreads,
        vhost=vhost,
        numatune=choice.numatune,
        memnodes=choice.memnodes,
        poll_us=policy.poll_us if polled else None,
        poll_vnics=polled,
        unknown=_unknown(case, way) | (PINS if choice.unneeded else frozenset()),
        mtus=mtus,
        link_mtus=_link_mtus(case, mtus),
        irqs=moves,
        irqs_kept=stays,
        masks=_masks(case, way, pinned, (*moves, *stays), reasons),
        holds=Held(
            pinned | case.users_held,
            _held_emulators(case, emulator, dedicated=dedicated),
            memory.bound_by(
                spec, choice.numatune or spec.numatune.memory, choice.memnodes or spec.numatune.memnodes
            ),
        ),
        vcpus={vcpu: spec.vcpupin.get(vcpu, choice.vcpupin.get(vcpu, NO_CPUS)) for vcpu in case.vcpus},
        reach=case.pool if choice.placement != "keep" else NO_CPUS,
        claimed=case.claims and dedicated,
        alone=pinned if policy.isolate == "cgroup" and dedicated else NO_CPUS,
        spared=case.host.siblings(pinned) if policy.irq == "steer" and dedicated else NO_CPUS,
        reasons=tuple(reasons),
    )


def _held_emulators(case: Case, emulator: Cpus, *, dedicated: bool) -> Cpus:
    """Return the emulator's CPUs that other domains' vCPUs avoid; none if the user lets it float."""
    if cores.floats(case.host, case.spec.emulatorpin):
        return NO_CPUS
    return emulator if dedicated else case.spec.emulatorpin


# Uplink


def devices(spec: DomainSpec, policy: Policy) -> tuple[str, ...]:
    """Return the host devices at which a plan for this domain starts."""
    return domain.devices(spec, policy.uplink or "")


def _uplink(host: HostTopology, spec: DomainSpec, policy: Policy, reasons: list[Reason]) -> _Uplink:
    found = domain.device_paths(spec, host, policy.uplink or "")
    for device in found:
        why = "found from the vNIC's device"
        if policy.uplink and not device.passed_through:
            why = f"the policy sets uplink = {policy.uplink}"
        decision = device.path.describe() if device.path.functions else "unknown"
        reasons.append(Reason(f"uplink of {device.subject}", decision, device.path.problem or why))
    paths = {device.vnic: device.path for device in found if device.vnic is not None}
    carrying = [device.path.functions for device in found if device.network]
    functions = tuple(dict.fromkeys(name for names in carrying for name in names))
    known = [device.node for device in domain.by_weight(found)]
    if policy.uplink:
        known.insert(0, trace(policy.uplink, host).node(host))
    node = next((each for each in known if each is not None), None)
    return _Uplink(paths, functions, node)


# Threads, rings, MTU


def _iothreads(case: Case, emulator: Cpus, vhost: tuple[int, ...]) -> dict[int, Cpus]:
    """On the emulator's CPUs; a CPU each where isolation has nothing balanced among them."""
    numbers = [number for number in case.spec.iothreads if number not in case.spec.iothreadpin]
    if not emulator or not emulator & case.host.isolated:
        return dict.fromkeys(numbers, emulator) if emulator else {}
    cpus = cores.workers(emulator, len(numbers), frozenset(vhost))
    return {number: frozenset({cpu}) for number, cpu in zip(numbers, cpus, strict=True)}


def _vhost(case: Case, choice: Choice, reasons: list[Reason]) -> tuple[int, ...]:
    """A CPU for each worker; none where the user's own emulatorpin is balanced."""
    count = worker_count(case.spec)
    if not count or (case.spec.emulatorpin and not case.spec.emulatorpin & case.host.isolated):
        return ()
    cpus = cores.workers(choice.emulator, count, case.others.workers)
    if count > 1 and len(set(cpus)) == 1:
        cpus = cores.workers(choice.emulator, count)
    if cpus:
        enough = (
            "one CPU per worker"
            if len(set(cpus)) == count
            else "workers share the emulator CPUs: fewer CPUs than workers"
        )
        reasons.append(Reason("vhost workers", ",".join(map(str, cpus)), enough))
    return cpus


def _polled(spec: DomainSpec, policy: Policy, reasons: list[Reason]) -> tuple[int, ...]:
    if policy.poll_us is None:
        return ()
    chosen = tuple(vnic.index for vnic in spec.vnics if has_vhost(spec, vnic))
    why = "set in the policy" if chosen else "no virtio NIC served by vhost-net"
    reasons.append(Reason("poll-us", str(policy.poll_us) if chosen else "not set", why))
    return chosen


def _unknown(case: Case, way: _Uplink) -> frozenset[str]:
    """Return what cannot be planned now, because the path of a vNIC is incomplete."""
    lost = any(path.problem for path in way.paths.values())
    found: set[str] = set()
    if lost and (case.policy.mtu in ("auto", "jumbo") or isinstance(case.policy.mtu, AtMost)):
        found |= {"mtu", "host_mtu"}
    if lost and not way.functions:
        found.add("irq")
    return frozenset(found)


def _mtus(case: Case, way: _Uplink, libvirt: tuple[int, ...], reasons: list[Reason]) -> tuple[MtuChoice, ...]:
    if case.policy.mtu == "keep":
        return ()
    chosen: list[MtuChoice] = []
    for vnic in case.spec.vnics:
        if vnic.model in VIRTIO_MODELS:
            choice, reason = choose_mtu(
                vnic, way.paths[vnic.index], case.host, case.policy.mtu, libvirt=libvirt
            )
            reasons.append(reason)
            chosen += [choice] if choice else []
    return tuple(chosen)


def _link_mtus(case: Case, mtus: tuple[MtuChoice, ...]) -> tuple[LinkMtu, ...]:
    """Return MTUs for devices of the host, for vNICs of the running domain that already have their MTU."""
    # Of other types libvirt does not make the device: a document can name anybody's.
    now = {vnic.index: vnic.mtu for vnic in (case.previous or case.spec).vnics if vnic.type in VHOST_TYPES}
    mtus = tuple(choice for choice in mtus if choice.index in now)
    held = [choice for choice in mtus if choice.how == "host_mtu" or now.get(choice.index) == choice.size]
    pairs = [pair for choice in held for pair in host_side(choice.target, choice.size, case.host)]
    return tuple(LinkMtu(device, size) for device, size in pairs) if case.running else ()


# Interrupts


def _irqs(
    case: Case,
    way: _Uplink,
    choice: Choice,
    pinned: Cpus,
    emulator: Cpus,
    workers: Cpus,
    reasons: list[Reason],
) -> tuple[tuple[IrqMove, ...], tuple[IrqMove, ...]]:
    """Return interrupts to move, and those that stay."""
    if case.policy.irq != "steer" or not way.functions:
        return (), ()
    vcpus = case.others.held | pinned | case.users_held
    used = case.others.service | case.others.floats | emulator
    host = case.host
    moves: list[IrqMove] = []
    stays: list[IrqMove] = []
    for name in way.functions:
        nic = nic_of(name, case.host)
        if nic is None:
            continue
        home = nic.node if nic.node is not None else next(iter(choice.nodes), None)
        queues = len(interrupts.queue_irqs(nic))
        cpus, why = interrupts.choose_cpus(host, home, vcpus, used, workers, interrupts.least_cpus(nic))
        fine = interrupts.staying(host, home, vcpus, workers | case.others.floats)
        wanted = interrupts.spread(nic, cpus, fine)
        moves += wanted
        stays += interrupts.kept(nic, cpus | fine, wanted)
        if queues:
            decision = (
                f"{queues} queue interrupts on CPUs {cpuset.format(cpus)}, {len(wanted)} to move"
                if cpus
                else "kept"
            )
            reasons.append(Reason(f"irq {name}", decision, why + interrupts.threads(nic)))
    return tuple(moves), tuple(stays)


def _masks(
    case: Case, way: _Uplink, pinned: Cpus, moves: Iterable[IrqMove], reasons: list[Reason]
) -> tuple[QueueMask, ...]:
    """RPS and XPS masks to write; without :attr:`HostTopology.queues` there are none, and nothing to say."""
    if not case.host.queues:
        return ()
    from libvirt_tuner.planning import queue_masks

    vcpus = case.others.held | pinned | case.users_held
    steer = case.policy.rps == "steer"
    found: list[QueueMask] = []
    for name in way.functions:
        masks = [mask for mask in case.host.queues if mask.nic == name]
        instead = NO_CPUS.union(*(move.cpus for move in moves if move.nic == name))
        wanted = queue_masks.without_vcpus(masks, vcpus, instead) if steer else ()
        reasons += queue_masks.reasons(name, masks, vcpus, wanted, steer=steer)
        found += wanted
    return tuple(found)
