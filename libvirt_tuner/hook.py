"""What libvirtd calls, by way of ``hooks/qemu``, when a domain starts, arrives or stops.

A guest in libvirtd's house: it never calls libvirt (the domain's lock is held; docs/hooks.rst), prints
nothing but a filtered document, and whatever happens ends with 0, within :data:`TIME_LIMIT`. What could not
be done in that time, or failed for now, is given back and left to ``settle``, for which nobody waits. What
went wrong goes to the system log once, with what to do about it.

Import budget: about 20 ms beside lxml and attrs. No transforms, no subprocess, no logging, no pathlib here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from libvirt_tuner.errors import DomainXmlError, TunerError
from libvirt_tuner.host import log
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding
from libvirt_tuner.hostside.changes import Outcome
from libvirt_tuner.hostside.holding import Given
from libvirt_tuner.planning import tuning
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.request import Request

INPUT_LIMIT = 16 * 1024 * 1024
TIME_LIMIT = 2.0
"""Seconds; libvirtd waits for the hook without limit, and the domain's start with it."""

_GIVE_BACK_LIMIT = 0.5
"""Seconds that giving back may take after that."""

_LEAST = 0.1
"""Seconds it has in any case."""

REFUSED = 3
"""Not 1: that is also how Python ends when it cannot even import this file, which must stop no domain."""


class Call(NamedTuple):
    """One call of the hook: the host, and libvirt's arguments; the document is on standard input."""

    sysfs: Sysfs
    domain: str
    operation: str


class TimeUpError(BaseException):
    """The time limit has come; no ``except Exception`` on the way out takes it for something else."""


def main(argv: list[str], *, root: str = "/", limit: float = TIME_LIMIT, began: float | None = None) -> int:
    """Serve one call.

    Args:
        argv: ``[hook, NAME, OPERATION, SUB-OPERATION, EXTRA]`` as libvirt gives them.
        root: Where /sys, /proc, /run, /dev and /etc are.
        limit: Seconds it may take.
        began: ``time.monotonic()`` of its start, where importing this took time already.

    Returns:
        The exit status: 0, or :data:`REFUSED` for ``prepare`` under ``strict = true``.
    """
    domain, operation = argv[1:3] if len(argv) > 2 else ("", "")
    serve = OPERATIONS.get(operation)
    if serve is None:
        return 0
    call = Call(Sysfs(root), domain, operation)
    try:
        past = 0.0 if began is None else time.monotonic() - began
        _limit(max(limit - past, _LEAST))
        return serve(call)
    except TimeUpError:
        _give_up(call, f"not done within {limit:g} s")
    except DomainXmlError as err:
        # Nothing that another try could change.
        _warn(call, f"{err}; the domain was left as it is")
    except TunerError as err:
        _give_up(call, str(err))
    except Exception as err:
        _give_up(call, f"{type(err).__name__}: {err}; please report this")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


def _limit(seconds: float) -> None:
    """Raise :class:`TimeUpError` in so many seconds, whatever is waited for then; 0 is never.

    The ledger is in order at any moment, as it has to be for SIGKILL.
    """
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _time_is_up(*_: object) -> None:
    raise TimeUpError


def _give_up(call: Call, why: str) -> None:
    """Say it; give back what a start has begun; leave the rest to ``settle``."""
    left = "the domain was left as it is"
    try:
        _limit(_GIVE_BACK_LIMIT)
        if call.operation == "started":
            holding.take_back(call.sysfs, call.domain)
    except (TimeUpError, TunerError, OSError):
        left = "what was begun is given back later"
    finally:
        _limit(0)
    again = call.operation in _SETTLED and _leave_settle(call)
    _warn(call, f"{why}; {left}{', and it is tried again' if again else ''}")


def _leave_settle(call: Call) -> bool:
    if not call.sysfs.live:
        return False
    try:
        holding.leave_settle(call.sysfs.root, name=call.domain, started=call.operation == "started")
    except OSError:
        return False
    return True


_SETTLED = frozenset({"started", "reconnect", "release"})


def read_document(fd: int = 0) -> bytes:
    """All of it, so that libvirtd is not left writing; more than :data:`INPUT_LIMIT` bytes are dropped."""
    chunks: list[bytes] = []
    size = 0
    while chunk := os.read(fd, 1 << 20):
        size += len(chunk)
        if size <= INPUT_LIMIT + (1 << 20):
            chunks.append(chunk)
    return b"".join(chunks)


def _warn(call: Call, text: str) -> None:
    _say(call, log.WARNING, text, "problem")


