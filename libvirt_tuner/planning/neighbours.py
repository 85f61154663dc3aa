"""The other running domains: what they have and need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.planning.plan import Held, Placement, Plan
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology

ROOM_TO_FLOAT = 2
"""CPUs per floating vCPU that we must not pin. Only with this many is anything pinned among them.

A pinned thread cannot avoid them (docs/decisions.md)."""


class Neighbour(NamedTuple):
    """A running domain.

    Attributes:
        ours: CPUs of each vCPU that this tool places.
        fixed: The same for other vCPUs; empty: anywhere.
        service: CPUs of its emulator threads. They hardly run, so a vCPU may be placed there.
        workers: CPUs of its vhost workers, in order.
        reach: CPUs on which our vCPUs may be placed.
        shares: Whether its vCPUs float, however few CPUs they have for that.
        claimed: Whether its CPUs are never shared (``placement = "dedicated"``).
    """

    ours: tuple[Cpus, ...] = ()
    fixed: tuple[Cpus, ...] = ()
    service: Cpus = NO_CPUS
    workers: tuple[int, ...] = ()
    reach: Cpus = NO_CPUS
    claimed: bool = False
    shares: bool = False


def neighbour(placement: Placement) -> Neighbour:
    """Return a running domain as the others see it."""
    shared = placement.placement == "shared"
    anywhere = placement.reach if shared and not placement.vcpupin else NO_CPUS
    ours, fixed = [], []
    for vcpu, cpus in placement.vcpus.items():
        if vcpu in placement.vcpupin and placement.placement == "dedicated":
            # Several, if a user has pinned another domain's vCPU to its first one.
            ours += [frozenset({cpu}) for cpu in sorted(placement.vcpupin[vcpu])]
        elif anywhere or vcpu in placement.vcpupin:
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
        shared,
    )


def noted(spec: DomainSpec) -> Placement:
    """Return a running domain that is not tuned, as it was started."""
    pins = {vcpu: spec.vcpupin.get(vcpu, spec.cpuset) for vcpu in sorted(spec.online)}
    own = frozenset().union(*(pin for pin in pins.values() if len(pin) == 1))
    return Placement(
        spec.name, spec.uuid, holds=Held(own, spec.emulatorpin if own else NO_CPUS), vcpus=pins, tuned=False
    )


def overlaps(mine: Placement, others: Iterable[Placement]) -> Iterator[str]:
    """Yield a sentence for each pair of domains that share a CPU because the user of one has pinned it to a
    CPU that the other was given."""
    for other in others:
        for pinned, placed in ((mine, other), (other, mine)):
            if cpus := _pinned_by_user(pinned) & _given(placed):
                import shlex

                name = shlex.quote(pinned.domain)
                yield (
                    f"vcpupin of {pinned.domain} names CPU {cpuset.format(cpus)}, which {placed.domain} has;"
                    f" both run there; remove it with 'virsh edit {name}', or choose another CPU with"
                    f" 'virsh vcpupin {name} VCPU CPU --live'"
                )


def _pinned_by_user(placement: Placement) -> Cpus:
    """CPUs that each belong to one vCPU by its user's pin."""
    pins = (cpus for vcpu, cpus in placement.vcpus.items() if vcpu not in placement.vcpupin)
    return placement.holds.vcpus.intersection(NO_CPUS.union(*pins))


def _given(placement: Placement) -> Cpus:
    if placement.placement != "dedicated":
        return NO_CPUS
    return NO_CPUS.union(*(placement.vcpupin.get(vcpu, NO_CPUS) for vcpu in placement.vcpus))


