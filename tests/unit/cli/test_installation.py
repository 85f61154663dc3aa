"""What install and uninstall say and ask before they change anything; the files are in tests/unit/install."""

from __future__ import annotations

from pathlib import Path

import pytest
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


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_asks_nobody_without_a_terminal(command: str) -> None:
    arguments = ["--allow-writable"] if command == "install" else []
    result = CliRunner().invoke(main, ["-c", "test:///default", command, *arguments])
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert not Path("/", install.HOOK).exists()
