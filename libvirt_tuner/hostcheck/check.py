"""Finds problems of a host: takes facts, returns findings. Pure.

Each check is a function of :class:`Facts` in :data:`CHECKS`, independent of the others. Sources:
Documentation/networking/scaling.rst, xfrm_device.rst and segmentation-offloads.rst of the kernel,
Documentation/admin-guide/kernel-parameters.txt, ethtool(8), irqbalance(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from libvirt_tuner.hostcheck.cpus import (
    floating_pins,
    isolated_boot_cpu,
    partial_isolation,
    shared_cpus,
    skipped_parameters,
)
from libvirt_tuner.hostcheck.crypto import esp_features, esp_states
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Finding
from libvirt_tuner.hostcheck.interrupts import balancers, misplaced_interrupts, napi_threads, steering_masks
from libvirt_tuner.hostcheck.network import broken_uplinks, flow_control, mtu_chain
from libvirt_tuner.hostcheck.segmentation import segmentation


def check(facts: Facts) -> tuple[Finding, ...]:
    """Return every finding, in the order of :data:`CHECKS`. Notes about unreadable facts come last."""
    found = [finding for each in CHECKS for finding in each(facts)]
    return (
        *found,
        *(Finding("unread", text, "this part was not checked", severity=NOTE) for text in facts.unread),
    )


CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    skipped_parameters,
    partial_isolation,
    isolated_boot_cpu,
    floating_pins,
    shared_cpus,
    misplaced_interrupts,
    napi_threads,
    steering_masks,
    balancers,
    esp_features,
    esp_states,
    flow_control,
    broken_uplinks,
    mtu_chain,
    segmentation,
)
"""Every check, in the order its findings are shown."""
