"""The hook. libvirtd calls it through ``hooks/qemu`` when a domain starts, arrives or stops.

It never calls libvirt (the domain's lock is held; docs/hooks.rst) and prints nothing except a filtered
document. It always exits 0, within :data:`TIME_LIMIT`. If something fails or takes too long, the hook undoes
its changes and leaves the work to ``settle``, which no start waits for. Each problem is logged once, with
advice.

Import budget: about 20 ms in addition to lxml and attrs. No transforms, subprocess, logging or pathlib here.
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
"""Seconds. libvirtd and the start of the domain wait for the hook without a limit."""

_GIVE_BACK_LIMIT = 0.5
"""Seconds to undo changes after that."""

_LEAST = 0.1
"""The least time in seconds."""

REFUSED = 3
"""Not 1: Python also exits 1 if it cannot import this file, and that must not stop a domain."""


class Call(NamedTuple):
    """One call of the hook: the host, and libvirt's arguments; the document is on standard input."""

    sysfs: Sysfs
    domain: str
    operation: str


class TimeUpError(BaseException):
    """The time limit was reached. It is not an ``Exception``, so that no handler on the way catches it."""


def main(argv: list[str], *, root: str = "/", limit: float = TIME_LIMIT, began: float | None = None) -> int:
    """Serve one call.

    Args:
        argv: ``[hook, NAME, OPERATION, SUB-OPERATION, EXTRA]`` as libvirt gives them.
        root: Where /sys, /proc, /run, /dev and /etc are.
        limit: Seconds it may take.
        began: ``time.monotonic()`` of the process start, to include the time of imports.

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
        # Another try would fail too.
        _warn(call, f"{err}; the domain was not changed")
    except TunerError as err:
        _give_up(call, str(err))
    except Exception as err:
        _give_up(call, f"{type(err).__name__}: {err}; please report this")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


def _limit(seconds: float) -> None:
    """Raise :class:`TimeUpError` after this many seconds; 0: never.

    The ledger is consistent at any moment, as SIGKILL requires.
    """
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _time_is_up(*_: object) -> None:
    # Code that waits for its own lock, or does not return to Python, cannot heed the exception.
    # Then the kernel ends the process, and the script around it exits 0.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _GIVE_BACK_LIMIT)
    raise TimeUpError


def _give_up(call: Call, why: str) -> None:
    """Log the problem, undo the changes of a start, and leave the rest to ``settle``."""
    left = "the domain was not changed"
    try:
        _limit(_GIVE_BACK_LIMIT)
        if call.operation == "started":
            holding.take_back(call.sysfs, call.domain)
    except (TimeUpError, TunerError, OSError):
        left = "its changes will be undone later"
    finally:
        _limit(0)
    again = call.operation in _SETTLED and _leave_settle(call)
    _warn(call, f"{why}; {left}{'; it will be tried again' if again else ''}")


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
    """Read everything, so that libvirtd can finish writing. Bytes after :data:`INPUT_LIMIT` are dropped."""
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
    """Change the host for a domain that runs now."""
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
    # A problem here must neither stop the following steps nor undo the earlier ones.
    try:
        troubles = holding.tell_irqbalance(call.sysfs)
    except TunerError as err:
        troubles = (f"{err}; irqbalance may move the interrupts back; see 'libvirt-tuner host check'",)
    except TimeUpError:
        again = "" if _leave_settle(call) else "; run 'systemctl restart irqbalance'"
        troubles = (f"irqbalance did not answer in time; it may move interrupts back{again}",)
    for trouble in troubles:
        _warn(call, trouble)


def _note(call: Call, given: Given) -> None:
    for trouble in given.troubles:
        _warn(call, trouble)
    _note_failures(call, (*given.outcomes, *given.returned))


def _note_failures(call: Call, outcomes: Iterable[Outcome]) -> None:
    """Log one line for all failed changes."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        _warn(call, f"{failed[0]}{more}; see 'libvirt-tuner status {call.domain}'")


def _report(call: Call, given: Given, seconds: float) -> None:
    moved = [outcome.ok for outcome in given.outcomes if outcome.change.kind == "irq"]
    interrupts = f"{sum(moved)} of {len(moved)} interrupts moved" if moved else "no interrupts moved"
    text = f"{_placed(given.plan)}, {interrupts}, {seconds * 1000:.0f} ms"
    _say(call, log.INFO, text, "started", given.plan.uuid)


def _placed(plan: Plan) -> str:
    if plan.placement == "keep":
        why = next((reason.why for reason in reversed(plan.reasons) if reason.subject == "vcpus"), "")
        return f"not pinned ({why})" if why else "not pinned"
    nodes = ",".join(map(str, plan.nodes))
    return f"{plan.placement} on node {nodes}" if nodes else plan.placement


# release


def _end(call: Call) -> int:
    """Undo the changes for the domain.

    Done at ``release``, because at ``stopped`` its taps still exist: restoring the smaller MTU of a tap would
    lower that of its bridge.
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
    """Plan again for this host, and print the document if it changes."""
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
        # libvirtd reads until the end: a truncated document would break the restore.
        _limit(0)
        _print(document)
    return 0


def _print(document: bytes) -> None:
    rest = memoryview(document)
    while rest:
        rest = rest[os.write(1, rest) :]


# prepare


def _check(call: Call) -> int:
    """With ``strict = true``, refuse the start if the domain would not get its own CPUs."""
    request = _request(call)
    if not (request.policy.strict and request.policy.select):
        return 0
    if request.policy.placement not in ("auto", "dedicated"):
        return 0
    plan = holding.foresee(call.sysfs, request)
    if plan.placement == "dedicated":
        return 0
    why = "; ".join(f"{reason.subject}: {reason.decision} ({reason.why})" for reason in plan.reasons[-3:])
    said = (
        f"libvirt-tuner: start refused (strict = true): {call.domain} would not get dedicated CPUs: {why}\n"
    )
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
