"""Planning and tuning for other programs. The functions take and return values, and do not use libvirt.

host = read_host()
made = plan(host, xml)
tuned = tune(xml, made)
assert revert(tuned) == xml
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from attrs import evolve

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.errors import ArgumentError
from libvirt_tuner.host import links, probe
from libvirt_tuner.host.nics import NET
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning import tuning
from libvirt_tuner.planning.neighbours import neighbour
from libvirt_tuner.planning.plan import Held, Placement, Plan, Reserved
from libvirt_tuner.planning.planner import ASSUMED_LIBVIRT
from libvirt_tuner.planning.request import plan_request, read_request
from libvirt_tuner.topology import HostTopology, NumaCell
from libvirt_tuner.transforms import Change, original
from libvirt_tuner.transforms._transform import check_version

Xml = TypeVar("Xml", bytes, str)
ASSUMED_QEMU = (7, 2, 0)


def read_host(path: str = "/") -> HostTopology:
    """Read the host's CPUs, NUMA nodes, memory, network devices and all else that a domain's NICs may name.

    Args:
        path: ``/`` for this machine, or the directory of a captured one (``libvirt-tuner host capture``).

    Raises:
        HostError: A file is missing or cannot be read; ``where`` is its path.
        ArgumentError: The path is not text.
    """
    _check("path", path, str, "the path of a directory")
    sysfs = Sysfs(path)
    return probe.topology(sysfs, (*sysfs.listdir_or_empty(NET), *links.nameable(sysfs)), queues=True)


def plan(
    host: HostTopology,
    xml: bytes | str,
    *,
    policy: Policy | None = None,
    config: str | None = None,
    others: Iterable[Placement] = (),
    libvirt: tuple[int, ...] = ASSUMED_LIBVIRT,
) -> Plan:
    """Plan where the domain runs and what changes in its document, with the reasons.

    Args:
        host: From :func:`read_host`.
        xml: The domain's document.
        policy: The policy to use. Without it, ``config`` and the policy in the domain's metadata apply.
        config: Text of a config file (``/etc/libvirt-tuner.toml``). A table with a mistake is ignored;
            'libvirt-tuner config check' shows mistakes.
        others: Plans of other domains. Their CPUs are not used, and their bound memory counts as used. So
            they must not run on ``host`` yet.
        libvirt: Version of libvirt for which the document is written.

    Raises:
        DomainXmlError: The document is malformed or not a valid domain.
        ArgumentError: Both ``policy`` and ``config`` are given, or an argument has another type.
    """
    _check("host", host, HostTopology, "a HostTopology, from read_host()")
    check_version(libvirt, "libvirt")
    if policy is not None:
        _check("policy", policy, Policy, "a Policy")
    if config is not None:
        _check("config", config, str, "the text of a config file")
    if policy is not None and config is not None:
        raise ArgumentError("policy and config cannot be used together", where="plan", expected="one of them")
    request = read_request(xml, config)
    if policy is not None:
        request = request._replace(policy=policy)
    _check("others", others, Iterable, "plans of other domains")
    running = tuple(others)
    for each in running:
        _check("others", each, (Placement, Plan), "plans of other domains")
    held = sum((each.holds for each in running), Held())
    here = evolve(host, cells=tuple(_left(cell, held) for cell in host.cells))
    return plan_request(
        request,
        lambda devices, partition: here,
        [neighbour(each) for each in running],
        Reserved(memory=held.memory),
        libvirt=libvirt,
    )


def _left(cell: NumaCell, held: Held) -> NumaCell:
    """Return the node without the memory that other plans bind."""
    bound = {size: kib for (node, size), kib in held.memory.items() if node == cell.id}
    pools = []
    for pool in cell.hugepages:
        pages = (bound.get(pool.size_kib, 0) + pool.default * bound.get(0, 0)) // pool.size_kib
        pools.append(pool._replace(free=max(0, pool.free - pages)))
    free_kib = max(0, cell.free_kib - bound.get(None, 0))
    return evolve(cell, free_kib=free_kib, hugepages=tuple(pools))


def tune(
    xml: Xml,
    plan: Plan,
    *,
    libvirt: tuple[int, ...] = ASSUMED_LIBVIRT,
    qemu: tuple[int, ...] = ASSUMED_QEMU,
) -> Xml:
    """Write the plan into the document and record it in the metadata. A tuned document is returned unchanged.

    Args:
        xml: The domain's document.
        plan: From :func:`plan`, for this document.
        libvirt, qemu: Versions the document is for.

    Raises:
        DomainXmlError: The document is malformed, or the plan is for another one.
        ArgumentError: An argument has another type.
    """
    _check("plan", plan, Plan, "a Plan, from plan()")
    check_version(libvirt, "libvirt")
    check_version(qemu, "qemu")
    tuned = tuning.tune(read_request(xml, None), plan, libvirt=libvirt, qemu=qemu)
    return xml if tuned is None else _typed(xml, tuned)


def recorded(xml: Xml, *changes: Change) -> Xml:
    """Run the transforms on the document and record them, so that :func:`revert` can undo them.

    Settings that the user changed after an earlier run stay.

    Raises:
        DomainXmlError: The document is malformed, or a transform cannot be applied to it.
        TypeError: One of them is not a transform, or cannot be recorded.
    """
    tuned = original.recorded(xml, changes)
    return xml if tuned is None else tuned


def revert(xml: Xml, *, others: Iterable[Change] = ()) -> Xml:
    """Undo :func:`tune` or :func:`recorded`, byte for byte.

    Settings that the user changed since then stay.

    Args:
        xml: The domain's document.
        others: Your own transforms that were recorded. Without them, their settings stay.

    Raises:
        DomainXmlError: The document is malformed or not a domain.
    """
    before = original.reverted(xml, others)
    return xml if before is None else before


def _check(where: str, given: object, kind: type | tuple[type, ...], expected: str) -> None:
    if not isinstance(given, kind):
        raise ArgumentError("bad argument", where=where, value=given, expected=expected)


def _typed(xml: Xml, result: bytes) -> Xml:
    return result.decode() if isinstance(xml, str) else result
