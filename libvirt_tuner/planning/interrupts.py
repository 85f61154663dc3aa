"""Chooses a CPU for each interrupt of an uplink: spread evenly, with few moves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libvirt_tuner import cpuset
from libvirt_tuner.planning import memory
from libvirt_tuner.planning.plan import IrqMove
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, Irq, Nic, NumaCell

CONTROL_WORDS = (
    "async",
    "ctrl",
    "cmd",
    "misc",
    "config",
    "mgmt",
    "mgmnt",
    "mbx",
    "mailbox",
    "ptp",
    "aux",
    "aeq",
    "health",
    "error",
    "pages",
    "lsc",
    "exn",
    "fdir",
    "fwevent",
    "admin",
    "control",
    "hwc",
    "ll_ts",
    "ceq",
    "bnxt_re",
)
"""Words in a driver's name for a vector that only signals events. It is not moved."""

_QUEUE_WORDS = ("rx", "tx", "comp", "input", "output", "fp", "que")
"""If a vector of a function has such a name, a vector with only the function's name is for events."""


def queue_irqs(nic: Nic) -> tuple[Irq, ...]:
    """Return the requested interrupts of queues, according to the driver's names.

    From the drivers' sources (drivers/net, drivers/infiniband/hw and drivers/virtio of the kernel). ``eth0``
    is the interface's name, ``PCI`` the function's address.

    ========== ============================================ ================================================
    driver     queues                                       all else
    ========== ============================================ ================================================
    mlx5_core  ``mlx5_comp3@pci:PCI``                       ``mlx5_async0@pci:PCI``
    ice        ``ice-eth0-TxRx-3``                          ``ice-PCI:misc``, ``ice-PCI:ll_ts``
    irdma      none                                         ``irdma-PCI-AEQCEQ-0``, ``irdma-PCI-CEQ-1``
    i40e       ``i40e-eth0-TxRx-3``                         ``i40e-PCI:misc``, ``i40e-PCI:fdir-TxRx-0``
    ixgbe      ``eth0-TxRx-3``                              ``eth0``
    igb, igc   ``eth0-TxRx-3``, ``eth0-rx-0``               ``eth0``
    bnxt_en    ``eth0-TxRx-3``                              ``bnxt_re-nq-0@pci:PCI``
    bnx2x      ``eth0-fp-3``                                ``eth0-sp-0``
    ena        ``eth0-Tx-Rx-3``                             ``ena-mgmnt@pci:PCI``
    gve        ``gve-ntfy-blk3@pci:PCI``                    ``gve-mgmnt@pci:PCI``
    idpf       ``idpf-eth0-TxRx-3``                         ``idpf-Mailbox-0``
    nfp        ``eth0-rxtx-3``                              ``PCI-nfp-lsc``, ``PCI-nfp-exn``
    qede       ``eth0-fp-3``                                ``sp-0-81:00.00``
    mana       ``mana_q3@pci:PCI``, ``mana_msi4@pci:PCI``   ``mana_hwc@pci:PCI``
    virtio_net ``virtio0-input.0``, ``virtio0-output.0``    ``virtio0-config``, ``virtio0-control``
    ========== ============================================ ================================================

    Where only one vector is requested, ``eth0`` is the queue's too. Queues of AF_XDP sockets, and those that
    a driver keeps for XDP's transmissions, are among the same vectors. A subfunction's are those of its own
    auxiliary device since Linux 6.11, before that the parent function's.
    """
    named = [(irq, _own_words(irq, nic)) for irq in nic.irqs if irq.action]
    told_apart = any(word in words for _, words in named for word in _QUEUE_WORDS)
    return tuple(irq for irq, words in named if _is_queue(words, told_apart=told_apart))


def _own_words(irq: Irq, nic: Nic) -> str:
    """Return the driver's name for it without the interface's, which may be anything (``mgmt0-TxRx-1``)."""
    name = irq.action.partition("@")[0].lower()
    return name.replace(nic.name.lower(), "", 1)


def _is_queue(words: str, *, told_apart: bool) -> bool:
    if not words.strip("-:. "):
        return not told_apart
    return not any(word in words for word in CONTROL_WORDS) and not words.startswith(("-sp-", "sp-"))


def least_cpus(nic: Nic) -> int:
    """Return for how many CPUs to look: two with several queues. A single pair of queues needs one.

    virtio_net has two interrupts for each pair (drivers/net/virtio_net.c: ``input.N`` and ``output.N``).
    """
    queues = len(queue_irqs(nic))
    return 2 if queues >= (4 if "virtio" in nic.driver else 2) else 1


def threads(nic: Nic) -> str:
    """A note for a card with threaded NAPI: threads process its packets, and interrupts only wake them."""
    return (
        f"; {nic.name} has threaded NAPI: packets are processed where napi/{nic.name}-* run"
        if nic.threaded
        else ""
    )


