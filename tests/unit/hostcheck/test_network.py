"""Checks of flow control, of ways out and of MTUs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import evolve

from libvirt_tuner.host.ethtool import Pause
from libvirt_tuner.hostcheck import network
from libvirt_tuner.hostcheck.facts import NOTE, WARNING, Facts
from libvirt_tuner.topology import Link, Tunnel, Xfrm
from tests.unit.hostcheck.facts import bonded, facts, whats


def test_broken_uplinks() -> None:
    host = bonded()
    assert whats("broken_uplinks", facts(host=host)) == []
    assert whats("broken_uplinks", facts(host=evolve(host, routes={}))) == [
        "geneve0: no route to 192.168.1.2"
    ]
    empty = evolve(host.links["bond0"], lower=(), active=None)
    said = whats("broken_uplinks", facts(host=evolve(host, links={**host.links, "bond0": empty})))
    assert said == ["bond0: bond0 (bond) has no slaves", "geneve0: bond0 (bond) has no slaves"]


def test_unreadable_ipsec_is_no_reason_to_change_an_mtu() -> None:
    host = evolve(bonded(), xfrm=Xfrm(problem="needs root"))
    assert whats("mtu_chain", facts(host=host)) == []


@pytest.mark.parametrize(
    ("pause", "severities"),
    [
        pytest.param({}, [], id="not known"),
        pytest.param({"p0": Pause(False, False), "p1": Pause(False, False)}, [], id="off"),
        pytest.param({"p0": Pause(True, True), "p1": Pause(True, True)}, [NOTE], id="on"),
        pytest.param({"p0": Pause(True, False), "p1": Pause(False, False)}, [WARNING, NOTE], id="differs"),
    ],
)
def test_flow_control(pause: Mapping[str, Pause], severities: list[str]) -> None:
    found = network.flow_control(Facts(bonded(), pause=pause))
    assert [finding.severity for finding in found] == severities


@pytest.mark.parametrize(
    ("changes", "fixes"),
    [
        pytest.param({}, [], id="fits"),
        pytest.param({"geneve0": 1460}, ["ip link set geneve0 mtu 1450"], id="tunnel too large"),
        pytest.param({"p1": 1400, "bond0": 1400}, ["ip link set geneve0 mtu 1350"], id="backup"),
        pytest.param({"p1": 1450, "geneve0": 1400}, ["ip link set bond0 mtu 1450"], id="bond"),
    ],
)  # fmt: skip
def test_mtu_chain(changes: Mapping[str, int], fixes: list[str]) -> None:
    host = bonded(xfrm=Xfrm())
    links = {name: evolve(link, mtu=changes.get(name, link.mtu)) for name, link in host.links.items()}
    found = network.mtu_chain(Facts(evolve(host, links=links)))
    assert [finding.fix for finding in found] == fixes


def test_a_tunnel_in_metadata_mode_has_no_mtu_of_its_own() -> None:
    host = bonded(xfrm=Xfrm())
    links = {**host.links, "genev_sys": Link("genev_sys", "geneve", 65465, tunnel=Tunnel(external=True))}
    assert list(network.mtu_chain(Facts(evolve(host, links=links)))) == []


def test_a_tap_on_top_is_measured_too() -> None:
    host = bonded(xfrm=Xfrm())
    links = {**host.links, "macvtap0": Link("macvtap0", "macvtap", 1500, lower=("geneve0",))}
    (finding,) = network.mtu_chain(Facts(evolve(host, links=links)))
    assert finding.what == "macvtap0 has an MTU of 1500, 50 bytes too large"
