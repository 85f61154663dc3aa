"""The other domains that run: what they have, and what they need. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.planning.plan import Held, Placement, Plan
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology

ROOM_TO_FLOAT = 2
"""CPUs for each vCPU that floats and is not ours to pin, before anything is pinned among them.

A pinned thread cannot get out of their way (docs/decisions.md)."""


class Neighbour(NamedTuple):
    """A domain that runs.

    Attributes:
        ours: Where each vCPU that this tool places may run.
        fixed: The same for vCPUs that somebody else has placed, or nobody; empty: anywhere.
        service: Where its emulator threads run. They hardly do: a vCPU may be put there.
        workers: Where its vhost workers run, in their order.
        reach: Where vCPUs that are ours may be put.
        claimed: Its CPUs are shared with nobody (``placement = "dedicated"``).
    """

    ours: tuple[Cpus, ...] = ()
    fixed: tuple[Cpus, ...] = ()
    service: Cpus = NO_CPUS
    workers: tuple[int, ...] = ()
    reach: Cpus = NO_CPUS
    claimed: bool = False


def neighbour(placement: Placement) -> Neighbour:
    """A running domain as the others see it."""
    shared = placement.placement == "shared"
    anywhere = placement.reach if shared and not placement.vcpupin else NO_CPUS
    ours, fixed = [], []
    for vcpu, cpus in placement.vcpus.items():
        if anywhere or vcpu in placement.vcpupin:
            ours.append(placement.vcpupin.get(vcpu, anywhere))
        else:
            fixed.append(cpus)
    service = placement.emulatorpin or placement.holds.emulators
    return Neighbour(
        tuple(ours),
        tuple(fixed),
        NO_CPUS if shared else service,
        placement.vhost,
        placement.reach,
        placement.claimed,
    )


def noted(spec: DomainSpec) -> Placement:
    """A running domain that is left alone, as it was started."""
    pins = {vcpu: spec.vcpupin.get(vcpu, spec.cpuset) for vcpu in sorted(spec.online)}
    own = frozenset().union(*(pin for pin in pins.values() if len(pin) == 1))
    return Placement(
        spec.name, spec.uuid, holds=Held(own, spec.emulatorpin if own else NO_CPUS), vcpus=pins, tuned=False
    )


def disturbs(plan: Plan, others: Iterable[Placement]) -> bool:
    """Whether domains that run have to be planned again because this one runs now."""
    seats = plan.holds.vcpus
    crowded = plan.placement == "shared" and "vcpupin" in plan.unknown
    return any(
        (crowded and other.placement == "dedicated" and not other.claimed)
        or seats & (other.holds.vcpus | other.holds.emulators | frozenset(other.vhost))
        for other in others
        if other.reach
    )


class Population:
    """All neighbours on a host, summed up.

    Args:
        host: The host.
        neighbours: Those that run on it.
        definitions: CPUs to be treated as held.
    """

    def __init__(
        self, host: HostTopology, neighbours: Iterable[Neighbour], definitions: Cpus = NO_CPUS
    ) -> None:
        self._host = host
        self._all = tuple(neighbours)
        self._definitions = definitions

    @cached_property
    def _own_core(self) -> dict[int, tuple[int, ...]]:
        return {cpu: core.cpus for core in self._host.cores for cpu in core.cpus}

    def single(self, pin: Cpus) -> bool:
        """Whether a vCPU so pinned has the CPU for itself: one pinned wider than a core floats."""
        return bool(pin) and (len(pin) == 1 or pin.issubset(self._own_core.get(min(pin), ())))

    @cached_property
    def claimed(self) -> Cpus:
        """CPUs that nobody may share: a claim's, one for its vhost workers, and those of threads that never
        sleep and are no VM's."""
        found = self._host.busy
        for each in self._all:
            if each.claimed:
                found = found.union(each.workers[:1], *filter(self.single, (*each.ours, *each.fixed)))
        return found

    @cached_property
    def fixed(self) -> Cpus:
        """CPUs that vCPUs are pinned to by somebody else."""
        return NO_CPUS.union(*(pin for each in self._all for pin in each.fixed if self.single(pin)))

    @cached_property
    def ours(self) -> Cpus:
        """CPUs that this tool has given to one vCPU each, claims left out."""
        found = (pin for each in self._all if not each.claimed for pin in each.ours if self.single(pin))
        return NO_CPUS.union(*found)

    @cached_property
    def held(self) -> Cpus:
        """CPUs that are somebody's own: no vCPU goes there while it can go elsewhere."""
        return self.claimed | self.fixed | self.ours | self._definitions

    @cached_property
    def service(self) -> Cpus:
        """CPUs of emulator threads."""
        return NO_CPUS.union(*(each.service for each in self._all))

    @cached_property
    def workers_cpus(self) -> Cpus:
        """CPUs of vhost workers."""
        return NO_CPUS.union(*(each.workers for each in self._all))

    @cached_property
    def floating(self) -> dict[Cpus, int]:
        """Number of vCPUs of ours that have no CPU of their own, by where they may be put."""
        found: dict[Cpus, int] = {}
        for each in self._all:
            if count := sum(not self.single(pin) for pin in each.ours):
                found[each.reach] = found.get(each.reach, 0) + count
        return found

    @cached_property
    def loose(self) -> dict[Cpus, int]:
        """Number of vCPUs that float and are not ours, by where they do (empty: anywhere)."""
        found: dict[Cpus, int] = {}
        for each in self._all:
            for pin in each.fixed:
                if not self.single(pin):
                    found[pin] = found.get(pin, 0) + 1
        return found

    @cached_property
    def floats(self) -> Cpus:
        """CPUs named by pins of vCPUs that float."""
        pins = (pin for each in self._all for pin in each.ours if not self.single(pin))
        return NO_CPUS.union(self.strangers, *pins)

    @cached_property
    def strangers(self) -> Cpus:
        """CPUs that vCPUs float over which are not ours, where somebody has bound them to some."""
        return NO_CPUS.union(*self.loose)

    def sharing(self) -> int:
        """vCPUs that share CPUs when nobody but claims and isolated CPUs is left out."""
        isolated = self._host.isolated
        ours = (pin for each in self._all if not each.claimed for pin in each.ours)
        return sum(not (self.single(pin) and pin <= isolated) for pin in ours) + sum(self.loose.values())

    def leaves_room(self, pool: Cpus, seats: Cpus) -> bool:
        """Whether every vCPU that floats can still have a CPU when ``seats`` are taken.

        Args:
            pool: CPUs of the scheduler that domains may use.
            seats: CPUs that are about to be given to one vCPU each.
        """
        free = pool - self.claimed - self.fixed - self.ours - seats
        for reach, count in self.floating.items():
            inside = sum(number for other, number in self.floating.items() if other <= reach)
            if len(free & reach) < inside or count > len(reach):
                return False
        if sum(self.floating.values()) + sum(self.loose.values()) > len(free):
            return False
        for pin, count in self.loose.items():
            where = pin or pool
            if where & seats and len(where & free) < ROOM_TO_FLOAT * count:
                return False
        return True
