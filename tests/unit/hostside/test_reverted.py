from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.reverted import forget, is_reverted, remember

UUID = "5b1d0a52-0000-4000-8000-000000000001"


def test_until_it_is_forgotten(tmp_path: Path) -> None:
    sysfs = Sysfs(str(tmp_path))
    assert not is_reverted(sysfs, UUID)
    for _ in range(2):
        remember(sysfs, UUID)
    assert is_reverted(sysfs, UUID)
    assert not is_reverted(sysfs, UUID.replace("1", "2"))
    for _ in range(2):
        forget(sysfs, UUID)
    assert not is_reverted(sysfs, UUID)


def test_a_domain_without_uuid(tmp_path: Path) -> None:
    assert not is_reverted(Sysfs(str(tmp_path)), "")


def test_no_name_leads_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        remember(Sysfs(str(tmp_path)), "../../../etc/passwd")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(HostError, match="cannot write"):
        remember(Sysfs(str(tmp_path)), UUID)
