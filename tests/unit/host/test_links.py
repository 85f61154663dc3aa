"""Links and routes from sysfs and from what programs print."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError
from libvirt_tuner.host import openvswitch
from libvirt_tuner.host.links import links, nameable, network, routes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import Link, Route, Tunnel

Answers = dict[str, object]
NET = "sys/class/net"


class Host:
    """A tree under the test's directory, and programs that print what it is told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: Answers = {}
        self.asked: list[str] = []

    def device(self, name: str, *entries: str, **files: str) -> None:
        base = self.root / NET / name
        base.mkdir(parents=True)
        for entry in entries:
            (base / entry).mkdir(parents=True)
        for file, text in {"mtu": "1500", **files}.items():
            path = base / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    def link(self, path: str, target: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def says(self, command: str, output: object) -> None:
        self.answers[command] = output

    def run(self, sysfs: Sysfs, argv: Sequence[str]) -> str:
        command = " ".join(argv)
        self.asked.append(command)
        if command not in self.answers:
            raise HostError("RTNETLINK answers: Network is unreachable", where=command)
        output = self.answers[command]
        return output if isinstance(output, str) else json.dumps(output)

    def links(self, *names: str) -> dict[str, Link]:
        return links(Sysfs(str(self.root)), names or None, self.run)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / NET).mkdir(parents=True)
    return Host(tmp_path)


def shown(name: str, kind: str, data: Answers, **more: object) -> list[Answers]:
    return [{"ifname": name, **more, "linkinfo": {"info_kind": kind, "info_data": data}}]


SHOW = "ip -json -details link show dev"


def test_nothing_asked_nothing_read(host: Host) -> None:
    assert links(Sysfs(str(host.root)), (), host.run) == {}


@pytest.mark.parametrize(
    "name", ["gone0", "", "..", "a/b", "/dev/vhost-vdpa-9", "0000:99:00.0", "network:no"]
)
def test_names_the_host_does_not_have_are_left_out(host: Host, name: str) -> None:
    assert links(Sysfs(str(host.root)), [name], host.run) == {}


def test_bond_with_its_active_slave_first(host: Host) -> None:
    host.device(
        "bond0",
        bonding__slaves="p1 p0",
        bonding__active_slave="p0",
        bonding__mode="active-backup 1",
        mtu="9000",
    )
    assert host.links("bond0")["bond0"] == Link(
        "bond0", "bond", 9000, ("p0", "p1"), "p0", mode="active-backup"
    )


def test_bond_without_slaves(host: Host) -> None:
    host.device("bond0", bonding__slaves="", bonding__active_slave="", bonding__mode="802.3ad 4")
    found = host.links("bond0")["bond0"]
    assert (found.lower, found.active) == ((), None)


def test_bridge_leaves_out_guests_and_containers(host: Host) -> None:
    host.device("br0", "bridge", "brif/vnet0", "brif/veth0", "brif/p0")
    host.device("vnet0", tun_flags="0x5002")
    host.device("veth0", type="1", iflink="7", ifindex="6")
    host.device("p0", "device", type="1", iflink="2", ifindex="2")
    assert host.links("br0")["br0"].lower == ("p0",)
    assert host.asked == []


def test_bridge_with_veths_only_looks_at_them(host: Host) -> None:
    host.device("br0", "bridge", "brif/veth0")
    host.device("veth0", type="1", iflink="7", ifindex="6")
    host.device("veth1")
    host.link(f"{NET}/veth1/master", "../br1")
    host.says(f"{SHOW} veth0", shown("veth0", "veth", {}, link="veth1"))
    found = host.links("br0")
    assert found["br0"].lower == ("veth0",)
    assert found["veth0"].lower == ("br1",)


def test_tap_leads_to_its_bridge(host: Host) -> None:
    host.device("vnet0", tun_flags="0x5002")
    host.link(f"{NET}/vnet0/master", "../br0")
    assert host.links("vnet0")["vnet0"] == Link("vnet0", "tun", lower=("br0",))


def test_tap_of_a_linux_bridge_is_no_matter_of_open_vswitch_that_runs_too(host: Host) -> None:
    host.device("vnet0", tun_flags="0x5002")
    host.link(f"{NET}/vnet0/master", "../br0")
    (host.root / "run/openvswitch").mkdir(parents=True)
    (host.root / "run/openvswitch/db.sock").touch()
    assert host.links("vnet0")["vnet0"] == Link("vnet0", "tun", lower=("br0",))
    assert host.asked == []


