"""What ethtool prints."""

from __future__ import annotations

import pytest

from libvirt_tuner.host import ethtool
from libvirt_tuner.host.ethtool import Feature, Pause

FEATURES = """Features for eth0:
rx-checksumming: on [fixed]
tx-checksumming: on
\ttx-checksum-ipv4: off [fixed]
tx-esp-segmentation: off [requested on]
esp-hw-offload: off"""


PAUSE = "Pause parameters for eth0:\nAutonegotiate:\ton\nRX:\t\ton\nTX:\t\toff"


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        pytest.param("rx-checksumming", Feature(True, fixed=True), id="fixed"),
        pytest.param("tx-checksumming", Feature(True), id="on"),
        pytest.param("tx-checksum-ipv4", Feature(False, fixed=True), id="indented"),
        pytest.param("tx-esp-segmentation", Feature(False, requested=True), id="requested"),
        pytest.param("esp-hw-offload", Feature(False), id="off"),
        pytest.param("Features for eth0", None, id="headline"),
    ],
)
def test_features(name: str, feature: Feature | None) -> None:
    assert ethtool.parse_features(FEATURES).get(name) == feature


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        pytest.param("", Pause(False, False), id="nothing"),
        pytest.param(PAUSE, Pause(True, False), id="set"),
        pytest.param(f"{PAUSE}\nRX negotiated: off\nTX negotiated: on", Pause(False, True), id="negotiated"),
    ],
)
def test_pause(text: str, pause: Pause) -> None:
    assert ethtool.parse_pause(text) == pause


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        pytest.param(["IP SA", "IP DA"], "sd", id="addresses"),
        pytest.param(
            ["IP SA", "IP DA", "L4 bytes 0 & 1 [TCP/UDP src port]", "L4 bytes 2 & 3 [TCP/UDP dst port]"],
            "sdfn",
            id="and ports",
        ),
        pytest.param([], "", id="nothing"),
    ],
)
def test_the_fields_that_a_card_hashes(lines: list[str], fields: str) -> None:
    head = "UDP over IPV4 flows use these fields for computing Hash flow key:"
    assert ethtool.parse_flow_hash("\n".join([head, *lines])) == fields
