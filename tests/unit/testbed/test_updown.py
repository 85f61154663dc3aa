"""What is read from the texts of ip and ethtool. The rest is in tests/netns and tests/lab."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from libvirt_tuner.errors import LedgerError
from libvirt_tuner.host import xfrm
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.testbed import journal as testbedjournal
from libvirt_tuner.testbed import survey, updown
from libvirt_tuner.testbed.config import Config
from libvirt_tuner.testbed.steps import Port
from libvirt_tuner.testbed.survey import State

OFFLOADED = """\
src 192.168.1.1 dst 192.168.1.2
    proto esp spi 0x000493e1(300001) reqid 10001(0x00002711) mode transport
    replay-window 0 seq 0x00000000 flag esn (0x00000000)
    anti-replay esn context:
     seq-hi 0x0, seq 0x0, oseq-hi 0x0, oseq 0x1f
     replay_window 256, bitmap-length 8
     00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
    crypto offload parameters: dev bond0 dir out
    lifetime config:
      limit: soft (INF)(bytes), hard (INF)(bytes)
    lifetime current:
      4216(bytes), 31(packets)
      add 2026-01-01 10:00:00 use 2026-01-01 10:00:07
    stats:
      replay-window 0 replay 0 failed 0
"""
KERNELS = """\
src 192.168.1.2 dst 192.168.1.1
    proto esp spi 0x00061a81(400001) reqid 20001(0x00004e21) mode transport
    aead rfc4106(gcm(aes)) 0x1111111111111111111111111111111111111111 (160 bits) 128
    lifetime current:
      0(bytes), 0(packets)
"""
OTHERS = KERNELS.replace("20001(0x00004e21)", "7(0x00000007)")


@pytest.mark.parametrize(
    ("text", "states"),
    [
        pytest.param("", (), id="none"),
        pytest.param(OTHERS, (), id="our SPI, not our reqid"),
        pytest.param(KERNELS, (State("client-to-server", 400001),), id="by the kernel, unused"),
        pytest.param(
            OFFLOADED + KERNELS,
            (State("server-to-client", 300001, "bond0", 4216, 31), State("client-to-server", 400001)),
            id="offloaded, and used",
        ),
    ],
)
def test_states(text: str, states: tuple[State, ...]) -> None:
    assert survey.parsed_states(text) == states


def test_keys_of_an_old_ip_are_dropped() -> None:
    assert not any("0x1111" in word for words in xfrm.entries(KERNELS) for word in words)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param("esp-hw-offload: on\n", {"esp-hw-offload": "on"}, id="on"),
        pytest.param("esp-hw-offload: on [fixed]\n", {"esp-hw-offload": "on"}, id="on for good"),
        pytest.param("\tesp-hw-offload: off [fixed]\n", {"esp-hw-offload": "fixed"}, id="off for good"),
        pytest.param(
            "tx-esp-segmentation: on\nesp-hw-offload: off\nesp-tx-csum-hw-offload: off [requested on]\n",
            {"esp-hw-offload": "off", "esp-tx-csum-hw-offload": "off"},
            id="off",
        ),
    ],
)
def test_features(text: str, features: dict[str, str]) -> None:
    assert survey.offload_states(text) == features


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


def test_nothing_is_up(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert updown.down(Sysfs(str(tmp_path))) is None
    assert updown.show(Sysfs(str(tmp_path))) is None


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