def test_macvtap_needs_no_program(host: Host) -> None:
    host.device("macvtap0", "macvtap", "lower_p0")
    assert host.links("macvtap0")["macvtap0"] == Link("macvtap0", "macvtap", lower=("p0",))
    assert host.asked == []


@pytest.mark.parametrize(
    ("file", "number"),
    [
        pytest.param("v5  VID: 5\t REORDER_HDR: 1\nDevice: p0", 5, id="id"),
        pytest.param(None, None, id="not readable"),
    ],
)
def test_vlan(host: Host, file: str | None, number: int | None) -> None:
    host.device("v5", "lower_p0", uevent="DEVTYPE=vlan\nINTERFACE=v5")
    if file is not None:
        (host.root / "proc/net/vlan").mkdir(parents=True)
        (host.root / "proc/net/vlan/v5").write_text(file)
    assert host.links("v5")["v5"] == Link("v5", "vlan", lower=("p0",), vlan=number)


@pytest.mark.parametrize(
    ("kind", "data", "link"),
    [
        pytest.param(
            "geneve",
            {"id": 100, "remote": "10.0.0.2", "port": 6081},
            Link("t", "geneve", tunnel=Tunnel(("10.0.0.2",), vni=100, port=6081)),
            id="geneve",
        ),
        pytest.param(
            "vxlan",
            {"id": 5, "remote6": "fd00::2", "local6": "fd00::1"},
            Link("t", "vxlan", tunnel=Tunnel(("fd00::2",), vni=5, local="fd00::1")),
            id="IPv6",
        ),
        pytest.param(
            "vxlan",
            {"id": 5, "group": "239.1.1.1", "link": "p0"},
            Link("t", "vxlan", lower=("p0",), tunnel=Tunnel(("239.1.1.1",), vni=5)),
            id="group",
        ),
        pytest.param(
            "vxlan",
            {"id": 0, "external": True, "port": 4789},
            Link("t", "vxlan", tunnel=Tunnel(vni=0, port=4789, external=True)),
            id="metadata mode",
        ),
        pytest.param(
            "geneve",
            {"id": 1, "remote": "10.0.0.2", "inner_proto_inherit": True},
            Link("t", "geneve", tunnel=Tunnel(("10.0.0.2",), vni=1, ethernet=False)),
            id="no Ethernet",
        ),
    ],
)
def test_tunnel(host: Host, kind: str, data: Answers, link: Link) -> None:
    host.device("t", uevent=f"DEVTYPE={kind}\nINTERFACE=t")
    host.says(f"{SHOW} t", shown("t", kind, data))
    assert host.links("t")["t"] == link


def test_tunnel_is_followed_by_its_route(host: Host) -> None:
    host.device("t", uevent="DEVTYPE=geneve")
    host.device("p0", "device")
    host.says(f"{SHOW} t", shown("t", "geneve", {"id": 1, "remote": "fd00::2"}))
    host.says("ip -json route get fd00::2", [{"dst": "fd00::2", "dev": "p0", "prefsrc": "fd00::1"}])
    found, ways = network(Sysfs(str(host.root)), ["t"], host.run)
    assert set(found) == {"t", "p0"}
    assert ways == {"fd00::2": Route("fd00::2", "p0", "fd00::1")}
    assert routes(Sysfs(str(host.root)), found, host.run) == ways


def test_no_route_is_no_error(host: Host) -> None:
    host.device("t", uevent="DEVTYPE=geneve")
    host.says(f"{SHOW} t", shown("t", "geneve", {"id": 1, "remote": "10.9.9.9"}))
    assert network(Sysfs(str(host.root)), ["t"], host.run)[1] == {}


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        pytest.param(None, "Network is unreachable", id="ip fails"),
        pytest.param("no JSON", "not JSON", id="no JSON"),
        pytest.param([{}], "no such object", id="an old ip's empty object"),
    ],
)
def test_what_ip_does_not_say_is_a_problem_of_the_link(host: Host, output: object, problem: str) -> None:
    host.device("t", uevent="DEVTYPE=geneve")
    if output is not None:
        host.says(f"{SHOW} t", output)
    found = host.links("t")["t"]
    assert found.kind == "geneve"
    assert problem in found.problem


def test_team_asks_for_its_active_port(host: Host) -> None:
    host.device("team0", "lower_p0", "lower_p1")
    host.says(f"{SHOW} team0", shown("team0", "team", {}))
    host.says("teamdctl team0 state item get runner.active_port", "p1")
    assert host.links("team0")["team0"].lower == ("p1", "p0")


