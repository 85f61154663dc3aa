"""Chooses attributes of ``<driver>`` for virtio NICs: rings and queues. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.parts import LONG_TX_RING_TYPES, MULTIQUEUE_TYPES, VIRTIO_MODELS
from libvirt_tuner.domainxml.spec import DomainSpec, Vnic
from libvirt_tuner.planning.plan import Reason

ATTRIBUTES = ("rx_queue_size", "tx_queue_size", "queues")
"""Attributes of Policy and of Vnic. Each has a transform with that name."""
_WHY = {"rx_queue_size": "absorbs bursts; does not raise throughput"}
_NOT_SET = {
    "tx_queue_size": "no vhost-user or vDPA NIC; QEMU takes at most 256 on a tap",
    "queues": "none of its NICs supports several queues",
}
# MAX_TAP_QUEUES, drivers/net/tun.c.
_MOST_QUEUES = 256

Settings = Mapping[str, tuple[int, tuple[int, ...]]]
"""Value of each attribute, and the positions of the vNICs that get it."""


def choose(spec: DomainSpec, policy: Policy) -> tuple[Settings, list[Reason]]:
    """Return the policy's settings for vNICs that can have them and where the user did not set them."""
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    reasons: list[Reason] = []
    for name in ATTRIBUTES:
        value, why = _value(name, spec, policy)
        if value is None:
            continue
        able = [vnic for vnic in spec.vnics if _can_have(vnic, name, value)]
        chosen = tuple(vnic.index for vnic in able if getattr(vnic, name) is None)
        if chosen:
            found[name] = value, chosen
            reasons.append(Reason(name, str(value), why))
        elif not able and name in _NOT_SET:
            reasons.append(Reason(name, "not set", _NOT_SET[name]))
        for vnic in able:
            if vnic.index not in chosen:
                own = str(getattr(vnic, name))
                reasons.append(Reason(f"{name} of vNIC {vnic.index}", own, "your own"))
    return found, reasons


def with_queues(spec: DomainSpec, settings: Settings, standing: DomainSpec | None) -> DomainSpec:
    """Return the domain with its future queues. Each has a vhost worker that needs a CPU.

    Args:
        spec: The domain as its user wrote it.
        settings: From :func:`choose`.
        standing: The current document: an earlier host may have set queues, which stay on arrival.
    """
    count, chosen = settings.get("queues", (None, ()))
    has = {vnic.index: vnic.queues for vnic in (standing or spec).vnics}
    vnics = tuple(
        evolve(vnic, queues=vnic.queues or (count if vnic.index in chosen else has.get(vnic.index)))
        for vnic in spec.vnics
    )
    return evolve(spec, vnics=vnics)


def _value(name: str, spec: DomainSpec, policy: Policy) -> tuple[int | None, str]:
    asked: int | str | None = getattr(policy, name)
    if name != "queues" or asked is None:
        return (asked if isinstance(asked, int) else None), _WHY.get(name, "set in the policy")
    most = min(spec.current, _MOST_QUEUES)
    count = min(asked, most) if isinstance(asked, int) else most
    if count == 1:
        return None, ""
    return count, "set in the policy" if count == asked else "one per vCPU"


def _can_have(vnic: Vnic, name: str, value: int) -> bool:
    if vnic.model not in VIRTIO_MODELS or vnic.type == "hostdev":
        return False
    if name == "queues":
        return vnic.type in MULTIQUEUE_TYPES
    if name == "tx_queue_size":
        return value <= 256 or vnic.type in LONG_TX_RING_TYPES
    return vnic.type != "vdpa"
