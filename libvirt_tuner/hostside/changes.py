"""Changes of the host: noted in the ledger before, verified after, and undone when no domain needs them.

A :class:`Change` can describe itself for a dry run. The hook calls :func:`perform_all` and :func:`give_back`.
If the process is killed at any point, the next :func:`give_back` restores everything from the ledger.
``prior`` is the value without this tool. If another party (an administrator, a driver at link-up) writes
another value later, that value replaces it and is never undone.

Sources: Documentation/core-api/irq/irq-affinity.rst, Documentation/networking/scaling.rst,
Documentation/ABI/testing/sysfs-class-net, kernel/irq/proc.c.

Import budget: os, errno and our own. This file is on the hook's path.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from libvirt_tuner import cpuset
from libvirt_tuner.errors import (
    DeniedError,
    HostError,
    LedgerError,
    MissingError,
    RejectedError,
    UnsupportedError,
)
from libvirt_tuner.host import processes
from libvirt_tuner.host import sysfs as files
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import DIRECTORY, Book, Claim, Entry
from libvirt_tuner.topology import NO_CPUS, Cpus, QueueMask

ADMINISTRATOR = "administrator"
"""Holder of manual changes (``irqs --set``, ``diagnose --fix``) for no domain, until ``undo``."""


class Change(NamedTuple):
    """A new value for a file of the host.

    Attributes:
        kind: A key of :data:`KINDS`.
        target: Which one: an IRQ's number, a device's name, a queue's (``eth0/rx-0``), a kind of flow's
            (``eth0/udp4``), a thread and its start (``4711@90210``).
        wanted: The value, spelled as :attr:`Kind.canonical` spells it.
        fallback: Value that :func:`perform_all` tries if the CPUs of ``wanted`` have no vector left, or "".
    """

    kind: str
    target: str
    wanted: str
    fallback: str = ""

    def describe(self) -> str:
        """Return what it would do, in one line."""
        return f"{_where(self.kind, self.target)} = {self.wanted or 'none'}"


class Outcome(NamedTuple):
    """What became of a change.

    Attributes:
        change: Which.
        ok: False if the host does not have the wanted value; ``error`` says why.
        error: The kernel's error.
        note: A remark ("still goes to CPU 3 until the next interrupt").
        left: For a failed change: the current value, if it is not the earlier one; "" if it cannot be read.
            None if nothing changed.
    """

    change: Change
    ok: bool = True
    error: HostError | None = None
    note: str = ""
    left: str | None = None

    def __str__(self) -> str:
        said = str(self.error) if self.error else self.note
        return f"{self.change.describe()}: {said}" if said else self.change.describe()


class Kind(NamedTuple):
    """One sort of change.

    Attributes:
        path: From a target to the file.
        canonical: Converts any spelling to the canonical one.
        spelled: Converts the canonical spelling to that of the file; ValueError for a bad value.
        read, write: Functions to use instead of a file.
    """

    path: Callable[[str], str]
    canonical: Callable[[str], str]
    spelled: Callable[[str], str]
    read: Callable[[Sysfs, str], str] | None = None
    write: Callable[[Sysfs, str, str], None] | None = None


def _irq_path(target: str) -> str:
    return f"/proc/irq/{files.component(target)}/smp_affinity_list"


def _mtu_path(target: str) -> str:
    return f"/sys/class/net/{files.component(target)}/mtu"


def _queue_path(name: str) -> Callable[[str], str]:
    def path(target: str) -> str:
        device, _, queue = target.partition("/")
        return f"/sys/class/net/{files.component(device)}/queues/{files.component(queue)}/{name}"

    return path


def _cpulist(text: str) -> str:
    if not text:
        raise ValueError("no CPU")
    return cpuset.format(cpuset.parse(text))


def _mask_to_list(text: str) -> str:
    return cpuset.format(cpuset.parse_mask(text))


def _list_to_mask(text: str) -> str:
    return cpuset.format_mask(cpuset.parse(text))


def _bytes(text: str) -> str:
    return str(int(text))


def _thread_path(target: str) -> str:
    return f"/proc/{files.component(target.partition('@')[0])}/status"


def _thread_id(sysfs: Sysfs, target: str) -> int:
    """Return the thread's id; MissingError if it has ended, also if another thread has its id now."""
    tid, _, start = target.partition("@")
    if not tid.isdecimal() or str(processes.process_start(sysfs, int(tid))) != start:
        raise MissingError("the thread has ended", errno=errno.ESRCH, where=f"thread {tid}")
    return int(tid)


