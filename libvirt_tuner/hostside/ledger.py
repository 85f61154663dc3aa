"""The ledger in /run/libvirt-tuner: which domain holds which CPUs, and the earlier values of changed host
settings.

It is one JSON document, replaced as a whole by ``rename(2)`` under a lock. So a reader sees the old or the
new state, and a killed process leaves the last saved one. /run is a tmpfs: it is lost at a reboot like the
kernel's settings, and needs no fsync. Only :mod:`libvirt_tuner.hostside.changes` changes the host.

It is the only record of the earlier values. So there is a copy, a checksum, and one line per record, from
which :mod:`libvirt_tuner.hostside.salvage` recovers a damaged ledger. A file that cannot be opened or read is
not damaged: that is an error, and the ledger is not changed.

Import budget: os, fcntl, time; json only when a document is read or written. This file is on the hook's path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from attrs import field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError, HostError, LedgerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import NO_CPUS, Cpus

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

DIRECTORY = "/run/libvirt-tuner"
VERSION = 1
LOCK_TIMEOUT = 5.0
PROVISIONAL_SECONDS = 600.0
"""How long a claim without a process (an arriving domain) is kept: libvirt may need this long to start QEMU
if huge pages must be cleared. Then the process counts."""

FILE = "ledger.json"
COPY = "ledger.json.copy"
DAMAGED = "ledger.json.damaged"
_DAMAGED_KEPT = 10
_SIZE_LIMIT = 16 * 1024 * 1024
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.010


@frozen(repr=False)
class Claim:
    """One running domain and the CPUs it holds.

    Attributes:
        uuid, name: The domain's.
        pid, start_time: QEMU's process and field 22 of ``/proc/PID/stat`` in clock ticks, which tells it
            from a later process of the same id; pid 0 while there is no process yet (migrate, restore).
        vcpus, emulators: As in :class:`libvirt_tuner.planning.plan.Held`.
        quiet: As :attr:`libvirt_tuner.planning.plan.Plan.spared`.
        alone: As :attr:`libvirt_tuner.planning.plan.Plan.alone`.
        since: ``time.monotonic()`` of the claim, in seconds; only used while pid is 0.
        plan: The placement, for ``settle`` and ``status``, as JSON data.
    """

    uuid: str
    name: str
    pid: int = 0
    start_time: int = 0
    vcpus: Cpus = NO_CPUS
    emulators: Cpus = NO_CPUS
    quiet: Cpus = NO_CPUS
    alone: Cpus = NO_CPUS
    since: float = 0.0
    plan: Mapping[str, object] = field(factory=dict)


class Entry(NamedTuple):
    """One change of the host that was made, or was about to be made.

    Attributes:
        kind, target: What was changed; see :class:`libvirt_tuner.hostside.changes.Change`.
        prior: The value without this tool.
        wanted: The value we write.
        holders: UUIDs of the domains that need it. Without holders, it must be undone.
        earlier: Values that we wrote before ``wanted``, and that may still be in force.
        identity: Distinguishes the object from a later one with the same name (ifindex); "" if nothing does.
    """

    kind: str
    target: str
    prior: str
    wanted: str
    holders: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    identity: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Kind and target: there is one entry for each."""
        return self.kind, self.target


class Spared(NamedTuple):
    """CPUs that an irqbalance was told to leave.

    Attributes:
        ours: Because of us.
        theirs: In any case: by somebody's settings, or isolation.
        before: Those in force before the request; irqbalance obeys it only from its next pass.
    """

    ours: Cpus
    theirs: Cpus
    before: Cpus

    def theirs_after(self, found: Cpus) -> Cpus:
        """:attr:`theirs` now that ``found`` is in force: another program may have set others meanwhile."""
        return self.theirs if found in (self.ours | self.theirs, self.before) else found - self.ours


class Slice(NamedTuple):
    """CPUs that a unit of systemd may use, as cpulists; "" for all.

    Attributes:
        prior: Those it would have without us.
        wanted: Those it was given.
        before: Those it had when that was noted.
    """

    prior: str
    wanted: str
    before: str


