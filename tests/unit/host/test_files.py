from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError
from libvirt_tuner.host import files


def test_file_and_its_directory_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    files.replace(target, "first\n", mode=0o600)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("first\n", 0o600)


def test_reader_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "metrics"
    target.write_text("old\n")
    with target.open() as reader:
        files.replace(target, "new\n")
        assert (reader.read(), target.read_text()) == ("old\n", "new\n")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics"]


def test_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(HostError) as caught:
        files.replace(tmp_path / "taken" / "file", "text")
    assert caught.value.where == str(tmp_path / "taken" / "file")
