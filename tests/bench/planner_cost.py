"""The planner on 1,024 CPUs, 8 nodes and 4,096 interrupts, with few domains and with many that run."""

from __future__ import annotations

from pathlib import Path

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.planner import plan
from libvirt_tuner.topology import HostTopology
from tests import hosts
from tests.bench.measure import Ratio, in_turns
from tests.unit.builders import domain

FEW, MANY = 10, 500
ROUNDS = 20


def ratios(work: Path) -> list[Ratio]:
    """Measure in ``work``, an empty directory."""
    root = work / "planner"
    hosts.make_large(root)
    host = probe.topology(Sysfs(str(root)), ("br0",))
    spec, policy = domain(4), Policy()
    few, many = _running(host, FEW), _running(host, MANY)
    seconds = in_turns(
        {"few": lambda: plan(host, spec, policy, few), "many": lambda: plan(host, spec, policy, many)}, ROUNDS
    )
    return [Ratio(f"planner: {MANY} domains that run / {FEW}", seconds["many"] / seconds["few"], 3)]


def _running(host: HostTopology, count: int) -> list[Neighbour]:
    """So many domains of a vCPU each, on every second CPU."""
    online = sorted(host.online)
    return [
        Neighbour(
            ours=(frozenset({online[2 * number]}),),
            service=frozenset({online[number % 8]}),
            workers=(online[number % 8],),
            reach=host.online,
        )
        for number in range(count)
    ]
