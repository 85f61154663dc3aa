"""``make faults``: every fault of every operation, all sequences of events with a kill, and the tables."""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults import crowd
from tests.faults.campaign import Campaign
from tests.faults.place import quick_directory
from tests.faults.scene import Scene
from tests.faults.sequences import Sequences


def main() -> int:
    """Print the tables; exit status 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="of the faults that is tried (1: all)")
    parser.add_argument("--seed", type=int, default=1, help="chooses which part")
    chosen = parser.parse_args()
    began = time.monotonic()
    with quick_directory() as root:
        table = Campaign(Scene(root), chance=chosen.part, seed=chosen.seed).run(pairs=True)
    with quick_directory() as root:
        sequences = Sequences(Scene(root), chance=chosen.part, seed=chosen.seed).run()
    print(f"Single faults, and pairs of them\n\n{table}\n\nSequences of up to three events\n\n{sequences}\n")
    with quick_directory() as root:
        print(crowd.run(root))
    print(f"{time.monotonic() - began:.0f} s")
    for example in (*table.examples, *sequences.examples)[:40]:
        print(example, file=sys.stderr)
    return bool(table.wrong or sequences.wrong)


if __name__ == "__main__":
    sys.exit(main())
