"""What importing the transforms takes in addition to lxml and attrs, which whoever uses them has anyway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.measure import Ratio

ROOT = Path(__file__).parents[2]
ROUNDS = 20
PROGRAM = """
import time
import lxml.etree, attrs
began = time.perf_counter()
import libvirt_tuner.transforms
print(time.perf_counter() - began)
"""


def ratios() -> list[Ratio]:
    """Measure: the least of several processes, as whatever disturbs one only adds to it."""
    seconds = min(_once() for _ in range(ROUNDS))
    return [Ratio("import of the transforms, ms in addition to lxml and attrs", seconds * 1000, 12)]


def _once() -> float:
    command = [sys.executable, "-c", PROGRAM]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
