"""What install and uninstall say and ask before they change anything; the files are in tests/unit/install."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from libvirt_tuner import install
from libvirt_tuner.cli import main


def test_says_what_is_there_and_how_to_undo_it() -> None:
    arguments = ["-c", "test:///default", "install", "--allow-writable", "--dry-run"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "definitions: 1 (test)" in lines
    assert "running: 1 (test)" in lines
    assert "to undo everything: libvirt-tuner uninstall" in lines
    assert any(line.startswith("would write /etc/libvirt/hooks/") for line in lines)


def test_asks_nobody_without_a_terminal() -> None:
    result = CliRunner().invoke(main, ["-c", "test:///default", "install", "--allow-writable"])
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert not Path("/", install.HOOK).exists()


def test_says_that_a_hook_of_the_users_stays(tmp_path: Path) -> None:
    own = tmp_path / install.HOOK
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    arguments = ["install", "--prefix", str(tmp_path), "--allow-writable", "--dry-run"]
    result = CliRunner().invoke(main, arguments)
    assert result.stdout.splitlines()[0] == f"your hook: {own} is not changed"
    assert f"would write {tmp_path / install.HOOK_BESIDE}" in result.stdout


def test_uninstall_of_nothing_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["uninstall", "--prefix", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is installed" in result.stderr
