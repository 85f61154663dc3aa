"""Running a benchmark, and being told to end; a VM that is tuned and untuned: libvirtd/test_measure."""

from __future__ import annotations

import os
import signal

import pytest

from libvirt_tuner import measuring
from libvirt_tuner.errors import HostError


def test_what_a_command_prints() -> None:
    assert measuring.run("echo one; echo two", 5) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("""echo '{"error": "no route"}'; exit 1""", "failed: no route", id="iperf3"),
        pytest.param("echo why >&2; exit 3", "failed: why", id="standard error"),
        pytest.param("exit 3", "failed: exit status 3", id="nothing said"),
    ],
)
def test_why_a_command_failed(line: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        measuring.run(line, 5)


def test_a_command_that_takes_too_long() -> None:
    with pytest.raises(HostError, match="took more than"):
        measuring.run("exec sleep 10", 0.05)


@pytest.mark.parametrize("number", measuring.ENDING)
def test_a_signal_is_an_error_within_and_as_before_after(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(measuring.Ended, match=number.name), measuring.ending():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_putting_back_is_not_cut_off() -> None:
    with measuring.ending(), measuring.deaf():
        os.kill(os.getpid(), signal.SIGTERM)