class Book:
    """The ledger's content in memory. :meth:`save` writes it.

    Attributes:
        claims: By UUID.
        changes: By kind and target.
        bans: irqbalance's socket (file name) to the interrupts that we banned there.
        spared: The same to the CPUs.
        slices: systemd's units that were kept off CPUs.
        trouble: The problem of the ledger that was read, or "".
        lost: What earlier damage may have lost, until ``undo --all`` has reported it; or "".
    """

    __slots__ = ("_directory", "bans", "changes", "claims", "lost", "slices", "spared", "trouble")

    def __init__(self, directory: int | None = None) -> None:
        self.claims: dict[str, Claim] = {}
        self.changes: dict[tuple[str, str], Entry] = {}
        self.bans: dict[str, frozenset[int]] = {}
        self.spared: dict[str, Spared] = {}
        self.slices: dict[str, Slice] = {}
        self.trouble = ""
        self.lost = ""
        self._directory = directory

    @property
    def damage(self) -> tuple[str, ...]:
        """Messages about the ledger for the administrator, one sentence each."""
        return tuple(filter(None, (self.trouble, self.lost)))

    @property
    def steered(self) -> frozenset[int]:
        """Interrupts that somebody holds where they are."""
        held = (entry for entry in self.changes.values() if entry.kind == "irq" and entry.holders)
        return frozenset(int(entry.target) for entry in held)

    @property
    def quiet(self) -> Cpus:
        """CPUs that no device shall interrupt."""
        return NO_CPUS.union(*(claim.quiet for claim in self.claims.values()))

    @property
    def vcpus(self) -> Cpus:
        """Those of them that vCPUs run on."""
        return NO_CPUS.union(*(claim.vcpus & claim.quiet for claim in self.claims.values()))

    @property
    def alone(self) -> Cpus:
        """CPUs that the host's services are kept off."""
        return NO_CPUS.union(*(claim.alone for claim in self.claims.values()))

    @property
    def has_to_be_told(self) -> bool:
        """Whether there is anything that irqbalance must leave alone."""
        return bool(self.steered or self.quiet)

    def claim(self, claim: Claim) -> None:
        """Add or replace a domain's claim. A claim without a process never replaces one with a process."""
        standing = self.claims.get(claim.uuid)
        # libvirt calls the hook for a restore or migration before it refuses it ("already active").
        if claim.pid or standing is None or not standing.pid:
            self.claims[claim.uuid] = claim

    def release(self, uuid: str) -> tuple[Entry, ...]:
        """Remove a domain, and return every change that no domain holds any more.

        That includes changes of a process that was killed while it restored them. They stay in the ledger
        until :meth:`forget`.
        """
        self.claims.pop(uuid, None)
        for key, entry in self.changes.items():
            if uuid in entry.holders:
                rest = tuple(holder for holder in entry.holders if holder != uuid)
                self.changes[key] = entry._replace(holders=rest)
        return self.unheld()

    def unheld(self) -> tuple[Entry, ...]:
        """The changes without holders."""
        return tuple(entry for entry in self.changes.values() if not entry.holders)

    def stale(self, alive: Callable[[Claim], bool], *, now: float) -> tuple[Claim, ...]:
        """Return the claims of ended domains.

        Args:
            alive: Function that returns whether the claim's process still runs; if pid is 0, whether the
                domain has a process now.
            now: ``time.monotonic()``; a claim without a process is kept for :data:`PROVISIONAL_SECONDS`.
        """
        return tuple(claim for claim in self.claims.values() if not _stands(claim, alive, now))

    def journal(self, *entries: Entry) -> None:
        """Add changes that will be made, and :meth:`save`. Call it before the first write."""
        for entry in entries:
            self.changes[entry.key] = entry
        self.save()

    def forget(self, entry: Entry) -> None:
        """Remove one change."""
        self.changes.pop(entry.key, None)

    def save(self) -> None:
        """Replace the ledger's file.

        Raises:
            LedgerError: The book is read-only, /run is full, or a plan is not JSON data.
        """
        if self._directory is None:
            raise LedgerError("the ledger was opened for reading only", where=DIRECTORY)
        data = _written(self)
        _replace(self._directory, FILE, data)
        # If that fails, an older copy stays. It only lacks the newest prior values.
        with suppress(LedgerError):
            _replace(self._directory, COPY, data)