def _read_thread(sysfs: Sysfs, target: str) -> str:
    return cpuset.format(processes.affinity(sysfs, _thread_id(sysfs, target)))


def _write_thread(sysfs: Sysfs, target: str, value: str) -> None:
    tid = _thread_id(sysfs, target)
    if not sysfs.live:
        raise DeniedError("a captured host has no threads", errno=errno.EROFS, where=f"thread {tid}")
    thread_affinity(tid, cpuset.parse(value))


def _read_nice(sysfs: Sysfs, target: str) -> str:
    return str(os.getpriority(os.PRIO_PROCESS, _thread_id(sysfs, target)))


def _write_nice(sysfs: Sysfs, target: str, value: str) -> None:
    tid = _thread_id(sysfs, target)
    try:
        os.setpriority(os.PRIO_PROCESS, tid, int(value))
    except OSError as err:
        raise files.error(err, f"thread {tid}", writing=value) from None


def _hash_path(target: str) -> str:
    return f"ethtool rx-flow-hash {files.component(target.rpartition('/')[2])} of {target.rpartition('/')[0]}"


def _read_hash(sysfs: Sysfs, target: str) -> str:
    # Not on the hook's path: only a fix of diagnose changes it.
    from libvirt_tuner.host import commands, ethtool

    device, _, flow = target.rpartition("/")
    return ethtool.parse_flow_hash(commands.run(sysfs, ("ethtool", "-n", device, "rx-flow-hash", flow)))


def _write_hash(sysfs: Sysfs, target: str, value: str) -> None:
    from libvirt_tuner.host import commands

    device, _, flow = target.rpartition("/")
    commands.run(sysfs, ("ethtool", "-N", device, "rx-flow-hash", flow, value))


KINDS: Mapping[str, Kind] = {
    "irq": Kind(_irq_path, _cpulist, _cpulist),
    "mtu": Kind(_mtu_path, _bytes, _bytes),
    "thread": Kind(_thread_path, _cpulist, _cpulist, _read_thread, _write_thread),
    "rps": Kind(_queue_path("rps_cpus"), _mask_to_list, _list_to_mask),
    "xps": Kind(_queue_path("xps_cpus"), _mask_to_list, _list_to_mask),
    "nice": Kind(_thread_path, _bytes, _bytes, _read_nice, _write_nice),
    "flow-hash": Kind(_hash_path, str, str, _read_hash, _write_hash),
}
"""Everything this tool changes on a host, by name."""


def _where(kind: str, target: str) -> str:
    """Return the file's path for a message."""
    try:
        return KINDS[kind].path(target)
    except (KeyError, HostError):
        return f"{kind} {target}"


def irq_affinity(irq: int, cpus: Cpus, *, fallback: Cpus = NO_CPUS) -> Change:
    """Interrupt ``irq`` may go to ``cpus`` only (``smp_affinity_list``).

    Args:
        irq: As in ``/proc/irq/N``.
        cpus: At least one.
        fallback: A larger set for the case that the CPUs have no interrupt vector left (ENOSPC). The kernel
            chooses a CPU with a free vector (kernel/irq/matrix.c).
    """
    return Change("irq", str(irq), cpuset.format(cpus), cpuset.format(fallback))


def thread(tid: int, start: int, cpus: Cpus) -> Change:
    """Thread ``tid`` may run on ``cpus`` only; ``start`` (field 22 of its stat) tells it from a later one.

    It is noted in the ledger, unlike :func:`thread_affinity`. For threads that outlive the change or belong
    to no VM.
    """
    return Change("thread", f"{tid}@{start}", cpuset.format(cpus))


def nice(tid: int, start: int, value: int) -> Change:
    """The nice value of thread ``tid`` becomes ``value``; ``start`` as for :func:`thread`."""
    return Change("nice", f"{tid}@{start}", str(value))


