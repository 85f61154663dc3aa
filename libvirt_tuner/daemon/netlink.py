"""Receives kernel events that may change the placement of domains: links, routes, channels, CPUs.

It uses netlink sockets: rtnetlink's groups of links and routes (rtnetlink(7)), ethtool's ``monitor`` group
(Documentation/networking/ethtool-netlink.rst, Linux 5.6), and the kernel's uevents (lib/kobject_uevent.c) of
CPUs that go on- or offline. ethtool's group is needed because ``ethtool -L`` changes a card's interrupts
without an event of the link. If the kernel or the namespace has no such group, only links are watched.

An event says what changed, not how. The receiver reads the host again. Missed events (the kernel drops
messages when a socket is full) count as "everything may have changed".
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from attrs import frozen

_NETLINK_ROUTE, _NETLINK_GENERIC, _NETLINK_UEVENT = 0, 16, 15
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 20
_PIECE = 1 << 16
_GROUPS = 0x1 | 0x40 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE."""

_KERNEL = 1
"""Multicast group of the kernel's own uevents; udev's have another."""

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = struct.Struct("=BBH")
_NLMSG_ERROR = 2
_NEWLINK, _DELLINK, _NEWROUTE, _DELROUTE = 16, 17, 24, 25
_IFNAME, _MTU, _LOWER, _MASTER, _LINKINFO = 3, 4, 5, 10, 18
_INFO_KIND, _INFO_DATA = 1, 2
_UP_RUNNING_LOWER_UP = 0x1 | 0x40 | 0x10000
_RTN_UNICAST, _RTM_F_CLONED = 1, 0x200
_TELLING = frozenset({"bond", "vlan", "vxlan", "geneve", "gretap", "ip6gretap", "bareudp"})
"""Kinds whose own data says where packets go. A bridge's data has timers that change all the time."""

_CTRL_ID, _GETFAMILY, _FAMILY_NAME, _MCAST_GROUPS = 0x10, 3, 2, 7
_GROUP_NAME, _GROUP_ID = 1, 2
_RINGS_NTF, _CHANNELS_NTF = 17, 19
_HEADER_OF_BOTH, _DEV_NAME = 1, 2


@frozen
class Event:
    """Something changed.

    Attributes:
        what: ``link``, ``route``, ``channels``, ``cpu``, or ``missed`` (anything may have changed).
        device: The interface or CPU, "" where there is none to name.
    """

    what: str
    device: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.device}".rstrip()


@frozen
class State:
    """The properties of a link that decide where packets go."""

    name: str
    flags: int
    mtu: int
    lower: int
    master: int
    kind: str
    data: bytes


class LinkEvents:
    """The sockets, in the network namespace of the thread that made them.

    Raises:
        OSError: Netlink is not available.
    """

    def __init__(self) -> None:
        self._known: dict[int, State] = {}
        self._route = _socket(_NETLINK_ROUTE)
        self._route.bind((0, _GROUPS))
        self._ethtool = _monitor()
        self._uevents = _uevents()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """File descriptors for ``poll(2)``. :meth:`read` may still return nothing."""
        return (self._route, *filter(None, (self._ethtool, self._uevents)))

    def read(self) -> tuple[Event, ...]:
        """Return what has changed since the last call. Does not wait."""
        return tuple(dict.fromkeys(event for source in self.sockets for event in self._heard(source)))

    def close(self) -> None:
        """Close the sockets."""
        for each in self.sockets:
            each.close()

    def __enter__(self) -> LinkEvents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _heard(self, source: socket.socket) -> Iterator[Event]:
        tell = self._route_events
        if source is not self._route:
            tell = channel_events if source is self._ethtool else cpu_events
        while True:
            try:
                data = source.recv(_PIECE)
            except BlockingIOError:
                return
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise
                self._known.clear()
                yield Event("missed")
                continue
            try:
                yield from tell(data)
            except (struct.error, ValueError):
                yield Event("missed")

    def _route_events(self, data: bytes) -> Iterator[Event]:
        yield from route_events(data, self._known)


