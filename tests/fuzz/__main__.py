"""``make fuzz SECONDS=60``: every reader for its share of the time.

By atheris, which goes by what code an input has reached, where it is installed (``pip install
libvirt-tuner[fuzz]``), else by hypothesis alone. Then long inputs: reading takes time in line with length.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from tests import report

_TIMES = 4
_WORST = 3.0
"""An input that is four times as long may take so many times four times as long."""


def main() -> int:
    """Exit status 1 where a reader raised what it may not, or took too long."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    chosen = parser.parse_args()
    with suppress(ImportError):
        # Here, before what is to be measured is imported.
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["libvirt_tuner"]):
            return _all(importlib.import_module("tests.fuzz.readers"), chosen, atheris)
    return _all(importlib.import_module("tests.fuzz.readers"), chosen, None)


def _all(readers: ModuleType, chosen: argparse.Namespace, atheris: ModuleType | None) -> int:
    by = "atheris" if atheris else "hypothesis"
    print(f"{len(readers.READERS)} readers, by {by}")
    failed, rows = [], {}
    for name in readers.READERS:
        began = time.monotonic()
        count, good = _fuzzed(readers, name, chosen.seconds / len(readers.READERS), atheris)
        rows[name] = f"{count:,} in {time.monotonic() - began:.0f} s"
        failed += [] if good else [name]
    slow = [name for name in rows if _growth(*readers.READERS[name]) > _WORST * _TIMES]
    rows |= {"failed": ", ".join(failed) or "0", "time not in line with length": ", ".join(slow) or "0"}
    print(text := report.table(("reader", f"inputs, by {by}"), rows))
    if chosen.write:
        report.write("fuzz", text)
    return bool(failed or slow)


def _fuzzed(readers: ModuleType, name: str, seconds: float, atheris: ModuleType | None) -> tuple[int, bool]:
    """In a process of its own, as atheris ends the one it runs in; what it says is shown where it failed.

    Returns:
        How many inputs, and whether all went well.
    """
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            status = 1
            try:
                _run(readers, name, seconds, atheris)
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        good = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        said.seek(0)
        text = said.read().decode(errors="replace")
    count = re.search(r"(?:executed_units: *|inputs: )(\d+)", text)
    if not good:
        print(text[-4000:], file=sys.stderr)
    return int(count[1]) if count else 0, good


def _run(readers: ModuleType, name: str, seconds: float, atheris: ModuleType | None) -> None:
    deadline = time.monotonic() + seconds
    count = 0

    @settings(
        max_examples=2000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(text=readers.inputs(name))
    def every(text: str) -> None:
        nonlocal count
        count += 1
        readers.attempt(name, text)

    if atheris is None:
        while time.monotonic() < deadline:
            every()
        print(f"inputs: {count}")
        return
    fuzz: Any = every.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    limits = [f"-max_total_time={max(1, int(seconds))}", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([name, *limits], fuzz)
    atheris.Fuzz()


def _growth(read: Callable[[str], object], seeds: tuple[str, ...]) -> float:
    """How many times longer an input takes that is so many times as long; the worst of its seeds."""
    # Once before: what is imported on demand takes its time only once.
    for seed in seeds:
        _seconds(read, seed * 200)
    return max(_seconds(read, seed * 200 * _TIMES) / max(_seconds(read, seed * 200), 0.002) for seed in seeds)


def _seconds(read: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    with suppress(Exception):
        read(text)
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
