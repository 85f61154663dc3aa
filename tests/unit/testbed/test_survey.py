"""What a testbed finds on its host."""

from __future__ import annotations

import pytest

from libvirt_tuner.host import xfrm
from libvirt_tuner.testbed import survey
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