def _stands(claim: Claim, alive: Callable[[Claim], bool], now: float) -> bool:
    return (not claim.pid and _within(claim, now)) or alive(claim)


def _within(claim: Claim, now: float) -> bool:
    return 0 <= now - claim.since <= PROVISIONAL_SECONDS


class Ledger:
    """The ledger of one host.

    Args:
        sysfs: Below whose root /run is.
    """

    __slots__ = ("_sysfs",)

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    @contextmanager
    def locked(self, timeout: float = LOCK_TIMEOUT) -> Iterator[Book]:
        """Open the book with the lock held. Leaving the block does not save it.

        Do not fork inside: the child would keep the lock.

        Args:
            timeout: Seconds to wait for the lock.

        Raises:
            LedgerError: The lock is held by another process for too long, the directory is not ours alone, or
                the ledger cannot be read or is of a newer version.
        """
        with self._held("lock", timeout) as directory:
            yield _load(self._sysfs, directory, writable=True)

    @contextmanager
    def alone(self, name: str, timeout: float) -> Iterator[None]:
        """Hold another lock, for work that takes too long under the ledger's lock.

        Raises:
            LedgerError: As :meth:`locked`.
        """
        with self._held(f"{name}.lock", timeout):
            yield

    def write_beside(self, name: str, text: str) -> None:
        """A file in the ledger's directory for other programs; one without text is removed.

        Raises:
            LedgerError: It cannot be written, or the directory cannot be opened.
        """
        if not text and not self._sysfs.exists(f"{DIRECTORY}/{name}"):
            return
        directory = self._made()
        try:
            if text:
                _replace(directory, name, text.encode())
            else:
                os.unlink(name, dir_fd=directory)
        except OSError as err:
            raise LedgerError(f"cannot be removed: {err.strerror}", where=f"{DIRECTORY}/{name}") from None
        finally:
            _close(directory)

    def read(self) -> Book:
        """Return the last saved book without the lock. It cannot be saved.

        Raises:
            LedgerError: The directory is not ours alone, or the ledger cannot be read or is of a newer
                version.
        """
        try:
            directory = self._directory()
        except FileNotFoundError:
            return Book()
        except (OSError, HostError) as err:
            raise _not_opened(err) from None
        try:
            return _load(self._sysfs, directory, writable=False)
        finally:
            _close(directory)

    @contextmanager
    def _held(self, name: str, timeout: float) -> Iterator[int]:
        # Import it before the lock is held, so that others do not wait for it.
        import json  # noqa: F401

        directory = self._made()
        try:
            lock = _lock(directory, name, timeout)
            try:
                yield directory
            finally:
                _close(lock)
        finally:
            _close(directory)

    def _made(self) -> int:
        """Return the directory's descriptor. Create the directory if it is missing."""
        try:
            try:
                return self._directory()
            except FileNotFoundError:
                _make(self._sysfs.path(DIRECTORY))
                return self._directory()
        except (OSError, HostError) as err:
            raise _not_opened(err) from None

    def _directory(self) -> int:
        path = self._sysfs.path(DIRECTORY)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            os.close(directory)
            raise LedgerError(
                "users other than root can write there",
                where=DIRECTORY,
                value=f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}",
                expected=f"uid {os.geteuid()}, mode 0700",
            )
        return directory


def _not_opened(err: Exception) -> LedgerError:
    problem = getattr(err, "strerror", None) or str(err)
    return LedgerError(f"cannot open: {problem}", where=DIRECTORY, advice="needs root")


def _close(fd: int) -> None:
    """Errors of close(2) do not matter after locking or reading."""
    with suppress(OSError):
        os.close(fd)


