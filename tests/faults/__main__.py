"""``make faults``: every fault of every operation, all sequences of events with a kill, and the tables.

With ``ARGS=--write`` the tables go into docs/reliability.md; ``ARGS='--only crowd'`` makes one of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests import report
from tests.faults import crowd, life
from tests.faults.campaign import WRONGS, Campaign
from tests.faults.scene import Scene
from tests.faults.sequences import Sequences
from tests.place import quick_directory

LIVES, EVENTS = 10, 1000


def _faults(chance: float, seed: int) -> tuple[str, list[str]]:
    with quick_directory() as root:
        table = Campaign(Scene(root), chance=chance, seed=seed).run(pairs=True)
    return str(table), table.examples


def _sequences(chance: float, seed: int) -> tuple[str, list[str]]:
    with quick_directory() as root:
        table = Sequences(Scene(root), chance=chance, seed=seed).run()
    return str(table), table.examples


def _life(chance: float, seed: int) -> tuple[str, list[str]]:
    happened: Counter[str] = Counter()
    lives = max(1, int(LIVES * chance))
    for number in range(lives):
        # What is wrong ends the run with an error.
        happened += life.live(events=EVENTS, seed=seed + number)
    rows = {name: f"{count:,}" for name, count in sorted(happened.items())}
    rows["**all**"] = f"**{happened.total():,}**"
    return report.table((f"events in {lives} lives", ""), rows | dict.fromkeys(WRONGS[1:], "0")), []


def _crowd(chance: float, seed: int) -> tuple[str, list[str]]:
    with quick_directory() as root:
        found = crowd.run(root)
    return str(found), [str(found)] if found.wrong else []


PARTS: dict[str, Callable[[float, int], tuple[str, list[str]]]] = {
    "faults": _faults,
    "sequences": _sequences,
    "life": _life,
    "crowd": _crowd,
}


def main() -> int:
    """Print the tables; exit status 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="of the faults that is tried (1: all)")
    parser.add_argument("--seed", type=int, default=1, help="chooses which part")
    parser.add_argument("--only", choices=PARTS, help="one of the tables")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    chosen = parser.parse_args()
    wrong = False
    for name in [chosen.only] if chosen.only else PARTS:
        began = time.monotonic()
        text, examples = PARTS[name](chosen.part, chosen.seed)
        part = "" if chosen.part >= 1 else f"a part of {chosen.part:g}, chosen by seed {chosen.seed}; "
        text += f"\n\n({part}{time.monotonic() - began:.0f} s)"
        print(f"{text}\n", flush=True)
        for example in examples[:40]:
            print(example, file=sys.stderr)
        wrong |= bool(examples)
        if chosen.write:
            report.write(name, text)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
