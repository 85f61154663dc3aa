"""Keeps host settings of running domains up to date when the host changes.

Examples: a bond fails over, a driver spreads its interrupts when the link comes up, ``ethtool -L`` creates
new ones, a route changes, irqbalance restarts, a vCPU is hot-plugged. Each time all running domains are
planned again and the host is changed accordingly
(:func:`libvirt_tuner.hostside.holding.give_all_again`). It does not need libvirt.

It has its own thread, because libvirt may block the service for half a minute.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from libvirt_tuner import cpuset
from libvirt_tuner.daemon.netlink import Event, LinkEvents
from libvirt_tuner.errors import TunerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding, irqbalance, libvirt_files, slices
from libvirt_tuner.hostside.changes import Outcome
from libvirt_tuner.hostside.holding import Given

QUIET, LONGEST = 0.3, 2.0
"""Seconds without a further event to wait for, and the longest wait."""

AGAIN = (3.0, 15.0)
"""Seconds after which it is done again: a driver may set its interrupts long after its events, and irqbalance
obeys a ban only from its next pass, ten seconds later."""

LOOK = 2.0
"""Seconds between two looks at what has no event: irqbalance's socket, and the files of running domains,
which libvirt writes when a vCPU is plugged in. CPUs of the host too, for where no uevent comes."""

_SHARE, _LONGEST_REST = 20, 10.0
"""If events do not stop (routes that come and go), the thread works for this fraction of the time. But it
pauses for at most this many seconds, because work that waited for a lock took long but cost nothing."""

_WARNING, _NOTICE = 4, 5


class Pace:
    """Decides when to act on events: soon, once for many events, and again after some seconds.

    All times are ``time.monotonic()``.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._earliest = 0.0
        self._repeats: list[float] = []

    def notice(self, now: float) -> None:
        """Note an event."""
        self._first = now if self._first is None else self._first
        self._last = now

    def due(self) -> float | None:
        """Return when to act next; None if there is no reason to."""
        times = self._repeats[:1]
        if self._first is not None:
            times.append(max(self._earliest, min(self._last + QUIET, self._first + LONGEST)))
        return min(times) if times else None

    def done(self, began: float, now: float) -> None:
        """Note that the thread acted from ``began`` to ``now``."""
        if self._first is not None and self._first <= began:
            self._first = None
            self._repeats = [now + seconds for seconds in AGAIN]
        else:
            self._repeats = [moment for moment in self._repeats if moment > began]
        self._earliest = now + min(_SHARE * (now - began), _LONGEST_REST)


