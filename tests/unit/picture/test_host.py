"""Who is drawn where, and who floats."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.picture.host import (
    Tenant,
    arrange,
    floating_lines,
    floats,
    interrupts,
    labels,
    nic_names,
    node_name,
    summary,
    title,
)
from libvirt_tuner.topology import Irq, Nic
from tests.unit.picture import scenes


def cpus(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def test_an_empty_host_is_free() -> None:
    picture = arrange(scenes.host(4), [])
    assert [seat.sort for seat in picture.seats] == ["free"] * 4
    assert summary(picture) == "4 CPUs: 4 free"
    assert floating_lines(picture) == []


@pytest.mark.parametrize(
    ("isolated", "allowed", "expected"),
    [
        pytest.param(cpus(), cpus(2), False, id="one CPU"),
        pytest.param(cpus(), cpus(0, 1, 2), False, id="most of a node"),
        pytest.param(cpus(), cpus(0, 1, 2, 3), True, id="a node"),
        pytest.param(cpus(), cpus(*range(8)), True, id="everything"),
        pytest.param(cpus(), cpus(), True, id="not said"),
        pytest.param(cpus(2, 3), cpus(0, 1), True, id="all of a node that is not isolated"),
        pytest.param(cpus(1, 2, 3), cpus(0), False, id="its only CPU that is not isolated"),
        pytest.param(cpus(0, 1, 2, 3), cpus(0, 1), False, id="some of an isolated node"),
    ],
)
def test_who_floats(isolated: frozenset[int], allowed: frozenset[int], expected: bool) -> None:
    host = evolve(scenes.host(8, nodes=2), isolated=isolated)
    assert floats(host, allowed) is expected


def test_tenants_sit_at_each_of_their_cpus() -> None:
    host = evolve(scenes.host(8, nodes=2), isolated=cpus(2))
    tenants = [
        Tenant("emulator", -1, "web", cpus(0, 1)),
        Tenant("vcpu", 1, "web", cpus(2)),
        Tenant("vcpu", 0, "web", cpus(2)),
        Tenant("vcpu", 0, "db", cpus(*range(8))),
        Tenant("vcpu", 1, "db", cpus(*range(8))),
    ]
    picture = arrange(host, tenants, housekeeping=cpus(0, 4), offline=cpus(8, 9))
    seats = {seat.cpu: seat for seat in picture.seats}
    assert labels([seats[0]]) == ["emulator web", "housekeeping"]
    assert labels([seats[2]]) == ["vCPU 0-1 web", "isolated"]
    assert labels([seats[3]]) == ["free"]
    assert labels([seats[4]]) == ["housekeeping"]
    assert [seats[cpu].sort for cpu in (0, 2, 3, 4)] == ["emulator", "vcpu", "free", "housekeeping"]
    assert title([seats[0], seats[3]]) == "CPU 0: emulator of web, housekeeping\nCPU 3: free"
    assert floating_lines(picture) == ["vCPU 0-1 of db: anywhere on CPUs 0-7", "offline: CPU 8-9"]
    assert summary(picture) == "8 CPUs: 1 with vCPUs, 2 with emulators, 1 housekeeping, 4 free, 2 offline"


def test_a_tooltip_of_many_cpus_ends() -> None:
    lines = title(list(arrange(scenes.host(64), []).seats)).splitlines()
    assert lines[0] == "CPU 0: free"
    assert lines[-1] == "and 60 more CPUs"


def test_a_cpu_that_went_offline_meanwhile_has_no_place() -> None:
    picture = arrange(scenes.host(4), [Tenant("vcpu", 0, "web", cpus(9))])
    assert all(not seat.tenants for seat in picture.seats)


def test_interrupts_go_where_they_are_effective_or_moved_once_each() -> None:
    irqs = (
        Irq(7, "eth0-rx", cpus(0, 1), cpus(1)),
        Irq(8, "eth0-tx", cpus(2)),
        Irq(9),
    )
    nics = {name: Nic(name, "0000:01:00.0", 0, "virtio", irqs) for name in ("eth0", "eth0alias")}
    host = evolve(scenes.host(4), nics=nics)
    assert [(one.number, one.of, one.cpus) for one in interrupts(host)] == [
        (7, "eth0", cpus(1)),
        (8, "eth0", cpus(2)),
    ]
    assert next(iter(interrupts(host, {7: cpus(3)}))).cpus == cpus(3)


def test_nodes_and_cards_are_named() -> None:
    host = evolve(scenes.host(4), nics={"eth0": Nic("eth0", "0000:01:00.0", 0, "ice", speed=25000)})
    (node,) = arrange(host, []).nodes
    assert node_name(node) == "node 0: 4 CPUs, 64 GiB, 48 GiB free"
    assert nic_names(node) == ["NIC eth0 (ice, 25 Gbit/s)"]


def test_a_node_without_cpus_or_memory_is_there() -> None:
    picture = scenes.of("sparse-4node")
    assert [node_name(node) for node in picture.nodes][2:] == [
        "node 5: 8 CPUs, no memory",
        "node 8: no CPUs, 256 GiB, 256 GiB free",
    ]


def test_no_name_gets_control_of_a_terminal() -> None:
    picture = arrange(scenes.host(4), scenes.vm(scenes.NASTY, (2,), (1,)))
    said = [*(text for seat in picture.seats for text in (*labels([seat]), title([seat])))]
    assert all(text.isprintable() for text in said)
    assert any("\\x1b[31m\\u202e" in text for text in said)