def _say(call: Call, priority: int, text: str, event: str, uuid: str = "") -> None:
    log.send(
        priority,
        f"{call.domain}: {call.operation}: {text}",
        event=event,
        domain=call.domain,
        operation=call.operation,
        uuid=uuid,
    )


# started, reconnect


def _begin(call: Call) -> int:
    """The host side for a domain that runs now."""
    began = time.monotonic()
    request = _request(call)
    given = holding.begin(call.sysfs, request, started=call.operation == "started")
    if given is None:
        return 0
    _note(call, given)
    if given.steers:
        _quiet_irqbalance(call)
    short = tuning.falls_short(request.spec, given.plan)
    if call.sysfs.live and (short or given.disturbs or given.plan.alone):
        holding.leave_settle(call.sysfs.root, request.spec.uuid if short else "", others=given.disturbs)
    _report(call, given, time.monotonic() - began)
    return 0


def _request(call: Call) -> Request:
    request = holding.read_request(call.sysfs, read_document())
    for problem in request.problems:
        _warn(call, f"{problem}; {problem.consequence}")
    return request


def _quiet_irqbalance(call: Call) -> None:
    # Whatever goes wrong here is no reason to leave out what comes after it, or to give back what is done.
    try:
        troubles = holding.tell_irqbalance(call.sysfs)
    except TunerError as err:
        troubles = (f"{err}; irqbalance may move steered interrupts back",)
    except TimeUpError:
        again = "" if _leave_settle(call) else "; 'systemctl restart irqbalance' has it told anew"
        troubles = (f"irqbalance could not be told in time, and may move interrupts back{again}",)
    for trouble in troubles:
        _warn(call, trouble)


def _note(call: Call, given: Given) -> None:
    for trouble in given.troubles:
        _warn(call, trouble)
    _note_failures(call, (*given.outcomes, *given.returned))


def _note_failures(call: Call, outcomes: Iterable[Outcome]) -> None:
    """One line for all that failed."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        _warn(call, f"{failed[0]}{more}; see 'libvirt-tuner status {call.domain}'")


def _report(call: Call, given: Given, seconds: float) -> None:
    steered = [outcome.ok for outcome in given.outcomes if outcome.change.kind == "irq"]
    nodes = ",".join(map(str, given.plan.nodes)) or "none"
    _say(
        call,
        log.INFO,
        f"{given.plan.placement}, node {nodes}, {sum(steered)} of {len(steered)} interrupts steered,"
        f" {seconds * 1000:.0f} ms",
        "started",
        given.plan.uuid,
    )


# release


def _end(call: Call) -> int:
    """Give back what the domain held.

    At ``release`` and not at ``stopped``, where its taps still exist: a tap set back to its smaller MTU would
    pull its bridge's down once more before it goes.
    """
    read_document()
    outcomes = holding.take_back(call.sysfs, call.domain)
    _note_failures(call, outcomes)
    _quiet_irqbalance(call)
    crowded, isolated = holding.left_over(call.sysfs) if call.sysfs.live else (False, False)
    if crowded or isolated:
        holding.leave_settle(call.sysfs.root, others=crowded)
    return 0


# migrate, restore


def _arrive(call: Call) -> int:
    """Plan anew for this host, and print the document if that changes it."""
    request = _request(call)
    if not holding.leaves_alone(call.sysfs, request):
        given = holding.expect(call.sysfs, request)
        _note(call, given)
        plan = given.plan
    elif request.spec.recorded:
        plan = Plan(request.spec.name, request.spec.uuid)
    else:
        return 0
    document = tuning.filter_arrival(request, plan)
    if document is not None:
        # libvirtd reads it to its end: half a document would break the restore.
        _limit(0)
        _print(document)
    return 0


def _print(document: bytes) -> None:
    rest = memoryview(document)
    while rest:
        rest = rest[os.write(1, rest) :]


# prepare


def _check(call: Call) -> int:
    """Under ``strict = true``: refuse the start when the domain would not get CPUs of its own."""
    request = _request(call)
    if not (request.policy.strict and request.policy.select):
        return 0
    if request.policy.placement not in ("auto", "dedicated"):
        return 0
    plan = holding.foresee(call.sysfs, request)
    if plan.placement == "dedicated":
        return 0
    why = "; ".join(f"{reason.subject}: {reason.decision} ({reason.why})" for reason in plan.reasons[-3:])
    said = f"libvirt-tuner: strict = true, and {call.domain} would not get dedicated CPUs: {why}\n"
    os.write(2, said.encode())
    return REFUSED


OPERATIONS: dict[str, Callable[[Call], int]] = {
    "prepare": _check,
    "started": _begin,
    "reconnect": _begin,
    "release": _end,
    "migrate": _arrive,
    "restore": _arrive,
}