def disturbs(plan: Plan, others: Iterable[Placement]) -> bool:
    """Return whether running domains must be planned again because this one runs now."""
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
        """Return whether a vCPU with this pin has its own CPU. With more than a core it floats."""
        return bool(pin) and (len(pin) == 1 or pin.issubset(self._own_core.get(min(pin), ())))

    @cached_property
    def claimed(self) -> Cpus:
        """CPUs that nobody may share: CPUs of claims, one for their vhost workers, and CPUs of other threads
        that never sleep."""
        found = self._host.busy
        for each in self._all:
            if each.claimed:
                found = found.union(each.workers[:1], *filter(self.single, (*each.ours, *each.fixed)))
        return found

    @cached_property
    def fixed(self) -> Cpus:
        """CPUs that other programs or users pinned vCPUs to."""
        return NO_CPUS.union(*(pin for each in self._all for pin in each.fixed if self.single(pin)))

    @cached_property
    def ours(self) -> Cpus:
        """CPUs that this tool has given to one vCPU each, claims left out."""
        some = (each for each in self._all if not each.claimed)
        return NO_CPUS.union(*(pin for each in some for pin in each.ours if not self._floats(each, pin)))

    def _floats(self, each: Neighbour, pin: Cpus) -> bool:
        return not self.single(pin) or (each.shares and not pin <= self._host.isolated)

    @cached_property
    def held(self) -> Cpus:
        """CPUs that belong to one vCPU: no other vCPU goes there if it can go elsewhere."""
        return self.claimed | self.fixed | self.ours | self._definitions

    @cached_property
    def given(self) -> Cpus:
        """The same without pins of users."""
        seats = (pin for each in self._all for pin in each.ours if self.single(pin))
        workers = (frozenset(each.workers[:1]) for each in self._all if each.claimed)
        return self._host.busy.union(*seats, *workers)

    @cached_property
    def service(self) -> Cpus:
        """CPUs of emulator threads."""
        return NO_CPUS.union(*(each.service for each in self._all))

    @property
    def workers(self) -> Iterator[int]:
        """The CPU of each vhost worker."""
        return (cpu for each in self._all for cpu in each.workers)

    @cached_property
    def workers_cpus(self) -> Cpus:
        """CPUs of vhost workers."""
        return frozenset(self.workers)

    @cached_property
    def floating(self) -> dict[Cpus, int]:
        """Number of our vCPUs without their own CPU, by the CPUs on which they may be placed."""
        found: dict[Cpus, int] = {}
        for each in self._all:
            if count := sum(self._floats(each, pin) for pin in each.ours):
                found[each.reach] = found.get(each.reach, 0) + count
        return found

    @cached_property
    def loose(self) -> dict[Cpus, int]:
        """Number of floating vCPUs that are not ours, by their CPUs (empty: anywhere)."""
        found: dict[Cpus, int] = {}
        for each in self._all:
            for pin in each.fixed:
                if not self.single(pin):
                    found[pin] = found.get(pin, 0) + 1
        return found

    @cached_property
    def floats(self) -> Cpus:
        """CPUs named by pins of vCPUs that float."""
        pins = (pin for each in self._all for pin in each.ours if self._floats(each, pin))
        return NO_CPUS.union(self.strangers, *pins)

    @cached_property
    def strangers(self) -> Cpus:
        """CPUs of floating vCPUs that are not ours and that somebody has bound."""
        return NO_CPUS.union(*self.loose)

    def sharing(self) -> int:
        """Number of vCPUs that share CPUs, without claims and isolated CPUs."""
        isolated = self._host.isolated
        ours = (pin for each in self._all if not each.claimed for pin in each.ours)
        return sum(not (self.single(pin) and pin <= isolated) for pin in ours) + sum(self.loose.values())

    def confined_to(self, cpus: Cpus) -> int:
        """Number of floating vCPUs that have no other CPUs."""
        pins = ((each, pin) for each in self._all for pin in (*each.ours, *each.fixed) if pin)
        return sum(pin <= cpus and self._floats(each, pin) for each, pin in pins)

    def leaves_room(self, pool: Cpus, seats: Cpus) -> bool:
        """Return whether every floating vCPU can still have a CPU if ``seats`` are taken.

        Args:
            pool: CPUs of the scheduler that domains may use.
            seats: CPUs that will be given to one vCPU each.
        """
        free = pool - self.claimed - self.fixed - self.ours - seats
        for reach, count in self.floating.items():
            if not reach & seats:
                continue
            inside = sum(number for other, number in self.floating.items() if other <= reach)
            if len(free & reach) < inside or count > len(reach):
                return False
        if pool & seats and sum(self.floating.values()) + sum(self.loose.values()) > len(free):
            return False
        for pin, count in self.loose.items():
            where = pin or pool
            if where & seats and len(where & free) < ROOM_TO_FLOAT * count:
                return False
        return True
