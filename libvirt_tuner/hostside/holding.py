"""What a running domain has on the host's side: its claim, interrupts, MTUs and vhost workers.

The hook gives it when a domain starts, and the daemon again when the host has changed under those that run
(:mod:`libvirt_tuner.daemon.upkeep`); both by the same way: tidy up after domains that are gone, plan with
what the ledger says the domain was given before, claim, change the host, give back what is no longer wanted.

Import budget: what the hook imports already. This file is on the hook's path.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from libvirt_tuner.config.policy import CONFIG_FILE
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import HostError, MissingError, TunerError
from libvirt_tuner.host import probe, processes
from libvirt_tuner.host import sysfs as files
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes
from libvirt_tuner.hostside.ledger import DIRECTORY, Book, Claim, Ledger
from libvirt_tuner.hostside.libvirt_files import live_document, process_id, running
from libvirt_tuner.hostside.reverted import is_reverted
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.neighbours import Neighbour, disturbs, neighbour, noted
from libvirt_tuner.planning.plan import IrqMove, Placement, Plan
from libvirt_tuner.planning.request import Request, plan_request
from libvirt_tuner.planning.request import read_request as _read_request
from libvirt_tuner.topology import NO_CPUS, HostTopology

if TYPE_CHECKING:
    pass

_GIVEN_BACK_EARLY = frozenset({"irq"})
"""Kinds a running domain may lose. Not the MTU: a tap set back would pull its bridge's down."""


@frozen(repr=False)
class Given:
    """What became of giving a domain its host side.

    Attributes:
        plan: By which.
        outcomes: Of the changes it needs.
        returned: Of what was given back: by domains that are gone, and by this one.
        troubles: What else went wrong, a sentence each.
        moved: Other CPUs than those it was given before; libvirt has to be told (:func:`leave_settle`).
        disturbs: Other domains have to be planned again, as this one runs now.
    """

    plan: Plan
    outcomes: tuple[changes.Outcome, ...] = ()
    returned: tuple[changes.Outcome, ...] = ()
    troubles: tuple[str, ...] = ()
    moved: bool = False
    disturbs: bool = False

    @property
    def steers(self) -> bool:
        """Whether irqbalance has to hear of it (:func:`tell_irqbalance`)."""
        return bool(self.plan.irqs or self.plan.irqs_kept or self.plan.spared or self.returned)


def read_request(sysfs: Sysfs, xml: bytes | str) -> Request:
    """:func:`libvirt_tuner.planning.request.read_request` with this host's config file."""
    return _read_request(xml, sysfs.read_or(CONFIG_FILE, "") or None)


def alive(sysfs: Sysfs, claim: Claim) -> bool:
    """Whether the claim's process is still there, and still that process; unless the host says no, it is.

    A domain on its way in has one before the hook hears of its start: a large image takes minutes to read.
    """
    try:
        if not claim.pid:
            return processes.process_start(sysfs, process_id(sysfs, claim.name, claim.uuid)) > 0
        return processes.process_start(sysfs, claim.pid) == claim.start_time
    except HostError as err:
        return not files.gone(err)
    except TunerError:
        return True


def tidy(sysfs: Sysfs, book: Book) -> tuple[changes.Outcome, ...]:
    """Give back what domains hold that ended without our being told."""
    return changes.give_back_stale(sysfs, book, lambda claim: alive(sysfs, claim), now=time.monotonic())


def sweep(sysfs: Sysfs) -> tuple[changes.Outcome, ...]:
    """:func:`tidy`, where there is anything to give back."""
    book = Ledger(sysfs).read()
    if not book.unheld() and not book.stale(lambda claim: alive(sysfs, claim), now=time.monotonic()):
        return ()
    with Ledger(sysfs).locked() as book:
        return tidy(sysfs, book)


def give(sysfs: Sysfs, request: Request) -> Given:
    """Give a running domain its host side, or the part of it that is missing.

    Args:
        sysfs: The host.
        request: From its live document; its policy selects it.

    Raises:
        HostError: Its process id is not to be had.
        LedgerError: The ledger is not; nothing was changed then.
    """
    pid = process_id(sysfs, request.spec.name, request.spec.uuid)
    host = _survey(sysfs, request)
    with Ledger(sysfs).locked() as book:
        # Not before: whoever had the lock may have taken back what a domain held that has ended.
        claim = Claim(request.spec.uuid, request.spec.name, pid, processes.process_start(sysfs, pid))
        returned = tidy(sysfs, book)
        before = _given_before(book, claim.uuid)
        plan = _plan(request, host, book, before, running=True)
        book.claim(_held(claim, plan))
        wanted = _changes(plan)
        outcomes = changes.perform_all(sysfs, book, claim.uuid, wanted)
        if "irq" not in plan.unknown:
            returned += changes.keep_only(sysfs, book, claim.uuid, wanted, kinds=_GIVEN_BACK_EARLY)
        disturbed = disturbs(plan, _placements(book, claim.uuid))
    troubles = _workers(sysfs, pid, plan)
    moved = before is not None and _pins(before) != _pins(plan)
    return Given(plan, outcomes, returned, troubles, moved, disturbed)


