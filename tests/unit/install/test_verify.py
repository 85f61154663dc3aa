"""The probe: a document that asks for nothing, and an answer that tells failure from not knowing."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from libvirt_tuner.install import verify


def test_the_probe_has_no_disk_and_no_nic_and_is_left_alone() -> None:
    root = etree.fromstring(verify.document("qemu"))
    assert root.find("devices/disk") is None
    assert root.find("devices/interface") is None
    policy = root.find("metadata/{https://libvirt-tuner.org/policy/1}policy")
    assert policy is not None
    assert policy.get("select") == "false"


def test_a_daemon_that_is_away_says_nothing_about_the_hook(tmp_path: Path) -> None:
    works, why = verify.hook_works(f"qemu+unix:///system?socket={tmp_path}/none", str(tmp_path))
    assert works is None
    assert "cannot connect" in why


def test_a_driver_that_cannot_start_it_says_nothing_about_the_hook(tmp_path: Path) -> None:
    works, why = verify.hook_works("test:///default", str(tmp_path))
    assert works in (None, True)
    assert bool(why) is (works is None)
