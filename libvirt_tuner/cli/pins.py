"""Finds the user's own pins that are not valid on this host. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.topology import NO_CPUS, Cpus, NumaCell


def misplaced(own: DomainSpec, cells: Iterable[NumaCell]) -> Iterator[DomainXmlError]:
    """Yield an error for each pin to a CPU that is not online, and for memory on missing nodes.

    The kernel refuses such a cpuset (kernel/cgroup/cpuset.c), so the domain would not start, or would have
    fewer CPUs than its user thinks.

    Args:
        own: What the user wrote.
        cells: The host's.
    """
    known = {cell.id: cell.cpus for cell in cells}
    online = NO_CPUS.union(*known.values())
    for where, cpus in _pins(own):
        if absent := cpus - online:
            yield _error("no such CPU, or it is offline", where, absent, f"CPUs of {cpuset.format(online)}")
    if absent := (own.numatune.nodeset or NO_CPUS) - known.keys():
        expected = f"nodes of {cpuset.format(frozenset(known))}"
        yield _error("no such NUMA node", "numatune/memory/@nodeset", absent, expected)


def _pins(own: DomainSpec) -> Iterator[tuple[str, Cpus]]:
    for vcpu, cpus in sorted(own.vcpupin.items()):
        yield f"cputune/vcpupin[@vcpu='{vcpu}']/@cpuset", cpus
    for number, cpus in sorted(own.iothreadpin.items()):
        yield f"cputune/iothreadpin[@iothread='{number}']/@cpuset", cpus
    yield "cputune/emulatorpin/@cpuset", own.emulatorpin
    yield "vcpu/@cpuset", own.cpuset


def _error(problem: str, where: str, ids: Cpus, expected: str) -> DomainXmlError:
    return DomainXmlError(problem, where=f"/domain/{where}", value=cpuset.format(ids), expected=expected)
