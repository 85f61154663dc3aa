"""Plans several domains as if they started one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libvirt_tuner.planning.neighbours import Neighbour, neighbour
from libvirt_tuner.planning.plan import Placement, Plan
from libvirt_tuner.planning.request import Request, Survey, plan_request
from libvirt_tuner.topology import HostTopology

PASSES = 4
"""The most passes in which all are planned again. Each pass reacts to the last one."""


def in_order(requests: Sequence[Request], survey: Survey, beside: Iterable[Neighbour] = ()) -> list[Plan]:
    """Return the plan of each domain if all of them run.

    Args:
        requests: In the order the domains start.
        survey: Reads the host; asked once for each domain.
        beside: Domains that run already.
    """
    known = tuple(beside)
    hosts = [survey(request.devices, request.own.partition) for request in requests]
    plans: list[Plan] = []
    for request, host in zip(requests, hosts, strict=True):
        plans.append(_planned(request, host, [*known, *map(neighbour, plans)]))
        plans = _settled(requests, hosts, plans, known)
    return plans


def _settled(
    requests: Sequence[Request],
    hosts: Sequence[HostTopology],
    plans: Sequence[Plan],
    known: Sequence[Neighbour],
) -> list[Plan]:
    """Plan the running ones again, like the hook, until nothing changes."""
    found = list(plans)
    for _ in range(PASSES if len(found) > 1 else 0):
        before = list(found)
        for number, given in enumerate(before):
            others = [neighbour(each) for at, each in enumerate(found) if at != number]
            if given.reach:
                found[number] = _planned(requests[number], hosts[number], [*known, *others], given)
        if found == before:
            break
    return found


def _planned(
    request: Request, host: HostTopology, others: Sequence[Neighbour], before: Placement | None = None
) -> Plan:
    return plan_request(request, lambda *_: host, others, before=before, running=before is not None)
