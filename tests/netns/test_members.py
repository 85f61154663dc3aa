"""Two guests on one overlay, one tuned and one not: each reaches the other with all that it may send."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.netns.conftest import Namespace, Pair

ETHERNET = 1500
HEADERS = 28
"""IPv4 and ICMP."""


@frozen
class Member:
    """A guest: a namespace of its own, on ``br0`` of a host."""

    end: Namespace
    address: str

    def takes(self, mtu: int) -> None:
        self.end.ip("link", "set", "eth0", "mtu", mtu)

    def reaches(self, other: Member, payload: int) -> bool:
        """Whether a ping of so many bytes comes back, with DF set."""
        command = (
            "ip",
            "netns",
            "exec",
            self.end.name,
            "ping",
            "-n",
            "-M",
            "do",
            "-c",
            "2",
            "-i",
            "0.2",
            "-W",
            "1",
        )
        done = subprocess.run((*command, "-s", str(payload), other.address), capture_output=True, text=True)
        return done.returncode == 0


@pytest.fixture
def members(pair: Pair) -> Iterator[tuple[Member, Member]]:
    """One at each end of an overlay on jumbo frames; both have 1500, as a guest has whom nobody told."""
    pair.cable(9000)
    pair.vxlan(ipv6=False)
    made: list[Member] = []
    try:
        for number, host in enumerate((pair.a, pair.b), start=1):
            name = f"tuner-test-{os.getpid()}-guest{number}"
            host.run("ip", "netns", "add", name)
            guest = Namespace(name)
            made.append(Member(guest, f"10.99.0.{number}"))
            host.ip("link", "add", "br0", "type", "bridge")
            host.ip("link", "add", "vnet0", "type", "veth", "peer", "name", "eth0", "netns", name)
            for device in ("vx0", "vnet0"):
                host.ip("link", "set", device, "master", "br0")
            for device in ("br0", "vnet0"):
                host.ip("link", "set", device, "mtu", 8950, "up")
            guest.ip("addr", "add", f"10.99.0.{number}/24", "dev", "eth0")
            guest.ip("link", "set", "eth0", "up")
        yield made[0], made[1]
    finally:
        for member in made:
            pair.a.run("ip", "netns", "del", member.end.name)


def settled(one: Member, other: Member) -> None:
    """Neighbours and the bridges' tables are learnt."""
    assert any(one.reaches(other, 56) for _ in range(10))


def test_tuned_and_untuned_reach_each_other(pair: Pair, members: tuple[Member, Member]) -> None:
    tuned, untuned = members
    settled(tuned, untuned)
    size = pair.a.ask("choose", "br0", "auto")
    tuned.takes(size or ETHERNET)
    assert tuned.reaches(untuned, ETHERNET - HEADERS)
    assert untuned.reaches(tuned, ETHERNET - HEADERS)
    # And with the largest packet that its own MTU lets it send.
    assert tuned.reaches(untuned, (size or ETHERNET) - HEADERS)


def test_what_everybody_has_to_ask_for_would_break_it(pair: Pair, members: tuple[Member, Member]) -> None:
    """``mtu = "jumbo"`` on one side alone: what the default keeps a host from."""
    tuned, untuned = members
    settled(tuned, untuned)
    size = pair.a.ask("choose", "br0", "jumbo")
    assert size == 8950
    tuned.takes(size)
    assert tuned.reaches(untuned, ETHERNET - HEADERS)
    assert not tuned.reaches(untuned, size - HEADERS)