def adopt(sysfs: Sysfs, plan: Plan) -> Given:
    """Give a running domain the host side of a plan that its pins were just set by.

    Raises:
        HostError: Its process id cannot be read.
        LedgerError: The ledger cannot be read or written; nothing was changed then.
    """
    pid = process_id(sysfs, plan.domain, plan.uuid)
    with Ledger(sysfs).locked() as book:
        claim = Claim(plan.uuid, plan.domain, pid, processes.process_start(sysfs, pid))
        book.claim(_held(claim, plan))
        outcomes = changes.perform_all(sysfs, book, plan.uuid, _changes(plan))
    return Given(plan, outcomes, troubles=_workers(sysfs, pid, plan))


def memory_home(sysfs: Sysfs, name: str, uuid: str) -> tuple[int, ...]:
    """The node where most of a running domain's memory lies; none where it is spread, or cannot be read.

    The kernel walks all of its pages for it: seconds for a large domain. Never in the hook.
    """
    from libvirt_tuner.host.samples import pages_by_node

    try:
        found = pages_by_node(sysfs.read(f"/proc/{process_id(sysfs, name, uuid)}/numa_maps"))
    except HostError:
        return ()
    most = max(found, key=lambda node: (found[node], -node), default=None)
    return () if most is None or 3 * found[most] < 2 * sum(found.values()) else (most,)


def note(sysfs: Sysfs, spec: DomainSpec) -> None:
    """Note down a running domain that is left alone, so that others keep off its CPUs.

    One that is in the ledger already keeps what it has.

    Raises:
        HostError: Its process id cannot be read.
        LedgerError: The ledger cannot be read or written.
    """
    pid = process_id(sysfs, spec.name, spec.uuid)
    claim = Claim(spec.uuid, spec.name, pid, processes.process_start(sysfs, pid))
    with Ledger(sysfs).locked() as book:
        before = book.claims.get(spec.uuid)
        if before is None or (before.pid, before.start_time) != (pid, claim.start_time):
            changes.give_back(sysfs, book, spec.uuid)
            book.claim(_held(claim, noted(spec)))
            book.save()


def note_strangers(sysfs: Sysfs) -> None:
    """Note down the domains that no hook tells of (:mod:`libvirt_tuner.hostside.strangers`).

    Raises:
        LedgerError: The ledger cannot be read or written.
    """
    from libvirt_tuner.hostside.strangers import strangers

    found = [(claim, stored.to_dict(placement), placement) for claim, placement in strangers(sysfs)]
    if not found:
        return
    known = Ledger(sysfs).read().claims
    if all(claim.uuid in known and known[claim.uuid].plan == plan for claim, plan, _ in found):
        return
    with Ledger(sysfs).locked() as book:
        for claim, _, placement in found:
            if claim.uuid not in book.claims or book.claims[claim.uuid].name == claim.name:
                book.claim(_held(claim, placement))
        book.save()


def begin(sysfs: Sysfs, request: Request, *, started: bool) -> Given | None:
    """:func:`give` for a domain that runs; :func:`note` and None for one that is left alone.

    Args:
        sysfs: The host.
        request: From its live document.
        started: It has just started. Else one that ran before this tool came is left alone.
    """
    if leaves_alone(sysfs, request) or not (started or known(sysfs, request)):
        note(sysfs, request.spec)
        return None
    return give(sysfs, request)


def begin_again(sysfs: Sysfs, name: str, *, started: bool) -> Given | None:
    """:func:`begin` by the files that libvirt keeps of a running domain.

    Raises:
        MissingError: It does not run.
        TunerError: As :func:`give`.
    """
    return begin(sysfs, read_request(sysfs, live_document(sysfs, name)), started=started)


def let_go(sysfs: Sysfs, spec: DomainSpec) -> tuple[changes.Outcome, ...]:
    """Give back what a running domain holds; it is noted down as one that is left alone.

    Raises:
        LedgerError: The ledger cannot be read or written.
    """
    with Ledger(sysfs).locked() as book:
        claim = book.claims.get(spec.uuid)
        returned = changes.give_back(sysfs, book, spec.uuid)
        if claim is not None:
            book.claim(_held(claim, noted(spec)))
            book.save()
        return returned


def leaves_alone(sysfs: Sysfs, request: Request) -> bool:
    """Whether a domain is not to be tuned: by the policy, by a mistake in it, after ``revert``, or as another
    program places it."""
    if request.held_back or request.manager or not request.policy.select:
        return True
    return is_reverted(sysfs, request.spec.uuid)


