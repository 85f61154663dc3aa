"""What the laboratory says while it works, a line for each step that takes long, and how it is stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def say(text: str) -> None:
    """Print one line, at once, past whatever pytest captures; a terminal that has gone away is no error."""
    with suppress(OSError):
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


def unwind_when_stopped() -> None:
    """Have SIGTERM and SIGHUP end the laboratory as Ctrl-C does, with everything taken away.

    They may come twice, from `make` and from who stopped it: the second must not end the taking away.
    Under nohup, SIGHUP stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
