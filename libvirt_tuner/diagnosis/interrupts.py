"""Interrupts of the network cards in an interval: count, CPU, and other threads there. Pure."""

from __future__ import annotations

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import node_of, percent
from libvirt_tuner.diagnosis.sample import Interval
from libvirt_tuner.topology import Cpus

NOTABLE = 0.01
"""Share of a CPU above which a thread is shown."""


@frozen
class Row:
    """An interrupt.

    Attributes:
        irq, nic, action: Which.
        counts: How often it came, by CPU, without zeros.
        effective: Where it goes.
        nodes: The nodes of those CPUs.
        home: The card's node, None where the firmware does not say.
        others: Other threads on those CPUs.
    """

    irq: int
    nic: str
    action: str
    counts: dict[int, int]
    effective: Cpus
    nodes: tuple[int, ...]
    home: int | None
    others: tuple[str, ...]

    @property
    def total(self) -> int:
        """On all CPUs."""
        return sum(self.counts.values())

    def cells(self, seconds: float) -> tuple[str, ...]:
        """The row of a table."""
        node = ",".join(map(str, self.nodes))
        far = self.home is not None and bool(self.nodes) and self.home not in self.nodes
        return (
            str(self.irq),
            self.nic,
            self.action,
            str(self.total),
            f"{self.total / seconds:.0f}",
            cpuset.format(self.effective),
            f"{node} (card: {self.home})" if far else node,
            ", ".join(self.others),
        )

    def data(self) -> dict[str, object]:
        """The row for JSON."""
        return {
            "irq": self.irq,
            "nic": self.nic,
            "action": self.action,
            "count": self.total,
            "cpus": {str(cpu): count for cpu, count in sorted(self.counts.items())},
            "effective": cpuset.format(self.effective),
            "nodes": list(self.nodes),
            "home": self.home,
            "others": list(self.others),
        }


def rows(look: Interval, uplink: str = "") -> list[Row]:
    """Return a row for each interrupt of the cards (or of one card), most frequent first."""
    found = []
    for nic in look.scene.host.nics.values():
        if uplink not in ("", nic.name, nic.address):
            continue
        for irq in nic.irqs:
            now = look.after.irqs.get(irq.number)
            if now is None:
                continue
            nodes = {node_of(look, cpu) for cpu in now.effective} - {None}
            found.append(
                Row(
                    irq.number,
                    nic.name,
                    irq.action,
                    dict(look.interrupts(irq.number)),
                    now.effective,
                    tuple(sorted(node for node in nodes if node is not None)),
                    nic.node,
                    tuple(name for cpu in sorted(now.effective) for name in tenants(look, cpu)),
                )
            )
    return sorted(found, key=lambda row: (-row.total, row.irq))


def tenants(look: Interval, cpu: int) -> list[str]:
    """Return threads of VMs on a CPU, and other threads with a notable share of it."""
    uses = sorted(look.on_cpu.get(cpu, ()), key=lambda use: -use.run)
    pinned = [use for use in uses if use.task.vm and (use.run >= NOTABLE or len(use.task.allowed) == 1)]
    rest = [use for use in uses if not use.task.vm and use.run >= 0.05]
    return [f"{use.task.full} {percent(use.run)}" for use in pinned + rest]


def per_cpu(look: Interval, table: list[Row]) -> list[tuple[str, ...]]:
    """Return a row for each CPU that received an interrupt of the table."""
    counts: dict[int, int] = {}
    for row in table:
        for cpu, count in row.counts.items():
            counts[cpu] = counts.get(cpu, 0) + count
    return [
        (
            str(cpu),
            str(node) if (node := node_of(look, cpu)) is not None else "",
            str(count),
            f"{look.net_rx(cpu):.0f}",
            percent(look.softirq(cpu)),
            ", ".join(tenants(look, cpu)),
        )
        for cpu, count in sorted(counts.items())
    ]
