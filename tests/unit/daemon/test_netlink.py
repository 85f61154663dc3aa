"""Reading netlink messages; the kernel's own are in tests/netns."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.daemon.netlink import Event, State, channel_events, cpu_events, route_events

UP = 0x1 | 0x40 | 0x10000
NEWLINK, DELLINK, NEWROUTE = 16, 17, 24
BOND0 = Event("link", "bond0")


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(
    name: str = "bond0",
    *,
    kind: int = NEWLINK,
    index: int = 7,
    flags: int = UP,
    family: int = socket.AF_UNSPEC,
    info: bytes = b"",
    more: bytes = b"",
) -> bytes:
    head = struct.pack("=BxHiII", family, 1, index, flags, 0)
    info = attribute(18, info) if info else b""
    return message(kind, head + attribute(3, name.encode() + b"\0") + info + more)


def bond(active: int) -> bytes:
    """IFLA_INFO_KIND and, within IFLA_INFO_DATA, IFLA_BOND_ACTIVE_SLAVE."""
    return attribute(1, b"bond\0") + attribute(2, number(2, active))


def told(*messages: bytes) -> list[Event]:
    """What the last of some messages tells after the others."""
    known: dict[int, State] = {}
    for each in messages[:-1]:
        list(route_events(each, known))
    return list(route_events(messages[-1], known))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([link(), link()], [], id="said again"),
        pytest.param([link(), link(more=number(13, 500))], [], id="length of the queue"),
        pytest.param([link(), link(flags=UP | 0x100)], [], id="promiscuous"),
        pytest.param([link(), link(family=socket.AF_BRIDGE, flags=0)], [], id="a bridge's view of a port"),
        pytest.param([link()], [BOND0], id="first heard of"),
        pytest.param([link(), link(flags=1)], [BOND0], id="carrier lost"),
        pytest.param([link(), link(more=number(4, 9000))], [BOND0], id="MTU"),
        pytest.param([link(), link(more=number(10, 3))], [BOND0], id="master"),
        pytest.param([link(), link(more=number(5, 3))], [BOND0], id="lower device"),
        pytest.param([link(), link("bond1")], [Event("link", "bond1")], id="another name"),
        pytest.param([link(info=bond(3)), link(info=bond(4))], [BOND0], id="active slave"),
        pytest.param([link(), link(kind=DELLINK)], [BOND0], id="gone"),
        pytest.param([link(), link(kind=DELLINK), link()], [BOND0], id="come again"),
        pytest.param([link() + link(flags=0)], [BOND0, BOND0], id="two in one"),
    ],
)
def test_link(messages: list[bytes], expected: list[Event]) -> None:
    assert told(*messages) == expected


def test_timers_of_a_bridge_tell_nothing() -> None:
    first, second = (attribute(1, b"bridge\0") + attribute(2, number(17, ticks)) for ticks in (1, 2))
    assert told(link(info=first), link(info=second)) == []


@pytest.mark.parametrize(
    ("sort", "flags", "expected"),
    [
        pytest.param(1, 0, [Event("route")], id="unicast"),
        pytest.param(3, 0, [], id="broadcast"),
        pytest.param(1, 0x200, [], id="cached"),
    ],
)
def test_route(sort: int, flags: int, expected: list[Event]) -> None:
    assert told(message(NEWROUTE, struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 0, sort, flags))) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(19, [Event("channels", "eth0")], id="channels"),
        pytest.param(17, [Event("channels", "eth0")], id="rings"),
        pytest.param(13, [], id="features"),
    ],
)
def test_ethtool(command: int, expected: list[Event]) -> None:
    header = attribute(0x8000 | 1, number(1, 2) + attribute(2, b"eth0\0"))
    assert list(channel_events(message(21, struct.pack("=BBH", command, 1, 0) + header))) == expected


@pytest.mark.parametrize(
    ("head", "subsystem", "expected"),
    [
        pytest.param("offline@/devices/system/cpu/cpu3", "cpu", [Event("cpu", "cpu3")], id="offline"),
        pytest.param("online@/devices/system/cpu/cpu12", "cpu", [Event("cpu", "cpu12")], id="online"),
        pytest.param("change@/devices/system/cpu/cpu3", "cpu", [], id="no change of its state"),
        pytest.param("online@/devices/system/memory/memory3", "memory", [], id="memory"),
    ],
)
def test_uevent(head: str, subsystem: str, expected: list[Event]) -> None:
    fields = (head, "ACTION=x", f"SUBSYSTEM={subsystem}", "SEQNUM=4711", "")
    assert list(cpu_events("\0".join(fields).encode())) == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(link()[:-5], id="cut off"),
        pytest.param(b"\x01", id="less than a header"),
        pytest.param(b"\0" * 16, id="no length"),
        pytest.param(message(NEWLINK, b"\0"), id="less than a link"),
        pytest.param(link(more=b"\0\0\0\0"), id="attribute without a length"),
        pytest.param(link(more=struct.pack("=HH", 400, 5)), id="attribute too long"),
    ],
)
def test_what_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises((struct.error, ValueError)):
        told(data)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_end_it_otherwise(data: bytes) -> None:
    with suppress(struct.error, ValueError):
        told(data)
    with suppress(struct.error, ValueError):
        list(channel_events(data))
    list(cpu_events(data))
