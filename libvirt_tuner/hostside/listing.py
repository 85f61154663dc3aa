"""One row per domain: where it runs, and whether it is tuned or why not."""

from __future__ import annotations

import shlex

from attrs import frozen

from libvirt_tuner.errors import LedgerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding
from libvirt_tuner.hostside.ledger import Book
from libvirt_tuner.hostside.reverted import is_reverted
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Placement
from libvirt_tuner.planning.request import Request


@frozen
class Row:
    """One domain.

    Attributes:
        name: The domain's.
        state: ``running`` or ``shut off``.
        placement: ``dedicated``, ``shared`` or ``keep``; "" for a domain that does not run.
        nodes: Host NUMA nodes it was placed on.
        tuned: Whether it runs, or will run, with settings of this tool's.
        why: Why it is not tuned, or why it shares CPUs and with whom; else "".
    """

    name: str
    state: str
    placement: str
    nodes: tuple[int, ...]
    tuned: bool
    why: str


def row(sysfs: Sysfs, book: Book | None, request: Request, name: str, *, runs: bool) -> Row:
    """Return the row of a domain.

    Args:
        sysfs: The host.
        book: The ledger; None where there is none.
        request: From its definition; a transient domain's document.
        name: Its name.
        runs: Whether it runs.
    """
    given = _given(book, request.spec.uuid) if runs and book else None
    state = "running" if runs else "shut off"
    tuned = given is not None and given.tuned if runs else bool(request.spec.recorded)
    why = _why(sysfs, request, given, tuned=tuned, runs=runs)
    if runs and book:
        why = "; ".join(filter(None, (why, *holding.overlapping(book, request.spec.uuid))))
    placement = given.placement if given and given.tuned else ""
    return Row(name, state, placement, given.nodes if given else (), tuned, why)


def _given(book: Book, uuid: str) -> Placement | None:
    claim = book.claims.get(uuid)
    try:
        return stored.from_dict(claim.plan) if claim else None
    except LedgerError:
        return None


def _why(sysfs: Sysfs, request: Request, given: Placement | None, *, tuned: bool, runs: bool) -> str:
    name = shlex.quote(request.spec.name)
    if request.held_back:
        return "the policy has a mistake; see 'libvirt-tuner config check'"
    if not request.policy.select:
        return "select = false in its policy"
    if request.manager:
        return f"{request.manager} places it; to tune it, set select = true in a [[domain]] table"
    if is_reverted(sysfs, request.spec.uuid):
        return f"reverted; 'libvirt-tuner apply {name}' tunes it again"
    if tuned:
        shares = given is not None and given.placement == "shared" and request.policy.placement == "auto"
        return "shares CPUs: fewer CPUs than running vCPUs" if shares else ""
    if runs:
        now = f"'libvirt-tuner apply --live {name}'"
        return f"started before it could be tuned; restart the domain, or run {now}"
    return f"will be tuned at its next start, or by 'libvirt-tuner apply {name}'"
