"""What a testbed remembers of what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from libvirt_tuner.errors import LedgerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.testbed import journal as testbedjournal
from libvirt_tuner.testbed import updown
from libvirt_tuner.testbed.config import Config
from libvirt_tuner.testbed.steps import Port


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="another shape"),
        pytest.param('{"version": 2}', id="a later version"),
        pytest.param('{"version": 1, "config": {}}', id="cut short"),
        pytest.param('{"version": 1, "config": {"vni": -1}, "ports": []}', id="a bad value"),
    ],
)
def test_damaged_journal_is_said_and_kept(tmp_path: Path, content: str) -> None:
    journal = tmp_path / testbedjournal.JOURNAL.removeprefix("/")
    journal.parent.mkdir(parents=True, mode=0o700)
    journal.write_text(content)
    with pytest.raises(LedgerError, match="damaged"):
        updown.down(Sysfs(str(tmp_path)))
    assert journal.read_text() == content


def test_journal_is_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "run/libvirt-tuner").mkdir(parents=True, mode=0o700)
    sysfs = Sysfs(str(tmp_path))
    config = Config("server", devices=("p0", "p1"))
    port = Port("p0", addresses=("10.0.0.1/8",), routes=("-4 default via 10.0.0.9",), features={"a": "on"})
    testbedjournal.save(sysfs, testbedjournal.Journal(config, (port,), "f00d", {"link bond0": 7}))
    file = tmp_path / testbedjournal.JOURNAL.removeprefix("/")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["version"] == 1
    assert testbedjournal.load(sysfs) == testbedjournal.Journal(config, (port,), "f00d", {"link bond0": 7})
