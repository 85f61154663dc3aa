"""Host settings of a running domain: its claim, interrupts, MTUs and vhost workers.

The hook makes them when a domain starts. The daemon makes them again when the host has changed
(:mod:`libvirt_tuner.daemon.upkeep`). Both do the same: clean up after ended domains, plan with the domain's
earlier placement in the ledger, claim CPUs, change the host, restore what is no longer needed.

Import budget: only what the hook imports already. This file is on the hook's path.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from attrs import evolve

from libvirt_tuner.config.policy import CONFIG_FILE
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import HostError, MissingError, TunerError
from libvirt_tuner.host import log, probe, processes
from libvirt_tuner.host import sysfs as files
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes
from libvirt_tuner.hostside.ledger import DIRECTORY, Book, Claim, Ledger
from libvirt_tuner.hostside.libvirt_files import live_document, process_id, running
from libvirt_tuner.hostside.reverted import is_reverted
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.neighbours import Neighbour, disturbs, neighbour, noted, overlaps
from libvirt_tuner.planning.plan import IrqMove, Placement, Plan
from libvirt_tuner.planning.request import Request, plan_request
from libvirt_tuner.planning.request import read_request as _read_request
from libvirt_tuner.topology import NO_CPUS, HostTopology

if TYPE_CHECKING:
    pass

_GIVEN_BACK_EARLY = frozenset({"irq"})
"""Kinds of changes that may be undone while the domain runs. Not the MTU: a smaller MTU of a tap would lower
that of its bridge."""


class Given(NamedTuple):
    """The result of changing the host for a domain.

    Attributes:
        plan: The plan.
        outcomes: Results of its changes.
        returned: Results of undone changes, of ended domains and of this one.
        troubles: Other problems, one sentence each.
        moved: Whether its CPUs changed, so that libvirt must be told (:func:`leave_settle`).
        disturbs: Whether other domains must be planned again because this one runs.
    """

    plan: Plan
    outcomes: tuple[changes.Outcome, ...] = ()
    returned: tuple[changes.Outcome, ...] = ()
    troubles: tuple[str, ...] = ()
    moved: bool = False
    disturbs: bool = False

    @property
    def steers(self) -> bool:
        """Whether irqbalance must be told (:func:`tell_irqbalance`)."""
        return bool(self.plan.irqs or self.plan.irqs_kept or self.plan.spared or self.returned)


def read_request(sysfs: Sysfs, xml: bytes | str) -> Request:
    """:func:`libvirt_tuner.planning.request.read_request` with this host's config file."""
    return _read_request(xml, sysfs.read_or(CONFIG_FILE, "") or None)


def alive(sysfs: Sysfs, claim: Claim) -> bool:
    """Return whether the claim's process still runs. If the host cannot tell, it counts as running.

    An arriving domain has a process before the hook's `started`: reading a large image takes minutes.
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
    """Undo changes for domains that ended without a call of the hook."""
    return changes.give_back_stale(sysfs, book, lambda claim: alive(sysfs, claim), now=time.monotonic())


def sweep(sysfs: Sysfs) -> tuple[changes.Outcome, ...]:
    """Run :func:`tidy` if there is anything to undo."""
    book = Ledger(sysfs).read()
    if not book.unheld() and not book.stale(lambda claim: alive(sysfs, claim), now=time.monotonic()):
        return ()
    with Ledger(sysfs).locked() as book:
        return tidy(sysfs, book)


def give(sysfs: Sysfs, request: Request) -> Given:
    """Make a running domain's host changes, or the missing ones.

    Args:
        sysfs: The host.
        request: From its live document; its policy selects it.

    Raises:
        HostError: Cannot read the process id.
        LedgerError: Cannot read or write the ledger. Nothing was changed then.
    """
    pid = process_id(sysfs, request.spec.name, request.spec.uuid)
    host = _survey(sysfs, request)
    with Ledger(sysfs).locked() as book:
        # Read this only under the lock: another process may have undone changes of an ended domain before.
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
        shared = overlapping(book, claim.uuid)
    troubles = (*_workers(sysfs, pid, plan), *shared)
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


def note(sysfs: Sysfs, spec: DomainSpec) -> tuple[str, ...]:
    """Record a running domain that is not tuned, so that other domains avoid its CPUs.

    A domain that is already in the ledger keeps its entry.

    Returns:
        :func:`overlapping` if it is new there.

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
            return overlapping(book, spec.uuid)
    return ()


def note_strangers(sysfs: Sysfs) -> None:
    """Add running domains without a hook call to the ledger (:mod:`libvirt_tuner.hostside.strangers`).

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
    """Run :func:`give` for a running domain. For one that is not tuned, run :func:`note` and return None.

    Args:
        sysfs: The host.
        request: From its live document.
        started: It has just started. Otherwise a domain that ran before the installation is not tuned.
    """
    if leaves_alone(sysfs, request) or not (started or known(sysfs, request)):
        for shared in note(sysfs, request.spec):
            log.send(log.WARNING, f"{request.spec.name}: {shared}", event="problem", domain=request.spec.name)
        return None
    return give(sysfs, request)


def begin_again(sysfs: Sysfs, name: str, *, started: bool) -> Given | None:
    """Run :func:`begin` with libvirt's files of a running domain.

    Raises:
        MissingError: It does not run.
        TunerError: As :func:`give`.
    """
    return begin(sysfs, read_request(sysfs, live_document(sysfs, name)), started=started)


def let_go(sysfs: Sysfs, spec: DomainSpec) -> tuple[changes.Outcome, ...]:
    """Undo a running domain's changes, and record it as a domain that is not tuned.

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
    """Return whether a domain must not be tuned: because of the policy or a mistake in it, after ``revert``,
    or because another program places it."""
    if request.held_back or request.manager or not request.policy.select:
        return True
    return is_reverted(sysfs, request.spec.uuid)