def _make(path: str) -> None:
    # Another hook may be faster. Its owner is checked when it is opened.
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def _lock(directory: int, name: str, timeout: float) -> int:
    """The lock file's descriptor with the lock held.

    Polls, because only a signal could end a blocking flock(2), and this module must not use signals.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = _opened(name, flags, directory)
    deadline = time.monotonic() + timeout
    wait = _FIRST_WAIT
    try:
        while not _flocked(lock):
            if time.monotonic() >= deadline:
                raise LedgerError(
                    "another process holds the lock",
                    where=f"{DIRECTORY}/{name}",
                    expected=f"within {timeout:g} s",
                )
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _flocked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as err:
        raise LedgerError(f"cannot lock: {err.strerror}", where=DIRECTORY) from None
    return True


def _opened(name: str, flags: int, directory: int) -> int:
    try:
        return os.open(name, flags, 0o600, dir_fd=directory)
    except OSError as err:
        raise LedgerError(f"cannot open: {err.strerror}", where=f"{DIRECTORY}/{name}") from None


def _replace(directory: int, name: str, data: bytes) -> None:
    """Write a new file, then rename it over the old one."""
    new = f"{name}.new"
    try:
        fd = _opened(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, directory)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as err:
        raise LedgerError(f"cannot write: {err.strerror}", where=f"{DIRECTORY}/{new}") from None


def _load(sysfs: Sysfs, directory: int, *, writable: bool) -> Book:
    """Read the book in that directory. If the ledger is damaged, recover what is possible."""
    book = Book(directory if writable else None)
    try:
        data = contents(directory, FILE)
        if data is not None:
            fill(book, data)
        elif contents(directory, COPY) is not None:
            raise ValueError("the file is missing, but its copy exists")
    except DAMAGE as err:
        from libvirt_tuner.host import log
        from libvirt_tuner.hostside import salvage

        reason = f"no key {err}" if isinstance(err, KeyError) else str(err)
        book = salvage.recovered(sysfs, directory, Book(book._directory), f"{reason:.200}")
        if writable:
            _keep_damaged(directory)
            book.save()
            # Save it here, so that the next reader finds a good ledger.
            log.send(log.WARNING, f"{book.trouble}; {book.lost}" if book.lost else book.trouble)
    return book


def _keep_damaged(directory: int) -> None:
    """Keep the file under a new name. The first damaged files have the most data."""
    for name in (DAMAGED, *(f"{DAMAGED}.{number}" for number in range(1, _DAMAGED_KEPT))):
        try:
            os.link(FILE, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError:
            break  # it is missing, or a directory
        return


def contents(directory: int, name: str) -> bytes | None:
    """Read the file; None if it is missing.

    Raises:
        ValueError: It is not our file: too long, a link, or a directory.
        LedgerError: It cannot be read now. That does not mean that it is damaged.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            return _read(fd)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.EISDIR):
            raise ValueError(f"cannot be read: {err.strerror}") from None
        raise LedgerError(
            f"cannot be read: {err.strerror}",
            where=f"{DIRECTORY}/{name}",
            advice="nothing was changed; the next start or the service tries again",
        ) from None


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > _SIZE_LIMIT:
        raise ValueError(f"{size} bytes long")
    data = b""
    while more := os.read(fd, max(1, size - len(data))):
        data += more
        if len(data) > _SIZE_LIMIT:
            raise ValueError(f"more than {_SIZE_LIMIT} bytes long")
    if len(data) < size:
        raise OSError(errno.EIO, f"{len(data)} of {size} bytes")
    return data


_CHECK = "check"
_SUM = 8
"""Return the CRC-32 of everything after the first line, in hexadecimal digits."""


def _written(book: Book) -> bytes:
    """One record per line, so that damage of one does not affect the others."""
    import binascii
    import json

    spell = json.JSONEncoder(separators=(",", ":")).encode
    try:
        groups = {
            "claims": _object({uuid: _claim_out(claim) for uuid, claim in book.claims.items()}, spell),
            "changes": "[\n"
            + ",\n".join(spell(_entry_out(entry)) for entry in book.changes.values())
            + "\n]",
            "bans": _object({name: sorted(irqs) for name, irqs in book.bans.items()}, spell),
            "spared": _object(
                {name: list(map(cpuset.format, each)) for name, each in book.spared.items()}, spell
            ),
            "slices": _object(book.slices, spell),
            "lost": spell(book.lost),
        }
    except (TypeError, ValueError) as err:
        raise LedgerError(f"a claim's plan cannot be kept: {err}", expected="what JSON can hold") from None
    body = (",\n".join(f'"{name}":{text}' for name, text in groups.items()) + "}\n").encode()
    head = f'{{"version":{VERSION},"{_CHECK}":"{binascii.crc32(body):0{_SUM}x}",\n'
    return head.encode() + body


