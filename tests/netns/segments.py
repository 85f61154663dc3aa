"""What headroom leaves in one piece: counted at the device below a tunnel (:mod:`tests.netns.tracer`).

``python -m tests.netns.segments NAME`` measures on the running kernel and notes it, under that name, for
docs/tunnels.md. The laboratory does the same in a hypervisor (``tests/lab/test_kinds.py``).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import asdict, frozen

from tests.netns import tracer
from tests.netns.conftest import Namespace, Pair

RECORD = Path(__file__).parents[2] / "docs" / "segments.json"
BYTES = 20_000_000

Count = Callable[[str, str, str, int], dict[str, int]]
"""As :func:`tests.netns.tracer.count`, on the machine that has the namespaces."""


@frozen
class Counted:
    """Of one flow of :data:`BYTES` bytes.

    Attributes:
        pieces: Packets that reached the device below the tunnel uncut (gso_size is not 0).
        singles: Packets that reached it cut.
        fragments: IPv4 fragments made of them.
    """

    pieces: int
    singles: int
    fragments: int


def flow(pair: Pair, mtu: int, device: str, count: Count = tracer.count) -> Counted:
    """Send :data:`BYTES` through a tunnel of that MTU, and count at the device below it.

    Raises:
        tracer.Unable: The kernel cannot count.
    """
    for end in (pair.a, pair.b):
        end.ip("link", "set", "vx0", "mtu", mtu)
        # As a guest that hears nothing of the tunnel: a sender here would learn of it after some packets.
        end.ip("route", "replace", "10.88.0.0/24", "dev", "vx0", "mtu", "lock", mtu)
    before = pair.a.counters()["made"]
    found = count(pair.a.name, pair.b.name, device, BYTES)
    return Counted(**found, fragments=pair.a.counters()["made"] - before)


def tunnel(pair: Pair) -> str:
    """VXLAN on a cable of 1500 bytes; the name of the cable's near end, which nothing else here has."""
    pair.cable(1500)
    pair.vxlan(ipv6=False)
    device = f"cut{os.getpid()}"
    pair.a.ip("link", "set", "cable", "down")
    pair.a.ip("link", "set", "cable", "name", device)
    pair.a.ip("link", "set", device, "up")
    pair.warm("send", "10.88.0.2", 100)
    return device


def main(arguments: list[str]) -> None:
    """Measure, and note it."""
    (name,) = arguments
    ends = [Namespace(f"tuner-cut-{os.getpid()}-{side}") for side in "ab"]
    made = []
    try:
        for end in ends:
            end.run("ip", "netns", "add", end.name)
            made.append(end)
            end.ip("link", "set", "lo", "up")
        pair = Pair(*ends)
        device = tunnel(pair)
        found = {mtu: flow(pair, mtu, device) for mtu in (1500, 1450)}
    finally:
        for end in made:
            end.run("ip", "netns", "del", end.name)
    note(name, found)


def note(name: str, found: dict[int, Counted]) -> None:
    """Note what was counted on a kernel, by MTU."""
    runs = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    runs[name] = {str(mtu): asdict(each) for mtu, each in found.items()}
    RECORD.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
