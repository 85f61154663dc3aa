"""Hosts for each kind of tunnel, and those whose far ends or devices are not where one would look.

As in :mod:`tests.hosts`; ``python -m tests.hosts_network --write`` writes their trees too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from libvirt_tuner.host import openvswitch
from libvirt_tuner.host.xfrm import XFRM_POLICY
from tests import hosts
from tests.hosts import LINK_SHOW, Device, Host, LinkTo, Node, Port, Tree

V4, V6 = ("10.255.0.11", "10.255.0.12"), ("fd00:255::b", "fd00:255::c")
QUIET: dict[tuple[str, ...], object] = {XFRM_POLICY: ""}


def two_ports(*mtus: int, driver: str = "i40e") -> tuple[Port, ...]:
    """A card of two ports on node 1."""
    return tuple(
        Port(
            f"enp129s0f{number}",
            f"0000:81:00.{number}",
            driver,
            1,
            hosts.queues(60 + 20 * number, f"i40e-enp129s0f{number}", range(8, 16), "0-15"),
            mtu,
        )
        for number, mtu in enumerate(mtus)
    )


def overlay(kind: str, ipv6: bool = False, underlay: int = 1500, **info: object) -> Host:
    """Guests on br0, on a tunnel ``t0`` of that kind, over one port of MTU ``underlay`` on node 1."""
    here, there = V6 if ipv6 else V4
    data = {"local": here, "remote": there, **info}
    return Host(
        nodes={0: Node("0-7"), 1: Node("8-15")},
        ports=two_ports(underlay),
        devices=(
            Device("t0", kind, underlay, info=data, master="br0"),
            Device("br0", "bridge", underlay, lower=("t0",)),
        ),
        routes={there: ("enp129s0f0", here)},
        said=QUIET,
    )


def stacked(kind: str, ipv6: bool = False, **info: object) -> Host:
    """Guests on br0, on VXLAN to an address that is reached through ``u0``, a tunnel of that kind."""
    under = overlay(kind, ipv6, 1500, **info)
    inside = ("10.200.0.1", "10.200.0.2")
    vxlan = {"id": 7, "local": inside[0], "remote": inside[1], "port": 4789}
    return evolve(
        under,
        devices=(
            Device("u0", kind, 1500, info=under.devices[0].info),
            Device("t0", "vxlan", 1500, info=vxlan, master="br0"),
            Device("br0", "bridge", lower=("t0",)),
        ),
        routes={**under.routes, inside[1]: ("u0", inside[0])},
    )


def wireguard(*ends: str) -> Host:
    """VXLAN over WireGuard, whose peers have these endpoints."""
    host = stacked("wireguard")
    devices = (evolve(host.devices[0], info={}, mtu=1420), *host.devices[1:])
    answer = "\n".join(f"(key)\t{end}" for end in ends)
    return evolve(
        host,
        devices=devices,
        said={**host.said, ("wg", "show", "u0", "endpoints"): answer or "(key)\t(none)"},
    )


def unaddressed(kind: str, **info: object) -> Host:
    """As :func:`stacked`, of a kind whose far ends ip does not say: packets or contexts have their own."""
    host = stacked(kind)
    return evolve(host, devices=(evolve(host.devices[0], info=info), *host.devices[1:]))


def l2tp() -> Host:
    """Guests on a bridge on a session of L2TPv3, of which ip says nothing but that it is there."""
    host = overlay("l2tpeth")
    said = {**host.said, (*LINK_SHOW, "t0"): [{"ifname": "t0", "mtu": 1500, "link_type": "ether"}]}
    return evolve(host, routes={}, said=said)


def hsr() -> Host:
    """Guests on a bridge on HSR on both ports of a card."""
    host = overlay("hsr")
    ports = two_ports(1500, 1500)
    info = {"slave1": ports[0].name, "slave2": ports[1].name, "proto": 0}
    rings = Device("t0", "hsr", 1494, lower=(ports[0].name, ports[1].name), info=info, master="br0")
    return evolve(host, ports=ports, devices=(rings, host.devices[1]), routes={})


FAR_ENDS_UNKNOWN = frozenset({"bareudp", "gtp", "l2tpeth"})
"""Kinds whose packets leave by a device that nothing says."""


def macsec(**info: object) -> Host:
    """Guests on a bridge on MACsec on a port."""
    host = overlay("macsec")
    data = {"protect": True, "icv_len": 16, "encrypt": True, **info}
    return evolve(
        host,
        devices=(
            Device("t0", "macsec", 1500, lower=("enp129s0f0",), link="enp129s0f0", info=data, master="br0"),
            host.devices[1],
        ),
    )


@frozen
class Overlay:
    """A host of one kind of tunnel: how it is described, and the MTU its guests can have."""

    host: Host
    size: int


OVERLAYS: Mapping[str, Overlay] = {
    "geneve": Overlay(overlay("geneve", id=100, port=6081), 1450),
    "geneve-ipv6": Overlay(overlay("geneve", ipv6=True, id=100, port=6081), 1430),
    "vxlan": Overlay(overlay("vxlan", id=100, port=4789), 1450),
    "vxlan-gbp": Overlay(overlay("vxlan", id=100, port=4789, gbp=True), 1450),
    "vxlan-jumbo": Overlay(overlay("vxlan", underlay=9000, id=100, port=4789), 8950),
    "gretap": Overlay(overlay("gretap"), 1462),
    "gretap-key-csum-seq": Overlay(
        overlay("gretap", ikey="0.0.0.5", okey="0.0.0.5", icsum=True, ocsum=True, iseq=True, oseq=True), 1450
    ),
    "gretap-fou": Overlay(overlay("gretap", encap={"type": "fou", "sport": 0, "dport": 5555}), 1454),
    "gretap-gue": Overlay(overlay("gretap", encap={"type": "gue", "sport": 0, "dport": 5555}), 1450),
    "ip6gretap": Overlay(overlay("ip6gretap", ipv6=True, encap_limit=4), 1434),
    "ip6gretap-no-limit": Overlay(overlay("ip6gretap", ipv6=True, ip6_tnl_f_ign_encap_limit=True), 1442),
    "erspan-0": Overlay(overlay("erspan", erspan_ver=0), 1462),
    "erspan-1": Overlay(overlay("erspan", okey="0.0.0.5", oseq=True, erspan_index=3, erspan_ver=1), 1450),
    "erspan-2": Overlay(overlay("erspan", okey="0.0.0.5", oseq=True, erspan_ver=2), 1446),
    "ip6erspan": Overlay(
        overlay("ip6erspan", ipv6=True, okey="0.0.0.5", oseq=True, erspan_ver=1, encap_limit=4), 1422
    ),
    "bareudp": Overlay(unaddressed("bareudp", dstport=6635, ethertype="ip"), 1500 - 48 - 50),
    "gre": Overlay(stacked("gre"), 1500 - 24 - 50),
    "ip6gre": Overlay(stacked("ip6gre", ipv6=True, encap_limit=4), 1500 - 52 - 50),
    "ipip": Overlay(stacked("ipip"), 1500 - 20 - 50),
    "sit": Overlay(stacked("sit"), 1500 - 20 - 50),
    "ip6tnl": Overlay(stacked("ip6tnl", ipv6=True, encap_limit=4), 1500 - 48 - 50),
    "gtp": Overlay(unaddressed("gtp", role="sgsn", hsize=1024, restart_count=0), 1500 - 68 - 50),
    "hsr": Overlay(hsr(), 1494),
    "l2tpeth": Overlay(l2tp(), 1500 - 40 - 24 - 18),
    "wireguard": Overlay(wireguard(f"{V4[1]}:51820"), 1420 - 50),
    "macsec": Overlay(macsec(inc_sci=True), 1468),
    "macsec-no-sci": Overlay(macsec(inc_sci=False), 1476),
    "unheard-of": Overlay(overlay("newtun"), 1400),
}


def evpn(far_ends: tuple[str, ...] = ()) -> Tree:
    """Two uplinks with BGP; the tunnel's own address is on ``lo``; its far ends come by EVPN, if any."""
    local = V4[0]
    shown = {"ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "mtu": 65536, "link_type": "loopback"}
    owner = {**shown, "addr_info": [{"family": "inet", "local": local, "prefixlen": 32}]}
    learnt = [
        {"mac": "00:00:00:00:00:00", "dst": end, "flags": ["self"], "state": "permanent"} for end in far_ends
    ]
    host = Host(
        nodes={0: Node("0-7"), 1: Node("8-15")},
        ports=two_ports(1500, 1500),
        devices=(
            Device("br100", "bridge", lower=("vxlan100",)),
            Device(
                "vxlan100",
                "vxlan",
                info={"id": 100, "local": local, "port": 4789, "learning": False},
                master="br100",
            ),
        ),
        said={
            ("ip", "-json", "addr", "show", "to", local): [owner],
            (*LINK_SHOW, "lo"): [shown],
            ("bridge", "-json", "fdb", "show", "dev", "vxlan100"): learnt,
            **{route(end): next_hop(end) for end in far_ends},
            **{route(end, "fibmatch"): both_hops() for end in far_ends},
            **QUIET,
        },
        files={
            "/sys/devices/virtual/net/lo/mtu": "65536",
            "/sys/devices/virtual/net/lo/uevent": "INTERFACE=lo",
        },
    )
    tree = hosts.build(host)
    tree["/sys/class/net/lo"] = LinkTo("/sys/devices/virtual/net/lo")
    return dict(sorted(tree.items()))


def route(address: str, *words: str) -> tuple[str, ...]:
    """The command that asks for a route."""
    return ("ip", "-json", "route", "get", *words, address)


def next_hop(address: str) -> list[object]:
    """What the kernel chooses now."""
    return [{"dst": address, "gateway": "169.254.0.1", "dev": "enp129s0f0", "prefsrc": V4[0], "flags": []}]


def both_hops() -> list[object]:
    """The entry of the table: two next hops."""
    hops = [{"gateway": "169.254.0.1", "dev": f"enp129s0f{n}", "weight": 1, "flags": []} for n in (0, 1)]
    return [{"dst": "10.255.0.0/24", "flags": [], "nexthops": hops}]


def hostdev() -> Tree:
    """Management on node 0; on node 1 a card whose VFs vfio-pci holds for guests."""
    vf, pf = "/sys/devices/pci0000:81/0000:81:02.0", "/sys/devices/pci0000:81/0000:81:00.0"
    host = Host(
        nodes={0: Node("0-15,32-47", 131072, 122880), 1: Node("16-31,48-63", 131072, 122880)},
        siblings=tuple((c, c + 32) for c in range(32)),
        ports=(
            Port("eno1", "0000:01:00.0", "igb", 0, hosts.queues(60, "eno1", range(8), "0-63"), master="br0"),
            Port("ens8f0", "0000:81:00.0", "ice", 1, hosts.queues(100, "ice-ens8f0", range(16, 24), "0-63")),
        ),
        devices=(Device("br0", "bridge", lower=("eno1",)),),
        files={f"{vf}/numa_node": "1", f"{vf}/class": "0x020000"},
    )
    tree = hosts.build(host)
    tree["/sys/bus/pci/devices/0000:81:02.0"] = LinkTo(vf)
    tree[f"{vf}/physfn"] = LinkTo(pf)
    tree[f"{pf}/virtfn0"] = LinkTo(vf)
    tree[f"{vf}/driver"] = LinkTo("/sys/bus/pci/drivers/vfio-pci")
    return dict(sorted(tree.items()))


def ovs_dpdk() -> Tree:
    """Open vSwitch with DPDK: the guest's socket on br-int, a patch to br-phy, there a card on node 1."""
    from tests.hosts_network import NONE, _map, _said, _set, _table, _uuid

    function = "/sys/devices/pci0000:85/0000:85:00.0"
    host = Host(
        nodes={0: Node("0-5,12-17", 131072, 65536), 1: Node("6-11,18-23", 131072, 65536)},
        siblings=tuple((c, c + 12) for c in range(12)),
        files={f"{function}/numa_node": "1", f"{function}/class": "0x020000", "/run/openvswitch/db.sock": ""},
    )
    tree = hosts.build(host)
    tree["/sys/bus/pci/devices/0000:85:00.0"] = LinkTo(function)
    tree[f"{function}/driver"] = LinkTo("/sys/bus/pci/drivers/vfio-pci")
    ports: tuple[tuple[int, str, str, dict[str, str]], ...] = (
        (10, "dpdk0", "dpdk", {"dpdk-devargs": "0000:85:00.0"}),
        (11, "phy-int", "patch", {"peer": "int-phy"}),
        (12, "int-phy", "patch", {"peer": "phy-int"}),
        (13, "vhu-vm1", "dpdkvhostuserclient", {"vhost-server-path": "/run/vhost/vhu-vm1"}),
        (14, "vhu-vm2", "dpdkvhostuser", {}),
        (15, "br-int", "internal", {}),
    )
    interfaces: list[list[object]] = []
    rows: list[list[object]] = []
    for number, name, kind, options in ports:
        settings = ["map", [list(pair) for pair in options.items()]]
        interfaces.append([_uuid(number + 10), name, kind, settings, NONE, 1500, NONE, _map()])
        rows.append([_uuid(number), name, _uuid(number + 10), NONE, NONE])
    database = "\n".join(
        [
            _table(
                "name ports external_ids",
                ["br-phy", _set(_uuid(10), _uuid(11)), _map()],
                ["br-int", _set(*map(_uuid, (12, 13, 14, 15))), _map()],
            ),
            _table("_uuid name interfaces bond_mode bond_active_slave", *rows),
            _table("_uuid name type options mac_in_use mtu mtu_request external_ids", *interfaces),
            _table("external_ids other_config", [_map(), ["map", [["pmd-cpu-mask", "0x82082"]]]]),
        ]
    )
    _said(tree, openvswitch.command(), database)
    return dict(sorted(tree.items()))


def _built(host: Host) -> Callable[[], Tree]:
    return lambda: hosts.build(host)


TREES: Mapping[str, Callable[[], Tree]] = {
    **{f"tunnel-{name}": _built(each.host) for name, each in OVERLAYS.items()},
    "evpn": evpn,
    "evpn-learnt": lambda: evpn(("10.255.0.12", "10.255.0.13")),
    "hostdev": hostdev,
    "ovs-dpdk": ovs_dpdk,
}
