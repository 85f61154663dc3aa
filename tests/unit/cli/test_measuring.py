"""The command measure, without a VM: what it runs, and what it shows of the rounds."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from libvirt_tuner.cli import main, measuring


@pytest.mark.parametrize(
    ("address", "reverse", "line"),
    [
        pytest.param("10.0.0.2", False, "iperf3 --json --omit 1 --time 5 --client 10.0.0.2", id="sends"),
        pytest.param("::1", True, "iperf3 --json --omit 1 --time 5 --client ::1 --reverse", id="receives"),
        pytest.param(
            "a; reboot", False, "iperf3 --json --omit 1 --time 5 --client 'a; reboot'", id="no shell's words"
        ),
    ],
)
def test_what_is_run(address: str, reverse: bool, line: str) -> None:
    assert measuring.iperf3(address, 5, reverse=reverse) == line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param((), "give either --to ADDRESS, --peer VM or --command LINE", id="nothing"),
        pytest.param(("--to", "::1", "--command", "x"), "give either", id="both"),
        pytest.param(("--peer", "db", "--command", "x"), "give either", id="a guest and a command"),
        pytest.param(("--peer", "db", "--agent"), "--agent needs --to", id="agent alone"),
        pytest.param(("--command", "x", "--reverse"), "--reverse needs --to", id="reverse alone"),
        pytest.param(("--command", "x", "--rounds", "0"), "0", id="no round"),
    ],
)
def test_a_wrong_call(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["-c", "test:///default", "measure", "test", *words])
    assert done.exit_code == 2
    assert said in done.stderr


def test_the_comparison_shows_medians_spread_and_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    measuring.print_comparison(
        {
            "untuned": {"Mbit/s": [100, 90, 140], "fragments, 1/s": [50, 40, 60]},
            "tuned": {"Mbit/s": [200, 150, 250], "fragments, 1/s": [0, 45, 0]},
        }
    )
    head, speed, cut = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert head == "median (least to greatest) untuned tuned ratio rounds"
    assert speed == "Mbit/s 100 (90 to 140) 200 (150 to 250) x2.00"
    assert cut == "fragments, 1/s 50 (40 to 60) 0 (0 to 45) x0.00 overlap"