class Upkeep:
    """The thread.

    Args:
        sysfs: The host.
        say: Takes a line for the log, its priority (syslog(3)) and fields; called from the thread.
    """

    def __init__(self, sysfs: Sysfs, say: Callable[..., None]) -> None:
        self._sysfs = sysfs
        self._say = say
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._pace = Pace()
        self._irqbalance: tuple[str, ...] = ()
        self._seen: object = None
        self._written: object = None
        self._shapes: object = None
        self._looked = 0.0
        self._troubles: tuple[str, ...] = ()
        self._complained: dict[str, str] = {}
        self._children: list[int] = []

    def start(self) -> None:
        """Start the thread. It first plans everything once."""
        self._thread.start()

    def again(self) -> None:
        """Plan everything again. Returns at once, and may be called from a signal handler."""
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Stop the thread after its current work."""
        self._stopping = True
        self.again()
        self._thread.join()

    def _run(self) -> None:
        links = self._listen()
        try:
            self._pace.notice(time.monotonic())
            while not self._stopping:
                try:
                    self._turn(links)
                except Exception as error:
                    self._complain("", f"{type(error).__name__}: {error}; please report this")
                    time.sleep(LONGEST)
        finally:
            if links:
                links.close()

    def _listen(self) -> LinkEvents | None:
        try:
            return LinkEvents()
        except OSError as error:
            self._say(_WARNING, f"no events of network links: {error}; changes of the host are not noticed")
            return None

    def _turn(self, links: LinkEvents | None) -> None:
        self._children = [pid for pid in self._children if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        if self._await(links):
            self._pace.notice(time.monotonic())
        due = self._pace.due()
        if due is not None and not self._stopping and time.monotonic() >= due:
            began = time.monotonic()
            self._act()
            self._pace.done(began, time.monotonic())

    def _await(self, links: LinkEvents | None) -> tuple[Event, ...]:
        """Collect events until it is time to act or to check irqbalance."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for each in links.sockets if links else ():
            poll.register(each, select.POLLIN)
        due = self._pace.due()
        seconds = LOOK if due is None else min(LOOK, max(0.0, due - time.monotonic()))
        poll.poll(seconds * 1000)
        events = (*self._woken(), *(links.read() if links else ()), *self._irqbalance_changed())
        return (*events, *self._shape_changed())

    def _woken(self) -> tuple[Event, ...]:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
            return (Event("wake"),)
        return ()

    def _irqbalance_changed(self) -> tuple[Event, ...]:
        """Its socket's name holds its process id."""
        now = irqbalance.sockets(self._sysfs)
        before, self._irqbalance = self._irqbalance, now
        return (Event("irqbalance"),) if set(now) - set(before) else ()

    def _shape_changed(self) -> tuple[Event, ...]:
        """Return CPUs of the host, and vCPUs and devices of domains. They are checked from time to time."""
        if time.monotonic() < self._looked + LOOK:
            return ()
        self._looked = time.monotonic()
        now = self._sysfs.read_or("/sys/devices/system/cpu/online", ""), self._shapes_now()
        before, self._seen = self._seen, now
        return (Event("shape"),) if before not in (None, now) else ()

    def _shapes_now(self) -> object:
        """Read anew only when libvirt has replaced a file."""
        written = libvirt_files.written(self._sysfs)
        if written != self._written:
            self._written, self._shapes = written, libvirt_files.shapes(self._sysfs)
        return self._shapes

    def _act(self) -> None:
        """Plan everything once. Errors are logged and do not end the thread."""
        try:
            self._complain("tidying up", _failure(holding.sweep(self._sysfs)))
            for name, became in holding.give_all_again(self._sysfs):
                self._note(name, became)
                if self._stopping:
                    return
            self._tell_irqbalance()
            self._complain("isolation", "; ".join(slices.troubles(self._sysfs)))
        except TunerError as error:
            self._complain("", str(error))

    def _tell_irqbalance(self) -> None:
        """During a pass irqbalance may not answer in time. The error is only logged if it persists."""
        troubles = holding.tell_irqbalance(self._sysfs)
        for trouble in troubles:
            if trouble in self._troubles:
                self._complain("irqbalance", trouble)
            else:
                self._pace.notice(time.monotonic())
        self._troubles = troubles

    def _note(self, name: str, became: Given | TunerError) -> None:
        if isinstance(became, TunerError):
            self._complain(name, f"{became}; its interrupts and pins are not changed", domain=name)
            return
        failure = _failure((*became.outcomes, *became.returned))
        about = {"domain": name, "uuid": became.plan.uuid}
        self._complain(name, "; ".join(filter(None, (*became.troubles, failure))), **about)
        if summary := _summary(became):
            self._say(_NOTICE, f"{name}: {summary}", **about)
        if became.moved and self._sysfs.live:
            self._children.append(holding.leave_settle(self._sysfs.root, became.plan.uuid))

    def _complain(self, about: str, trouble: str, **fields: str) -> None:
        """Log a problem once, not at each event."""
        if trouble and self._complained.get(about) != trouble:
            text = f"{about}: {trouble}" if about else trouble
            self._say(_WARNING, text, event="problem", **fields)
        self._complained[about] = trouble


def _failure(outcomes: Iterable[Outcome]) -> str:
    """Return the first one, or ""."""
    return next((str(outcome) for outcome in outcomes if not outcome.ok), "")


def _summary(given: Given) -> str:
    """Return what was done, or ""."""
    parts = []
    refused = {outcome.change.target for outcome in given.outcomes if not outcome.ok}
    if moved := [move for move in given.plan.irqs if str(move.irq) not in refused]:
        cpus = frozenset().union(*(move.cpus for move in moved))
        parts.append(f"{len(moved)} interrupts moved to {cpuset.format(cpus)}")
    if given.returned:
        parts.append(f"{len(given.returned)} changes undone")
    return ", ".join(parts)