def known(sysfs: Sysfs, request: Request) -> bool:
    """Whether a running domain was started under this tool: by its claim, or by what its document records.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    if request.spec.recorded:
        return True
    before = _given_before(Ledger(sysfs).read(), request.spec.uuid)
    return before is not None and before.tuned


def left_over(sysfs: Sysfs) -> tuple[bool, bool]:
    """What is to be done when a domain has ended.

    Returns:
        Whether domains that run share CPUs, and may get some of their own now; and whether the host's
        services are kept off CPUs (:mod:`libvirt_tuner.hostside.slices`).
    """
    if not sysfs.exists(DIRECTORY):
        return False, False
    book = Ledger(sysfs).read()
    return any(each.placement == "shared" for each in _placements(book, "")), bool(book.alone or book.slices)


def expect(sysfs: Sysfs, request: Request) -> Given:
    """Plan a domain that is on its way in, and hold its CPUs until it runs."""
    host = _survey(sysfs, request)
    with Ledger(sysfs).locked() as book:
        returned = tidy(sysfs, book)
        plan = _plan(request, host, book, _given_before(book, request.spec.uuid), running=False)
        book.claim(_held(Claim(request.spec.uuid, request.spec.name), plan))
        book.save()
        return Given(plan, returned=returned)


def foresee(sysfs: Sysfs, request: Request) -> Plan:
    """The plan a domain would start by, as things are; nothing is changed."""
    book = Ledger(sysfs).read()
    return _plan(
        request, _survey(sysfs, request), book, _given_before(book, request.spec.uuid), running=False
    )


def take_back(sysfs: Sysfs, name: str) -> tuple[changes.Outcome, ...]:
    """Give back what a domain held; its name leads to the claim, so that no document stands in the way."""
    if not sysfs.exists(DIRECTORY):
        return ()
    with Ledger(sysfs).locked() as book:
        uuids = [claim.uuid for claim in book.claims.values() if claim.name == name]
        return changes.give_back(sysfs, book, *uuids) + tidy(sysfs, book)


def give_all_again(sysfs: Sysfs) -> Iterator[tuple[str, Given | TunerError]]:
    """:func:`give` for every domain that runs; libvirt is not needed.

    One that ran before this tool came, or that the policy does not select, is noted down and left alone.

    Yields:
        The domain's name, and what became of it.
    """
    note_strangers(sysfs)
    claims = {claim.name: claim for claim in Ledger(sysfs).read().claims.values()}
    for name in running(sysfs):
        claim = claims.get(name)
        try:
            request = read_request(sysfs, live_document(sysfs, name, claim.uuid if claim else ""))
            if leaves_alone(sysfs, request) or not known(sysfs, request):
                if claim is None:
                    note(sysfs, request.spec)
                continue
            given = give(sysfs, request)
            place_timers(sysfs, process_id(sysfs, name), given.plan)
            yield name, given if claim else evolve(given, moved=True)
        except MissingError:
            continue  # it has ended meanwhile
        except TunerError as error:
            yield name, error


# Parts of the above


def _given_before(book: Book, uuid: str) -> Placement | None:
    claim = book.claims.get(uuid)
    return stored.from_dict(claim.plan) if claim and claim.plan else None


def _survey(sysfs: Sysfs, request: Request) -> HostTopology:
    """The host, read without the lock: ``ovs-vsctl`` may take two seconds to say that nobody answers.

    What another hook moves meanwhile does no harm: the plan goes by the ledger for the CPUs of others, and
    each change looks at what stands there.
    """
    steer = request.policy.rps == "steer"
    return probe.topology(sysfs, request.devices, queues=steer, partition=request.own.partition)


def _plan(
    request: Request, host: HostTopology, book: Book, before: Placement | None, *, running: bool
) -> Plan:
    return plan_request(
        request, lambda *_: host, others(book, request.spec.uuid), before=before, running=running
    )


def others(book: Book, uuid: str) -> list[Neighbour]:
    """The other domains that run."""
    return [_neighbour(claim) for claim in book.claims.values() if claim.uuid != uuid]


def _neighbour(claim: Claim) -> Neighbour:
    try:
        return neighbour(stored.from_dict(claim.plan))
    except TunerError:
        # Of another version of this program: no reason to fail another domain. Its CPUs are its own.
        pins = (frozenset({cpu}) for cpu in sorted(claim.vcpus))
        return Neighbour(fixed=tuple(pins), service=claim.emulators)


def recorded(sysfs: Sysfs, uuid: str) -> tuple[list[Neighbour], Placement | None]:
    """What the other domains that run hold, and what this one was given when it started; by the ledger.

    Claims of domains that have ended without the hook's knowledge are left out.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    if not sysfs.exists(DIRECTORY):
        return [], None
    book = Ledger(sysfs).read()
    for gone in book.stale(lambda claim: alive(sysfs, claim), now=time.monotonic()):
        del book.claims[gone.uuid]
    claim = book.claims.get(uuid)
    return others(book, uuid), _given_before(book, uuid) if claim and claim.pid else None