def function(host: Host, address: str, physfn: str = "") -> None:
    (host.root / "sys/devices" / address).mkdir(parents=True)
    host.link(f"sys/bus/pci/devices/{address}", f"../../../devices/{address}")
    if physfn:
        host.link(f"sys/devices/{address}/physfn", f"../{physfn}")


def test_virtual_function_and_its_physical_one(host: Host) -> None:
    function(host, "0000:17:00.0")
    (host.root / "sys/devices/0000:17:00.0/net/p0").mkdir(parents=True)
    function(host, "0000:17:02.1", "0000:17:00.0")
    host.device("p0")
    host.link(f"{NET}/p0/device", "../../../devices/0000:17:00.0")
    found = host.links("0000:17:02.1")
    assert found["0000:17:02.1"] == Link("0000:17:02.1", "pci", lower=("p0",), owner="p0")
    assert found["p0"].owner == ""


def test_vdpa_device_leads_to_its_function(host: Host) -> None:
    (host.root / "sys/devices/0000:17:02.1/vdpa0/vhost-vdpa-0").mkdir(parents=True)
    host.link("sys/bus/vdpa/devices/vdpa0", "../../../devices/0000:17:02.1/vdpa0")
    assert host.links("/dev/vhost-vdpa-0")["/dev/vhost-vdpa-0"].lower == ("0000:17:02.1",)


@pytest.mark.parametrize(
    ("xml", "attach", "lower"),
    [
        pytest.param(
            "<network><forward mode='nat'/><bridge name='virbr0'/></network>",
            "bridge",
            ("virbr0",),
            id="bridge",
        ),
        pytest.param(
            "<networkstatus><network><bridge name='br0'/></network></networkstatus>",
            "bridge",
            ("br0",),
            id="the daemon's state",
        ),
        pytest.param(
            "<network><forward mode='vepa' dev='p0'><interface dev='p0'/><interface dev='p1'/></forward>"
            "</network>",
            "direct",
            ("p0", "p1"),
            id="pool of macvtaps",
        ),
        pytest.param(
            "<network><forward mode='hostdev'><pf dev='p0'/></forward></network>",
            "hostdev",
            ("p0",),
            id="pool of VFs",
        ),
        pytest.param(
            "<network><forward mode='hostdev'><address type='pci' domain='0' bus='0x17' slot='0x02' "
            "function='0x1'/></forward></network>",
            "hostdev",
            ("0000:17:02.1",),
            id="functions",
        ),
        pytest.param("<network>", "", (), id="no XML"),
        pytest.param("<network/>", "bridge", (), id="isolated, no bridge named yet"),
    ],
)
def test_libvirt_network(host: Host, xml: str, attach: str, lower: tuple[str, ...]) -> None:
    (host.root / "etc/libvirt/qemu/networks").mkdir(parents=True)
    (host.root / "etc/libvirt/qemu/networks/lan.xml").write_text(xml)
    found = host.links("network:lan")["network:lan"]
    assert (found.attach, found.lower) == (attach, lower)


def test_import_brings_nothing_slow() -> None:
    code = (
        "import sys, libvirt_tuner.host.links as n;"
        "print({'json', 'subprocess', 'ipaddress', 'libvirt_tuner.host.openvswitch',"
        " 'libvirt_tuner.host.xfrm'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
                         capture_output=True, text=True, check=True)  # fmt: skip
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "devtype", [pytest.param("vrf", id="said by sysfs"), pytest.param("", id="only by ip")]
)
def test_tunnel_bound_to_a_vrf_goes_by_its_routes(host: Host, devtype: str) -> None:
    host.device("vx0", uevent="DEVTYPE=vxlan")
    host.device("blue", "lower_p0", "lower_p1", **({"uevent": f"DEVTYPE={devtype}"} if devtype else {}))
    for name in ("p0", "p1"):
        host.device(name, "device")
    host.says(f"{SHOW} vx0", shown("vx0", "vxlan", {"id": 5, "remote": "10.0.0.2", "link": "blue"}))
    host.says(f"{SHOW} blue", shown("blue", "vrf", {"table": 10}))
    host.says("bridge -json fdb show dev vx0", [])
    host.says("ip -json route get 10.0.0.2 vrf blue", [{"dst": "10.0.0.2", "dev": "p1"}])
    links, routes = network(Sysfs(str(host.root)), ["vx0"], host.run)
    tunnel = links["vx0"].tunnel
    assert tunnel is not None
    assert (tunnel.vrf, links["vx0"].lower) == ("blue", ())
    assert routes["10.0.0.2"].device == "p1"


