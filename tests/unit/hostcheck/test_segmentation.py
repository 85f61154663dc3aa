"""Where large packets are cut: the first device on the way down that cannot take them in one piece."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from libvirt_tuner.host.ethtool import Feature
from libvirt_tuner.hostcheck.facts import NOTE, WARNING
from libvirt_tuner.hostcheck.segmentation import Cut, first_cut, reason, segmentation
from libvirt_tuner.topology import HostTopology, Link, Route, Tunnel, Xfrm, XfrmState
from libvirt_tuner.uplink.domain import DevicePath
from libvirt_tuner.uplink.path import trace
from tests.unit.hostcheck.facts import bonded, facts
from tests.unit.uplink import geneve

ON, OFF, NEVER = Feature(True), Feature(False), Feature(False, fixed=True)
UDP, UDP_SUM, ESP, PARTIAL = (
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-esp-segmentation",
    "tx-gso-partial",
)
PLAIN = bonded(xfrm=Xfrm())


def offloaded(**changes: object) -> HostTopology:
    """Geneve over ESP in transport mode, which a bond encrypts."""
    state = XfrmState("192.168.1.1", "192.168.1.2", reqid=7, offload="bond0", direction="out")
    return bonded(xfrm=Xfrm((state._replace(**changes),), (geneve.POLICY,)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "cut"),
    [
        pytest.param({}, None, id="nobody could be asked"),
        pytest.param({"bond0": {UDP: ON}, "p0": {UDP: ON}}, None, id="the card does it"),
        pytest.param(
            {"bond0": {UDP: NEVER, UDP_SUM: ON}}, None, id="one of the two is enough to say nothing"
        ),
        pytest.param(
            {"bond0": {UDP: NEVER, UDP_SUM: NEVER}}, Cut("bond0", f"it has no {UDP}"), id="a card that cannot"
        ),
        pytest.param(
            {"bond0": {UDP: ON}, "p0": {UDP: OFF}},
            Cut("p0", f"{UDP} is off", f"ethtool -K p0 {UDP} on"),
            id="off on the port below",
        ),
        pytest.param(
            {"bond0": {UDP: ON}, "p0": {UDP: OFF, PARTIAL: OFF}},
            Cut("p0", f"{PARTIAL} and {UDP} are off", f"ethtool -K p0 {PARTIAL} on {UDP} on"),
            id="with what it depends on",
        ),
    ],
)
def test_a_tunnel_and_the_cards_below(features: Mapping[str, Mapping[str, Feature]], cut: Cut | None) -> None:
    assert first_cut(trace("geneve0", PLAIN), PLAIN, features) == cut


@pytest.mark.parametrize(
    ("host", "features", "device", "sure"),
    [
        pytest.param(offloaded(offload="", direction=""), {}, "geneve0", True, id="kernel crypto"),
        pytest.param(offloaded(mode="tunnel"), {"bond0": {ESP: ON}}, "geneve0", True, id="tunnel mode"),
        pytest.param(offloaded(), {"bond0": {ESP: OFF}}, "bond0", True, id="the bond passes it on no more"),
        pytest.param(offloaded(), {"bond0": {ESP: ON}}, "geneve0", False, id="the kernel decides"),
    ],
)
def test_esp(
    host: HostTopology, features: Mapping[str, Mapping[str, Feature]], device: str, sure: bool
) -> None:
    cut = first_cut(trace("geneve0", host), host, features)
    assert cut is not None
    assert (cut.device, cut.sure) == (device, sure)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        pytest.param("wireguard", "WireGuard handles packets one by one", id="WireGuard"),
        pytest.param("gretap", "gnv is a tunnel inside it", id="a tunnel in a tunnel"),
    ],
)
def test_a_tunnel_below_the_tunnel(kind: str, why: str) -> None:
    links = {
        "gnv": Link("gnv", "geneve", 1300, tunnel=Tunnel(("10.0.0.2",))),
        "outer": Link("outer", kind, 1400, tunnel=Tunnel(("10.1.0.2",))),
        "p0": Link("p0"),
    }
    routes = {"10.0.0.2": Route("10.0.0.2", "outer"), "10.1.0.2": Route("10.1.0.2", "p0")}
    host = HostTopology((), (), links=links, routes=routes)
    cut = first_cut(trace("gnv", host), host, {})
    assert cut is not None
    assert cut.device == "outer"
    assert cut.why.startswith(why)


def test_without_a_tunnel_nothing_is_said() -> None:
    host = HostTopology((), (), links={"br0": Link("br0", "bridge", lower=("p0",)), "p0": Link("p0")})
    assert first_cut(trace("br0", host), host, {"p0": {UDP: NEVER}}) is None


def test_finding_with_a_command_is_a_warning_and_without_one_a_note() -> None:
    off = facts(host=PLAIN, features={"p0": {UDP: OFF}})
    (finding,) = segmentation(off)
    assert (finding.what, finding.severity) == ("geneve0: large packets are cut by the CPU at p0", WARNING)
    never = facts(host=PLAIN, features={"p0": {UDP: NEVER}})
    assert [finding.severity for finding in segmentation(never)] == [NOTE]
    assert list(segmentation(facts(host=PLAIN))) == []


def test_reason_in_a_plan() -> None:
    device = DevicePath("vNIC 0", trace("geneve0", PLAIN), node=0)
    found = reason(device, PLAIN, {"p0": {UDP: OFF}})
    assert found is not None
    assert (found.subject, found.decision) == ("segmentation of vNIC 0", "by the CPU at p0")
    assert f"ethtool -K p0 {UDP} on" in found.why
    assert reason(device, PLAIN, {}) is None


def test_reason_of_an_offload_that_the_kernels_version_decides() -> None:
    host = offloaded()
    found = reason(DevicePath("vNIC 0", trace("geneve0", host), node=0), host, {"bond0": {ESP: ON}})
    assert found is not None
    assert "Linux 6.15" in found.decision
