"""The service that tunes a domain's definition after somebody has defined or changed it.

libvirt's events and other triggers become :class:`Task` values in one queue. One thread processes them. So
libvirt's event loop never waits, and many definitions are processed one by one.
Only persistent definitions are changed. A running domain uses its new definition at its next start.
:mod:`libvirt_tuner.daemon.upkeep` keeps its interrupts and other host settings up to date, without libvirt.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import FrameType
from typing import Literal

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.config.policy import CONFIG_FILE, resolve
from libvirt_tuner.daemon.notify import notify, watchdog_seconds
from libvirt_tuner.daemon.upkeep import Upkeep
from libvirt_tuner.domainxml.metadata import RECORD_NS
from libvirt_tuner.errors import ConnectionFailed, TunerError
from libvirt_tuner.host import log as system_log
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.libvirtd import connection, definition
from libvirt_tuner.libvirtd.connection import SYSTEM, Connection, Event
from libvirt_tuner.libvirtd.definition import Completion, Neighbours, Versions

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 30.0
_ERROR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6


@frozen
class Task:
    """A task for the service.

    Attributes:
        kind: ``domain`` (tune its definition), ``defined`` (the same after the settling time), ``gone``
            (forget it), ``all`` (every domain, even if it was done before), ``lost`` (connect again),
            ``stop``.
        key: The domain's UUID, or the number of the lost session.
    """

    kind: Literal["domain", "defined", "gone", "all", "lost", "stop"]
    key: str = ""


class Inbox:
    """Tasks in order of arrival. A task that already waits is not added twice. Safe in a signal handler."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._waiting: set[Task] = set()

    def put(self, task: Task) -> None:
        """Add a task, and return at once."""
        if task not in self._waiting:
            self._waiting.add(task)
            self._queue.put(task)

    def take(self, timeout: float | None) -> Task | None:
        """Return the next task; None if there was none for ``timeout`` seconds."""
        try:
            task = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        # Remove it before it is processed, so that a new event adds it again.
        self._waiting.discard(task)
        return task


