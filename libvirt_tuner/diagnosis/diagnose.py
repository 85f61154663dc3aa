"""Runs every rule, and sorts the findings by cost, highest first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from libvirt_tuner.diagnosis import nodes, packets, threads
from libvirt_tuner.diagnosis.finding import Finding
from libvirt_tuner.diagnosis.sample import Interval

RULES: tuple[Callable[[Interval], Iterator[Finding]], ...] = (
    threads.contended,
    packets.on_vcpu,
    packets.saturated,
    nodes.remote,
    threads.crowded_core,
    packets.fragments,
    packets.drops,
    packets.one_worker,
    nodes.waiting,
    threads.stolen,
)
"""Each rule checks the whole interval, independently of the others."""


def diagnose(look: Interval, vm: str = "") -> tuple[Finding, ...]:
    """Return the findings, highest cost first.

    An interrupt that was moved away and hurts is one finding, not two: its fix moves it back.

    Args:
        look: Two samples and the scene.
        vm: Only findings for this VM, and those for the whole host.
    """
    found = [finding for rule in RULES for finding in rule(look) if not vm or finding.vm in ("", vm)]
    found += packets.moved_back(look, {irq for finding in found for irq in finding.fix.irqs})
    return tuple(sorted(found, key=lambda finding: (-round(finding.cost, 3), finding.kind, finding.what)))
