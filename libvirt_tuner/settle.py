"""Finishes the tuning after the hook, in its own process, when a domain has started or libvirtd reconnected
to it.

The hook may not call libvirt while libvirtd waits for it (docs/hooks.rst). So it starts this process, which
sets live pins through libvirt (so that ``virsh vcpupin`` shows them), then pins vhost workers, then changes
the persistent definition for settings that need a boot. A failure is logged and does not stop the next part.
Each part only does what is missing, so that all can be repeated if libvirtd did not answer.

If the hook failed or had no more time, its work is done first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from libvirt_tuner.errors import ConnectionFailed, HostError, LedgerError, MissingError, TunerError
from libvirt_tuner.host import log
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding, slices
from libvirt_tuner.hostside.holding import Given
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.libvirtd import definition
from libvirt_tuner.libvirtd.connection import SYSTEM, Connection, Domain
from libvirt_tuner.libvirtd.definition import Neighbours
from libvirt_tuner.libvirtd.live import bind_memory, pin
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Placement

PATIENCE = 60.0
"""Seconds to wait for libvirtd, and for the domain's job (libvirt itself waits 30 s for it)."""

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0
_OVERTAKEN_TRIES = 3
_PASSES = 3
"""Moving one domain may move another, for example an emulator whose CPU a vCPU has now."""


def main(
    uuid: str,
    *,
    root: str = "/",
    uri: str = SYSTEM,
    patience: float = PATIENCE,
    others: bool = False,
    name: str = "",
    started: bool = False,
) -> int:
    """Settle one running domain, and others if asked.

    Args:
        uuid: The domain's; "" for none.
        root: Where /sys, /proc, /run and /etc are.
        uri: libvirt's.
        patience: Seconds to wait for libvirt.
        others: Plan all running domains again, because they must share CPUs now, or no longer need to.
        name: A domain that the hook could not serve.
        started: It has just started.

    Returns:
        Always 0: nobody waits for this process. Problems are in the system log.
    """
    sysfs = Sysfs(root)
    deadline = time.monotonic() + patience
    try:
        if name:
            given = patiently(lambda: catch_up(sysfs, name, started=started), deadline, again=_host_failed)
            uuid, others = (given.plan.uuid, given.disturbs) if given else ("", False)
        if uuid:
            patiently(lambda: _settle(uuid, sysfs, uri), deadline)
        if others:
            _plan_again(sysfs)
            patiently(lambda: _pin_all(sysfs, uri), deadline)
        for trouble in slices.troubles(sysfs):
            _warn(name or uuid or "running domains", trouble)
    except TunerError as error:
        if not _missing(error):  # else it has ended meanwhile
            _warn(name or uuid or "running domains", str(error))
    except Exception as error:
        _warn(name or uuid or "running domains", f"{type(error).__name__}: {error}; please report this")
    return 0


def catch_up(sysfs: Sysfs, name: str, *, started: bool) -> Given | None:
    """Do the hook's work for a running domain. Undo the changes for an ended one.

    Returns:
        The result; None if it is not tuned or has ended.

    Raises:
        TunerError: The host or the ledger cannot be read or written now, or the document is not valid.
    """
    try:
        given = holding.begin_again(sysfs, name, started=started)
    except MissingError:
        holding.sweep(sysfs)
        return None
    for trouble in holding.tell_irqbalance(sysfs):
        _warn(name, trouble)
    return given


def patiently(
    call: Callable[[], T], deadline: float, *, again: Callable[[TunerError], bool] | None = None
) -> T:
    """Call a function, and repeat it while libvirtd does not answer or another job holds the domain.

    Args:
        call: What to do.
        deadline: ``time.monotonic()`` after which the error is raised.
        again: Function that tells which errors to repeat; None: the above.

    Raises:
        TunerError: It failed for good.
    """
    wait = _FIRST_WAIT
    while True:
        try:
            return call()
        except TunerError as error:
            if not (again or _try_again)(error) or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _host_failed(error: TunerError) -> bool:
    return isinstance(error, HostError | LedgerError)


