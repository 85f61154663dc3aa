"""What a plan says, for tests."""

from __future__ import annotations

from attrs import evolve

from libvirt_tuner.domainxml.spec import DomainSpec, Numatune
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.topology import NO_CPUS

NOBODY: tuple[Neighbour, ...] = ()


def seats(made: Plan) -> list[int]:
    """The CPU of each vCPU, by vCPU."""
    return [next(iter(pin)) for _, pin in sorted(made.vcpupin.items())]


def decision(made: Plan, subject: str) -> str:
    return next(reason.decision for reason in made.reasons if reason.subject == subject)


def why(made: Plan, subject: str) -> str:
    return "; ".join(reason.why for reason in made.reasons if reason.subject == subject)


def standing(spec: DomainSpec, made: Plan) -> DomainSpec:
    mode, nodeset = made.numatune or (None, None)
    return evolve(
        spec,
        vcpupin=made.vcpupin,
        emulatorpin=made.emulatorpin or NO_CPUS,
        numatune=Numatune(mode, nodeset),
    )
