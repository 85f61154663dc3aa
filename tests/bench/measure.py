"""Times in one run, compared: what is measured takes turns, and the median counts."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

from attrs import frozen

Job = Callable[[], object]


@frozen
class Ratio:
    """A measured ratio and its limit.

    Attributes:
        what: What is compared.
        value: Measured.
        limit: What it must not exceed, or (``at_least``) fall below.
    """

    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def in_turns(jobs: Mapping[str, Job], rounds: int) -> dict[str, float]:
    """Median seconds of each job, all run once per round so that what disturbs one disturbs all."""
    return medians(each_round(jobs, rounds))


def each_round(jobs: Mapping[str, Job], rounds: int) -> list[dict[str, float]]:
    """Seconds of each job in each round."""
    taken: list[dict[str, float]] = []
    gc.collect()
    for _ in range(rounds):
        times: dict[str, float] = {}
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            times[name] = time.perf_counter() - began
        taken.append(times)
    return taken


def medians(taken: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of each job."""
    return {name: statistics.median(times[name] for times in taken) for name in taken[0]}