def test_geneve_that_is_told_its_options_packet_by_packet_is_said(host: Host) -> None:
    host.device("gnv", uevent="DEVTYPE=geneve")
    host.says(f"{SHOW} gnv", shown("gnv", "geneve", {"external": True, "id": 0, "port": 6081}))
    tunnel = host.links("gnv")["gnv"].tunnel
    assert tunnel is not None
    assert tunnel.notes == ("options of packets in gnv are told packet by packet: none is counted",)


POLICIES = (
    "src 0.0.0.0/0 dst 0.0.0.0/0\n\tdir out priority 1\n\ttmpl src 10.0.0.1 dst {}\n"
    "\t\tproto esp reqid 1 mode tunnel\n\tif_id {}\n"
)


@pytest.mark.parametrize(
    ("kind", "data", "lower"),
    [
        pytest.param("vti", {"remote": "10.0.0.2"}, ("p0",), id="vti, by its remote end"),
        pytest.param("xfrm", {"if_id": "0x2a"}, ("p0",), id="xfrm, by its policies"),
        pytest.param("xfrm", {"if_id": "0x2b"}, ("p9",), id="no policy yet: the device it was made on"),
    ],
)
def test_ipsec_interface_is_followed_by_the_route_to_its_gateway(
    host: Host, kind: str, data: Answers, lower: tuple[str, ...]
) -> None:
    host.device("ipsec0")
    host.says(f"{SHOW} ipsec0", shown("ipsec0", kind, data, link="p9"))
    host.says("ip -s xfrm policy list", POLICIES.format("10.0.0.2", "0x2a"))
    host.says("ip -s xfrm state list nokeys", "")
    host.says("ip -json route get 10.0.0.2", [{"dst": "10.0.0.2", "dev": "p0"}])
    assert host.links("ipsec0")["ipsec0"].lower == lower


def test_vxlan_for_all_vnis_takes_its_far_ends_from_the_forwarding_database(host: Host) -> None:
    host.device("t0", uevent="DEVTYPE=vxlan")
    host.says(f"{SHOW} t0", shown("t0", "vxlan", {"external": True, "vnifilter": True}))
    host.says("bridge -json fdb show dev t0", [{"dst": "10.0.0.2", "src_vni": 10}])
    tunnel = host.links("t0")["t0"].tunnel
    assert tunnel is not None
    assert tunnel.remotes == ("10.0.0.2",)


def test_what_a_domain_may_name(host: Host) -> None:
    for address, code, entry in (
        ("0000:17:00.0", "0x020000", "net"),
        ("0000:17:02.1", "0x020000", "physfn"),
        ("0000:18:00.0", "0x010802", "net"),
    ):
        base = host.root / "sys/bus/pci/devices" / address
        (base / entry).mkdir(parents=True)
        (base / "class").write_text(code)
    (host.root / "sys/bus/vdpa/devices/vdpa0/vhost-vdpa-0").mkdir(parents=True)
    networks = host.root / "etc/libvirt/qemu/networks"
    (networks / "autostart").mkdir(parents=True)
    (networks / "lan.xml").touch()
    found = ["0000:17:00.0", "0000:17:02.1", "/dev/vhost-vdpa-0", "network:lan"]
    assert nameable(Sysfs(str(host.root))) == found


@pytest.mark.parametrize("running", [True, False])
def test_veth_into_open_vswitch_is_followed_to_its_bridge(host: Host, running: bool) -> None:
    host.device("qvb1")
    host.device("qvo1")
    host.link(f"{NET}/qvo1/master", "../ovs-system")
    host.says(f"{SHOW} qvb1", shown("qvb1", "veth", {}, link="qvo1"))
    if running:
        host.says(" ".join(openvswitch.command()), DATABASE)
    found = host.links("qvb1")["qvb1"]
    assert found.lower == (("br-int",) if running else ())
    assert bool(found.problem) is not running


DATABASE = "\n".join(
    json.dumps({"headings": headings, "data": [row]})
    for headings, row in (
        (["name", "ports"], ["br-int", ["uuid", "p"]]),
        (
            ["_uuid", "name", "interfaces", "bond_mode", "bond_active_slave"],
            [["uuid", "p"], "qvo1", ["uuid", "i"], ["set", []], ["set", []]],
        ),
        (
            ["_uuid", "name", "type", "options", "mac_in_use"],
            [["uuid", "i"], "qvo1", "", ["map", []], ["set", []]],
        ),
        (["external_ids"], [["map", []]]),
    )
)
