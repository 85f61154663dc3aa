"""Every rule, and the order of what they found: what costs most comes first. Pure."""

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
    packets.moved_back,
    nodes.waiting,
    threads.stolen,
)
"""Each looks at the whole interval and knows nothing of the others."""


def diagnose(look: Interval, vm: str = "") -> tuple[Finding, ...]:
    """What hurts, by cost.

    Args:
        look: Two samples and the scene.
        vm: Only what hurts this VM, and what hurts the host as a whole.
    """
    found = [finding for rule in RULES for finding in rule(look)]
    mine = [finding for finding in found if not vm or finding.vm in ("", vm)]
    return tuple(sorted(mine, key=lambda finding: (-round(finding.cost, 3), finding.kind, finding.what)))
