"""RPS and XPS: CPUs that the kernel assigns to the queues of a network card in software. Pure.

Even if all interrupts are in place, RPS still sends each packet to a CPU of its mask, where its softirq runs.
XPS puts no load on a CPU: it only selects the queue through which a CPU transmits. Source:
Documentation/networking/scaling.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner import cpuset
from libvirt_tuner.planning.plan import Reason
from libvirt_tuner.topology import NO_CPUS, Cpus, QueueMask


def aimed(masks: Iterable[QueueMask], vcpus: Cpus) -> tuple[QueueMask, ...]:
    """Return the masks that contain a CPU of a vCPU."""
    return tuple(mask for mask in masks if mask.cpus & vcpus)


def queues(masks: Iterable[QueueMask]) -> str:
    """Return the queues of masks of one direction for people: ``rx 0-3,8``."""
    parts = [mask.queue.partition("-") for mask in masks]
    numbers = frozenset(int(number) for _, _, number in parts if number.isdecimal())
    return f"{parts[0][0]} {cpuset.format(numbers)}" if parts else ""


def without_vcpus(masks: Iterable[QueueMask], vcpus: Cpus, instead: Cpus) -> tuple[QueueMask, ...]:
    """Return the masks to write: without vCPUs' CPUs. Other masks are not changed.

    An RPS mask with only vCPUs' CPUs becomes ``instead``, because somebody wanted the packets to be spread.
    An XPS mask with only these is not changed: no other CPU transmits through that queue.

    Args:
        masks: As they are.
        vcpus: CPUs that vCPUs are pinned to.
        instead: CPUs of the card's interrupts; empty switches RPS off.
    """
    found = []
    for mask in aimed(masks, vcpus):
        rest = mask.cpus - vcpus
        if rest or mask.queue.startswith("rx-"):
            found.append(mask._replace(cpus=rest or instead - vcpus))
    return tuple(found)


def reasons(
    nic: str, masks: Iterable[QueueMask], vcpus: Cpus, wanted: Iterable[QueueMask], *, steer: bool
) -> list[Reason]:
    """Return reasons for one card's masks; none if no mask has a vCPU's CPU.

    Args:
        nic: Interface name.
        masks: Its current masks.
        vcpus: CPUs that vCPUs are pinned to.
        wanted: Masks to write.
        steer: Whether the policy asks for it.
    """
    known = tuple(masks)
    changed = {mask.queue for mask in wanted}
    found = []
    for kind, prefix, effect in (
        ("rps", "rx-", "packets of {} go to CPUs {} of vCPUs"),
        ("xps", "tx-", "{} name CPUs {} of vCPUs, which puts no load on them"),
    ):
        hit = [mask for mask in aimed(known, vcpus) if mask.queue.startswith(prefix)]
        if not hit:
            continue
        soon = [mask for mask in hit if mask.queue in changed]
        cpus = cpuset.format(NO_CPUS.union(*(mask.cpus for mask in hit)) & vcpus)
        why = effect.format(queues(hit), cpus)
        if not steer and kind == "rps":
            why += '; rps = "steer" in the policy removes them'
        found.append(Reason(f"{kind} {nic}", f"{queues(soon)} to change" if soon else "not changed", why))
    return found