def _socket(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    made.setblocking(False)
    with suppress(PermissionError):  # then it is the usual size
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    return made


# rtnetlink


def route_events(data: bytes, known: dict[int, State]) -> Iterator[Event]:
    """Parse rtnetlink messages.

    Args:
        data: One datagram.
        known: Interface index to its last known state; updated.

    Raises:
        struct.error: Cut off.
        ValueError: An invalid length.
    """
    for kind, body in _messages(data):
        if kind in (_NEWLINK, _DELLINK):
            yield from _link_events(kind, body, known)
        elif kind in (_NEWROUTE, _DELROUTE):
            *_, sort, flags = _ROUTE.unpack_from(body)
            if sort == _RTN_UNICAST and not flags & _RTM_F_CLONED:
                yield Event("route")


def _link_events(kind: int, body: bytes, known: dict[int, State]) -> Iterator[Event]:
    family, _, index, flags, _ = _LINK.unpack_from(body)
    if family != socket.AF_UNSPEC:
        return  # a bridge's view of its port; the port sends its own message too
    state = _state(flags, dict(_attributes(body[_LINK.size :])))
    before = known.pop(index, None)
    if kind == _NEWLINK:
        known[index] = state
        if state == before:
            return
    yield Event("link", state.name)


def _state(flags: int, attributes: dict[int, bytes]) -> State:
    info = dict(_attributes(attributes.get(_LINKINFO, b"")))
    kind = _text(info.get(_INFO_KIND, b""))
    return State(
        name=_text(attributes.get(_IFNAME, b"")),
        flags=flags & _UP_RUNNING_LOWER_UP,
        mtu=_number(attributes.get(_MTU)),
        lower=_number(attributes.get(_LOWER)),
        master=_number(attributes.get(_MASTER)),
        kind=kind,
        data=info.get(_INFO_DATA, b"") if kind in _TELLING else b"",
    )


# ethtool


def _monitor() -> socket.socket | None:
    """Return a socket for ethtool's notifications; None if the kernel does not send them."""
    made = _socket(_NETLINK_GENERIC)
    try:
        made.bind((0, 0))
        made.send(_question("ethtool"))
        # The kernel has answered before send(2) returns.
        group = _groups(made.recv(_PIECE)).get("monitor")
        if group is not None:
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            return made
    except (OSError, struct.error, ValueError):
        pass
    made.close()
    return None


def _question(family: str) -> bytes:
    """CTRL_CMD_GETFAMILY of a generic netlink family, by name."""
    name = family.encode() + b"\0"
    padding = b"\0" * (-len(name) % 4)
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(name), _FAMILY_NAME) + name + padding
    body = _GENERIC.pack(_GETFAMILY, 1, 0) + attribute
    return _HEADER.pack(_HEADER.size + len(body), _CTRL_ID, 1, 1, 0) + body


def _groups(answer: bytes) -> dict[str, int]:
    """Names and numbers of a family's multicast groups; none where there is no such family."""
    found: dict[str, int] = {}
    for kind, body in _messages(answer):
        if kind != _CTRL_ID:
            continue
        attributes = dict(_attributes(body[_GENERIC.size :]))
        for _, group in _attributes(attributes.get(_MCAST_GROUPS, b"")):
            entry = dict(_attributes(group))
            found[_text(entry.get(_GROUP_NAME, b""))] = _number(entry.get(_GROUP_ID))
    return found


def channel_events(data: bytes) -> Iterator[Event]:
    """Parse ethtool's notifications. When channels or rings are set, the driver creates its queues again.

    Raises:
        struct.error, ValueError: As :func:`route_events`.
    """
    for kind, body in _messages(data):
        if kind <= _CTRL_ID:
            continue
        command, _, _ = _GENERIC.unpack_from(body)
        if command in (_RINGS_NTF, _CHANNELS_NTF):
            header = dict(_attributes(body[_GENERIC.size :])).get(_HEADER_OF_BOTH, b"")
            yield Event("channels", _text(dict(_attributes(header)).get(_DEV_NAME, b"")))


# uevents


def _uevents() -> socket.socket | None:
    """A socket that hears the kernel's uevents; None where this process may not."""
    made = _socket(_NETLINK_UEVENT)
    try:
        made.bind((0, _KERNEL))
    except OSError:
        made.close()
        return None
    return made


def cpu_events(data: bytes) -> Iterator[Event]:
    """What a uevent tells: that a CPU went on- or offline, or nothing of interest."""
    first, *fields = data.split(b"\0")
    action, _, path = first.partition(b"@")
    if action in (b"online", b"offline", b"add", b"remove") and b"SUBSYSTEM=cpu" in fields:
        yield Event("cpu", _text(path.rpartition(b"/")[2]))


# netlink(7)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message; an error's type is left out."""
    at = 0
    while at < len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            raise ValueError(f"a message of {length} bytes")
        if kind != _NLMSG_ERROR:
            yield kind, data[at + _HEADER.size : at + length]
        at += length + -length % 4


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type, without its flags, and value of each attribute."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise ValueError(f"an attribute of {length} bytes")
        yield kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]
        at += length + -length % 4


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "backslashreplace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0