def known(sysfs: Sysfs, request: Request) -> bool:
    """Return whether a running domain was started with this tool, according to its claim or its document.

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
    """Plan an arriving domain, and hold its CPUs until it runs."""
    host = _survey(sysfs, request)
    with Ledger(sysfs).locked() as book:
        returned = tidy(sysfs, book)
        plan = _plan(request, host, book, _given_before(book, request.spec.uuid), running=False)
        book.claim(_held(Claim(request.spec.uuid, request.spec.name), plan))
        book.save()
        return Given(plan, returned=returned)


def foresee(sysfs: Sysfs, request: Request) -> Plan:
    """Return the plan with which a domain would start now. Nothing is changed."""
    book = Ledger(sysfs).read()
    return _plan(
        request, _survey(sysfs, request), book, _given_before(book, request.spec.uuid), running=False
    )


def take_back(sysfs: Sysfs, name: str) -> tuple[changes.Outcome, ...]:
    """Undo a domain's changes. The claim is found by name, so a bad document does not matter."""
    if not sysfs.exists(DIRECTORY):
        return ()
    with Ledger(sysfs).locked() as book:
        uuids = [claim.uuid for claim in book.claims.values() if claim.name == name]
        return changes.give_back(sysfs, book, *uuids) + tidy(sysfs, book)


def give_all_again(sysfs: Sysfs) -> Iterator[tuple[str, Given | TunerError]]:
    """Run :func:`give` for every running domain. Does not need libvirt.

    A domain that ran before the installation, or that the policy does not select, is only recorded.

    Yields:
        The domain's name, and the result or error.
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
            yield name, given if claim else given._replace(moved=True)
        except MissingError:
            continue  # it has ended meanwhile
        except TunerError as error:
            yield name, error


# Parts of the above


def _given_before(book: Book, uuid: str) -> Placement | None:
    claim = book.claims.get(uuid)
    return stored.from_dict(claim.plan) if claim and claim.plan else None


def _survey(sysfs: Sysfs, request: Request) -> HostTopology:
    """Read the host without the lock: ``ovs-vsctl`` may need two seconds to report that nobody answers.

    Changes of another hook in the meantime are harmless: the plan uses the ledger for the CPUs of others, and
    each change reads the current value.
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
        # A claim of another version must not fail other domains. Its CPUs count as its own.
        pins = (frozenset({cpu}) for cpu in sorted(claim.vcpus))
        return Neighbour(fixed=tuple(pins), service=claim.emulators)


def recorded(sysfs: Sysfs, uuid: str) -> tuple[list[Neighbour], Placement | None]:
    """Return what other running domains hold, and this domain's earlier placement, from the ledger.

    Claims of ended domains are ignored.

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


def overlapping(book: Book, uuid: str) -> tuple[str, ...]:
    """Return with whom a running domain shares CPUs because of a user's pins, one sentence each."""
    own = book.claims.get(uuid)
    if own is None:
        return ()
    near = [claim for claim in book.claims.values() if claim.vcpus & own.vcpus]
    if near == [own]:
        return ()
    found: dict[str, Placement] = {}
    for claim in near:
        with suppress(TunerError):
            found[claim.uuid] = stored.from_dict(claim.plan)
    mine = found.pop(uuid, None)
    return tuple(overlaps(mine, found.values())) if mine else ()


def _placements(book: Book, uuid: str) -> Iterator[Placement]:
    """Return the readable placements of all domains except one."""
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
    """Return the changes: MTUs, masks, and interrupts, with any CPU for the card's as fallback."""
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
        return (f"vhost worker: {err}; it runs on the emulator's CPUs",)
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
    """Pin each vhost worker to its CPUs. libvirt has no setting for single workers.

    A worker that is a thread of QEMU (Linux 6.4 and later) keeps its CPUs when the emulator gets more.

    Raises:
        HostError: A worker may not run there.
    """
    try:
        for number, tid in enumerate(processes.threads(sysfs, pid).vhost):
            if cpus := placement.worker_cpus(number):
                changes.thread_affinity(tid, cpus)
    except MissingError:
        return  # the domain or the worker's NIC no longer exists


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
    """Start ``settle`` in its own session, with /dev/null as standard streams, and do not wait for it.

    libvirtd reads the hook's output until all processes have closed the descriptors.

    Args:
        root: Where /sys, /proc, /run and /etc are.
        uuid: The domain to settle; "" for none.
        others: Plan all running domains again.
        name: A domain that the hook could not serve. It is served first.
        started: It has just started (:func:`begin`).

    Raises:
        OSError: No process can be started.

    Returns:
        Its process id, for callers that wait for it.
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