def _try_again(error: TunerError) -> bool:
    return isinstance(error, ConnectionFailed) and error.try_again


def _missing(error: TunerError) -> bool:
    return isinstance(error, ConnectionFailed) and error.kind == "missing"


def _plan_again(sysfs: Sysfs) -> None:
    """Plan all running domains again and change the host for each, until nothing moves any more."""
    for _ in range(_PASSES):
        moved = False
        for name, became in holding.give_all_again(sysfs):
            if isinstance(became, TunerError):
                _warn(name, f"{became}; its interrupts and pins are not changed")
            else:
                moved |= became.moved
        if not moved:
            return


def _pin_all(sysfs: Sysfs, uri: str) -> None:
    """Pin all domains that run as the ledger has them."""
    with Connection(uri) as conn:
        for claim in Ledger(sysfs).read().claims.values():
            with suppress(LedgerError):
                placement = stored.from_dict(claim.plan)
                if claim.pid and placement.tuned:
                    _pin_again(conn, sysfs, claim.uuid, claim.pid, placement)


def _pin_again(conn: Connection, sysfs: Sysfs, uuid: str, pid: int, placement: Placement) -> None:
    try:
        domain = conn.lookup(uuid)
        if domain.active:
            _part(domain, lambda: pin(conn, domain, placement))
            _part(domain, lambda: holding.place_workers(sysfs, pid, placement))
            _part(domain, lambda: holding.place_timers(sysfs, pid, placement))
    except ConnectionFailed as error:
        if not _missing(error):  # else it has ended meanwhile
            raise


def _settle(uuid: str, sysfs: Sysfs, uri: str) -> None:
    with Connection(uri) as conn:
        domain = conn.lookup(uuid)
        claim = Ledger(sysfs).read().claims.get(domain.uuid)
        if domain.active and claim is not None and claim.plan:
            placement = stored.from_dict(claim.plan)
            _part(domain, lambda: pin(conn, domain, placement))
            _part(domain, lambda: _bind_memory(conn, domain, placement))
            # Changing the emulator's cpuset also moved the vhost workers, so that they use all its CPUs.
            _part(domain, lambda: holding.place_workers(sysfs, claim.pid, placement))
            _part(domain, lambda: holding.place_timers(sysfs, claim.pid, placement))
        _part(domain, lambda: persist(conn, sysfs, domain))


def _part(domain: Domain, part: Callable[[], None]) -> None:
    try:
        part()
    except TunerError as error:
        if _try_again(error) or _missing(error):
            raise
        _warn(domain.name, f"{error}; see 'libvirt-tuner status {domain.name}'")


def _bind_memory(conn: Connection, domain: Domain, placement: Placement) -> None:
    if short := bind_memory(conn, domain, placement):
        _inform(domain.name, short)


def persist(conn: Connection, sysfs: Sysfs, domain: Domain) -> None:
    """Tune the domain's definition. A transient domain has none."""
    if not domain.persistent:
        return
    versions = conn.versions()
    neighbours = Neighbours()
    neighbours.learn(conn, conn.domains(persistent=True))
    avoid = neighbours.but(domain.uuid)
    for _ in range(_OVERTAKEN_TRIES):
        done = definition.complete(conn, sysfs, domain, versions, avoid)
        if done is None or done.outcome != "overtaken":
            break
    else:
        _warn(domain.name, "another program keeps changing its definition; run 'libvirt-tuner apply' later")
        return
    if done is not None and done.outcome == "changed":
        _inform(domain.name, "definition changed; the rest applies at the next start")


def _warn(domain: str, text: str) -> None:
    log.send(log.WARNING, f"{domain}: settle: {text}", event="problem", domain=domain, operation="settle")


def _inform(domain: str, text: str) -> None:
    log.send(log.INFO, f"{domain}: settle: {text}", event="settled", domain=domain, operation="settle")
