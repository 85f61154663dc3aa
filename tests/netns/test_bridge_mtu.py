"""What a tap with a smaller MTU does to a bridge on this kernel, and how it is kept from it."""

from __future__ import annotations

from tests.netns.conftest import Namespace, Pair


def bridge(end: Namespace) -> None:
    end.ip("link", "add", "br0", "type", "bridge")
    end.ip("link", "set", "cable", "master", "br0")
    for name in ("vnet0", "vnet1"):
        end.ip("tuntap", "add", name, "mode", "tap")
        end.ip("link", "set", name, "master", "br0")


def test_smaller_tap_pulls_the_bridge_down_and_our_answer_lets_it_rise(pair: Pair) -> None:
    pair.cable(1500)
    bridge(pair.a)
    pair.a.ip("link", "set", "vnet0", "mtu", 1416)
    assert pair.a.mtu("br0") == 1416
    answer = pair.a.ask("host_side", "vnet0", 1416)
    assert answer == [["vnet0", 1500]]
    pair.a.ip("link", "set", "vnet0", "mtu", 1500)
    assert pair.a.mtu("br0") == 1500
    assert pair.a.ask("host_side", "vnet0", 1416) == []


def test_bridge_keeps_an_mtu_that_was_set(pair: Pair) -> None:
    pair.cable(1500)
    bridge(pair.a)
    pair.a.ip("link", "set", "br0", "mtu", 1480)
    pair.a.ip("link", "set", "vnet0", "mtu", 1416)
    assert pair.a.mtu("br0") == 1480
    assert pair.a.ask("host_side", "vnet0", 1416) == [["vnet0", 1480]]


def test_setting_the_mtu_it_has_does_not_keep_it(pair: Pair) -> None:
    pair.cable(1500)
    bridge(pair.a)
    pair.a.ip("link", "set", "br0", "mtu", 1500)
    pair.a.ip("link", "set", "vnet0", "mtu", 1416)
    assert pair.a.mtu("br0") == 1416


def test_another_smaller_tap_still_holds_the_bridge_down(pair: Pair) -> None:
    pair.cable(1500)
    bridge(pair.a)
    for name in ("vnet0", "vnet1"):
        pair.a.ip("link", "set", name, "mtu", 1416)
    pair.a.ip("link", "set", "vnet0", "mtu", 1500)
    assert pair.a.mtu("br0") == 1416
