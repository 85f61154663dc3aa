"""Tells irqbalance through its socket which interrupts were moved, and which CPUs run vCPUs.

The protocol is that of irqbalance.c (sock_handle) of irqbalance 1.9: one request per connection, with
SCM_CREDENTIALS of root. ``setup`` answers ``SLEEP n [IRQ n LOAD n DIFF n CLASS n]... BANNED mask``;
``settings ban irqs n n...`` or ``... NONE`` replaces the whole list and has no answer. irqbalance reads at
most 500 bytes of a request and cuts it there, possibly inside a number, so longer requests are never sent. It
obeys a ban from its next pass. Until then it may move an interrupt once more.

``settings cpus LIST`` keeps interrupts of all devices off these CPUs. It replaces all earlier lists: that of
the environment (``IRQBALANCE_BANNED_CPULIST``) and isolation. ``settings cpus NULL`` restores those two.
``BANNED`` is the mask of the last pass, so it does not have a new list yet.

The bans follow from the ledger, so a request can be repeated, and must be after a restart of irqbalance.
Without /run/irqbalance, irqbalance listens on an abstract socket. Any user can take that name, so it is not
used.

Import this module only where /run/irqbalance exists: it needs ``socket``, which the hook's path avoids.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from itertools import pairwise

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError, HostError, RejectedError
from libvirt_tuner.host.sysfs import Sysfs, error
from libvirt_tuner.hostside.ledger import Book, Ledger, Spared
from libvirt_tuner.topology import NO_CPUS, Cpus

DIRECTORY = "/run/irqbalance"
TIMEOUT = 1.0
"""Seconds one request may take."""

STEERED = "steered"
"""File next to the ledger: the interrupts that did not fit into a request, one per line. For irqbalance's
policy script (docs/examples/irqbalance-policy)."""

REQUEST_LIMIT = 500
"""Bytes; ``buff`` in sock_handle."""

_BAN = "settings ban irqs "
_CPUS = "settings cpus "
_MASK_LIMIT = 511
"""Characters of ``BANNED``: a mask that fills them may be cut off."""

_TURN = 1.0


@frozen
class Told:
    """The result of telling one irqbalance.

    Attributes:
        socket: Its socket's file name, which holds its process id.
        banned: Interrupts that it leaves alone because of us; with ``error``, at most these.
        left_out: Interrupts that did not fit into the request. It may move them.
        cpus: CPUs without interrupts because of us.
        crowded: CPUs that no longer fitted into a request: it may put interrupts there.
        error: Why it could not be told.
    """

    socket: str
    banned: frozenset[int] = frozenset()
    left_out: frozenset[int] = frozenset()
    cpus: Cpus = NO_CPUS
    crowded: Cpus = NO_CPUS
    error: HostError | None = None

    @property
    def problem(self) -> str:
        """A message for the administrator, or ""."""
        if self.error:
            return f"{self.error}; irqbalance may move the interrupts back; see 'libvirt-tuner host check'"
        if self.left_out:
            irqs = cpuset.format(self.left_out)
            return (
                f"irqbalance accepts only {len(self.banned)} interrupts; it may move {irqs} back;"
                " install docs/examples/irqbalance-policy to keep all of them in place"
            )
        if self.crowded:
            cpus = cpuset.format(self.crowded)
            return f"the list of CPUs is too long for irqbalance; it may put interrupts on CPUs {cpus}"
        return ""


def sockets(sysfs: Sysfs) -> tuple[str, ...]:
    """Return the sockets in /run/irqbalance. A killed irqbalance leaves its socket."""
    return tuple(name for name in sysfs.listdir_or_empty(DIRECTORY) if _is_socket_name(name))


def _is_socket_name(name: str) -> bool:
    return (
        name.startswith("irqbalance")
        and name.endswith(".sock")
        and name[len("irqbalance") : -len(".sock")].isdigit()
    )


def tell(sysfs: Sysfs, ledger: Ledger, *, timeout: float = TIMEOUT) -> tuple[Told, ...]:
    """Have every irqbalance leave alone the interrupts and CPUs that the ledger says, and no others for us.

    Call it after :func:`~libvirt_tuner.hostside.changes.perform_all` and
    :func:`~libvirt_tuner.hostside.changes.give_back`, outside the ledger's lock: an
    irqbalance that hangs must not keep other domains from starting.

    Args:
        sysfs: Below whose root /run is.
        ledger: Of the same root.
        timeout: Seconds one request may take.

    Raises:
        LedgerError: The ledger could not be read or written, or its lock was not free within 1 s.
    """
    names = sockets(sysfs)
    if not names:
        return ()
    with ledger.alone("irqbalance", _TURN):
        book = ledger.read()
        if not (book.has_to_be_told or book.bans or book.spared):
            return ()
        answers = [_tell(sysfs, ledger, name, book, timeout) for name in names]
        told = tuple(answer for answer in answers if answer is not None)
        heard = {it.socket for it in told}
        spared = {name: each for name, each in book.spared.items() if name in heard}
        _remember(ledger, {it.socket: it.banned for it in told if it.banned}, spared)
    return told


def _remember(ledger: Ledger, bans: dict[str, frozenset[int]], spared: dict[str, Spared]) -> None:
    with ledger.locked() as book:
        if (book.bans, book.spared) != (bans, spared):
            book.bans, book.spared = bans, spared
            book.save()


def _tell(sysfs: Sysfs, ledger: Ledger, name: str, book: Book, timeout: float) -> Told | None:
    """Merge with the existing bans. Returns None if nobody listens any more."""
    ours = book.bans.get(name, frozenset())
    try:
        found = state(sysfs, name, timeout=timeout)
        theirs = found.irqs - ours
        ours, left_out = _fitting(theirs, book.steered - theirs)
        ledger.write_beside(STEERED, "".join(f"{irq}\n" for irq in sorted(left_out)))
        if theirs | ours != found.irqs:
            before = book.bans.get(name, frozenset())
            _remember(ledger, book.bans | {name: before | ours}, book.spared)
            book.bans[name] = before | ours
            ban(sysfs, name, theirs | ours, timeout=timeout)
        cpus, crowded = _tell_cpus(sysfs, ledger, name, book, found.cpus, timeout)
    except ConnectionRefusedError:
        return None
    except HostError as err:
        # Its bans are unknown now: at most those of the earlier and this request.
        return Told(name, banned=book.bans.get(name, frozenset()) | ours, error=err)
    return Told(name, banned=ours, left_out=left_out, cpus=cpus, crowded=crowded)


def _tell_cpus(
    sysfs: Sysfs, ledger: Ledger, name: str, book: Book, found: Cpus | None, timeout: float
) -> tuple[Cpus, Cpus]:
    """The CPUs it leaves because of us, and those there was no room for."""
    if found is None:
        return NO_CPUS, book.vcpus
    old = book.spared.get(name)
    theirs = found if old is None else old.theirs_after(found)
    ours, crowded = _fitting_cpus(theirs, _sparing(sysfs, book, theirs))
    if ours == (old.ours if old else NO_CPUS) and (old is None or theirs == old.theirs):
        return ours, crowded
    # Noted before it is sent: a process killed in between has told too little, not too much.
    spared = dict(book.spared)
    spared[name] = Spared(ours, theirs, found)
    _remember(ledger, book.bans, spared)
    _ask(sysfs, name, _CPUS + (cpuset.format(theirs | ours) or "NULL"), timeout)
    if not ours:
        del spared[name]
    _remember(ledger, book.bans, spared)
    book.spared = spared
    return ours, crowded


def _sparing(sysfs: Sysfs, book: Book, theirs: Cpus) -> Cpus:
    """CPUs of vCPUs and their siblings; without the siblings, or none at all, where no other CPU is left."""
    if not book.quiet:
        return NO_CPUS
    path = "/sys/devices/system/cpu/online"
    online = cpuset.parse(sysfs.read(path), where=path) - theirs
    return next((cpus - theirs for cpus in (book.quiet, book.vcpus) if online - cpus), NO_CPUS)


def _fitting_cpus(theirs: Cpus, ours: Cpus) -> tuple[Cpus, Cpus]:
    """As many of ``ours``, lowest first, as one request holds in addition to ``theirs``; and the rest."""
    if len(_CPUS + cpuset.format(theirs | ours)) <= REQUEST_LIMIT:
        return ours, NO_CPUS
    fits = sorted(ours)
    while fits and len(_CPUS + cpuset.format(theirs.union(fits))) > REQUEST_LIMIT:
        fits.pop()
    return frozenset(fits), ours - frozenset(fits)


def _request(irqs: frozenset[int]) -> str:
    # The list ends at a 0 unless it comes first, so the order must be ascending.
    return _BAN + (" ".join(map(str, sorted(irqs))) or "NONE")


def _fitting(theirs: frozenset[int], ours: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Return as many of ``ours``, lowest first, as fit into one request with ``theirs``, and the rest."""
    room = REQUEST_LIMIT - len(_request(theirs)) if theirs else REQUEST_LIMIT - len(_BAN) + 1
    fits = []
    for irq in sorted(ours):
        room -= len(str(irq)) + 1
        if room < 0:
            break
        fits.append(irq)
    return frozenset(fits), ours - frozenset(fits)