def flow_hash(device: str, fields: str, flow: str = "udp4") -> Change:
    """The card chooses a queue by these fields of ``flow``, as ``ethtool -N`` spells them (``sdfn``)."""
    return Change("flow-hash", f"{device}/{flow}", fields)


def mtu(device: str, size: int) -> Change:
    """The MTU of ``device`` becomes ``size`` bytes."""
    return Change("mtu", device, str(size))


def rps(device: str, queue: int, cpus: Cpus) -> Change:
    """Receive packet steering of one queue goes to ``cpus``; none switches it off (``rps_cpus``)."""
    return Change("rps", f"{device}/rx-{queue}", cpuset.format(cpus))


def xps(device: str, queue: int, cpus: Cpus) -> Change:
    """``cpus`` transmit through this queue (``xps_cpus``)."""
    return Change("xps", f"{device}/tx-{queue}", cpuset.format(cpus))


def queue_mask(mask: QueueMask) -> Change:
    """:func:`rps` or :func:`xps`, by the queue's name."""
    kind = "rps" if mask.queue.startswith("rx-") else "xps"
    return Change(kind, f"{mask.nic}/{mask.queue}", cpuset.format(mask.cpus))


def current(sysfs: Sysfs, change: Change) -> str:
    """Return the current value in canonical spelling.

    Raises:
        MissingError: The interrupt, device or queue is gone.
        HostError: For other errors of the kernel.
    """
    return _current(sysfs, change.kind, change.target)


def _current(sysfs: Sysfs, kind: str, target: str) -> str:
    path, read = KINDS[kind].path(target), KINDS[kind].read
    text = read(sysfs, target) if read else sysfs.read(path)
    try:
        return KINDS[kind].canonical(text)
    except ValueError as err:
        raise HostError(f"cannot be read: {err}", where=path, value=text) from None


def _write(sysfs: Sysfs, kind: str, target: str, value: str) -> None:
    path = KINDS[kind].path(target)
    try:
        text = KINDS[kind].spelled(value)
    except ValueError as err:
        raise RejectedError(f"bad value: {err}", errno=errno.EINVAL, where=path, value=value) from None
    if write := KINDS[kind].write:
        write(sysfs, target, text)
    else:
        sysfs.write(path, text)


def perform(sysfs: Sysfs, change: Change) -> Outcome:
    """Write one change and verify it. If the kernel set another value, restore the earlier one. Not noted in
    the ledger.

    Returns:
        With ``error`` UnsupportedError for a managed interrupt; RejectedError with ``errno`` ENOSPC where the
        CPUs have no vector left, EINVAL where none of them is online or the size does not fit; MissingError;
        DeniedError.
    """
    try:
        before = current(sysfs, change)
    except HostError as err:
        return Outcome(change, ok=False, error=err)
    try:
        if before != change.wanted:
            _write(sysfs, change.kind, change.target, change.wanted)
            _verify(sysfs, change, before)
    except HostError as err:
        return Outcome(change, ok=False, error=err, left=_left(sysfs, change, before))
    return Outcome(change, note=_pending(sysfs, change))


def _left(sysfs: Sysfs, change: Change, before: str) -> str | None:
    """Return :attr:`Outcome.left` after an error of a write or of its verification."""
    try:
        found = current(sysfs, change)
    except HostError as err:
        return None if files.gone(err) else ""
    return None if found == before else found


def _verify(sysfs: Sysfs, change: Change, before: str) -> None:
    found = current(sysfs, change)
    if found == change.wanted:
        return
    _write(sysfs, change.kind, change.target, before)
    raise RejectedError(
        "the kernel set another value; the earlier one was restored",
        where=KINDS[change.kind].path(change.target),
        value=found,
        expected=change.wanted,
    )


def _pending(sysfs: Sysfs, change: Change) -> str:
    """Return where an interrupt goes, if that is outside its affinity.

    This is not an error: without interrupt remapping, the kernel moves an interrupt when it fires next
    (kernel/irq/migration.c). An unused interrupt has no effective affinity.
    """
    if change.kind != "irq":
        return ""
    try:
        text = sysfs.read_or(f"/proc/irq/{change.target}/effective_affinity_list", "")
        elsewhere = not cpuset.parse(text) <= cpuset.parse(change.wanted)
    except (ValueError, HostError) as err:
        return f"effective affinity unknown: {err}"
    return f"still goes to CPU {text} until the next interrupt" if elsewhere else ""


