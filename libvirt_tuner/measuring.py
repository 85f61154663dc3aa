"""Tunes and untunes one running domain in turn while it is measured. Then it restores the earlier state.

Only settings that can change while it runs are changed: pins, vhost workers, interrupts, packet steering and
the MTU of host devices. The ledger has all changes. While the domain is untuned, the hook and the service do
not tune it, as after ``revert``.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

from libvirt_tuner.diagnosis.comparison import complaint
from libvirt_tuner.errors import HostError, MissingError, RejectedError, UnsupportedError
from libvirt_tuner.host import cpus, processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, holding, irqbalance, reverted
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.hostside.libvirt_files import live_document, process_id
from libvirt_tuner.libvirtd import live
from libvirt_tuner.libvirtd.agent import Agent
from libvirt_tuner.libvirtd.connection import Connection, Domain
from libvirt_tuner.planning.plan import Placement

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Switch:
    """Tunes and untunes a domain. The end of the ``with`` block restores the state from its beginning.

    Args:
        conn: libvirt.
        sysfs: The host.
        domain: One that runs.

    Raises:
        RejectedError: It is not tuned, because of its policy, another manager or ``revert``.
        MissingError: It does not run.
    """

    def __init__(self, conn: Connection, sysfs: Sysfs, domain: Domain) -> None:
        if not domain.active:
            raise MissingError("not running", where=domain.name, advice=f"'virsh start {domain.name}' first")
        self._conn, self._sysfs, self._domain = conn, sysfs, domain
        request = holding.read_request(sysfs, live_document(sysfs, domain.name, domain.uuid))
        if holding.leaves_alone(sysfs, request):
            raise RejectedError(
                "not tuned: its policy does not select it, or it was reverted",
                where=domain.name,
                advice=f"'libvirt-tuner apply {domain.name}' first",
            )
        _, given = holding.recorded(sysfs, domain.uuid)
        self._was_tuned = given is not None and given.tuned
        self._given: Placement | None = given if self._was_tuned else None
        self._claim = Ledger(sysfs).read().claims.get(domain.uuid) if self._was_tuned else None

    def __enter__(self) -> Switch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deaf():
            try:
                self.tune() if self._was_tuned else self.untune()
            finally:
                reverted.forget(self._sysfs, self._domain.uuid)

    def tune(self) -> None:
        """Give it what the hook gives at its start, and its live pins.

        Raises:
            TunerError: Something of it could not be done.
        """
        reverted.forget(self._sysfs, self._domain.uuid)
        self._claim_again()
        given = holding.give(
            self._sysfs, holding.read_request(self._sysfs, live_document(self._sysfs, self._domain.name))
        )
        self._given = given.plan
        self._claim = Ledger(self._sysfs).read().claims.get(self._domain.uuid)
        irqbalance.tell(self._sysfs, Ledger(self._sysfs))
        live.pin(self._conn, self._domain, given.plan)
        holding.place_workers(self._sysfs, self._process(), given.plan)
        failed = [str(outcome) for outcome in given.outcomes if _failed(outcome)]
        if failed:
            raise HostError("; ".join(failed), where=self._domain.name)

    def _claim_again(self) -> None:
        """What it was given before: it gets the same again, not what a newcomer would get.

        Its pins come first: those that were taken back look like the user's own in the live document.
        """
        if self._claim is None or self._given is None:
            return
        with Ledger(self._sysfs).locked() as book:
            book.claim(self._claim)
            book.save()
        live.pin(self._conn, self._domain, self._given)

    def untune(self) -> None:
        """Take all of it back.

        Raises:
            TunerError: Something of it could not be done.
        """
        reverted.remember(self._sysfs, self._domain.uuid)
        request = holding.read_request(self._sysfs, live_document(self._sysfs, self._domain.name))
        holding.let_go(self._sysfs, request.own)
        irqbalance.tell(self._sysfs, Ledger(self._sysfs))
        if self._given is not None:
            balanced = frozenset().union(*(cell.cpus for cell in cpus.cells(self._sysfs)))
            balanced -= cpus.isolated(self._sysfs)
            live.unpin(self._conn, self._domain, self._given, balanced)
            self._loosen(self._given, balanced)

    def _loosen(self, given: Placement, balanced: frozenset[int]) -> None:
        """Have vhost workers run where the emulator may: they keep the CPUs that they were given."""
        if not given.emulatorpin and not given.vhost:
            return
        for tid in processes.threads(self._sysfs, self._process()).vhost:
            with suppress(MissingError):
                changes.thread_affinity(tid, balanced)

    def _process(self) -> int:
        return process_id(self._sysfs, self._domain.name, self._domain.uuid)


def _failed(outcome: changes.Outcome) -> bool:
    """Whether tuned is not what it should be; a managed interrupt stays where it is, tuned or not."""
    return not outcome.ok and not isinstance(outcome.error, UnsupportedError)


def run(command: str, seconds: float) -> str:
    """What a line for the shell printed.

    Args:
        command: The line.
        seconds: How long it may take.

    Raises:
        HostError: Its status is not 0, or it took too long.
    """
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"took more than {seconds:g} s", where=command) from None
    if done.returncode:
        why = complaint(done.stdout) or complaint(done.stderr) or f"exit status {done.returncode}"
        raise HostError(f"failed: {why}", where=command)
    return done.stdout


def in_guest(client: Agent, argv: Sequence[str], seconds: float, server: Agent | None = None) -> str:
    """What a program in a guest printed; ``server``: another guest, in which iperf3's server runs meanwhile.

    Args:
        client: The guest agent.
        argv: The program and its arguments.
        seconds: How long it may take.
        server: The other guest's agent.

    Raises:
        HostError: A guest has no agent or no iperf3, the program's status is not 0, or it took too long.
    """
    if server is not None:
        # It ends after one client, or by itself if none comes.
        server.start(("timeout", str(int(seconds)), "iperf3", "--server", "--one-off"))
        server.sleep(1)
    status, said, error = client.run(argv, seconds)
    if status:
        why = complaint(said) or complaint(error) or f"exit status {status}"
        raise HostError(f"failed: {why}", where=f"{' '.join(argv)} in {client.name}")
    return said


class Ended(Exception):
    """A signal asked for the end."""


@contextmanager
def ending() -> Iterator[None]:
    """Raise :class:`Ended` for signals that end a program, so that everything is restored first."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deaf() -> Iterator[None]:
    """Hear no signal that would end the program: putting things back is not to be cut off."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
