"""Open vSwitch's database, from what ovs-vsctl prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from libvirt_tuner.host import openvswitch
from libvirt_tuner.host.openvswitch import Switch
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import Tunnel

Interfaces = Mapping[str, Mapping[str, object]]


def answer(bridges: Mapping[str, Mapping[str, Sequence[str]]], interfaces: Interfaces, **ids: str) -> str:
    """``bridges``: name to ports, each a name and its interfaces."""
    uuid = {name: ["uuid", f"id-of-{name}"] for ports in bridges.values() for name in ports}
    rows = []
    for name, facts in interfaces.items():
        options = ["map", list(dict(facts.get("options", {})).items())]  # type: ignore[call-overload]
        mac = facts.get("mac", ["set", []])
        rows.append([["uuid", f"if-{name}"], name, facts.get("type", ""), options, mac])
    ports = []
    for members in bridges.values():
        for name, inside in members.items():
            uuids = [["uuid", f"if-{each}"] for each in inside]
            value = uuids[0] if len(uuids) == 1 else ["set", uuids]
            mac = ids.get("active", "") if len(uuids) > 1 else ""
            mode = ids.get("mode", "") if len(uuids) > 1 else ""
            ports.append([uuid[name], name, value, mode or ["set", []], mac or ["set", []]])
    external = ["map", [[key.replace("_", "-"), text] for key, text in ids.items() if key.startswith("ovn")]]
    tables = [
        (["name", "ports"], [[name, ["set", [uuid[port] for port in own]]] for name, own in bridges.items()]),
        (["_uuid", "name", "interfaces", "bond_mode", "bond_active_slave"], ports),
        (["_uuid", "name", "type", "options", "mac_in_use"], rows),
        (["external_ids"], [[external]]),
    ]
    return "\n".join(json.dumps({"headings": headings, "data": data}) for headings, data in tables)


def tunnel_of(switch: Switch, name: str) -> Tunnel:
    found = switch.links[name].tunnel
    assert found is not None
    return found


def read(text: str, root: Path) -> Switch:
    return openvswitch.read(Sysfs(str(root)), lambda _, __: text)


def test_nic_leads_out_and_what_is_internal_does_not(tmp_path: Path) -> None:
    text = answer(
        {"br0": {"br0": ["br0"], "p0": ["p0"], "vhu": ["vhu"]}},
        {"br0": {"type": "internal"}, "p0": {}, "vhu": {"type": "dpdkvhostuserclient"}},
    )
    found = read(text, tmp_path)
    assert found.ports == {"br0": ("p0",)}
    assert found.bridge_of["vhu"] == "br0"


def test_patch_leads_to_the_other_bridge(tmp_path: Path) -> None:
    text = answer(
        {"br-int": {"to-ex": ["to-ex"]}, "br-ex": {"to-int": ["to-int"], "p0": ["p0"]}},
        {
            "to-ex": {"type": "patch", "options": {"peer": "to-int"}},
            "to-int": {"type": "patch", "options": {"peer": "to-ex"}},
            "p0": {},
        },
    )
    assert read(text, tmp_path).ports["br-int"] == ("br-ex",)


def test_tunnels_of_one_kind_are_one_device(tmp_path: Path) -> None:
    text = answer(
        {"br-tun": {"a": ["a"], "b": ["b"]}},
        {
            "a": {"type": "vxlan", "options": {"remote_ip": "10.0.0.2", "local_ip": "10.0.0.1"}},
            "b": {"type": "vxlan", "options": {"remote_ip": "10.0.0.3", "local_ip": "10.0.0.1"}},
        },
    )
    found = read(text, tmp_path)
    assert found.ports["br-tun"] == ("vxlan_sys_4789",)
    link = found.links["vxlan_sys_4789"]
    assert link.tunnel == Tunnel(("10.0.0.2", "10.0.0.3"), "10.0.0.1", 4789, external=True)


def test_name_of_a_remote_end_tells_no_family(tmp_path: Path) -> None:
    ends = {"options": {"remote_ip": "peer.example.org"}, "type": "vxlan"}
    found = read(answer({"br0": {"a": ["a"]}}, {"a": ends}), tmp_path)
    assert tunnel_of(found, "vxlan_sys_4789").ends == ()


@pytest.mark.parametrize(
    "devargs",
    ["0000:85:00.0", "85:00.0", "pci:0000:85:00.0,representor=[0]", "0000:85:00.0,dv_flow_en=1"],
)
def test_pci_device_of_a_dpdk_port(tmp_path: Path, devargs: str) -> None:
    port = {"type": "dpdk", "options": {"dpdk-devargs": devargs}}
    assert read(answer({"br0": {"d0": ["d0"]}}, {"d0": port}), tmp_path).links["d0"].lower == (
        "0000:85:00.0",
    )


@pytest.mark.parametrize(
    ("ids", "ports"),
    [
        pytest.param({}, (), id="no OVN"),
        pytest.param(
            {"ovn_encap_ip": "10.0.0.1", "ovn_encap_type": "geneve"}, ("genev_sys_6081",), id="geneve"
        ),
        pytest.param(
            {"ovn_encap_ip": "10.0.0.1", "ovn_encap_type": "vxlan"}, ("vxlan_sys_4789",), id="vxlan"
        ),
        pytest.param({"ovn_encap_ip": "10.0.0.1", "ovn_bridge": "br-other"}, (), id="on another bridge"),
    ],
)
def test_ovn_before_another_chassis_is_there(
    tmp_path: Path, ids: dict[str, str], ports: tuple[str, ...]
) -> None:
    found = read(
        answer({"br-int": {"br-int": ["br-int"]}}, {"br-int": {"type": "internal"}}, **ids), tmp_path
    )
    assert found.ports["br-int"] == ports
    assert [tunnel_of(found, port).local for port in ports] == ["10.0.0.1"] * len(ports)


def test_ovn_geneve_has_options_and_vxlan_none(tmp_path: Path) -> None:
    interfaces = {
        "a": {"type": "geneve", "options": {"remote_ip": "10.0.0.2"}},
        "b": {"type": "vxlan", "options": {"remote_ip": "10.0.0.3"}},
    }
    found = read(answer({"br-int": {"a": ["a"], "b": ["b"]}}, interfaces, ovn_encap_ip="10.0.0.1"), tmp_path)
    assert tunnel_of(found, "genev_sys_6081").extras == (("options", 8),)
    assert tunnel_of(found, "vxlan_sys_4789").extras == ()


def test_bonds_active_member_is_found_by_its_mac(tmp_path: Path) -> None:
    text = answer(
        {"br0": {"bond0": ["p0", "p1"]}},
        {"p0": {"mac": "02:00:00:00:00:01"}, "p1": {"mac": "02:00:00:00:00:02"}},
        active="02:00:00:00:00:02",
        mode="active-backup",
    )
    found = read(text, tmp_path)
    assert found.ports["br0"] == ("bond0",)
    assert found.links["bond0"].lower == ("p1", "p0")
    assert found.links["bond0"].active == "p1"


def test_bond_that_balances_has_no_single_active_member(tmp_path: Path) -> None:
    text = answer({"br0": {"bond0": ["p0", "p1"]}}, {"p0": {}, "p1": {}}, mode="balance-tcp")
    assert read(text, tmp_path).links["bond0"].active is None


def test_dpdk_port_is_its_pci_function(tmp_path: Path) -> None:
    options = {"dpdk-devargs": "0000:17:00.0,representor=[0]"}
    text = answer({"br0": {"d0": ["d0"]}}, {"d0": {"type": "dpdk", "options": options}})
    assert read(text, tmp_path).links["d0"].lower == ("0000:17:00.0",)


def test_the_call_has_a_time_limit_of_its_own() -> None:
    assert "--timeout=2" in openvswitch.command()
