"""A line on standard error for each step that takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """Print one line, at once, past whatever pytest captures."""
    print(f"lab: {text}", file=sys.__stderr__, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step and say how long it took (seconds), or that it failed."""
    say(f"{what} ...")
    began = time.monotonic()
    try:
        yield
    except BaseException as error:
        say(f"{what}: {type(error).__name__} after {time.monotonic() - began:.0f} s")
        raise
    say(f"{what}: {time.monotonic() - began:.0f} s")