def perform_all(sysfs: Sysfs, book: Book, uuid: str, changes: Iterable[Change]) -> tuple[Outcome, ...]:
    """Make the changes for one domain: note all in the ledger with one save, write each, update the ledger.

    If another domain made the same change, both hold it. If they want different values, the later one is
    used, also within ``changes``. A change that the kernel refuses does not alter the ledger.

    Raises:
        LedgerError: The domain has no claim in the book, or the ledger could not be written. Nothing was
            changed then.
    """
    if uuid != ADMINISTRATOR and uuid not in book.claims:
        raise LedgerError("a domain changes the host only under a claim", where=DIRECTORY, value=uuid)
    before = dict(book.changes)
    entries, outcomes = _entries(sysfs, book, uuid, changes)
    book.journal(*entries.values())
    journalled = dict(book.changes)
    crowded: list[Change] = []
    for change in entries:
        outcome = perform(sysfs, change)
        _settle(book, before, outcome)
        if change.fallback and outcome.error is not None and outcome.error.errno == errno.ENOSPC:
            crowded.append(change._replace(wanted=change.fallback, fallback=""))
        else:
            outcomes.append(outcome)
    if book.changes != journalled:
        book.save()
    if crowded:
        outcomes += perform_all(sysfs, book, uuid, crowded)
    return tuple(outcomes)


def _entries(
    sysfs: Sysfs, book: Book, uuid: str, changes: Iterable[Change]
) -> tuple[dict[Change, Entry], list[Outcome]]:
    """Return a ledger entry for each change that can be tried, and the outcome of the others."""
    entries: dict[Change, Entry] = {}
    failed: list[Outcome] = []
    # Only one change per file: between two changes, the file would have a value that the ledger does not
    # know.
    for change in {(change.kind, change.target): change for change in changes}.values():
        try:
            entries[change] = _entry(sysfs, book, uuid, change)
        except HostError as err:
            failed.append(Outcome(change, ok=False, error=err))
    return entries, failed


def _entry(sysfs: Sysfs, book: Book, uuid: str, change: Change) -> Entry:
    found = current(sysfs, change)
    identity = _identity(sysfs, change.kind, change.target)
    old = book.changes.get((change.kind, change.target))
    if old is None or old.identity != identity:
        return Entry(change.kind, change.target, found, change.wanted, (uuid,), identity=identity)
    ours = found == old.wanted or found in old.earlier
    return old._replace(
        prior=old.prior if ours else found,
        wanted=change.wanted,
        holders=old.holders if uuid in old.holders else (*old.holders, uuid),
        earlier=(found,) if ours and found != change.wanted else (),
    )


def _identity(sysfs: Sysfs, kind: str, target: str) -> str:
    """Return the ifindex. It distinguishes a network device from a later one with the same name."""
    if kind in ("irq", "thread", "nice"):
        return ""
    try:
        return sysfs.read(f"/sys/class/net/{target.partition('/')[0]}/ifindex")
    except MissingError as err:
        if files.gone(err):
            return ""
        raise


def _settle(book: Book, before: Mapping[tuple[str, str], Entry], outcome: Outcome) -> None:
    """Update the ledger with the result of a change."""
    key = outcome.change.kind, outcome.change.target
    if outcome.ok:
        book.changes[key] = book.changes[key]._replace(earlier=())
    elif outcome.left is not None:
        # The value is not the earlier one, so the prior value is still needed, and the current value is ours.
        entry = book.changes[key]
        left = () if outcome.left in ("", entry.wanted, *entry.earlier) else (outcome.left,)
        book.changes[key] = entry._replace(earlier=(*entry.earlier, *left))
    elif key in before:
        book.changes[key] = before[key]
    else:
        book.forget(book.changes[key])


