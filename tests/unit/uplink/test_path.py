"""Paths from a vNIC to the hardware, over values."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.domainxml.spec import Vnic
from libvirt_tuner.topology import HostTopology, Link, Nic, Route, Tunnel
from libvirt_tuner.uplink.path import attachment, devices_of, trace, trace_vnic

P0 = Nic("p0", "0000:17:00.0", 0)
P1 = Nic("p1", "0000:17:00.1", 0)
Q0 = Nic("q0", "0000:c1:00.0", 1)
VF = Nic("0000:17:02.1", "0000:17:02.1", 0)
BOND = Link("bond0", "bond", lower=("p1", "p0"), active="p0", mode="active-backup")
GENEVE = Link("gnv", "geneve", tunnel=Tunnel(("10.0.0.2",), vni=100))
ROUTE = Route("10.0.0.2", "bond0", "10.0.0.1")


def host(*links: Link, routes: tuple[Route, ...] = (ROUTE,)) -> HostTopology:
    nics = {nic.name: nic for nic in (P0, P1, Q0, VF)}
    known = {name: Link(name) for name in ("p0", "p1", "q0")}
    return HostTopology(
        (),
        (),
        nics=nics,
        links=known | {link.name: link for link in links},
        routes={route.address: route for route in routes},
    )


@pytest.mark.parametrize(
    ("device", "links", "text", "functions"),
    [
        pytest.param("p0", [], "p0 0000:17:00.0 node 0", ("p0",), id="hardware"),
        pytest.param(
            "mv0",
            [Link("mv0", "macvtap", lower=("p0",))],
            "mv0 > p0 0000:17:00.0 node 0",
            ("p0",),
            id="macvtap",
        ),
        pytest.param(
            "v5",
            [Link("v5", "vlan", lower=("p0",), vlan=5)],
            "v5 (vlan 5) > p0 0000:17:00.0 node 0",
            ("p0",),
            id="VLAN",
        ),
        pytest.param(
            "t0",
            [Link("t0", "tun", lower=("br0",)), Link("br0", "bridge", lower=("p0",))],
            "t0 > br0 > p0 0000:17:00.0 node 0",
            ("p0",),
            id="tap on a bridge",
        ),
        pytest.param(
            "bond0",
            [BOND],
            "bond0 (active-backup) > p0 0000:17:00.0 node 0",
            ("p0", "p1"),
            id="bond: the active slave first",
        ),
        pytest.param(
            "mv0",
            [Link("mv0", "macvtap", lower=("gnv",)), GENEVE, BOND],
            "mv0 > gnv (vni 100, 10.0.0.2) > bond0 (active-backup) > p0 0000:17:00.0 node 0",
            ("p0", "p1"),
            id="macvtap on geneve on a bond",
        ),
        pytest.param(
            "vx",
            [Link("vx", "vxlan", lower=("p1",), tunnel=Tunnel(("239.1.1.1",), vni=5))],
            "vx (vni 5, 239.1.1.1) > p1 0000:17:00.1 node 0",
            ("p1",),
            id="multicast group",
        ),
        pytest.param(
            "team0",
            [Link("team0", "team", lower=("p0", "p1"), active="p1")],
            "team0 (team) > p1 0000:17:00.1 node 0",
            ("p1", "p0"),
            id="team",
        ),
        pytest.param(
            "bond1",
            [Link("bond1", "bond", lower=("p0", "p1"), mode="802.3ad")],
            "bond1 (802.3ad) > p0 0000:17:00.0 node 0 + p1 0000:17:00.1 node 0",
            ("p0", "p1"),
            id="LACP: all at once",
        ),
        pytest.param(
            "sys",
            [Link("sys", "geneve", tunnel=Tunnel(("10.0.0.2", "10.0.0.3"), external=True)), BOND],
            "sys (metadata mode) > bond0 (active-backup) > p0 0000:17:00.0 node 0",
            ("p0", "p1"),
            id="metadata mode, by the far ends",
        ),
        pytest.param(
            "0000:17:02.1",
            [Link("0000:17:02.1", "pci", lower=("p0",), owner="p0")],
            "0000:17:02.1 node 0 (VF of p0)",
            ("0000:17:02.1",),
            id="VF passed through",
        ),
        pytest.param(
            "/dev/vhost-vdpa-0",
            [Link("/dev/vhost-vdpa-0", "vdpa", lower=("0000:17:02.1",)), Link("0000:17:02.1", "pci")],
            "/dev/vhost-vdpa-0 (vdpa) > 0000:17:02.1 node 0",
            ("0000:17:02.1",),
            id="vDPA",
        ),
        pytest.param(
            "network:lan",
            [Link("network:lan", "network", lower=("br0",)), Link("br0", "bridge", lower=("p0",))],
            "network:lan > br0 > p0 0000:17:00.0 node 0",
            ("p0",),
            id="libvirt network",
        ),
        pytest.param("w0", [Link("w0", wireless=True)], "w0 (Wi-Fi)", ("w0",), id="Wi-Fi"),
        pytest.param(
            "br0",
            [Link("br0", "bridge", lower=("veth7", "p0")), Link("veth7", "veth")],
            "br0 > p0 0000:17:00.0 node 0",
            ("p0",),
            id="a port that leads nowhere does not matter",
        ),
    ],
)
def test_path(device: str, links: list[Link], text: str, functions: tuple[str, ...]) -> None:
    path = trace(device, host(*links))
    assert str(path) == text
    assert path.functions == functions
    assert not path.problem


@pytest.mark.parametrize(
    ("device", "links", "problem"),
    [
        pytest.param("", [], "names no device", id="no name"),
        pytest.param("gone0", [], "there is no device gone0", id="missing"),
        pytest.param(
            "mv0", [Link("mv0", "macvtap", lower=("gone0",))], "there is no device gone0", id="missing below"
        ),
        pytest.param(
            "a",
            [Link("a", "vlan", lower=("b",)), Link("b", "vlan", lower=("a",))],
            "loop: a > b > a",
            id="cycle",
        ),
        pytest.param(
            "gnv", [evolve(GENEVE, tunnel=Tunnel(("10.9.9.9",)))], "no route to 10.9.9.9", id="no route"
        ),
        pytest.param(
            "bond0",
            [evolve(BOND, lower=(), active=None)],
            "bond0 (bond) has no slaves",
            id="bond without slaves",
        ),
        pytest.param("virbr0", [Link("virbr0", "bridge")], "no port of virbr0 leads to hardware", id="NAT"),
        pytest.param("t0", [Link("t0", "tun")], "not attached to a bridge", id="tap alone"),
        pytest.param("v0", [Link("v0", "veth")], "other end of v0 (veth) is in another namespace", id="veth"),
        pytest.param("wg0", [Link("wg0", "wireguard")], "has no path to hardware", id="another kind"),
        pytest.param(
            "sys",
            [Link("sys", "vxlan", tunnel=Tunnel(external=True))],
            "set uplink in the policy",
            id="metadata mode alone",
        ),
        pytest.param(
            "sys",
            [Link("sys", "geneve", tunnel=Tunnel(local="10.7.7.7", external=True))],
            "no device has the address 10.7.7.7",
            id="own address unknown",
        ),
        pytest.param(
            "br-int",
            [Link("br-int", "openvswitch", problem="ovs-vsctl: no answer")],
            "ovs-vsctl: no answer",
            id="what could not be read",
        ),
    ],
)
def test_problem_is_said(device: str, links: list[Link], problem: str) -> None:
    path = trace(device, host(*links))
    assert problem in path.problem
    assert problem in str(path)
    assert path.functions == ()


def test_several_ways_out_are_said_and_none_is_chosen() -> None:
    path = trace("br0", host(Link("br0", "bridge", lower=("p0", "q0"))))
    assert path.functions == ()
    assert path.candidates == ("p0", "q0")
    assert "several paths to hardware (p0, q0)" in path.problem


def test_node_of_several_ways_only_where_they_agree() -> None:
    apart = host(Link("br0", "bridge", lower=("p0", "q0")))
    together = host(Link("br0", "bridge", lower=("p0", "p1")))
    assert trace("br0", apart).node(apart) is None
    assert trace("br0", together).node(together) == 0


def test_two_ways_to_the_same_hardware_are_one() -> None:
    path = trace("br0", host(BOND, GENEVE, Link("br0", "bridge", lower=("gnv", "bond0"))))
    assert path.functions == ("p0", "p1")


def test_far_ends_by_different_devices_are_said() -> None:
    link = Link("sys", "geneve", tunnel=Tunnel(("10.0.0.2", "10.0.0.3"), external=True))
    path = trace("sys", host(BOND, link, routes=(ROUTE, Route("10.0.0.3", "q0"))))
    assert path.candidates == ("p0", "p1", "q0")
    assert "bond0, q0" in path.problem


def test_own_address_serves_where_no_far_end_is_known() -> None:
    link = Link("sys", "geneve", tunnel=Tunnel(local="10.0.0.1", external=True))
    assert trace("sys", host(BOND, link, routes=(Route("10.0.0.1", "bond0"),))).active == ("p0",)


def test_forwarding_table_without_address_names_the_remedy() -> None:
    on = host(Link("vx0", "vxlan", 1450, tunnel=Tunnel()))
    assert trace("vx0", on).problem == (
        "vx0 learns its remote ends from its forwarding table; set uplink in the policy"
    )


def test_backups_are_described() -> None:
    text = trace("bond0", host(BOND)).describe()
    assert text.endswith("p0 0000:17:00.0 node 0; backup: p1 0000:17:00.1 node 0")


def test_bond_with_its_links_down_keeps_its_functions() -> None:
    path = trace("bond0", host(evolve(BOND, active=None)))
    assert path.functions == ("p1", "p0")
    assert path.active == ()
    assert "no active slave" in path.problem


def test_function_without_entry_goes_by_its_physical_one() -> None:
    link = Link("0000:17:03.0", "pci", lower=("p0",), owner="p0")
    assert trace("0000:17:03.0", host(link)).functions == ("p0",)


@pytest.mark.parametrize(
    ("vnic", "names"),
    [
        pytest.param(Vnic(0, type="user"), (), id="nothing"),
        pytest.param(Vnic(0, type="bridge", source="br0"), ("br0",), id="bridge"),
        pytest.param(Vnic(0, type="bridge", source="br0", target="t0"), ("t0", "br0"), id="running"),
        pytest.param(
            Vnic(0, type="network", source="lan", network="lan"), ("network:lan",), id="network by its name"
        ),
        pytest.param(
            Vnic(0, type="network", source="br0", network="lan", target="t0"),
            ("t0", "br0", "network:lan"),
            id="network resolved",
        ),
        pytest.param(
            Vnic(0, type="hostdev", source="0000:17:02.1", target="x"), ("0000:17:02.1",), id="passed through"
        ),
    ],
)
def test_where_to_begin(vnic: Vnic, names: tuple[str, ...]) -> None:
    assert devices_of(vnic) == names


def test_vnic_of_a_domain_that_does_not_run_here_begins_at_its_source() -> None:
    vnic = Vnic(0, type="bridge", source="br0", target="t0")
    assert trace_vnic(vnic, host(Link("br0", "bridge", lower=("p0",)))).steps == ("br0", "p0")


@pytest.mark.parametrize(
    ("vnic", "links", "kind"),
    [
        pytest.param(Vnic(0, type="bridge", source="br0"), [], "bridge", id="no network"),
        pytest.param(
            Vnic(0, type="network", network="n"),
            [Link("network:n", "network", lower=("p0",), attach="direct")],
            "direct",
            id="pool of macvtaps",
        ),
        pytest.param(
            Vnic(0, type="network", network="n", target="m0"),
            [Link("m0", "macvtap", lower=("p0",))],
            "direct",
            id="a macvtap is there",
        ),
        pytest.param(Vnic(0, type="network", network="n"), [], "network", id="unknown network"),
    ],
)
def test_attachment(vnic: Vnic, links: list[Link], kind: str) -> None:
    on = host(*links)
    assert attachment(vnic, trace_vnic(vnic, on), on) == kind
