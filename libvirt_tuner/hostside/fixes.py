"""Runs the fix of a finding that changes the host: as changes in the ledger, which ``undo`` undoes.

Fixes that change a domain are :mod:`libvirt_tuner.libvirtd.fixed`'s.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import Fix
from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, irqbalance
from libvirt_tuner.hostside.changes import ADMINISTRATOR, Change, Outcome
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.topology import Cpus

SECONDS = 120.0
"""How long a command may take."""
NICE = 19
HASH = "sdfn"
"""IP addresses and ports of both ends, as ``ethtool -N`` spells them."""


def steer(sysfs: Sysfs, irqs: Mapping[int, Cpus], holder: str = ADMINISTRATOR) -> tuple[Outcome, ...]:
    """Move interrupts, noted in the ledger, and tell irqbalance to leave them alone.

    Args:
        sysfs: The host.
        irqs: By their number, as in ``/proc/irq/N``, where each goes: at least one CPU.
        holder: UUID of the domain that needs it. Without a claim in the ledger, the holder is the
            administrator.

    Raises:
        LedgerError: The ledger could not be written. Nothing was changed then.
    """
    outcomes = _perform(sysfs, [changes.irq_affinity(*move) for move in irqs.items()], holder)
    irqbalance.tell(sysfs, Ledger(sysfs))
    return outcomes


def _perform(sysfs: Sysfs, wanted: list[Change], holder: str) -> tuple[Outcome, ...]:
    ledger = Ledger(sysfs)
    with ledger.locked() as book:
        who = holder if holder in book.claims else ADMINISTRATOR
        return changes.perform_all(sysfs, book, who, wanted)


def carry_out(sysfs: Sysfs, fix: Fix, holder: str = ADMINISTRATOR) -> tuple[str, ...]:
    """Run a fix that changes the host.

    Returns:
        Problems, one sentence each.

    Raises:
        LedgerError: As :func:`steer`.
        HostError: Every thread has ended, or the command failed.
    """
    if fix.kind == "pages":
        run_command(fix.command, advice="apt install numactl")
        return ()
    if fix.kind == "irq":
        outcomes = steer(sysfs, fix.irqs, holder)
    else:
        outcomes = _perform(sysfs, list(_wanted(sysfs, fix)), holder)
    return tuple(str(outcome) for outcome in outcomes if not outcome.ok)


def _wanted(sysfs: Sysfs, fix: Fix) -> Iterator[Change]:
    if fix.kind == "rps":
        device, _, queue = fix.where.partition("/")
        yield changes.rps(device, int(queue.removeprefix("rx-")), fix.cpus)
    elif fix.kind == "flow-hash":
        yield changes.flow_hash(fix.where, HASH)
    else:
        threads = list(_threads(sysfs, fix.targets))
        if not threads:
            raise MissingError("has ended", where=f"thread {cpuset.format(fix.targets)}")
        for tid, start in threads:
            if fix.kind == "nice":
                yield changes.nice(tid, start, NICE)
            else:
                yield changes.thread(tid, start, fix.cpus)


def _threads(sysfs: Sysfs, tids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Those that still exist, with their start."""
    for tid in tids:
        with suppress(MissingError):
            yield tid, processes.process_start(sysfs, tid)


def run_command(command: str, *, advice: str = "") -> None:
    """Run a line in the shell.

    Raises:
        HostError: It failed or took too long. The problem has its last line of output; ``advice`` says what
            to do if the program is not installed.
    """
    argv = ["/bin/sh", "-c", command]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise HostError(f"took more than {SECONDS:g} s", where=command) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        problem = said[-1] if said else f"exit status {done.returncode}"
        missing = done.returncode == 127
        raise HostError(problem, where=command, advice=advice if missing else "")
