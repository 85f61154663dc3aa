"""A host on which domains start and end, planned as the hook and settle do it, without either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from attrs import evolve

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.neighbours import Neighbour, neighbour
from libvirt_tuner.planning.plan import Placement, Plan
from libvirt_tuner.planning.planner import plan
from libvirt_tuner.planning.request import standing
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology
from tests.unit.builders import domain

PASSES = 4


class Running:
    """Domains that run on ``host``, by name, in the order they started."""

    def __init__(self, host: HostTopology) -> None:
        self.host = host
        self.specs: dict[str, DomainSpec] = {}
        self.policies: dict[str, Policy] = {}
        self.placements: dict[str, Placement] = {}

    def start(self, name: str, vcpus: int = 1, policy: Policy | None = None, **changes: object) -> Plan:
        """Start a domain, then plan those again that run already."""
        self.specs[name] = evolve(domain(vcpus, 1, **changes), name=name, uuid=name)
        self.policies[name] = policy or Policy()
        made = plan(self.host, self.specs[name], self.policies[name], self.others(name), running=True)
        self._keep(name, made)
        self.settle()
        return made

    def end(self, name: str) -> None:
        """End a domain, then plan again those that run on."""
        for known in (self.specs, self.policies, self.placements):
            del known[name]
        self.settle()

    def settle(self) -> None:
        """Plan every domain again until nothing changes."""
        for _ in range(PASSES):
            before = dict(self.placements)
            for name in self.specs:
                self._keep(name, self.again(name))
            if before == self.placements:
                return
        raise AssertionError(f"still changing after {PASSES} passes")

    def again(self, name: str) -> Plan:
        """The plan of a domain that runs."""
        given = self.placements[name]
        spec = self.specs[name]
        return plan(
            self.host,
            spec,
            self.policies[name],
            self.others(name),
            previous=standing(spec, given),
            running=True,
            home=given.nodes,
            seats=given.holds.vcpus if given.placement == "dedicated" else NO_CPUS,
        )

    def others(self, name: str) -> list[Neighbour]:
        return [neighbour(each) for other, each in self.placements.items() if other != name]

    def _keep(self, name: str, made: Plan) -> None:
        self.placements[name] = stored.from_dict(stored.to_dict(made))

    def cpus(self, name: str) -> list[int]:
        """The CPU of each vCPU of a domain that has one for each."""
        return [cpu for _, pin in sorted(self.placements[name].vcpupin.items()) for cpu in sorted(pin)]

    def pins(self) -> list[Cpus]:
        """Where every vCPU may run."""
        found = []
        for name, given in self.placements.items():
            spec = self.specs[name]
            for vcpu in range(spec.vcpus):
                pin = spec.vcpupin.get(vcpu, given.vcpupin.get(vcpu, NO_CPUS))
                found.append(pin or self.balanced)
        return found

    @property
    def balanced(self) -> Cpus:
        """Where libvirt lets a vCPU run that nobody has pinned."""
        return self.host.online - self.host.isolated

    def untouched(self) -> list[Cpus]:
        """Where every vCPU might run without this tool."""
        specs = self.specs.values()
        everywhere = self.balanced
        return [spec.vcpupin.get(vcpu, everywhere) for spec in specs for vcpu in range(spec.vcpus)]


def worst_share(pins: Iterable[Cpus]) -> float:
    """The max-min fair share of the vCPU that has the least of a CPU, every vCPU busy (Hall's theorem)."""
    counts: dict[Cpus, int] = {}
    for pin in pins:
        counts[pin] = counts.get(pin, 0) + 1
    wide = [pin for pin in counts if len(pin) > 1]
    sizes = range(1, len(wide) + 1)
    unions = {frozenset().union(*some) for size in sizes for some in combinations(wide, size)}
    unions |= {pin for pin in counts if len(pin) == 1}
    shares = [len(union) / sum(n for pin, n in counts.items() if pin <= union) for union in unions]
    return min([1.0, *shares])


def overlaps(placements: Mapping[str, Placement]) -> bool:
    """Whether a CPU is two vCPUs' own."""
    seats = [
        cpu
        for each in placements.values()
        if each.placement == "dedicated"
        for pin in each.vcpupin.values()
        for cpu in pin
    ]
    return len(seats) != len(set(seats))


def moved_off(before: Mapping[str, Placement], after: Mapping[str, Placement]) -> list[str]:
    """Domains with a vCPU that had a CPU of its own, and may not run there now."""
    return [
        name
        for name, given in before.items()
        if given.placement == "dedicated"
        and any(
            not given.vcpupin[vcpu] <= (after[name].vcpupin.get(vcpu) or given.reach)
            for vcpu in given.vcpupin
        )
    ]
