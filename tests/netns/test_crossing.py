"""The kernel has the last word on the numbers: the computed size crosses whole, the next byte does not."""

from __future__ import annotations

import pytest

from tests.netns.conftest import Namespace, Pair

WHOLE = {"made": 0, "received": 0, "whole": 1}


def refused_or_cut(result: dict[str, int]) -> bool:
    return result["made"] > 0 or result["whole"] == 0


@pytest.mark.parametrize(
    ("underlay", "ipv6", "expected"),
    [
        pytest.param(1500, False, 1450, id="IPv4"),
        pytest.param(1500, True, 1430, id="IPv6"),
        pytest.param(9000, False, 8950, id="IPv4, jumbo frames"),
        pytest.param(9000, True, 8930, id="IPv6, jumbo frames"),
        pytest.param(1477, False, 1427, id="an odd MTU"),
    ],
)
def test_vxlan(pair: Pair, underlay: int, ipv6: bool, expected: int) -> None:
    pair.cable(underlay)
    pair.vxlan(ipv6=ipv6)
    pair.warm("send", "10.88.0.2", 100)
    size = pair.a.ask("plan", "vx0")["size"]
    assert size == expected
    assert WHOLE in (pair.sent(pair.a, "send", "10.88.0.2", size) for _ in range(5))
    assert refused_or_cut(pair.sent(pair.a, "send", "10.88.0.2", size + 1))


def test_route_that_takes_less_than_its_device(pair: Pair) -> None:
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        end.ip("addr", "add", f"10.66.{number}.1/32", "dev", "lo")
        far = 3 - number
        end.ip(
            "route", "add", f"10.66.{far}.1", "via", f"10.77.0.{far}", "src", f"10.66.{number}.1", "mtu", 1400
        )
        end.ip("link", "add", "vx0", "type", "vxlan", "id", 42, "remote", f"10.66.{far}.1", "dstport", 4789)
        end.ip("link", "set", "vx0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "vx0")
    pair.warm("send", "10.88.0.2", 100)
    size = pair.a.ask("plan", "vx0")["size"]
    assert size == 1350
    assert WHOLE in (pair.sent(pair.a, "send", "10.88.0.2", size) for _ in range(5))
    assert refused_or_cut(pair.sent(pair.a, "send", "10.88.0.2", size + 1))


def bridge_with_tap(end: Namespace, port: str) -> None:
    end.ip("link", "add", "br0", "type", "bridge")
    end.ip("link", "set", port, "master", "br0")
    end.ip("tuntap", "add", "vnet0", "mode", "tap")
    end.ip("link", "set", "vnet0", "master", "br0")
    for device in ("br0", "vnet0"):
        end.ip("link", "set", device, "up")


@pytest.mark.parametrize("ipv6", [pytest.param(False, id="IPv4"), pytest.param(True, id="IPv6")])
def test_guest_on_a_bridge_on_vxlan(pair: Pair, ipv6: bool) -> None:
    pair.cable(1500)
    pair.vxlan(ipv6=ipv6)
    bridge_with_tap(pair.a, "vx0")
    pair.a.ip("link", "set", "vnet0", "mtu", 9000)
    mac = pair.b.mac("vx0")
    answer = pair.a.ask("plan", "vnet0")
    assert answer["path"].startswith("vnet0 > br0 > vx0 (vni 42, ")
    size = answer["size"]
    pair.warm("guest", "vnet0", mac, 100)
    assert WHOLE in (pair.sent(pair.a, "guest", "vnet0", mac, size) for _ in range(5))
    assert refused_or_cut(pair.sent(pair.a, "guest", "vnet0", mac, size + 1))


def test_tag_of_the_switch_in_vxlan(pair: Pair) -> None:
    pair.cable(1500)
    pair.vxlan(ipv6=False)
    bridge_with_tap(pair.a, "vx0")
    mac = pair.b.mac("vx0")
    size = pair.a.ask("plan", "vnet0", 1)["size"]
    assert size == 1446
    pair.warm("guest", "vnet0", mac, 100)
    assert pair.sent(pair.a, "guest", "vnet0", mac, size, "tagged")["made"] == 0
    assert pair.sent(pair.a, "guest", "vnet0", mac, size + 1, "tagged")["made"] > 0


def test_vxlan_in_vxlan(pair: Pair) -> None:
    pair.cable(1500)
    pair.vxlan(ipv6=True)
    for number, end in enumerate((pair.a, pair.b), start=1):
        end.ip(
            "link", "add", "vx1", "type", "vxlan", "id", 7, "remote", f"10.88.0.{3 - number}", "dstport", 8472
        )
        end.ip("link", "set", "vx1", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.99.0.{number}/24", "dev", "vx1")
    pair.warm("send", "10.99.0.2", 100)
    size = pair.a.ask("plan", "vx1")["size"]
    assert size == 1500 - 70 - 50
    assert WHOLE in (pair.sent(pair.a, "send", "10.99.0.2", size) for _ in range(5))
    assert refused_or_cut(pair.sent(pair.a, "send", "10.99.0.2", size + 1))


def test_multicast_group_leaves_by_its_device(pair: Pair) -> None:
    pair.cable(1500)
    pair.a.ip("link", "add", "vxm", "type", "vxlan", "id", 5, "group", "239.1.1.1", "dev", "cable")
    answer = pair.a.ask("plan", "vxm")
    assert answer["steps"] == ["vxm", "cable"]
    assert answer["size"] == 1450


def test_far_end_without_route_is_said(pair: Pair) -> None:
    pair.cable(1500)
    pair.a.ip("link", "add", "vx9", "type", "vxlan", "id", 5, "remote", "203.0.113.9", "dstport", 4789)
    answer = pair.a.ask("plan", "vx9")
    assert "no route to 203.0.113.9" in answer["path"]
    assert answer["size"] == 1450


def test_route_through_the_tunnel_itself_is_a_loop(pair: Pair) -> None:
    pair.cable(1500)
    pair.a.ip("link", "add", "vx9", "type", "vxlan", "id", 5, "remote", "10.55.0.2", "dstport", 4789)
    pair.a.ip("link", "set", "vx9", "up")
    pair.a.ip("addr", "add", "10.55.0.1/24", "dev", "vx9")
    assert "loop: vx9 > vx9" in pair.a.ask("plan", "vx9")["path"]


def test_veth_with_both_ends_here_is_followed(pair: Pair) -> None:
    pair.cable(1500)
    a = pair.a
    a.ip("link", "add", "br1", "type", "bridge")
    a.ip("link", "set", "cable", "master", "br1")
    a.ip("link", "add", "br0", "type", "bridge")
    a.ip("link", "add", "q0", "type", "veth", "peer", "name", "q1")
    a.ip("link", "set", "q0", "master", "br0")
    a.ip("link", "set", "q1", "master", "br1")
    assert a.ask("plan", "br0")["steps"][:3] == ["br0", "q0", "br1"]
