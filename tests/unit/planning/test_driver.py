"""Rings and queues: who gets them, and how many."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import Vnic
from libvirt_tuner.planning import driver
from libvirt_tuner.planning.planner import plan
from tests.unit.builders import domain, host

TAP = Vnic(0, type="bridge", source="br0", model="virtio")
VHOSTUSER = Vnic(1, type="vhostuser", source="/run/vhu0", model="virtio")
EMULATED = Vnic(2, type="bridge", source="br0", model="e1000e")
MACVTAP = Vnic(3, type="direct", source="eth0", model="virtio", queues=4)
VDPA = Vnic(4, type="vdpa", source="/dev/vhost-vdpa-0", model="virtio")
HOSTDEV = Vnic(5, type="hostdev", model="virtio")
ALL = (TAP, VHOSTUSER, EMULATED, MACVTAP, VDPA, HOSTDEV)
KEEP = Policy(rx_queue_size=None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {}, id="all kept"),
        pytest.param({"rx_queue_size": 512}, {"rx_queue_size": (512, (0, 1, 3))}, id="receive ring"),
        pytest.param({"tx_queue_size": 1024}, {"tx_queue_size": (1024, (1, 4))}, id="long transmit ring"),
        pytest.param({"tx_queue_size": 256}, {"tx_queue_size": (256, (0, 1, 3, 4))}, id="transmit ring"),
        pytest.param({"queues": 2}, {"queues": (2, (0, 1))}, id="queues, the user's own kept"),
        pytest.param({"queues": "vcpus"}, {"queues": (6, (0, 1))}, id="a queue per vCPU"),
        pytest.param({"queues": 9}, {"queues": (6, (0, 1))}, id="never more than vCPUs"),
        pytest.param({"queues": 1}, {}, id="one is what there is"),
    ],
)
def test_who_gets_what(changes: dict[str, object], expected: dict[str, object]) -> None:
    settings, _ = driver.choose(domain(6, vnics=ALL), evolve(KEEP, **changes))  # type: ignore[arg-type]
    assert settings == expected


def test_queues_are_for_the_vcpus_at_boot() -> None:
    settings, _ = driver.choose(domain(8, current=2, vnics=(TAP,)), evolve(KEEP, queues="vcpus"))
    assert settings == {"queues": (2, (0,))}


def test_a_tap_has_256_queues_at_most() -> None:
    settings, _ = driver.choose(domain(400, vnics=(TAP,)), evolve(KEEP, queues="vcpus"))
    assert settings == {"queues": (256, (0,))}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"tx_queue_size": 1024},
            ("tx_queue_size", "not set", "no vhost-user or vDPA NIC; QEMU takes at most 256 on a tap"),
            id="long ring on a tap",
        ),
        pytest.param({"queues": 9}, ("queues", "2", "one per vCPU"), id="more than vCPUs"),
        pytest.param({"queues": 2}, ("queues", "2", "set in the policy"), id="as many as vCPUs"),
    ],
)
def test_the_reason_is_said(changes: dict[str, object], reason: tuple[str, str, str]) -> None:
    _, (said,) = driver.choose(domain(2, vnics=(TAP,)), evolve(KEEP, **changes))  # type: ignore[arg-type]
    assert (said.subject, said.decision, said.why) == reason


def test_what_the_user_set_is_said() -> None:
    _, said = driver.choose(domain(6, vnics=(evolve(MACVTAP, index=0),)), evolve(KEEP, queues="vcpus"))
    assert [(reason.subject, reason.decision, reason.why) for reason in said] == [
        ("queues of vNIC 0", "4", "your own")
    ]


def test_each_queue_set_has_a_vhost_worker_with_a_cpu() -> None:
    made = plan(host(), domain(4, vnics=(TAP,)), Policy(queues=3), ())
    assert len(set(made.vhost)) == 3
    assert made.driver == {"rx_queue_size": (1024, (0,)), "queues": (3, (0,))}


def test_queues_that_came_with_the_domain_count_where_this_host_sets_none() -> None:
    own = domain(4, vnics=(TAP,))
    arrived = evolve(own, vnics=(evolve(TAP, queues=3),))
    made = plan(host(), own, Policy(), (), previous=arrived)
    assert len(set(made.vhost)) == 3
    assert "queues" not in made.driver
