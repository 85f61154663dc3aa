"""Completion scripts are read by their shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from libvirt_tuner.cli import completion


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_is_read_by_its_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    file = tmp_path / "script"
    file.write_text(completion.script(shell))
    done = subprocess.run([shell, "-n", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_looks_at_the_first_line() -> None:
    assert completion.script("zsh").startswith("#compdef libvirt-tuner\n")
