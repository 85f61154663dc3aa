"""What libvirtd calls, by way of ``hooks/qemu``, when a domain starts, arrives or stops.

A guest in libvirtd's house: it never calls libvirt (the domain's lock is held; docs/hooks.rst), prints
nothing but a filtered document, waits for nothing but the ledger's lock, and whatever happens ends with 0.
What went wrong goes to the system log once, with what to do about it.

Import budget: about 20 ms beside lxml and attrs. No transforms, no subprocess, no logging, no pathlib here.
"""

from __future__ import annotations

import os
import syslog
import time
from collections.abc import Callable, Iterable

from attrs import frozen

from libvirt_tuner.errors import TunerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding
from libvirt_tuner.hostside.changes import Outcome
from libvirt_tuner.hostside.holding import Given
from libvirt_tuner.planning import tuning
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.request import Request

INPUT_LIMIT = 16 * 1024 * 1024
REFUSED = 3
"""Not 1: that is also how Python ends when it cannot even import this file, which must stop no domain."""


@frozen(repr=False)
class Call:
    """One call of the hook: the host, libvirt's arguments, and the document on standard input."""

    sysfs: Sysfs
    domain: str
    operation: str
    xml: bytes


def main(argv: list[str], *, root: str = "/") -> int:
    """Serve one call.

    Args:
        argv: ``[hook, NAME, OPERATION, SUB-OPERATION, EXTRA]`` as libvirt gives them.
        root: Where /sys, /proc, /run and /etc are.

    Returns:
        The exit status: 0, or :data:`REFUSED` for ``prepare`` under ``strict = true``.
    """
    syslog.openlog("libvirt-tuner", syslog.LOG_PID, syslog.LOG_DAEMON)
    domain, operation = argv[1:3] if len(argv) > 2 else ("", "")
    serve = OPERATIONS.get(operation)
    if serve is None:
        return 0
    try:
        return serve(Call(Sysfs(root), domain, operation, _standard_input()))
    except TunerError as err:
        _warn(f"{domain}: {operation}: {err}; the domain was left as it is")
    except Exception as err:
        said = f"{type(err).__name__}: {err}; the domain was left as it is; please report this"
        _warn(f"{domain}: {operation}: {said}")
    return 0


def _standard_input() -> bytes:
    """All of it, so that libvirtd is not left writing; more than :data:`INPUT_LIMIT` bytes are dropped."""
    chunks: list[bytes] = []
    size = 0
    while chunk := os.read(0, 1 << 20):
        size += len(chunk)
        if size <= INPUT_LIMIT + (1 << 20):
            chunks.append(chunk)
    return b"".join(chunks)


def _warn(text: str) -> None:
    syslog.syslog(syslog.LOG_WARNING, text.replace("\n", " "))


# started, reconnect


def _begin(call: Call) -> int:
    """The host side for a domain that runs now."""
    began = time.monotonic()
    request = _request(call)
    started_before = call.operation == "reconnect" and not holding.known(call.sysfs, request)
    if started_before or holding.leaves_alone(call.sysfs, request):
        for trouble in holding.note(call.sysfs, request.spec):
            _warn(f"{call.domain}: {trouble}")
        return 0
    given = holding.give(call.sysfs, request)
    _note(call, given)
    if given.steers:
        _quiet_irqbalance(call)
    short = tuning.falls_short(request.spec, given.plan)
    if call.sysfs.live and (short or given.disturbs):
        holding.leave_settle(call.sysfs.root, request.spec.uuid if short else "", others=given.disturbs)
    _report(call, given, time.monotonic() - began)
    return 0


def _request(call: Call) -> Request:
    request = holding.read_request(call.sysfs, call.xml)
    for problem in request.problems:
        _warn(f"{call.domain}: {problem}; {problem.consequence}")
    return request


def _quiet_irqbalance(call: Call) -> None:
    try:
        troubles = holding.tell_irqbalance(call.sysfs)
    except TunerError as err:
        # No reason to leave out what comes after it.
        troubles = (f"{err}; irqbalance may move steered interrupts back",)
    for trouble in troubles:
        _warn(f"{call.domain}: {trouble}")


def _note(call: Call, given: Given) -> None:
    for trouble in given.troubles:
        _warn(f"{call.domain}: {trouble}")
    _note_failures(call, (*given.outcomes, *given.returned))


def _note_failures(call: Call, outcomes: Iterable[Outcome]) -> None:
    """One line for all that failed."""
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        _warn(f"{call.domain}: {failed[0]}{more}; see 'libvirt-tuner status {call.domain}'")


def _report(call: Call, given: Given, seconds: float) -> None:
    steered = [outcome.ok for outcome in given.outcomes if outcome.change.kind == "irq"]
    nodes = ",".join(map(str, given.plan.nodes)) or "none"
    syslog.syslog(
        syslog.LOG_INFO,
        f"{call.domain}: {call.operation}: {given.plan.placement}, node {nodes}, {sum(steered)} of"
        f" {len(steered)} interrupts steered, {seconds * 1000:.0f} ms",
    )


# release


def _end(call: Call) -> int:
    """Give back what the domain held.

    At ``release`` and not at ``stopped``, where its taps still exist: a tap set back to its smaller MTU would
    pull its bridge's down once more before it goes.
    """
    outcomes = holding.take_back(call.sysfs, call.domain)
    _note_failures(call, outcomes)
    if outcomes:
        _quiet_irqbalance(call)
    if call.sysfs.live and holding.crowded(call.sysfs):
        holding.leave_settle(call.sysfs.root, others=True)
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
