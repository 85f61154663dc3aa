"""A domain to place on a host where others run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.cpuset import EMPTY
from libvirt_tuner.domainxml.parts import VHOST_TYPES, VIRTIO_MODELS
from libvirt_tuner.domainxml.spec import DomainSpec, Vnic
from libvirt_tuner.planning import cores, memory
from libvirt_tuner.planning.cores import Demand, Free
from libvirt_tuner.planning.neighbours import Neighbour, Population
from libvirt_tuner.planning.plan import NOTHING, PlacementKind, Reserved
from libvirt_tuner.topology import NO_CPUS, Binding, Cpus, HostTopology, NumaCell


class Choice(NamedTuple):
    """The CPU and memory part of a plan. Attributes:
    placement, nodes, vcpupin, numatune, memnodes: As in :class:`libvirt_tuner.planning.plan.Placement`.
    emulator: CPUs for the emulator, if the user has not pinned it.
    unneeded: The domain floats, or a vCPU has a second CPU, only for now. Its definition keeps its pins for
        the next start.
    """

    placement: PlacementKind
    nodes: tuple[int, ...] = ()
    vcpupin: Mapping[int, Cpus] = EMPTY
    emulator: Cpus = NO_CPUS
    numatune: Binding | None = None
    memnodes: Mapping[int, Binding] = EMPTY
    unneeded: bool = False


class Case:
    """The input of one planning, and values derived from it.

    Args:
        host, spec, policy, previous, running: As in :func:`libvirt_tuner.planning.planner.plan`.
        others: Those that run.
        reserved: What definitions ask for.
        home: Nodes on which the domain runs; empty if it does not run.
        seats: CPUs of its own that it has since it was placed; none if it does not run.
    """

    def __init__(
        self,
        host: HostTopology,
        spec: DomainSpec,
        policy: Policy,
        others: Population,
        reserved: Reserved = NOTHING,
        *,
        previous: DomainSpec | None = None,
        running: bool = False,
        home: tuple[int, ...] = (),
        seats: Cpus = NO_CPUS,
    ) -> None:
        self.host = host
        self.spec = spec
        self.policy = policy
        self.others = others
        self.reserved = reserved
        self.previous = previous
        self.running = running
        self.seats = seats
        self.was_placed = running and bool(home)
        self.home = home or self._pinned_nodes()

    def _pinned_nodes(self) -> tuple[int, ...]:
        """The nodes of a domain that has just started, if its definition has a CPU for each vCPU."""
        if not (self.running and self.previous):
            return ()
        pins = [self.previous.vcpupin.get(vcpu, NO_CPUS) for vcpu in self.to_pin]
        cpus = NO_CPUS.union(*pins)
        if any(len(pin) != 1 for pin in pins):
            return ()
        return tuple(cell.id for cell in self.host.cells if cell.cpus & cpus)

    def avoiding(self, neighbours: Iterable[Neighbour]) -> Case:
        """The same, with CPUs of definitions treated as held."""
        others = Population(self.host, neighbours, self.reserved.all)
        return Case(
            self.host,
            self.spec,
            self.policy,
            others,
            self.reserved,
            previous=self.previous,
            running=self.running,
            home=self.home,
        )

    @cached_property
    def vcpus(self) -> tuple[int, ...]:
        """vCPUs that run."""
        return tuple(sorted(self.spec.online))

    @cached_property
    def to_pin(self) -> tuple[int, ...]:
        """Running vCPUs that the user has not pinned."""
        return tuple(vcpu for vcpu in self.vcpus if vcpu not in self.spec.vcpupin)

    @property
    def claims(self) -> bool:
        """Whether the domain's CPUs are never shared. Real-time vCPUs never yield."""
        return self.insists or (self.spec.realtime and self.policy.placement == "auto")

    @property
    def insists(self) -> bool:
        """Whether the policy asks for its own CPUs even if others must share."""
        return self.policy.placement == "dedicated"

    @cached_property
    def users_vcpus(self) -> Cpus:
        """CPUs the user's own vcpupins name."""
        return frozenset().union(*self.spec.vcpupin.values())

    @cached_property
    def users_held(self) -> Cpus:
        """Those that belong to one vCPU. A vCPU pinned to more than a core floats and reserves none."""
        pins = frozenset(self.spec.vcpupin.values())
        return NO_CPUS.union(*(pin for pin in pins if self.others.single(pin)))

    @cached_property
    def users_nodes(self) -> frozenset[int]:
        """Nodes the user's own vcpupins name."""
        return frozenset(cell.id for cell in self.host.cells if cell.cpus & self.users_vcpus)

    @cached_property
    def allowed(self) -> Cpus:
        """CPUs the domain may use: its cgroup's, within its ``<vcpu cpuset>``."""
        allowed = self.host.online & self.host.allowed if self.host.allowed else self.host.online
        return allowed & self.spec.cpuset if self.spec.cpuset else allowed

    @cached_property
    def pool(self) -> Cpus:
        """CPUs that the scheduler balances, and the domain may use."""
        return self.allowed - self.host.isolated - self.host.busy

    @cached_property
    def housekeeping(self) -> Cpus:
        """CPUs for the host, while there is room."""
        return cores.housekeeping(self.host, self.policy.housekeeping)

    @cached_property
    def own_service(self) -> Cpus:
        """The user's emulatorpin, if it leaves room for vCPUs."""
        own = self.spec.emulatorpin
        return NO_CPUS if cores.floats(self.host, own) else own

    @cached_property
    def taken(self) -> Cpus:
        """CPUs that a vCPU leaves, if it has them. A domain that runs does not leave its CPUs for a domain
        that starts later and whose user has pinned it there."""
        others = self.others.held - (self.seats & self.others.fixed - self.others.given)
        return others | self.users_held

    @cached_property
    def free(self) -> Free:
        """The host's CPUs from the view of this domain."""
        held = self.others.held | self.users_held
        common = self.pool - held - self.own_service
        return Free(
            self.allowed,
            held=held,
            workers=self.others.workers_cpus | self.others.strangers | self.own_service,
            service=self.others.service,
            housekeeping=self.housekeeping,
            last=frozenset({min(common)}) if common else NO_CPUS,
            kept=self.policy.housekeeping or NO_CPUS,
        )

    @cached_property
    def demand(self) -> Demand:
        """What must be placed."""
        spec = self.spec
        emulator: int | Cpus | None = self.policy.emulator_cpus
        if spec.emulatorpin:
            emulator = spec.emulatorpin
        elif isinstance(emulator, frozenset):
            emulator = (emulator & self.allowed) or None
        return Demand(self.to_pin, spec.threads, 1 + worker_count(spec) + len(spec.iothreads), emulator)

    @property
    def plans_memory(self) -> bool:
        """Whether this tool decides numatune."""
        own = self.spec.numatune
        return (
            self.policy.numa_memory != "keep" and own.nodeset is None and not (own.placement or own.memnodes)
        )

    def bars_memory(self, cell: NumaCell) -> bool:
        """Whether the domain's cgroup excludes a node's memory."""
        return bool(self.host.allowed_nodes) and cell.id not in self.host.allowed_nodes

    def memory_near(self, node: int) -> NumaCell | None:
        """The nearest node with memory that the domain may use."""
        nodes = self.host.allowed_nodes
        near = memory.by_distance(self.host, node)
        return next((cell for cell in near if cell.memory_kib and (not nodes or cell.id in nodes)), None)


def worker_count(spec: DomainSpec) -> int:
    """Return the number of vhost workers: one per queue of a virtio NIC that vhost-net serves."""
    return sum(vnic.queues or 1 for vnic in spec.vnics if has_vhost(spec, vnic))


def has_vhost(spec: DomainSpec, vnic: Vnic) -> bool:
    """Whether vhost-net serves this interface: virtio, on a tap or macvtap, and not driver name='qemu'."""
    served = vnic.model in VIRTIO_MODELS and vnic.type in VHOST_TYPES
    return spec.type == "kvm" and served and vnic.driver != "qemu"
