"""Which IPsec a tunnel's packets meet, from the kernel's states and policies."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.topology import (
    Link,
    Route,
    Tunnel,
    Xfrm,
    XfrmPolicy,
)
from libvirt_tuner.uplink import budget, encapsulation
from libvirt_tuner.uplink.encapsulation import largest
from libvirt_tuner.uplink.path import trace
from tests.unit.uplink.geneve import POLICY, STATE, TUNNEL, host, size


@pytest.mark.parametrize(
    ("xfrm", "mtu"),
    [
        pytest.param(Xfrm(), 1450, id="no IPsec"),
        pytest.param(Xfrm((STATE,)), 1450, id="a state without policy"),
        pytest.param(Xfrm((STATE,), (POLICY,)), 1416, id="transport"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(direction="in"),)), 1450, id="inbound only"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(dport=4789),)), 1450, id="another port"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(proto="tcp"),)), 1450, id="another protocol"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(dst="10.0.0.0/8"),)), 1450, id="another far end"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(dst="192.168.1.9/32"),)), 1450, id="another host"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(dst="192.168.1.2/31"),)), 1416, id="two hosts"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(src="10.0.0.0/8"),)), 1450, id="another source"),
        pytest.param(Xfrm((STATE,), (POLICY._replace(if_id=41),)), 1450, id="an xfrm interface's"),
        pytest.param(
            Xfrm((STATE,), (POLICY._replace(src="192.168.0.0/16", dst="0.0.0.0/0"),)), 1416, id="a subnet's"
        ),
        pytest.param(
            Xfrm((STATE,), (POLICY, POLICY._replace(priority=-1, templates=()))), 1450, id="bypass goes first"
        ),
        pytest.param(Xfrm((STATE._replace(encap="espinudp"),), (POLICY,)), 1408, id="NAT traversal"),
        pytest.param(
            Xfrm((STATE, STATE._replace(icv_bits=64)), (POLICY,)), 1416, id="two states, the larger"
        ),
        pytest.param(Xfrm((STATE._replace(reqid=8),), (POLICY,)), 1376, id="no state yet: the largest"),
    ],
)
def test_ipsec_from_the_kernels_states(xfrm: Xfrm, mtu: int) -> None:
    assert size("gnv", host(TUNNEL, xfrm=xfrm)) == mtu


def test_unreadable_ipsec_counts_as_the_largest_there_is() -> None:
    on = host(TUNNEL, xfrm=Xfrm(problem="needs root"))
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1500 - 50 - (1500 - largest(1500, [encapsulation.esp((), nat=True)]))
    assert "IPsec could not be read: needs root" in why


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", sport=68), 1416, id="for one source port"),
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", narrow=True), 1416, id="for a mark"),
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", block=True), 1416, id="that blocks"),
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0"), 1450, id="that lets all through"),
    ],
)
def test_policy_that_comes_first(other: XfrmPolicy, expected: int) -> None:
    late = POLICY._replace(priority=10)
    assert size("gnv", host(TUNNEL, xfrm=Xfrm((STATE,), (other, late)))) == expected


def test_far_ends_unknown_any_policy_of_its_address_may_be_met() -> None:
    told = evolve(TUNNEL, tunnel=Tunnel(local="192.168.1.1", port=6081))
    routes = {"192.168.1.1": Route("192.168.1.1", "p0")}
    on = evolve(host(told, xfrm=Xfrm((STATE,), (POLICY,))), routes=routes)
    assert trace("gnv", on).functions == ("p0",)
    assert size("gnv", on) == 1416


def test_mark_of_an_interfaces_policy_is_not_counted_twice() -> None:
    vti = Link("vti0", "vti", 1500, lower=("p0",))
    routes = {"192.168.1.2": Route("192.168.1.2", "vti0")}
    marked = POLICY._replace(src="0.0.0.0/0", dst="0.0.0.0/0", narrow=True)
    assert size("gnv", evolve(host(TUNNEL, vti, xfrm=Xfrm((STATE,), (marked,))), routes=routes)) == 1416


def test_ipsec_by_an_interface_is_counted() -> None:
    ipsec0 = Link("ipsec0", "xfrm", 1500)
    routes = {"192.168.1.2": Route("192.168.1.2", "ipsec0")}
    through = POLICY._replace(if_id=42)
    known = evolve(host(TUNNEL, ipsec0, xfrm=Xfrm((STATE,), (through,))), routes=routes)
    assert size("gnv", known) == 1416
    unknown = evolve(host(TUNNEL, ipsec0), routes=routes)
    assert size("gnv", unknown) == largest(1500, [encapsulation.esp((), mode="tunnel", nat=True)]) - 50
