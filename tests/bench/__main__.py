"""``make bench``: every ratio of one run as a table; exit status 1 when a limit is missed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import hook_cost, import_cost, planner_cost, sampling_cost, transform_cost


def main(arguments: list[str]) -> int:
    """Measure, the hook also against the commit that is named, if one is."""
    against = arguments[0] if arguments else ""
    with tempfile.TemporaryDirectory(prefix="libvirt-tuner-bench-") as work:
        found = [
            *hook_cost.ratios(Path(work), against),
            *planner_cost.ratios(Path(work)),
            *sampling_cost.ratios(Path(work)),
            *import_cost.ratios(),
            *transform_cost.ratios(),
        ]
    table = Table("ratio", "measured", "limit", "")
    for ratio in found:
        sign = ">=" if ratio.at_least else "<="
        table.add_row(
            ratio.what, f"{ratio.value:.3g}", f"{sign} {ratio.limit:g}", "met" if ratio.met else "MISSED"
        )
    Console(width=100).print(table)
    return 0 if all(ratio.met for ratio in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
