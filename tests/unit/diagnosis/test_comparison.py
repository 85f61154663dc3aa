"""Reading a benchmark's output, and comparing rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from libvirt_tuner.diagnosis import comparison
from libvirt_tuner.errors import RejectedError
from tests.unit.diagnosis.test_diagnose import interval


def iperf3(**end: object) -> str:
    return json.dumps({"start": {}, "intervals": [], "end": end}, indent=1)


@pytest.mark.parametrize(
    ("text", "figure", "value"),
    [
        pytest.param(
            iperf3(
                sum_sent={"bits_per_second": 3e9}, sum_received={"bits_per_second": 2.5e9}
            ),
            "Mbit/s", 2500, id="iperf3, TCP: as received",
        ),
        pytest.param(iperf3(sum={"bits_per_second": 8e6}), "Mbit/s", 8, id="iperf3, UDP"),
        pytest.param("warming up\n12.5\n", "result", 12.5, id="a number in the last line"),
        pytest.param("7", "result", 7, id="a number, which is JSON too"),
    ],
)  # fmt: skip
def test_a_result_is_read(text: str, figure: str, value: float) -> None:
    assert comparison.read_result(text) == (figure, value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "cannot be read", id="nothing"),
        pytest.param("fast", "cannot be read", id="no number"),
        pytest.param("nan", "cannot be read", id="not a number"),
        pytest.param("[1]", "cannot be read", id="a list"),
        pytest.param(iperf3(), "cannot be read", id="no sum"),
        pytest.param('{"end": 5}', "cannot be read", id="another document"),
        pytest.param('{"error": "the server is busy"}', "the server is busy", id="iperf3's error"),
    ],
)
def test_what_is_no_result(text: str, said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        comparison.read_result(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param('{"error": "no route"}', "no route", id="iperf3"),
        pytest.param("one\ntwo\n", "two", id="the last line"),
    ],
)
def test_why_it_failed(text: str, why: str) -> None:
    assert comparison.complaint(text) == why


def test_variants_alternate() -> None:
    order: list[tuple[int, str]] = []
    values = iter(range(6))

    def one() -> Mapping[str, float]:
        return {"speed": next(values)}

    def said(number: int, name: str, found: Mapping[str, float]) -> None:
        order.append((number, name))

    series = comparison.alternate(3, {"untuned": one, "tuned": one}, said)
    assert order == [(1, "untuned"), (1, "tuned"), (2, "untuned"), (2, "tuned"), (3, "untuned"), (3, "tuned")]
    assert series == {"untuned": {"speed": [0, 2, 4]}, "tuned": {"speed": [1, 3, 5]}}
    assert comparison.medians(series) == {"untuned": {"speed": 2}, "tuned": {"speed": 3}}


def row(untuned: list[float], tuned: list[float]) -> comparison.Row:
    (found,) = comparison.rows({"untuned": {"x": untuned}, "tuned": {"x": tuned}})
    return found


def test_a_row_has_median_spread_and_ratio() -> None:
    assert row([100, 90, 140], [200, 150, 250]).cells() == (
        "x", "100 (90 to 140)", "200 (150 to 250)", "x2.00", "",
    )  # fmt: skip


def test_rounds_that_overlap_are_said_to() -> None:
    assert row([100, 160], [150, 250]).cells()[-1] == "overlap"
    assert row([300, 400], [100, 200]).apart


def test_nothing_has_no_ratio() -> None:
    assert row([0, 0], [5, 6]).ratio is None


def test_figures_of_the_host(tmp_path: Path) -> None:
    found = comparison.figures(interval("seed-vhost-on-vcpu", tmp_path), "vlinux1")
    assert found["vCPUs wait, ms/s"] == pytest.approx(354)
    assert found["vhost waits, ms/s"] == pytest.approx(388)
    assert found["NET_RX on vCPUs, 1/s"] == pytest.approx(20 * 6)
    assert found["fragments, 1/s"] == 0


def test_fragments_are_counted(tmp_path: Path) -> None:
    found = comparison.figures(interval("fragments", tmp_path), "vlinux1")
    assert found["fragments, 1/s"] == pytest.approx(8000)
