"""Reads a domain document and its policy into a request. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

from attrs import evolve

from libvirt_tuner.config import policy
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml import document, metadata
from libvirt_tuner.domainxml.spec import DomainSpec, Numatune, read_spec
from libvirt_tuner.errors import DomainXmlError, PolicyError
from libvirt_tuner.planning import planner
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import NOTHING, Placement, Plan, Reserved
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology

if TYPE_CHECKING:
    from lxml.etree import _Element


Survey = Callable[[Iterable[str], str], HostTopology]
"""Reads the host with everything below the named devices, for a domain in the named partition:
:func:`libvirt_tuner.host.probe.topology` with its first argument bound."""


class Request(NamedTuple):
    """A domain to be tuned, with the data of its document.

    Attributes:
        root: The current document.
        spec: Its current settings, including those of this tool.
        own: Settings of its user: ``spec`` without those of this tool.
        policy: The effective policy.
        problems: Ignored layers of the policy, and parts of the document that libvirt ignores too.
        manager: Another program that places the domain, unless the policy selects the domain by name. The
            domain is then not tuned, and others avoid its CPUs.
    """

    root: _Element
    spec: DomainSpec
    own: DomainSpec
    policy: Policy
    problems: tuple[PolicyError | DomainXmlError, ...]
    manager: str = ""

    @property
    def held_back(self) -> bool:
        """Whether the policy has a mistake. Nothing is changed then."""
        return policy_is_broken(self.problems)

    @property
    def devices(self) -> tuple[str, ...]:
        """Host devices that the planner needs, for :data:`Survey`."""
        return planner.devices(self.own, self.policy)


def policy_is_broken(problems: Iterable[PolicyError | DomainXmlError]) -> bool:
    """Whether a layer of the policy has a mistake. A setting that :class:`Limits` refuse is not one."""
    return any(isinstance(problem, PolicyError) and problem.layer != "limits" for problem in problems)


def read_request(xml: bytes | str, config: str | None) -> Request:
    """Read a domain document and the policy for it.

    Args:
        xml: A ``<domain>`` document, live or inactive.
        config: Text of the config file; None when there is none.

    Raises:
        DomainXmlError: The document is malformed, hostile, or not a domain.
    """
    root = document.parse(xml)
    spec = read_spec(root)
    wanted, problems = policy.resolve(spec.name, config, metadata.policy_element(root))
    own = _own(root) if spec.recorded else spec
    ignored = tuple(DomainXmlError(text, where="/domain") for text in (*spec.warnings, *_misfits(root, spec)))
    foreign = spec.manager if spec.manager and not policy.selected_by_name(spec.name, config) else ""
    return Request(root, spec, own, wanted, (*problems, *ignored), foreign)


def _misfits(root: _Element, spec: DomainSpec) -> tuple[str, ...]:
    """Report settings of the record that do not fit the document, in one line, because there may be
    thousands."""
    if not spec.recorded:
        return ()
    from libvirt_tuner.transforms import record

    found = record.problems(root)
    return (f"record: {found[0]} ({len(found)} in all)",) if found else ()


def _own(root: _Element) -> DomainSpec:
    """Return the document's settings without those of this tool."""
    # Imported here and below, because an untuned document does not need the transforms.
    from libvirt_tuner.transforms import record

    copy = deepcopy(root)
    record.revert(copy)
    return read_spec(copy)


def plan_request(
    request: Request,
    survey: Survey,
    neighbours: Iterable[Neighbour] = (),
    reserved: Reserved = NOTHING,
    *,
    before: Placement | None = None,
    running: bool = False,
    memory_on: tuple[int, ...] = (),
    libvirt: tuple[int, ...] = planner.ASSUMED_LIBVIRT,
) -> Plan:
    """Plan ``request`` on the host that ``survey`` reads.

    Args:
        request: From :func:`read_request`.
        survey: Reads the host.
        neighbours: The other domains that run.
        reserved: What other definitions ask for.
        before: The domain's placement when it started; None: as in its document.
        running: Whether the domain runs.
        memory_on: The node of a running domain's memory, where it was given none: it stays there.
        libvirt: Version of the daemon.
    """
    own = request.own if before is None else without(request.own, before)
    previous = request.spec if before is None else standing(own, before)
    host = survey(request.devices, own.partition)
    return planner.plan(
        host,
        own,
        request.policy,
        neighbours,
        reserved,
        previous=previous,
        running=running,
        home=((before.nodes if before else ()) or memory_on) if running else (),
        seats=before.holds.vcpus if running and before and before.placement == "dedicated" else NO_CPUS,
        libvirt=libvirt,
    )


def without(own: DomainSpec, given: Placement) -> DomainSpec:
    """Return ``own`` without live pins of ``given``. A live document does not say who pinned the domain."""
    return evolve(
        own,
        vcpupin=_less(own.vcpupin, given.vcpupin),
        iothreadpin=_less(own.iothreadpin, given.iothreadpin),
        emulatorpin=NO_CPUS if own.emulatorpin == given.emulatorpin else own.emulatorpin,
        numatune=Numatune() if given.numatune and own.numatune.memory == given.numatune else own.numatune,
    )


def _less(pins: Mapping[int, Cpus], given: Mapping[int, Cpus]) -> dict[int, Cpus]:
    return {number: cpus for number, cpus in pins.items() if given.get(number) != cpus}


def standing(own: DomainSpec, given: Placement) -> DomainSpec:
    """Return ``own`` with the pins and memory of ``given``."""
    mode, nodeset = given.numatune or (own.numatune.mode, own.numatune.nodeset)
    return evolve(
        own,
        vcpupin={**own.vcpupin, **given.vcpupin},
        emulatorpin=given.emulatorpin or own.emulatorpin,
        numatune=own.numatune._replace(mode=mode, nodeset=nodeset),
    )
