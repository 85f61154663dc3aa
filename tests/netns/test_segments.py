"""An MTU with headroom leaves large packets whole down to the device below the tunnel; others do not."""

from __future__ import annotations

import pytest

from tests.netns import segments
from tests.netns.conftest import Pair


def test_headroom_keeps_large_packets_whole(pair: Pair) -> None:
    device = segments.tunnel(pair)
    computed = pair.a.ask("plan", "vx0")["size"]
    try:
        without = segments.flow(pair, 1500, device)
    except segments.Unable as error:
        pytest.skip(f"the kernel's tracer cannot be used: {error}")
    headroom = segments.flow(pair, computed, device)
    # A packet of 64 KiB is some 45 of 1450 bytes.
    least = segments.BYTES // 65536
    assert (without.pieces, without.fragments > without.singles // 2) == (0, True)
    assert headroom.fragments == 0
    assert least <= headroom.pieces
    assert headroom.pieces + headroom.singles < without.singles / 4
