"""A testbed where nothing is up."""

from __future__ import annotations

from pathlib import Path

from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.testbed import updown


def test_nothing_is_up(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert updown.down(Sysfs(str(tmp_path))) is None
    assert updown.show(Sysfs(str(tmp_path))) is None
