"""Checks of interrupts, of packet steering and of what moves interrupts."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.host.ethtool import Feature
from libvirt_tuner.hostcheck import interrupts
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Irqbalance, Tuned
from libvirt_tuner.topology import QueueMask
from tests.unit import builders
from tests.unit.builders import cpus
from tests.unit.hostcheck.facts import facts, pinned, whats

FULL = "isolcpus=nohz,domain,managed_irq,4-7 nohz_full=4-7 irqaffinity=0-3,8-15"


@pytest.mark.parametrize(
    ("at", "isolated", "seats", "found"),
    [
        pytest.param((0, 1, 2, 3), "", (), [], id="on its node"),
        pytest.param((0, 1, 2, 9), "", (), ["p0: interrupt 104 not on the card's node (CPU 9)"], id="far"),
        pytest.param(
            (0, 1, 2, 3), "", (2, 3), ["p0: interrupts 103 104 on CPUs of vCPUs (CPUs 2-3)"], id="vCPUs"
        ),
        pytest.param((0, 1, 2, 3), "3", (), ["p0: interrupt 104 on isolated CPUs (CPU 3)"], id="isolated"),
        pytest.param(
            (0, 9, 2, 3),
            "3",
            (9,),
            ["p0: interrupt 102 on CPUs of vCPUs (CPU 9)", "p0: interrupt 104 on isolated CPUs (CPU 3)"],
            id="each once, by what hurts most",
        ),
    ],
)
def test_misplaced_interrupts(
    at: tuple[int, ...], isolated: str, seats: tuple[int, ...], found: list[str]
) -> None:
    host = builders.host(isolated=cpuset.parse(isolated), nics=(builders.nic(at=at),))
    made = Facts(host, guests=(pinned("vm", *seats),))
    assert whats("misplaced_interrupts", made) == found


def test_an_interrupt_that_this_tool_moved_to_another_node() -> None:
    host = builders.host(nics=(builders.nic(at=(0, 9, 10)),))
    (finding,) = interrupts.misplaced_interrupts(Facts(host, steered=frozenset({102})))
    assert "interrupt 103 not on" in finding.what


def test_the_command_moves_an_interrupt_to_a_cpu_of_its_node() -> None:
    made = facts("", "", pinned("vm", 2, 3))
    (finding,) = interrupts.misplaced_interrupts(made)
    assert finding.fix == "for irq in 103 104; do echo 0-1,4-7 > /proc/irq/$irq/smp_affinity_list; done"


@pytest.mark.parametrize(
    ("threads", "found"),
    [
        pytest.param((), [], id="no threads"),
        pytest.param(((7, cpus(0, 1)), (8, cpus(1))), [], id="elsewhere"),
        pytest.param(
            ((7, cpus(0, 1)), (8, cpus(1, 2, 3))),
            ["p0: 1 NAPI threads may run on CPUs 2-3 of vCPUs"],
            id="on vCPUs",
        ),
    ],
)
def test_napi_threads(threads: tuple[tuple[int, frozenset[int]], ...], found: list[str]) -> None:
    made = evolve(facts("", "", pinned("vm", 2, 3)), napi={"p0": threads})
    assert whats("napi_threads", made) == found


def test_the_command_pins_the_threads_that_are_in_the_way() -> None:
    made = evolve(facts("", "", pinned("vm", 2, 3)), napi={"p0": ((7, cpus(2)), (8, cpus(1)))})
    (finding,) = interrupts.napi_threads(made)
    assert finding.fix == "for pid in 7; do taskset -pc 0-1,4-7 $pid; done"


@pytest.mark.parametrize(
    ("masks", "found"),
    [
        pytest.param((), [], id="not read"),
        pytest.param((QueueMask("p0", "rx-0"),), [], id="off"),
        pytest.param((QueueMask("p0", "rx-0", cpus(1)),), [], id="elsewhere"),
        pytest.param((QueueMask("p0", "tx-0", cpus(4)),), [], id="XPS puts no work anywhere"),
        pytest.param((QueueMask("other", "rx-0", cpus(4)),), [], id="not an uplink"),
        pytest.param(
            (QueueMask("p0", "rx-0", cpus(1, 4)), QueueMask("p0", "rx-1", cpus(5))),
            ["p0: RPS sends packets of rx 0-1 to CPUs 4-5, which run vCPUs or are isolated"],
            id="hit",
        ),
    ],
)
def test_steering_masks(masks: tuple[QueueMask, ...], found: list[str]) -> None:
    made = facts("", "5", pinned("vm", 4))
    assert whats("steering_masks", evolve(made, host=evolve(made.host, queues=masks))) == found


def test_rfs_of_cards_with_a_flow_table_is_a_note() -> None:
    assert whats("steering_masks", facts(rfs_entries=32768), NOTE) == []
    offload = {"p0": {"ntuple-filters": Feature(True)}, "p1": {}}
    assert whats("steering_masks", facts(rfs={"p1": 1, "p0": 2}, features=offload), NOTE) == [
        "p0: RFS is on for 2 queues, in hardware (aRFS)",
        "p1: RFS is on for 1 queues",
    ]


@pytest.mark.parametrize(
    ("daemon", "found"),
    [
        pytest.param(None, [], id="not running"),
        pytest.param(Irqbalance(), ["irqbalance may put interrupts on CPUs 3 of vCPUs"], id="by itself"),
        pytest.param(Irqbalance(cpus(3, 4)), [], id="settings name them"),
        pytest.param(
            Irqbalance(cpus(3)), ["irqbalance may put interrupts on CPUs 4 of vCPUs"],
            id="settings count alone",
        ),
        pytest.param(
            Irqbalance(cpus(3, 4), frozenset({100})),
            ["irqbalance does not know that it must not move interrupts 101"],
            id="not told of all",
        ),
        pytest.param(Irqbalance(cpus(3, 4), frozenset({100, 101})), [], id="told"),
    ],
)  # fmt: skip
def test_irqbalance(daemon: Irqbalance | None, found: list[str]) -> None:
    made = facts(FULL, "4", pinned("vm", 3, 4), irqbalance=daemon, steered=frozenset({100, 101}))
    assert whats("balancers", made) == found


@pytest.mark.parametrize(
    ("tuned", "warnings", "notes"),
    [
        pytest.param(Tuned("virtual-host"), 0, 0, id="leaves CPUs alone"),
        pytest.param(Tuned("cpu-partitioning", cpus(3)), 1, 0, id="isolates others"),
        pytest.param(Tuned("realtime-virtual-host", cpus(3, 4)), 0, 0, id="isolates the same"),
    ],
)
def test_tuned(tuned: Tuned, warnings: int, notes: int) -> None:
    made = facts("", "", pinned("vm", 3, 4), tuned=tuned)
    assert len(whats("balancers", made)) == warnings
    assert len(whats("balancers", made, NOTE)) == notes
