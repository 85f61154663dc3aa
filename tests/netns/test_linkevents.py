"""What the kernel says of links, routes and channels reaches the listener, in a network namespace."""

from __future__ import annotations

import ctypes
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner.daemon.netlink import Event, LinkEvents
from tests.netns.conftest import Namespace, Pair


class Ear:
    """The listener of one namespace."""

    def __init__(self, end: Namespace) -> None:
        self.end = end
        self.links = within(end)

    def hears(self, event: Event) -> bool:
        """Whether it comes; the kernel tells of a carrier up to a second late (net/core/link_watch.c)."""
        end = time.monotonic() + 4
        while time.monotonic() < end:
            if event in self.links.read():
                return True
            time.sleep(0.02)
        return False

    def quiet(self) -> None:
        """Let everything come that is on its way."""
        self.links.read()
        time.sleep(1.2)
        while self.links.read():
            time.sleep(0.2)

    def does(self, *words: object) -> None:
        """Do an ``ip`` command when all is quiet."""
        self.quiet()
        self.end.ip(*words)


def within(end: Namespace) -> LinkEvents:
    """Sockets belong to the namespace of the thread that makes them; the thread is gone after."""
    made: list[LinkEvents] = []

    def make() -> None:
        with Path(f"/run/netns/{end.name}").open() as namespace:
            setns(namespace.fileno())
        made.append(LinkEvents())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def setns(descriptor: int) -> None:
    """setns(2), which Python has from 3.12 on."""
    assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) == 0


@pytest.fixture
def ear(pair: Pair) -> Iterator[Ear]:
    pair.cable(1500)
    made = Ear(pair.a)
    with made.links:
        yield made


CABLE = Event("link", "cable")


def test_nothing_happens_nothing_is_heard(ear: Ear) -> None:
    ear.quiet()
    assert ear.links.read() == ()


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("link set cable down", id="down"),
        pytest.param("link set cable mtu 1400", id="MTU"),
    ],
)
def test_change_of_a_link(ear: Ear, words: str) -> None:
    ear.does(*words.split())
    assert ear.hears(CABLE)


def test_other_end_goes_down(ear: Ear, pair: Pair) -> None:
    ear.quiet()
    pair.b.ip("link", "set", "cable", "down")
    assert ear.hears(CABLE)


def test_what_decides_nothing_is_not_told(ear: Ear) -> None:
    ear.does("link", "set", "cable", "txqueuelen", 500)
    ear.does("link", "set", "cable", "txqueuelen", 501)
    ear.end.ip("link", "set", "cable", "alias", "uplink")
    time.sleep(0.2)
    assert ear.links.read() == ()


def test_bridge_gets_a_port_and_loses_it(ear: Ear) -> None:
    ear.does("link", "add", "br0", "type", "bridge")
    assert ear.hears(Event("link", "br0"))
    ear.does("link", "set", "cable", "master", "br0")
    assert ear.hears(CABLE)
    ear.does("link", "set", "cable", "nomaster")
    assert ear.hears(CABLE)


def test_device_comes_and_goes(ear: Ear) -> None:
    ear.does("tuntap", "add", "vnet9", "mode", "tap")
    assert ear.hears(Event("link", "vnet9"))
    ear.does("link", "del", "vnet9")
    assert ear.hears(Event("link", "vnet9"))


def test_tunnel_gets_another_far_end(ear: Ear) -> None:
    ear.end.ip("link", "add", "vx0", "type", "vxlan", "id", 42, "remote", "10.77.0.2")
    ear.end.ip("link", "set", "vx0", "up")  # the kernel tells nothing of a device that is down
    ear.does("link", "set", "vx0", "type", "vxlan", "id", 42, "remote", "10.77.0.9")
    assert ear.hears(Event("link", "vx0"))


def test_route_comes_and_goes(ear: Ear) -> None:
    ear.does("route", "add", "192.0.2.0/24", "via", "10.77.0.2")
    assert ear.hears(Event("route"))
    ear.does("route", "del", "192.0.2.0/24")
    assert ear.hears(Event("route"))


def test_dropped_messages_are_told_and_what_follows_is_heard(ear: Ear) -> None:
    ear.quiet()
    ear.links.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for mtu in range(1400, 1410):
        ear.end.ip("link", "set", "cable", "mtu", mtu)
    assert ear.hears(Event("missed"))
    ear.does("link", "set", "cable", "mtu", 1300)
    assert ear.hears(CABLE)


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")
def test_channels_are_set(ear: Ear) -> None:
    add = "link add multi numtxqueues 4 numrxqueues 4 type veth peer name other"
    ear.end.ip(*add.split())
    ear.quiet()
    ethtool = ["ip", "netns", "exec", ear.end.name, "ethtool", "-L", "multi", "rx", "2", "tx", "2"]
    subprocess.run(ethtool, check=True)
    assert ear.hears(Event("channels", "multi"))
