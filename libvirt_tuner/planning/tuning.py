"""Tunes a domain document for a host, for all callers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.planner import PINS
from libvirt_tuner.planning.request import Request

if TYPE_CHECKING:
    from libvirt_tuner.transforms import Transform


def tune(request: Request, plan: Plan, *, libvirt: tuple[int, ...], qemu: tuple[int, ...]) -> bytes | None:
    """Return the tuned document with its record; None if there is nothing to change.

    Args:
        request: From :func:`~libvirt_tuner.planning.request.read_request`; its ``root`` is changed in place.
        plan: What to put in.
        libvirt, qemu: Versions, ``(9, 0, 0)``.
    """
    from libvirt_tuner.transforms import ORDER, record

    wanted = transforms(plan, libvirt=libvirt, qemu=qemu)
    if record.apply(request.root, wanted, complete=frozenset(ORDER) - plan.unknown):
        return document.serialize(request.root)
    return None


def filter_arrival(request: Request, plan: Plan) -> bytes | None:
    """Return the document for ``migrate`` and ``restore``, with only changes that no guest can see.

    Settings of this tool from another host that are not planned here are removed: their CPUs and nodes may
    not exist here.

    Returns:
        The document, or None if nothing changes.
    """
    from libvirt_tuner.transforms import record

    safe = [transform for transform in transforms(plan) if transform.on_arrival]
    return document.serialize(request.root) if record.apply(request.root, safe, complete=PINS) else None


def falls_short(spec: DomainSpec, plan: Plan) -> bool:
    """Return whether a running domain's document lacks part of ``plan``, so that :mod:`settle` has work."""
    rings = any(
        getattr(spec.vnics[index], name) != value
        for name, (value, vnics) in plan.driver.items()
        for index in vnics
    )
    pins = any(spec.vcpupin.get(vcpu) != cpus for vcpu, cpus in plan.vcpupin.items())
    threads = any(spec.iothreadpin.get(number) != cpus for number, cpus in plan.iothreadpin.items())
    emulator = plan.emulatorpin not in (None, spec.emulatorpin)
    memory = plan.numatune not in (None, spec.numatune.memory)
    lengths = any(choice.how == "mtu" and spec.vnics[choice.index].mtu != choice.size for choice in plan.mtus)
    hidden = plan.poll_us is not None or any(choice.how == "host_mtu" for choice in plan.mtus)
    recorded = {name for name, _ in spec.recorded}
    return rings or pins or threads or emulator or memory or lengths or (hidden and not recorded)


def transforms(
    plan: Plan, *, libvirt: tuple[int, ...] = (9, 0, 0), qemu: tuple[int, ...] = (7, 2, 0)
) -> Iterator[Transform]:
    """Yield the transforms that write this plan, in order.

    Args:
        plan: What to put in.
        libvirt, qemu: Versions the document is for.

    Raises:
        DomainXmlError: These versions cannot do what the plan needs.
    """
    # Imported here, because the hook plans at every start but seldom runs transforms.
    from libvirt_tuner import transforms as to

    pins = not plan.unknown >= PINS
    if plan.vcpupin and pins:
        yield to.vcpupin(plan.vcpupin)
    if plan.emulatorpin and pins:
        yield to.emulatorpin(plan.emulatorpin)
    if plan.iothreadpin and pins:
        yield to.iothreadpin(plan.iothreadpin)
    if plan.numatune and pins:
        cells = {cell: (memory.nodes, memory.mode) for cell, memory in plan.memnodes.items()}
        yield to.numatune(plan.numatune.nodes, mode=plan.numatune.mode, memnodes=cells)
    for name, (value, vnics) in plan.driver.items():
        yield getattr(to, name)(value, index=vnics)
    for choice in plan.mtus:
        if choice.how == "mtu":
            yield to.mtu(choice.size, index=choice.index)
        elif choice.how == "host_mtu":
            yield to.host_mtu(choice.size, index=choice.index, libvirt=libvirt)
    if plan.poll_us:
        yield to.poll_us(plan.poll_us, index=plan.poll_vnics, libvirt=libvirt, qemu=qemu)