class Daemon:
    """The service.

    Args:
        uri: libvirt's.
        sysfs: The host.
        say: Takes a line for the log and its priority (syslog(3)), as :func:`log` does.
        changed: Called when a running domain's devices have changed; returns at once.
    """

    def __init__(
        self,
        uri: str,
        sysfs: Sysfs,
        say: Callable[..., None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.inbox = Inbox()
        self._uri = uri
        self._sysfs = sysfs
        self._say = say
        self._changed = changed
        self._session = 0
        self._served = False
        self._neighbours = Neighbours()
        self._done: dict[str, bytes] = {}
        self._problems: set[str] = set()
        self._names: dict[str, str] = {}
        self._due: dict[str, float] = {}
        self._untouched: dict[str, bytes] = {}
        watchdog = watchdog_seconds()
        self._pulse = watchdog / 3 if watchdog else None
        self._pulsed = 0.0

    def run(self) -> None:
        """Serve until the task ``stop``. Wait for libvirtd if it does not run.

        Raises:
            ConnectionFailed: libvirt refused the first connection. Another try would fail too.
        """
        wait = _FIRST_WAIT
        said = ""
        while True:
            began = time.monotonic()
            try:
                with self._connected() as conn:
                    said = ""
                    self._serve(conn)
                    return
            except ConnectionFailed as error:
                if error.kind != "lost" and not self._served:
                    raise
                if said != str(error):
                    said = str(error)
                    self._say(_WARNING, f"{error}; trying again until it works")
            if time.monotonic() - began > _LONGEST_WAIT:  # the connection worked for a while
                wait = _FIRST_WAIT
            notify("READY=1", f"STATUS=waiting for libvirt at {self._uri}")
            if self._stopped_within(wait):
                return
            wait = min(wait * 2, _LONGEST_WAIT)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        connection.start_event_loop()
        self._session += 1
        lost = Task("lost", str(self._session))
        with Connection(self._uri) as conn:
            conn.subscribe(self._on_event, lambda: self.inbox.put(lost))
            yield conn

    def _on_event(self, event: Event) -> None:
        if event.kind == "device":
            self._changed()
            return
        self.inbox.put(Task("gone" if event.kind == "undefined" else "defined", event.uuid))

    def _stopped_within(self, seconds: float) -> bool:
        """Wait. Other tasks of this time are covered by catching up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            task = self.inbox.take(min(left, self._pulse or left))
            self._tell_watchdog()
            if task == Task("stop"):
                return True
        return False

    def _tell_watchdog(self) -> None:
        if self._pulse is not None and time.monotonic() - self._pulsed >= self._pulse / 2:
            self._pulsed = time.monotonic()
            notify("WATCHDOG=1")

    def _serve(self, conn: Connection) -> None:
        """Process tasks, all domains first.

        Raises:
            ConnectionFailed: The connection is lost.
        """
        versions = conn.versions()
        if not self._served:
            self._leave_untouched(conn)
        self._served = True
        # A restarted libvirtd may have another version, and the config may have changed.
        self._done.clear()
        self._catch_up(conn)
        status = f"STATUS=watching {self._uri}"
        notify("READY=1", status)
        self._say(_INFO, f"watching {self._uri}")
        while True:
            task = self.inbox.take(self._wait())
            self._tell_watchdog()
            if task is None:
                self._settled()
                continue
            if task.kind == "stop":
                return
            self._work(conn, versions, task)

    def _leave_untouched(self, conn: Connection) -> None:
        """Remember the untuned definitions that existed before this service.

        They are not changed until somebody changes them, starts the domain or runs ``apply``.
        """
        for domain in conn.domains(persistent=True):
            text = conn.definition(domain)
            if text is not None and RECORD_NS not in text:
                self._untouched[domain.uuid] = _fingerprint(text)
        if self._untouched:
            self._say(
                _NOTICE,
                f"{len(self._untouched)} existing definitions are not changed;"
                " 'libvirt-tuner apply --all --dry-run' shows what would change",
            )

    def _wait(self) -> float | None:
        """Return the seconds until a task is due; None if there is none."""
        times = [max(0.0, min(self._due.values()) - time.monotonic())] if self._due else []
        times += [self._pulse] if self._pulse is not None else []
        return min(times, default=None)

    def _settled(self) -> None:
        """Add the tasks whose settling time is over."""
        now = time.monotonic()
        for uuid in [uuid for uuid, due in self._due.items() if due <= now]:
            del self._due[uuid]
            self.inbox.put(Task("domain", uuid))

    def _settle(self, uuid: str) -> None:
        """Wait before a new definition is changed: the tool that made it may read it back and compare."""
        config = self._sysfs.read_or(CONFIG_FILE, "") or None
        policy, _ = resolve(self._names.get(uuid, ""), config, None)
        self._due[uuid] = time.monotonic() + policy.settle_seconds
        self._settled()

    def _work(self, conn: Connection, versions: Versions, task: Task) -> None:
        if task.kind == "lost" and task.key == str(self._session):
            raise ConnectionFailed("the connection was closed", where=self._uri, kind="lost")
        try:
            if task.kind == "all":
                self._done.clear()
                self._catch_up(conn)
            elif task.kind == "gone":
                self._forget(conn, task.key)
            elif task.kind == "defined":
                self._settle(task.key)
            elif task.kind == "domain":
                self._complete(conn, versions, task.key)
        except TunerError as error:
            self._note_failure(conn, task, error)
        except Exception as error:
            # A bug with one document must not stop the others.
            text = f"{type(error).__name__}: {error}; please report this"
            self._say(_ERROR, f"{self._named(task)}: {text}", event="problem", **self._fields(task.key))

    def _note_failure(self, conn: Connection, task: Task, error: TunerError) -> None:
        """Log the error. Raise it if the connection is lost. A domain that is gone is not an error."""
        kind = error.kind if isinstance(error, ConnectionFailed) else ""
        if kind == "lost" or not conn.alive:
            raise ConnectionFailed(error.problem, where=error.where, kind="lost") from None
        if kind != "missing":
            text = f"{self._named(task)}: {error}; not changed"
            self._say(_WARNING, text, event="problem", **self._fields(task.key))

    def _named(self, task: Task) -> str:
        return self._names.get(task.key, task.key) or task.kind

    def _fields(self, uuid: str) -> dict[str, str]:
        """Return the journal's fields about a domain; none if ``uuid`` is not a known domain's."""
        name = self._names.get(uuid)
        return {"domain": name, "uuid": uuid} if name else {}

    def _catch_up(self, conn: Connection) -> None:
        """Add every persistent domain, because events may have been missed."""
        domains = conn.domains(persistent=True)
        self._neighbours.learn(conn, domains)
        for domain in domains:
            self.inbox.put(Task("domain", domain.uuid))

    def _forget(self, conn: Connection, uuid: str) -> None:
        # A new definition of the same UUID may follow "undefined", and its event may come first.
        if not _has_definition(conn, uuid):
            self._neighbours.note(uuid, None)
            self._done.pop(uuid, None)
            self._due.pop(uuid, None)
            self._untouched.pop(uuid, None)
            self._names.pop(uuid, None)

    def _complete(self, conn: Connection, versions: Versions, uuid: str) -> None:
        domain = conn.lookup(uuid)
        self._names[uuid] = domain.name
        text = conn.definition(domain)
        self._neighbours.note(uuid, text)
        if text is None or self._done.get(uuid) == self._digest(text):
            return
        if self._untouched.get(uuid) == _fingerprint(text):
            return
        done = definition.complete(conn, self._sysfs, domain, versions, self._neighbours.but(uuid))
        if done is None or done.outcome == "overtaken":
            return  # the other change has its own event
        # The event of our own change finds this, so nothing is planned for it.
        self._done[uuid] = self._digest(done.text)
        self._neighbours.note(uuid, done.text)
        self._report(uuid, done)

    def _digest(self, text: str) -> bytes:
        """Return a digest of a definition and the config with which it was planned."""
        config = self._sysfs.read_or(CONFIG_FILE, "")
        return sha256(config.encode() + b"\0" + _fingerprint(text)).digest()

    def _report(self, uuid: str, done: Completion) -> None:
        name, fields = self._names[uuid], self._fields(uuid)
        for problem in done.problems:
            if str(problem) not in self._problems:
                self._problems.add(str(problem))
                self._say(_WARNING, f"{name}: {problem}; {problem.consequence}", event="problem", **fields)
        if done.outcome == "changed":
            self._say(_NOTICE, f"{name}: definition changed: {_summary(done)}", event="defined", **fields)


def _fingerprint(text: str) -> bytes:
    """Return a digest of a definition.

    libvirt always writes metadata with double quotes and the rest with single quotes.
    """
    return sha256(text.replace(chr(34), chr(39)).strip().encode()).digest()


def _summary(done: Completion) -> str:
    plan = done.plan
    parts: list[str] = [plan.placement]
    if plan.nodes:
        parts.append("node " + ",".join(map(str, plan.nodes)))
    if plan.vcpupin:
        parts.append("vcpus " + ",".join(cpuset.format(cpus) for _, cpus in sorted(plan.vcpupin.items())))
    if plan.emulatorpin:
        parts.append(f"emulator {cpuset.format(plan.emulatorpin)}")
    return ", ".join(parts)


def _has_definition(conn: Connection, uuid: str) -> bool:
    try:
        return conn.lookup(uuid).persistent
    except ConnectionFailed as error:
        if error.kind == "missing":
            return False
        raise


def main(uri: str = SYSTEM, *, root: str = "/") -> int:
    """Run the service until SIGTERM or SIGINT. On SIGHUP it plans every domain again, including running ones.

    Args:
        uri: libvirt's.
        root: Where /sys, /proc, /run and /etc are.

    Returns:
        The exit status: 0, or 1 if libvirt refuses the connection permanently.
    """
    upkeep = Upkeep(Sysfs(root), log)
    daemon = Daemon(uri, Sysfs(root), log, upkeep.again)

    def handle(number: int, _frame: FrameType | None) -> None:
        daemon.inbox.put(Task("all" if number == signal.SIGHUP else "stop"))
        if number == signal.SIGHUP:
            upkeep.again()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)
    upkeep.start()
    try:
        daemon.run()
    except ConnectionFailed as error:
        log(_ERROR, str(error))
        return 1
    finally:
        notify("STOPPING=1")
        upkeep.stop()
    return 0


def log(priority: int, text: str, **fields: str) -> None:
    """Write one line: to the journal with fields if stderr is connected to it (sd-daemon(3)), else to stderr.

    Args:
        priority, text, fields: As for :func:`libvirt_tuner.host.log.send`.
    """
    if "JOURNAL_STREAM" in os.environ and system_log.send(priority, text, **fields):
        return
    prefix = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else "libvirt-tuner: "
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    # Do not wait for a reader that does not read.
    if poll.poll(0):
        sys.stderr.write(f"{prefix}{system_log.printable(text)}\n")
        sys.stderr.flush()