@frozen
class State:
    """What an irqbalance leaves alone.

    Attributes:
        irqs: Interrupts that any program told it to leave. Its own bans (policy script, ``--banmod``) are not
            included.
        cpus: CPUs that it leaves for any reason; None if the host has so many that the answer may be cut off.
    """

    irqs: frozenset[int]
    cpus: Cpus | None


def setup(sysfs: Sysfs, name: str, *, timeout: float = TIMEOUT) -> frozenset[int]:
    """:attr:`State.irqs` of an irqbalance; raises as :func:`state`."""
    return state(sysfs, name, timeout=timeout).irqs


def state(sysfs: Sysfs, name: str, *, timeout: float = TIMEOUT) -> State:
    """Ask an irqbalance what it leaves alone.

    Raises:
        ConnectionRefusedError: Nobody listens on the socket. HostError: No answer in time, or an unknown
            answer.
    """
    answer = _ask(sysfs, name, "setup", timeout)
    words = answer.split()
    # A truncated answer may lack bans, and a merge with it would remove them.
    if words[:1] != ["SLEEP"] or words[-2:-1] != ["BANNED"]:
        raise HostError(
            "not irqbalance's answer", where=_where(name), value=answer, expected="SLEEP n ... BANNED mask"
        )
    numbers = [after for word, after in pairwise(words) if word == "IRQ"]
    if not all(number.isdecimal() for number in numbers):
        raise HostError("not an interrupt", where=_where(name), value=answer, expected="IRQ n")
    return State(frozenset(map(int, numbers)), _mask(words[-1]))


