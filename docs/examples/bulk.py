"""Rewrite every domain document of a directory in several processes. Only changed files are written.

python bulk.py DIRECTORY
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from libvirt_tuner import Chain, TunerError, compose
from libvirt_tuner.transforms import mtu, poll_us, rx_queue_size


def rewrite(chain: Chain, path: Path) -> str:
    """Rewrite one file and return what was done. The chain is pickled into this process."""
    before = path.read_bytes()
    try:
        after = chain(before)
    except TunerError as error:
        return f"{path.name}: refused: {error}"
    if after == before:
        return f"{path.name}: unchanged"
    path.write_bytes(after)
    return f"{path.name}: changed"


def rewritten(directory: Path) -> Iterator[str]:
    """Yield a line for each document."""
    chain = compose(rx_queue_size(1024), mtu(1400), poll_us(200))
    with ProcessPoolExecutor(2) as pool:
        yield from pool.map(partial(rewrite, chain), sorted(directory.glob("*.xml")))


if __name__ == "__main__":
    for line in rewritten(Path(sys.argv[1])):
        print(line)
