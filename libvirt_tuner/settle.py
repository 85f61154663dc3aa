"""What follows the hook when a domain has started or was reconnected to, in a process of its own.

The hook may not call libvirt while libvirtd waits for it (docs/hooks.rst). So it leaves this behind,
detached: live pins through libvirt, so that ``virsh vcpupin`` shows them, then the vhost workers, then the
persistent definition for all that only a boot can change. One part's failure is logged, and does not stop the
next. Every part only does what is still missing, so that all of it can be tried again when libvirtd was away.
"""

from __future__ import annotations

import syslog
import time
from collections.abc import Callable, Iterator
from functools import partial

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import spec as domainxml
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import ConnectionFailed, TunerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import domain as hostside
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.libvirtd import definition
from libvirt_tuner.libvirtd.connection import SYSTEM, Connection, Domain
from libvirt_tuner.libvirtd.definition import Neighbours
from libvirt_tuner.planning import stored as planfile
from libvirt_tuner.planning.plan import Plan

PATIENCE = 60.0
"""Seconds to wait for libvirtd, and for the domain's job (for which libvirt itself waits 30 s)."""

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0
_OVERTAKEN_TRIES = 3
_AGAIN = ("busy", "lost")


def main(uuid: str, *, root: str = "/", uri: str = SYSTEM, patience: float = PATIENCE) -> int:
    """Settle one running domain.

    Args:
        uuid: The domain's.
        root: Where /sys, /proc, /run and /etc are.
        uri: libvirt's.
        patience: Seconds to wait for libvirt.

    Returns:
        0: nobody waits for this process, and what went wrong is in the system log.
    """
    syslog.openlog("libvirt-tuner", syslog.LOG_PID, syslog.LOG_DAEMON)
    try:
        patiently(lambda: _settle(uuid, Sysfs(root), uri), time.monotonic() + patience)
    except TunerError as error:
        if _kind(error) != "missing":  # else it has ended meanwhile
            _warn(uuid, str(error))
    except Exception as error:
        _warn(uuid, f"{type(error).__name__}: {error}; please report this")
    return 0


def patiently(call: Callable[[], None], deadline: float) -> None:
    """Do it, again and again while libvirtd is away or another job holds the domain.

    Args:
        call: What to do.
        deadline: ``time.monotonic()`` after which the failure stands.

    Raises:
        TunerError: It failed for good.
    """
    wait = _FIRST_WAIT
    while True:
        try:
            return call()
        except TunerError as error:
            if _kind(error) not in _AGAIN or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _kind(error: TunerError) -> str:
    return error.kind if isinstance(error, ConnectionFailed) else ""


def _settle(uuid: str, sysfs: Sysfs, uri: str) -> None:
    with Connection(uri) as conn:
        domain = conn.lookup(uuid)
        claim = Ledger(sysfs).read().claims.get(domain.uuid)
        if domain.active and claim is not None and claim.plan:
            plan = planfile.from_dict(claim.plan)
            _part(domain, lambda: pin(conn, domain, plan))
            _part(domain, lambda: bind_memory(conn, domain, plan))
            # Moving the emulator's cpuset has moved the vhost workers too, over all of its CPUs.
            _part(domain, lambda: hostside.place_workers(sysfs, claim.pid, plan))
        _part(domain, lambda: persist(conn, sysfs, domain))


def _part(domain: Domain, part: Callable[[], None]) -> None:
    try:
        part()
    except TunerError as error:
        if _kind(error) in (*_AGAIN, "missing"):
            raise
        _warn(domain.name, f"{error}; see 'libvirt-tuner status {domain.name}'")


# The running domain


def pin(conn: Connection, domain: Domain, plan: Plan) -> None:
    """Pin live what the live document does not have pinned as planned.

    Raises:
        ConnectionFailed: The last pin that libvirt refused; the others are in force.
    """
    failed = None
    for call in pins(conn, domain, _live(conn, domain), plan):
        try:
            call()
        except ConnectionFailed as error:
            if error.kind in _AGAIN:
                raise
            failed = error
    if failed:
        raise failed


def pins(conn: Connection, domain: Domain, spec: DomainSpec, plan: Plan) -> Iterator[partial[None]]:
    """The calls that give a domain that runs as ``spec`` the pins of ``plan``."""
    for vcpu, cpus in sorted(plan.vcpupin.items()):
        if spec.vcpupin.get(vcpu) != cpus:
            yield partial(conn.pin_vcpu, domain, vcpu, cpus)
    if plan.emulatorpin and plan.emulatorpin != spec.emulatorpin:
        yield partial(conn.pin_emulator, domain, plan.emulatorpin)
    for iothread, cpus in sorted(plan.iothreadpin.items()):
        if spec.iothreadpin.get(iothread) != cpus:
            yield partial(conn.pin_iothread, domain, iothread, cpus)


def bind_memory(conn: Connection, domain: Domain, plan: Plan) -> None:
    """Bind the memory live where libvirt can; where it cannot, the definition has it for the next start.

    libvirt changes no mode of a running domain, and moves none but ``strict`` memory.
    """
    now = _live(conn, domain).numatune
    if plan.numatune is None or plan.numatune == (now.mode, now.nodeset):
        return
    mode, nodeset = plan.numatune
    why = "libvirt changes no mode of a running domain"
    if mode == "strict" == (now.mode or mode) and not (plan.memnodes or now.memnodes):
        try:
            conn.set_nodeset(domain, nodeset)
            return
        except ConnectionFailed as error:
            why = str(error)
    when = "from the next start on" if domain.persistent else "is not to be had"
    _inform(domain.name, f"memory {mode} on node {cpuset.format(nodeset)} {when}: {why}")


def _live(conn: Connection, domain: Domain) -> DomainSpec:
    return domainxml.spec(domainxml.parse(conn.xml(domain)))


# Its definition


def persist(conn: Connection, sysfs: Sysfs, domain: Domain) -> None:
    """Complete the domain's definition; a transient domain has none."""
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
        _warn(domain.name, "somebody else keeps changing its definition; see 'libvirt-tuner apply'")
        return
    if done is not None and done.outcome == "changed":
        _inform(domain.name, "definition completed; the next start has the rest")


def _warn(domain: str, text: str) -> None:
    syslog.syslog(syslog.LOG_WARNING, f"{domain}: settle: {text}".replace("\n", " "))


def _inform(domain: str, text: str) -> None:
    syslog.syslog(syslog.LOG_INFO, f"{domain}: settle: {text}".replace("\n", " "))