def _object(items: Mapping[str, object], spell: Callable[[object], str]) -> str:
    return "{\n" + ",\n".join(f"{spell(key)}:{spell(item)}" for key, item in items.items()) + "\n}"


def _claim_out(claim: Claim) -> dict[str, object]:
    return {
        "name": claim.name,
        "pid": claim.pid,
        "start_time": claim.start_time,
        "vcpus": cpuset.format(claim.vcpus),
        "emulators": cpuset.format(claim.emulators),
        "quiet": cpuset.format(claim.quiet),
        "alone": cpuset.format(claim.alone),
        "since": float(claim.since),
        "plan": claim.plan,
    }


def _entry_out(entry: Entry) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "target": entry.target,
        "prior": entry.prior,
        "wanted": entry.wanted,
        "holders": entry.holders,
        "earlier": entry.earlier,
        "identity": entry.identity,
    }


DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, CpusetError)
"""Errors of :func:`fill` for text that :func:`_written` did not write."""


def fill(book: Book, data: bytes) -> None:
    """Fill the book from the data.

    Raises:
        LedgerError: A newer version of this program has written it.
        ValueError, TypeError, KeyError, AttributeError, RecursionError, CpusetError: It is damaged.
    """
    import binascii
    import json

    document = _is(json.loads(data), dict)
    version = _is(document["version"], int)
    if version > VERSION:
        raise LedgerError(
            "written by a newer version of libvirt-tuner",
            where=f"{DIRECTORY}/{FILE}",
            value=version,
            expected=f"at most {VERSION}",
            advice="nothing was changed; install that version again and run its 'libvirt-tuner undo --all'",
        )
    if version != VERSION:
        raise ValueError(f"version {version!r}, expected {VERSION}")
    check, body = document.get(_CHECK), data.partition(b"\n")[2]
    # The checksum does not apply to a document that somebody reformatted to one line.
    if check is not None and body and check != f"{binascii.crc32(body):0{_SUM}x}":
        raise ValueError("its checksum does not match")
    for uuid, item in _is(document["claims"], dict).items():
        book.claims[uuid] = claim_in(uuid, item)
    for item in _is(document["changes"], list):
        entry = entry_in(item)
        book.changes[entry.key] = entry
    for name, irqs in _is(document["bans"], dict).items():
        book.bans[name] = frozenset(_is(irq, int) for irq in _is(irqs, list))
    for name, cpus in _is(document.get("spared", {}), dict).items():
        ours, theirs, before = map(_cpus, _is(cpus, list))
        book.spared[name] = Spared(ours, theirs, before)
    for unit, kept in _is(document.get("slices", {}), dict).items():
        prior, wanted, before_it = _strings(kept)
        book.slices[unit] = Slice(prior, wanted, before_it)
    book.lost = _is(document.get("lost", ""), str)


def claim_in(uuid: str, item: dict[str, object]) -> Claim:
    """A claim from its record; raises as :func:`fill`."""
    return Claim(
        uuid=uuid,
        name=_is(item["name"], str),
        pid=_is(item["pid"], int),
        start_time=_is(item["start_time"], int),
        vcpus=_cpus(item["vcpus"]),
        emulators=_cpus(item["emulators"]),
        quiet=_cpus(item.get("quiet", "")),
        alone=_cpus(item.get("alone", "")),
        since=_is(item["since"], float),
        plan=_is(item["plan"], dict),
    )


def entry_in(item: dict[str, object]) -> Entry:
    """A change from its record; raises as :func:`fill`."""
    return Entry(
        kind=_is(item["kind"], str),
        target=_is(item["target"], str),
        prior=_is(item["prior"], str),
        wanted=_is(item["wanted"], str),
        holders=_strings(item["holders"]),
        earlier=_strings(item["earlier"]),
        identity=_is(item["identity"], str),
    )


def _strings(value: object) -> tuple[str, ...]:
    return tuple(_is(item, str) for item in _is(value, list))


def _cpus(value: object) -> Cpus:
    return cpuset.parse(_is(value, str))


def _is(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not a {kind.__name__}")
    return value
