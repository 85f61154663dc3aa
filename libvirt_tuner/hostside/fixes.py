"""Runs the fix of a finding: as a change in the ledger if it changes the host, else as a command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable

from libvirt_tuner.diagnosis.finding import Fix
from libvirt_tuner.errors import HostError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, irqbalance
from libvirt_tuner.hostside.changes import ADMINISTRATOR, Change, Outcome
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.topology import Cpus

SECONDS = 120.0
"""How long a command may take."""


def steer(sysfs: Sysfs, irqs: Iterable[int], cpus: Cpus, holder: str = ADMINISTRATOR) -> tuple[Outcome, ...]:
    """Move interrupts to ``cpus``, noted in the ledger, and tell irqbalance to leave them alone.

    Args:
        sysfs: The host.
        irqs: As in ``/proc/irq/N``.
        cpus: At least one.
        holder: UUID of the domain that needs it. Without a claim in the ledger, the holder is the
            administrator.

    Raises:
        LedgerError: The ledger could not be written. Nothing was changed then.
    """
    outcomes = _perform(sysfs, [changes.irq_affinity(irq, cpus) for irq in irqs], holder)
    irqbalance.tell(sysfs, Ledger(sysfs))
    return outcomes


def _perform(sysfs: Sysfs, wanted: list[Change], holder: str) -> tuple[Outcome, ...]:
    ledger = Ledger(sysfs)
    with ledger.locked() as book:
        who = holder if holder in book.claims else ADMINISTRATOR
        return changes.perform_all(sysfs, book, who, wanted)


def carry_out(sysfs: Sysfs, fix: Fix, holder: str = ADMINISTRATOR) -> tuple[str, ...]:
    """Run a fix.

    Returns:
        Problems, one sentence each.

    Raises:
        LedgerError: As :func:`steer`.
        HostError: A thread has ended, or the command failed.
    """
    if fix.kind == "irq":
        outcomes = steer(sysfs, fix.targets, fix.cpus, holder)
    elif fix.kind == "thread":
        threads = [(tid, processes.process_start(sysfs, tid)) for tid in fix.targets]
        outcomes = _perform(sysfs, [changes.thread(tid, start, fix.cpus) for tid, start in threads], holder)
    else:
        run_command(fix.command)
        return ()
    return tuple(str(outcome) for outcome in outcomes if not outcome.ok)


def run_command(command: str) -> None:
    """Run a line in the shell.

    Raises:
        HostError: It failed or took too long. The problem has its last line of output.
    """
    argv = ["/bin/sh", "-c", command]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise HostError(f"took more than {SECONDS:g} s", where=command) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        problem = said[-1] if said else f"exit status {done.returncode}"
        raise HostError(problem, where=shlex.join(shlex.split(command)))