def _mask(text: str) -> Cpus | None:
    try:
        return cpuset.parse_mask(text) if len(text) < _MASK_LIMIT else None
    except CpusetError:
        return None


def ban(sysfs: Sysfs, name: str, irqs: frozenset[int], *, timeout: float = TIMEOUT) -> None:
    """Replace the list of interrupts that irqbalance leaves alone, and verify it.

    Raises:
        ConnectionRefusedError: The socket is a leftover.
        RejectedError: Too many interrupts, or irqbalance did not accept them.
        HostError: No answer in time.
    """
    request = _request(irqs)
    if len(request) > REQUEST_LIMIT:
        raise RejectedError(
            "too many interrupts for one request", where=_where(name), value=len(irqs), expected="fewer"
        )
    _ask(sysfs, name, request, timeout)
    found = setup(sysfs, name, timeout=timeout)
    if found != irqs:
        raise RejectedError(
            "irqbalance did not take the list",
            where=_where(name),
            value=sorted(found),
            expected=" ".join(map(str, sorted(irqs))) or "none",
        )


def _where(name: str) -> str:
    return f"{DIRECTORY}/{name}"


def _ask(sysfs: Sysfs, name: str, request: str, timeout: float) -> str:
    """Send one request, and read the answer until the other side closes."""
    where = _where(name)
    try:
        directory = os.open(sysfs.path(DIRECTORY), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                _limit(peer, timeout)
                # Connect by descriptor, because a path may be longer than sun_path's 108 bytes.
                peer.connect(f"/proc/self/fd/{directory}/{name}")
                _send(peer, request)
                return _answer(peer, time.monotonic() + timeout, where)
        finally:
            os.close(directory)
    except (ConnectionRefusedError, FileNotFoundError):
        raise ConnectionRefusedError(where) from None
    except BlockingIOError:
        raise _too_slow(where) from None
    except OSError as err:
        raise error(err, where) from None


def _limit(peer: socket.socket, timeout: float) -> None:
    """Set time limits as socket options: they also limit a connect(2) that waits for a full queue."""
    seconds = int(timeout)
    value = struct.pack("@ll", seconds, int((timeout - seconds) * 1_000_000))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def _send(peer: socket.socket, request: str) -> None:
    credentials = struct.pack("@iII", os.getpid(), os.geteuid(), os.getegid())
    peer.sendmsg([request.encode()], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])


def _answer(peer: socket.socket, deadline: float, where: str) -> str:
    pieces = []
    while piece := peer.recv(65536):
        pieces.append(piece)
        if time.monotonic() > deadline:
            raise _too_slow(where)
    return b"".join(pieces).decode("ascii", "backslashreplace")


def _too_slow(where: str) -> HostError:
    return HostError("irqbalance does not answer in time", where=where)