def _placements(book: Book, uuid: str) -> Iterator[Placement]:
    """Those of all domains but one, as far as they can be read."""
    for claim in book.claims.values():
        if claim.uuid != uuid:
            with suppress(TunerError):
                yield stored.from_dict(claim.plan)


def _held(claim: Claim, plan: Placement) -> Claim:
    return evolve(
        claim,
        vcpus=plan.holds.vcpus,
        emulators=plan.holds.emulators,
        quiet=plan.spared if isinstance(plan, Plan) else NO_CPUS,
        alone=plan.alone if isinstance(plan, Plan) else NO_CPUS,
        since=time.monotonic(),
        plan=stored.to_dict(plan),
    )


def _changes(plan: Plan) -> list[changes.Change]:
    """MTUs, masks, and interrupts: where a CPU has no vector left, any CPU its card's interrupts go to."""
    of: dict[str, frozenset[int]] = {}
    for move in (*plan.irqs, *plan.irqs_kept):
        of[move.nic] = of.get(move.nic, frozenset()) | move.cpus

    def steered(move: IrqMove) -> changes.Change:
        return changes.irq_affinity(move.irq, move.cpus, fallback=of[move.nic])

    mtus = [changes.mtu(link.device, link.size) for link in plan.link_mtus]
    masks = [changes.queue_mask(mask) for mask in plan.masks]
    return [*mtus, *map(steered, plan.irqs), *map(steered, plan.irqs_kept), *masks]


def _pins(plan: Placement) -> tuple[object, ...]:
    return dict(plan.vcpupin), plan.emulatorpin, dict(plan.iothreadpin)


def _workers(sysfs: Sysfs, pid: int, plan: Plan) -> tuple[str, ...]:
    try:
        place_workers(sysfs, pid, plan)
    except TunerError as err:
        return (f"vhost worker: {err}; it stays where the emulator may run",)
    return ()


def place_timers(sysfs: Sysfs, pid: int, placement: Placement) -> None:
    """KVM's timer thread belongs to the emulator; libvirt does not know of it, and it may run anywhere.

    Raises:
        HostError: It may not run there.
    """
    cpus = placement.emulatorpin or placement.holds.emulators
    if placement.placement != "dedicated" or not cpus:
        return
    with suppress(MissingError):  # the domain has ended
        for tid in processes.timers(sysfs, pid):
            changes.thread_affinity(tid, cpus)


def place_workers(sysfs: Sysfs, pid: int, placement: Placement) -> None:
    """Each vhost worker on its CPUs; libvirt has no setting for single ones.

    One that is a thread of QEMU (Linux 6.4 and later) keeps the few that it had when the emulator gets more.

    Raises:
        HostError: A worker may not run there.
    """
    try:
        for number, tid in enumerate(processes.threads(sysfs, pid).vhost):
            if cpus := placement.worker_cpus(number):
                changes.thread_affinity(tid, cpus)
    except MissingError:
        return  # the domain, or the NIC the worker was for, has gone


def tell_irqbalance(sysfs: Sysfs) -> tuple[str, ...]:
    """Tell irqbalance, where it runs, what to leave alone now; never with the ledger's lock held.

    Returns:
        What went wrong.
    """
    if not sysfs.listdir_or_empty("/run/irqbalance"):
        return ()
    book = Ledger(sysfs).read()
    if not (book.has_to_be_told or book.bans or book.spared):
        return ()
    from libvirt_tuner.hostside import irqbalance

    told = irqbalance.tell(sysfs, Ledger(sysfs))
    return tuple(it.problem for it in told if it.problem)


def leave_settle(
    root: str, uuid: str = "", *, others: bool = False, name: str = "", started: bool = False
) -> int:
    """Start ``settle`` in a session of its own, on /dev/null, unwaited for.

    libvirtd reads the hook's output until every holder of the descriptors has closed them.

    Args:
        root: Where /sys, /proc, /run and /etc are.
        uuid: The domain to settle; "" for none.
        others: Plan all domains that run again.
        name: A domain that the hook could not serve: that is done first.
        started: It has just started (:func:`begin`).

    Raises:
        OSError: No process can be started.

    Returns:
        Its process id, for whoever lives long enough to wait for it.
    """
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from libvirt_tuner.settle import main\n"
        f"main({uuid!r}, root={root!r}, others={others!r}, name={name!r}, started={started!r})"
    )
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-IS", "-c", code],
        dict(os.environ),
        file_actions=null,
        setsid=True,
    )
