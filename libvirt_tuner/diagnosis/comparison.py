"""Compares measurements of a VM tuned and untuned in turn: medians, spread and ratio. Pure."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from libvirt_tuner.diagnosis.packets import fragmented
from libvirt_tuner.diagnosis.sample import Interval
from libvirt_tuner.errors import RejectedError

SPEED = "Mbit/s"
"""What iperf3 measured, as received."""
RESULT = "result"
"""What a command measured that prints a number."""

Series = Mapping[str, Sequence[float]]
"""The values of each figure, round by round."""


def read_result(text: str) -> tuple[str, float]:
    """What a benchmark printed: the document of ``iperf3 --json``, or a number in the last line.

    Returns:
        Which figure, and its value.

    Raises:
        RejectedError: Neither; or iperf3 says that it failed.
    """
    answer = _document(text)
    if answer is not None:
        return SPEED, _received(answer)
    last = text.strip().rpartition("\n")[2]
    try:
        value = float(last)
    except ValueError:
        raise _unreadable(last) from None
    if not math.isfinite(value):
        raise _unreadable(last)
    return RESULT, value


def complaint(text: str) -> str:
    """Why a benchmark failed, by what it printed: iperf3's error, or the last line; "" for nothing."""
    answer = _document(text)
    return str(answer.get("error", "")) if answer is not None else text.strip().rpartition("\n")[2]


def _document(text: str) -> dict[str, object] | None:
    """A JSON object; None where it is none."""
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _received(answer: Mapping[str, object]) -> float:
    if "error" in answer:
        raise RejectedError(f"iperf3 failed: {answer['error']}", where="the command's output")
    end = answer.get("end")
    # sum_received is TCP's; of UDP iperf3 before 3.17 has one sum only.
    for name in ("sum_received", "sum"):
        part = end.get(name) if isinstance(end, dict) else None
        bits = part.get("bits_per_second") if isinstance(part, dict) else None
        if isinstance(bits, int | float):
            return float(bits) / 1e6
    raise _unreadable(json.dumps(answer))


def _unreadable(text: str) -> RejectedError:
    expected = "the JSON of 'iperf3 --json', or a number in the last line"
    return RejectedError("cannot be read", where="the command's output", value=text[-80:], expected=expected)


def figures(look: Interval, vm: str) -> dict[str, float]:
    """What the host says of one measurement.

    Returns:
        Milliseconds a second that the VM's threads waited on the run queue, runs of NET_RX a second on the
        CPUs of its vCPUs, and fragments a second.
    """
    waits = {role: sum(use.wait for use in look.of(role) if use.task.vm == vm) for role in ("vcpu", "vhost")}
    cpus = {use.task.cpu for use in look.of("vcpu") if use.task.vm == vm}
    return {
        "vCPUs wait, ms/s": 1000 * waits["vcpu"],
        "vhost waits, ms/s": 1000 * waits["vhost"],
        "NET_RX on vCPUs, 1/s": sum(look.net_rx(cpu) for cpu in cpus),
        "fragments, 1/s": fragmented(look) / look.seconds,
    }


def alternate(
    rounds: int,
    variants: Mapping[str, Callable[[], Mapping[str, float]]],
    said: Callable[[int, str, Mapping[str, float]], object] = lambda *_: None,
) -> dict[str, dict[str, list[float]]]:
    """Measure variants in turn, round after round, so that a drift affects all of them.

    Args:
        rounds: How many.
        variants: For each name what sets it up and measures it; gives figures by name.
        said: Called for each measurement: the round, from 1, the variant and its figures.

    Returns:
        All values of each figure of each variant, in the order of the rounds.
    """
    series: dict[str, dict[str, list[float]]] = {name: {} for name in variants}
    for number in range(1, rounds + 1):
        for name, measure in variants.items():
            found = measure()
            said(number, name, found)
            for figure, value in found.items():
                series[name].setdefault(figure, []).append(value)
    return series


def medians(series: Mapping[str, Series]) -> dict[str, dict[str, float]]:
    """The median of each figure of each variant."""
    return {
        name: {figure: statistics.median(values) for figure, values in found.items()}
        for name, found in series.items()
    }


@frozen
class Row:
    """One figure of both variants: median, least and greatest, and tuned by untuned (None: by nothing)."""

    figure: str
    untuned: tuple[float, float, float]
    tuned: tuple[float, float, float]
    ratio: float | None

    @property
    def apart(self) -> bool:
        """Whether the rounds of one do not overlap with those of the other."""
        return self.tuned[1] > self.untuned[2] or self.tuned[2] < self.untuned[1]

    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        ratio = "" if self.ratio is None else f"x{self.ratio:.2f}"
        overlap = not self.apart and self.tuned != self.untuned
        return self.figure, _spread(self.untuned), _spread(self.tuned), ratio, "overlap" if overlap else ""


def _spread(values: tuple[float, float, float]) -> str:
    return "{:.4g} ({:.4g} to {:.4g})".format(*values)


def rows(series: Mapping[str, Series]) -> list[Row]:
    """Every figure of ``untuned`` and ``tuned`` compared, the benchmark's own first."""
    return [_row(figure, series["untuned"][figure], series["tuned"][figure]) for figure in series["untuned"]]


def _row(figure: str, untuned: Sequence[float], tuned: Sequence[float]) -> Row:
    base, other = statistics.median(untuned), statistics.median(tuned)
    return Row(
        figure,
        (base, min(untuned), max(untuned)),
        (other, min(tuned), max(tuned)),
        other / base if base else None,
    )
