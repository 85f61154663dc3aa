"""Checks of IPsec's offload to the card."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from libvirt_tuner.host.ethtool import Feature
from libvirt_tuner.hostcheck import crypto
from libvirt_tuner.hostcheck.crypto import ESP_FEATURES
from libvirt_tuner.hostcheck.facts import NOTE, WARNING, Facts
from libvirt_tuner.topology import Xfrm, XfrmState
from tests.unit.hostcheck.facts import ESP, bonded

ON, OFF = Feature(True), Feature(False)
ALL_ON = dict.fromkeys(ESP_FEATURES, ON)
ALL_FIXED = dict.fromkeys(ESP_FEATURES, Feature(False, fixed=True))
DROPPED = Feature(False, requested=True)
OFFLOADED = Xfrm((XfrmState("192.168.1.1", "192.168.1.2", offload="bond0", direction="out"),))


@pytest.mark.parametrize(
    ("features", "mode", "fixes"),
    [
        pytest.param({}, "active-backup", [], id="nobody could ask"),
        pytest.param({"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_ON}, "active-backup", [], id="all on"),
        pytest.param(
            {"p0": ALL_ON | {"tx-gso-partial": OFF}, "p1": ALL_ON, "bond0": ALL_ON},
            "active-backup", ["ethtool -K p0 tx-gso-partial on"], id="off on a port",
        ),
        pytest.param(
            {"p0": ALL_FIXED}, "active-backup", [""], id="no such hardware"
        ),
        pytest.param(
            {"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_ON | {"esp-hw-offload": OFF}},
            "active-backup", ["ethtool -K bond0 esp-hw-offload on"], id="off on the bond",
        ),
        pytest.param(
            {"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_ON | {"tx-esp-segmentation": DROPPED}},
            "active-backup", [f"use a kernel with {crypto._BOND_COMMITS}"], id="the bond drops it",
        ),
        pytest.param(
            {"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_FIXED},
            "802.3ad", ["use mode active-backup, not 802.3ad: bonding passes them on in that mode only"],
            id="other mode",
        ),
    ],
)  # fmt: skip
def test_esp_features(features: Mapping[str, Mapping[str, Feature]], mode: str, fixes: list[str]) -> None:
    made = Facts(bonded(mode), features=features)
    assert [finding.fix for finding in crypto.esp_features(made)] == fixes


def test_offloads_matter_with_esp_only() -> None:
    made = Facts(bonded(xfrm=Xfrm()), features={"p0": dict.fromkeys(ALL_ON, OFF)})
    assert list(crypto.esp_features(made)) == []
    assert list(crypto.esp_states(made)) == []


@pytest.mark.parametrize(
    ("xfrm", "features", "severities"),
    [
        pytest.param(OFFLOADED, {"p0": ALL_ON}, [], id="offloaded"),
        pytest.param(ESP, {"p0": ALL_ON}, [WARNING], id="the card could"),
        pytest.param(ESP, {"p0": dict.fromkeys(ALL_ON, OFF)}, [NOTE], id="the card cannot"),
    ],
)
def test_esp_states(xfrm: Xfrm, features: Mapping[str, Mapping[str, Feature]], severities: list[str]) -> None:
    found = list(crypto.esp_states(Facts(bonded(xfrm=xfrm), features=features)))
    assert [finding.severity for finding in found] == severities
    assert all("offload dev bond0" in finding.fix for finding in found if finding.severity == WARNING)