def keep_only(
    sysfs: Sysfs, book: Book, uuid: str, changes: Iterable[Change], *, kinds: Iterable[str]
) -> tuple[Outcome, ...]:
    """Release a domain's changes of ``kinds`` except ``changes``, and restore what no domain holds any more.

    For a running domain whose plan has changed. Call it after :func:`perform_all`, so that an interrupt that
    is in both plans is not restored in between.

    Raises:
        LedgerError: As :func:`give_back`.
    """
    wanted = {(change.kind, change.target) for change in changes}
    dropped = [
        entry
        for entry in book.changes.values()
        if entry.kind in kinds and uuid in entry.holders and entry.key not in wanted
    ]
    for entry in dropped:
        rest = tuple(holder for holder in entry.holders if holder != uuid)
        book.changes[entry.key] = entry._replace(holders=rest)
    if dropped:
        book.save()
    return give_back(sysfs, book)


def give_back(sysfs: Sysfs, book: Book, *uuids: str) -> tuple[Outcome, ...]:
    """Release domains, and restore all changes that no domain holds any more, including those of earlier
    domains.

    A change that cannot be restored now (no vector, CPUs offline, an unreadable file) stays in the ledger
    without a holder. The next call tries again.

    Returns:
        One outcome per change: restored, changed by another program, or failed.

    Raises:
        LedgerError: The ledger could not be written. Nothing was restored then.
    """
    known = any(uuid in book.claims for uuid in uuids)
    for uuid in dict.fromkeys(uuids):
        book.release(uuid)
    entries = book.unheld()
    if not known and not entries:
        return ()
    book.save()
    outcomes = []
    for entry in entries:
        outcome = restore(sysfs, entry)
        if outcome.ok:
            book.forget(entry)
        elif outcome.left:
            book.changes[entry.key] = entry._replace(earlier=(*entry.earlier, outcome.left))
        outcomes.append(outcome)
    if entries:
        book.save()
    return tuple(outcomes)


def give_back_stale(
    sysfs: Sysfs, book: Book, alive: Callable[[Claim], bool], *, now: float
) -> tuple[Outcome, ...]:
    """Run :func:`give_back` for ended domains (:meth:`libvirt_tuner.hostside.ledger.Book.stale`)."""
    return give_back(sysfs, book, *(claim.uuid for claim in book.stale(alive, now=now)))


def give_back_all(sysfs: Sysfs, book: Book) -> tuple[Outcome, ...]:
    """Run :func:`give_back` for every domain: restores the host completely."""
    holders = {uuid for entry in book.changes.values() for uuid in entry.holders}
    return give_back(sysfs, book, *sorted(holders | set(book.claims)))


def restore(sysfs: Sysfs, entry: Entry) -> Outcome:
    """Restore the prior value if ours is still there. A value that another program wrote stays, with a note.

    A missing object needs nothing: ``ok``.
    """
    change = Change(entry.kind, entry.target, entry.prior)
    if entry.kind not in KINDS:
        return Outcome(change, ok=False, error=UnsupportedError("unknown kind of change", value=entry.kind))
    try:
        if _identity(sysfs, entry.kind, entry.target) != entry.identity:
            return Outcome(change, note="gone")
        found = current(sysfs, change)
        if found == entry.prior:
            return Outcome(change)
        if found != entry.wanted and found not in entry.earlier:
            return Outcome(change, note=f"not undone: another program wrote {found or 'none'}")
        outcome = perform(sysfs, change)
    except HostError as err:
        outcome = Outcome(change, ok=False, error=err)
    if outcome.error is not None and outcome.left is None and files.gone(outcome.error):
        return Outcome(change, note="gone")
    return outcome


def thread_affinity(tid: int, cpus: Cpus) -> Cpus:
    """Let one thread run on ``cpus`` only (``sched_setaffinity(2)``).

    Not noted in the ledger, because it ends with the domain.

    Returns:
        CPUs on which it may run now: ``cpus`` within the thread's cpuset.

    Raises:
        MissingError: No such thread.
        RejectedError: None of the CPUs is online and in the thread's cpuset, or the kernel binds the thread.
        DeniedError: Not root's or one's own thread.
    """
    where = f"thread {tid}"
    try:
        os.sched_setaffinity(tid, cpus)
        return frozenset(os.sched_getaffinity(tid))
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise files.error(err, where, writing=cpuset.format(cpus)) from None
    raise RejectedError(
        "the kernel rejects these CPUs",
        errno=errno.EINVAL,
        where=where,
        value=cpuset.format(cpus),
        expected="an online CPU in the thread's cpuset",
    )
