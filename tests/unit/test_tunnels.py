"""docs/tunnels.md says what the code computes, and names only runs that were made."""

from __future__ import annotations

import json

import pytest

from libvirt_tuner.uplink.kinds import KINDS
from tests.netns import evidence, segments, test_kinds

JUNIT = """<testsuites><testsuite>
<testcase name="test_kind[geneve]"/><testcase name="test_kind[bookworm-gretap]"/>
<testcase name="test_macsec[trixie]"/>
<testcase name="test_kind[gre]"><skipped/></testcase><testcase name="test_kind[sit]"><failure/></testcase>
<testcase name="test_kind[ipip]"><error/></testcase>
</testsuite></testsuites>"""


def runs() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(evidence.RECORD.read_text())
    return found


def test_the_page_is_what_the_code_and_the_runs_say(request: pytest.FixtureRequest) -> None:
    """``--rewrite-golden`` writes it anew."""
    text = evidence.page(runs(), json.loads(segments.RECORD.read_text()))
    if request.config.getoption("--rewrite-golden"):
        evidence.PAGE.write_text(text)
    assert evidence.PAGE.read_text() == text


def test_every_kind_is_on_the_page() -> None:
    text = evidence.page({}, {})
    assert [kind for kind in KINDS if f"| `{kind}` |" not in text] == []


def test_without_a_run_nothing_is_confirmed() -> None:
    lines = [line for line in evidence.page({}, {}).splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not line.endswith(("confirmed by |", "--- |", "fragments |"))]
    assert len(rows) > len(KINDS)
    assert [line for line in rows if not line.endswith(f"| {evidence.NOBODY} |")] == []


def test_what_passed_is_read_without_what_did_not() -> None:
    assert evidence.passed(JUNIT) == ["test_kind[geneve]", "test_kind[gretap]", "test_macsec"]


def test_a_row_names_the_kernels_on_which_one_of_its_cases_passed() -> None:
    row = evidence.Row("x", (), ("a", "b"))
    assert evidence.confirmed(row, {"one": ["b"], "two": ["c"], "three": ["a", "b"]}) == "one, three"
    assert evidence.confirmed(row, {"two": ["c"]}) == evidence.NOBODY


def test_the_cases_a_kind_is_confirmed_by_are_there() -> None:
    named = {case for cases in evidence.CASES.values() for case in cases}
    kinds = {case[len("test_kind[") : -1] for case in named if case.startswith("test_kind[")}
    assert kinds <= set(test_kinds.CASES)
    functions = {case.partition("[")[0] for case in named}
    assert [name for name in functions if not hasattr(test_kinds, name)] == []
