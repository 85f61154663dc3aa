"""The MTU of a path, with the reasons."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.topology import (
    Link,
    Route,
    Tunnel,
    Xfrm,
)
from libvirt_tuner.uplink import budget
from libvirt_tuner.uplink.path import trace
from tests.unit.uplink.geneve import POLICY, STATE, TUNNEL, host, size


@pytest.mark.parametrize(
    ("device", "links", "mtu"),
    [
        pytest.param("p0", [], 1500, id="the NIC itself"),
        pytest.param("br0", [Link("br0", "bridge", lower=("p0",))], 1500, id="a bridge on it"),
        pytest.param("br0", [Link("br0", "bridge", 1400, lower=("p0",))], 1400, id="a bridge with less"),
        pytest.param("v5", [Link("v5", "vlan", lower=("p0",))], 1500, id="a VLAN on the wire costs nothing"),
        pytest.param(
            "tap0",
            [Link("tap0", "tun", 900, lower=("br0",)), Link("br0", "bridge", lower=("p0",))],
            1500,
            id="the vNIC's own tap does not count",
        ),
        pytest.param(
            "network:n",
            [Link("network:n", "network", lower=("j0",)), Link("j0", mtu=9000)],
            9000,
            id="a libvirt network is no device",
        ),
        pytest.param("g6", [Link("g6", "geneve", 1500, tunnel=Tunnel(("fd00::2",)))], 1430, id="IPv6"),
        pytest.param("gnv", [evolve(TUNNEL, mtu=1300)], 1300, id="a tunnel somebody made smaller"),
        pytest.param(
            "gnv",
            [evolve(TUNNEL, tunnel=Tunnel(("192.168.1.2",), extras=(("options", 12),)))],
            1438,
            id="options",
        ),
        pytest.param("v5", [TUNNEL, Link("v5", "vlan", 1450, lower=("gnv",))], 1446, id="a VLAN inside it"),
        pytest.param(
            "b0",
            [Link("b0", "bond", 1500, ("p0", "p1"), "p0"), Link("p1", mtu=1400)],
            1400,
            id="a backup with less",
        ),
    ],
)
def test_mtu_of_a_path(device: str, links: list[Link], mtu: int) -> None:
    assert size(device, host(*links)) == mtu


def test_tags_of_the_switch_cost_in_a_tunnel_only() -> None:
    on = host(TUNNEL, Link("br0", "bridge", lower=("p0",)))
    assert (size("gnv", on, tags=1), size("br0", on, tags=1)) == (1446, 1500)


def test_explanation_names_each_layer_with_its_bytes() -> None:
    on = host(TUNNEL, xfrm=Xfrm((STATE,), (POLICY,)))
    text = budget.vnic_mtu(trace("gnv", on), on)[1]
    for part in (
        "p0 carries 1500",
        "ESP transport rfc4106(gcm(aes)) adds 34",
        "gnv adds 50 (IPv4 20, UDP 8, Geneve 8, inner Ethernet 14)",
        "ip link set gnv mtu 1416",
    ):
        assert part in text


def test_no_uplink_no_mtu() -> None:
    on = host(Link("virbr0", "bridge"))
    assert size("virbr0", on) is None


def test_tunnel_without_route_gets_the_safe_number() -> None:
    on = host(evolve(TUNNEL, tunnel=Tunnel(("10.9.9.9",)), mtu=1500))
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1450
    assert "no route to 10.9.9.9" in why
    assert "1500 assumed" in why


def test_device_of_a_program_counts_as_an_unknown_tunnel() -> None:
    on = evolve(host(TUNNEL, Link("tun0", "tun")), routes={"192.168.1.2": Route("192.168.1.2", "tun0")})
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1500 - 100 - 50
    assert "a program's tunnel is unknown; 100 bytes assumed" in why


def test_segments_of_a_route_are_counted() -> None:
    routes = {"192.168.1.2": Route("192.168.1.2", "p0", encap="seg6", encap_bytes=112)}
    assert size("gnv", evolve(host(TUNNEL), routes=routes)) == 1500 - 112 - 50


def test_route_that_takes_less_than_its_device() -> None:
    on = evolve(host(TUNNEL), routes={"192.168.1.2": Route("192.168.1.2", "p0", mtu=1400)})
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1350
    assert "the route to 192.168.1.2 carries 1400" in why
