"""RPS and XPS: the CPUs that software, not an interrupt, ties to the queues of a network card. Pure.

A card's interrupts may all be in place, and RPS still sends each packet on to a CPU of its mask, to have its
softirq run there. XPS puts no work on a CPU: it says which queue a CPU transmits through. Source:
Documentation/networking/scaling.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner import cpuset
from libvirt_tuner.planning.plan import Reason
from libvirt_tuner.topology import NO_CPUS, Cpus, QueueMask


def aimed(masks: Iterable[QueueMask], vcpus: Cpus) -> tuple[QueueMask, ...]:
    """Those of the masks that name a CPU of a vCPU."""
    return tuple(mask for mask in masks if mask.cpus & vcpus)


def queues(masks: Iterable[QueueMask]) -> str:
    """The masks' queues for people, all of one direction: ``rx 0-3,8``."""
    parts = [mask.queue.partition("-") for mask in masks]
    numbers = frozenset(int(number) for _, _, number in parts if number.isdecimal())
    return f"{parts[0][0]} {cpuset.format(numbers)}" if parts else ""


def without_vcpus(masks: Iterable[QueueMask], vcpus: Cpus, instead: Cpus) -> tuple[QueueMask, ...]:
    """The masks to write: vCPUs' CPUs taken out of those that name one; all others stay as they are.

    An RPS mask of vCPUs' CPUs alone becomes ``instead``: somebody wanted the queue's packets spread. An XPS
    mask of these alone is left: only a vCPU's CPU would transmit through that queue, which is to say nobody.

    Args:
        masks: As they are.
        vcpus: CPUs that vCPUs are pinned to.
        instead: Where the card's interrupts go; empty switches RPS off.
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
    """What is said of one card's masks: nothing where none names a vCPU's CPU.

    Args:
        nic: Interface name.
        masks: Its masks as they are.
        vcpus: CPUs that vCPUs are pinned to.
        wanted: Masks to write.
        steer: Whether the policy asks for it.
    """
    known = tuple(masks)
    changed = {mask.queue for mask in wanted}
    found = []
    for kind, prefix, effect in (
        ("rps", "rx-", "packets of {} go to CPUs {} of vCPUs"),
        ("xps", "tx-", "{} named for CPUs {} of vCPUs, which puts no work on them"),
    ):
        hit = [mask for mask in aimed(known, vcpus) if mask.queue.startswith(prefix)]
        if not hit:
            continue
        soon = [mask for mask in hit if mask.queue in changed]
        cpus = cpuset.format(NO_CPUS.union(*(mask.cpus for mask in hit)) & vcpus)
        why = effect.format(queues(hit), cpus)
        if not steer and kind == "rps":
            why += '; rps = "steer" in the policy takes them out'
        found.append(Reason(f"{kind} {nic}", f"{queues(soon)} to change" if soon else "left as it is", why))
    return found
