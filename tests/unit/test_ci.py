"""What .ci/run says of tests that failed, with a make of the test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci/run"
#: Fails each target in FAILING as often as it says; writes a report where it is told to.
MAKE = """#!/bin/bash
echo "make $*" >>"$LOG"
report=${!#}
report=${report##*--junitxml=}
left=$(cat "$STATE/$1" 2>/dev/null || echo 0)
case $report in
*.xml) ;;
*) report=/dev/null ;;
esac
if [ "$left" -gt 0 ]; then
  echo $((left - 1)) >"$STATE/$1"
  cp "$REPORT" "$report"
  exit 1
fi
"""
REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_fine"/>
<testcase classname="tests.unit.test_a" name="test_late[on a Monday]">
<failure message="assert 1 == 2&#10;more of it">trace</failure></testcase>
<testcase classname="tests.unit.test_a" name="test_broken"><error message="no daemon">trace</error></testcase>
</testsuite></testsuites>"""
NO_FAILURE = "<testsuites/>"
NOTHING: Mapping[str, int] = {}


def run(
    tmp_path: Path, report: str = REPORT, failing: Mapping[str, int] = NOTHING
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    (tmp_path / "report.xml").write_text(report)
    for target, times in failing.items():
        (tmp_path / target).write_text(f"{times}\n")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "STATE": str(tmp_path),
        "REPORT": str(tmp_path / "report.xml"),
    }
    return subprocess.run([RUN], env=environment, capture_output=True, text=True, check=False)


def test_nothing_fails(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    called = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert called == ["measure-new", "measure", "coverage-report", "lint", "docs", "deb", "demo", "lab"]


@pytest.mark.parametrize("target", ["measure", "lab"])
def test_a_second_chance_is_named(tmp_path: Path, target: str) -> None:
    done = run(tmp_path, failing={target: 1})
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "flaky: tests.unit.test_a::test_late[on a Monday]",
        "flaky: tests.unit.test_a::test_broken",
    ]
    again = [line for line in (tmp_path / "log").read_text().splitlines() if f"make {target} " in line]
    assert ["--last-failed" in line for line in again] == [False, True]


def test_what_fails_twice_is_a_table(tmp_path: Path) -> None:
    done = run(tmp_path, failing={"measure": 2})
    assert done.returncode == 1
    assert "flaky" not in done.stdout
    assert done.stdout.splitlines()[1:] == [
        "tests.unit.test_a::test_late[on a Monday]  assert 1 == 2",
        "tests.unit.test_a::test_broken             no daemon",
    ]
    assert "make lint" not in (tmp_path / "log").read_text()


def test_what_fails_without_a_failed_test_is_not_tried_again(tmp_path: Path) -> None:
    done = run(tmp_path, NO_FAILURE, {"measure": 1})
    assert done.returncode == 1
    assert "no test did" in done.stderr


@pytest.mark.parametrize("target", ["coverage-report", "lint", "demo"])
def test_other_targets_have_one_chance(tmp_path: Path, target: str) -> None:
    assert run(tmp_path, failing={target: 1}).returncode != 0
