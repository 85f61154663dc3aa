"""What all commands have in common: colours, quiet output, JSON on failure, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import host, main, service
from libvirt_tuner.cli.session import Session

NOBODY = ("-c", "test:///default")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*NOBODY, *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("plan", "nosuch", "--json"), id="plan"),
        pytest.param(("diff", "nosuch", "--json"), id="diff"),
        pytest.param(("apply", "nosuch", "--json"), id="apply"),
        pytest.param(("revert", "nosuch", "--json"), id="revert"),
        pytest.param(("status", "nosuch", "--json"), id="status"),
    ],
)
def test_failure_is_json_too(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert "nosuch" in json.loads(result.stdout)["error"]
    assert len(result.stderr.splitlines()) == 1


def test_failure_without_json_prints_no_data() -> None:
    assert run("plan", "nosuch").stdout == ""


@pytest.mark.parametrize("as_json", [pytest.param(False, id="text"), pytest.param(True, id="json")])
def test_undo_of_nobody_is_a_failure(tmp_path: Path, as_json: bool) -> None:
    (tmp_path / "run").mkdir()
    with Session(NOBODY[1], str(tmp_path)) as session:
        result = CliRunner().invoke(host.undo, ["nosuch", *(["--json"] if as_json else [])], obj=session)
    assert result.exit_code == 1
    assert "nosuch: nothing to undo" in result.stderr
    if as_json:
        assert [row["domain"] for row in json.loads(result.stdout)] == ["nosuch"]


def test_quiet_says_nothing_but_data(tmp_path: Path) -> None:
    (tmp_path / "node.xml").write_text("<node/>")
    with Session(f"test://{tmp_path}/node.xml", str(tmp_path), quiet=True) as session:
        result = CliRunner().invoke(service.status, obj=session)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("choice", "coloured"),
    [
        pytest.param("always", True, id="always"),
        pytest.param("never", False, id="never"),
        pytest.param("auto", False, id="auto, no terminal"),
    ],
)
def test_colour(choice: str, coloured: bool) -> None:
    document = "<domain type='test'><name>web</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    arguments = ["--color", choice, "plan", "--xml", "-"]
    result = CliRunner().invoke(main, arguments, input=document, color=choice == "always")
    assert ("\x1b[" in result.stdout) is coloured
