"""An MTU with headroom leaves large packets whole down to the device below the tunnel; others do not."""

from __future__ import annotations

import pytest

from tests.netns import segments, tracer
from tests.netns.conftest import Pair


def test_headroom_keeps_large_packets_whole(pair: Pair) -> None:
    try:
        compared(pair)
    except tracer.Unable as error:
        pytest.skip(f"the kernel's tracer cannot be used: {error}")


def compared(pair: Pair, count: segments.Count = tracer.count) -> dict[int, segments.Counted]:
    """What was counted without headroom, and with the computed MTU."""
    device = segments.tunnel(pair)
    computed: int = pair.a.ask("plan", "vx0")["size"]
    without = segments.flow(pair, 1500, device, count)
    headroom = segments.flow(pair, computed, device, count)
    # A packet of 64 KiB is some 45 of 1450 bytes.
    least = segments.BYTES // 65536
    assert (without.pieces, without.fragments > without.singles // 2) == (0, True)
    assert headroom.fragments == 0
    assert least <= headroom.pieces
    assert headroom.pieces + headroom.singles < without.singles / 4
    return {1500: without, computed: headroom}