def spread(nic: Nic, cpus: Cpus, fine: Cpus = NO_CPUS) -> tuple[IrqMove, ...]:
    """Moves that leave no queue interrupt of ``nic`` where it conflicts, and none of its CPUs crowded.

    Args:
        nic: The card.
        cpus: Where interrupts that move go, evenly.
        fine: Further CPUs that one may stay on (:func:`staying`).

    An interrupt that goes to one of both stays there, unless that CPU has more than its share. It is confined
    to it where it may go elsewhere.
    """
    queues = queue_irqs(nic)
    if not queues or not cpus:
        return ()
    share = -(-len(queues) // len(cpus))
    load = dict.fromkeys(sorted(cpus | fine), 0)
    homeless: list[Irq] = []
    moves: list[IrqMove] = []
    for irq in queues:
        here = _seat(irq)
        if here is None or load.get(here, share) >= share:
            homeless.append(irq)
            continue
        load[here] += 1
        if not irq.affinity <= cpus | fine:
            moves.append(_move(nic, irq, here))
    for irq in homeless:
        there = min(cpus, key=lambda cpu: (load[cpu], cpu))
        load[there] += 1
        moves.append(_move(nic, irq, there))
    return tuple(sorted(moves, key=lambda move: move.irq))


def kept(nic: Nic, cpus: Cpus, moves: Iterable[IrqMove]) -> tuple[IrqMove, ...]:
    """Return the queue interrupts that are not in ``moves``, as moves to their current CPUs."""
    moved = {move.irq for move in moves}
    return tuple(
        IrqMove(irq=irq.number, nic=nic.name, cpus=irq.affinity, action=irq.action)
        for irq in queue_irqs(nic)
        if irq.affinity and irq.affinity <= cpus and irq.number not in moved
    )


def _seat(irq: Irq) -> int | None:
    """Return the CPU that gets the interrupt now, if it is known."""
    where: Sequence[int] = sorted(irq.effective or irq.affinity)
    return where[0] if len(where) == 1 else None


def _move(nic: Nic, irq: Irq, cpu: int) -> IrqMove:
    return IrqMove(irq=irq.number, nic=nic.name, cpus=frozenset({cpu}), action=irq.action)


def choose_cpus(
    host: HostTopology, home: int | None, vcpus: Cpus, used: Cpus, workers: Cpus = NO_CPUS, least: int = 1
) -> tuple[Cpus, str]:
    """Choose CPUs for a NIC's interrupts, with the reason. Avoids vCPUs' CPUs and their siblings.

    Only those where new interrupts may go (``default_smp_affinity``), and none without a tick or balancing.

    Args:
        host: The host.
        home: The NIC's node.
        vcpus: CPUs that a vCPU has for itself.
        used: CPUs that threads of domains may run on.
        workers: Those of them where vhost workers run.
        least: CPUs to find, on the nearest other node if necessary.
    """
    near = _near(host, home)
    guarded = host.siblings(vcpus) | host.busy
    able = _able(host)
    for cell in near[:1]:
        node = f"node {cell.id}"
        free = cell.cpus & able - guarded
        steps = (
            (free - used, f"CPUs of {node} that no VM uses"),
            (free - workers, f"{node} has no unused CPU; uses CPUs of the emulators"),
            (free, f"{node} has no unused CPU; uses CPUs of the vhost workers"),
        )
        if found := next((step for step in steps[:2] if len(step[0]) >= least), None):
            return found
        few, why = next((step for step in steps if step[0]), (NO_CPUS, ""))
        spare = next((cpus for other in near[1:] if (cpus := other.cpus & able - guarded - used)), NO_CPUS)
        if few and len(few) < least and spare:
            # The last ones: vCPUs are assigned from the first.
            more = sorted(spare)[len(few) - least :]
            return few | frozenset(more), f"{why}, and {cpuset.format(more)} of the nearest other node"
        if few:
            return few, why
    return _elsewhere(near, guarded, vcpus | host.busy, able)


def staying(host: HostTopology, home: int | None, vcpus: Cpus, crowded: Cpus) -> Cpus:
    """CPUs of the NIC's node on which an interrupt conflicts with nobody.

    Args:
        host, home, vcpus: As for :func:`choose_cpus`.
        crowded: CPUs of vhost workers, and of vCPUs that share CPUs.
    """
    busy = host.siblings(vcpus) | host.busy | crowded | host.isolated | host.nohz_full
    return NO_CPUS.union(*(cell.cpus for cell in _near(host, home)[:1])) - busy


def _near(host: HostTopology, home: int | None) -> list[NumaCell]:
    return memory.by_distance(host, home) if home is not None else list(host.cells)


def _able(host: HostTopology) -> Cpus:
    """CPUs that interrupts may be moved to."""
    return (host.irq_default or host.online) - host.isolated - host.nohz_full


def _elsewhere(near: Sequence[NumaCell], guarded: Cpus, vcpus: Cpus, able: Cpus) -> tuple[Cpus, str]:
    for cell in near[1:]:
        if cpus := cell.cpus & able - guarded:
            return (
                cpus,
                f"no CPU of the NIC's node is left for interrupts; uses node {cell.id}, the nearest other",
            )
    for cell in near:
        if cpus := cell.cpus & able - vcpus:
            return cpus, f"every core of the host runs a vCPU; uses SMT siblings on node {cell.id}"
    return NO_CPUS, "every CPU that interrupts may go to runs a vCPU"
