from __future__ import annotations

import pytest

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import DomainSpec, Numatune, Vnic
from libvirt_tuner.planning.neighbours import neighbour
from libvirt_tuner.planning.planner import plan
from tests.unit.builders import cpus, domain, host
from tests.unit.planning.reading import NOBODY, seats, why


def test_the_users_pins_stand_and_the_rest_is_planned_round_them() -> None:
    made = plan(host(), domain(3, vcpupin={1: cpus(12)}), Policy(), NOBODY)
    assert sorted(made.vcpupin) == [0, 2]
    assert made.nodes == (1,)
    assert 12 not in {cpu for pin in made.vcpupin.values() for cpu in pin} | (made.emulatorpin or set())
    assert 12 in made.holds.vcpus


def test_the_users_emulatorpin_stands_and_no_vcpu_goes_there() -> None:
    made = plan(host(), domain(2, emulatorpin=cpus(2, 3)), Policy(), NOBODY)
    assert made.emulatorpin is None
    assert made.holds.emulators == cpus(2, 3)
    assert not set(seats(made)) & {2, 3}


@pytest.mark.parametrize(
    "wide",
    [
        pytest.param(domain(4, vcpupin=dict.fromkeys((0, 1), frozenset(range(8)))), id="vcpupin"),
        pytest.param(domain(4, emulatorpin=frozenset(range(16))), id="emulatorpin"),
    ],
)
def test_a_pin_that_lets_a_thread_float_keeps_nobody_off(wide: DomainSpec) -> None:
    made = plan(host(), wide, Policy(), NOBODY)
    assert made.placement == "dedicated"
    assert made.holds.vcpus == frozenset(seats(made))
    after = plan(host(), domain(2), Policy(), [neighbour(made)])
    assert after.placement == "dedicated"


def test_a_vcpupin_of_both_siblings_is_held() -> None:
    made = plan(host(threads=2), domain(1, vcpupin={0: cpus(3, 19)}), Policy(), NOBODY)
    assert made.holds.vcpus == cpus(3, 19)


def test_memory_is_left_where_the_users_vcpupin_spans_nodes() -> None:
    made = plan(host(), domain(2, vcpupin={0: cpus(2), 1: cpus(10)}), Policy(), NOBODY)
    assert made.numatune is None
    assert why(made, "memory") == "your vcpupin spans nodes 0-1"


def test_the_users_numatune_binds_the_node() -> None:
    made = plan(host(), domain(numatune=Numatune("preferred", frozenset({1}))), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((1,), None)


def test_the_users_cpuset_bounds_the_choice() -> None:
    made = plan(host(), domain(2, cpuset=cpus(9, 10, 11, 12)), Policy(), NOBODY)
    assert set(seats(made)) <= {9, 10, 11, 12}


def test_the_users_ring_size_stands() -> None:
    vnic = Vnic(0, type="bridge", source="br0", model="virtio", rx_queue_size=512)
    made = plan(host(), domain(vnics=(vnic,)), Policy(), NOBODY)
    assert made.driver == {}
