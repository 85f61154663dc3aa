"""Hosts whose network is the point: OVN, a bridge on a VLAN, a function passed through.

As in :mod:`tests.hosts`; ``python -m tests.hosts_network --write`` rewrites their trees in fixtures/hosts/.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping

from libvirt_tuner.host import commands, openvswitch
from libvirt_tuner.host.xfrm import XFRM_POLICY
from tests import hosts, hosts_tunnels
from tests.hosts import FIXTURES, LINK_SHOW, Device, Host, IrqLine, LinkTo, Node, Port, Tree


def _tap(tree: Tree, name: str, master: str, mtu: int = 1500) -> None:
    """A guest's tap on a bridge or on Open vSwitch's datapath."""
    net = f"/sys/devices/virtual/net/{name}"
    tree[f"/sys/class/net/{name}"] = LinkTo(net)
    tree[f"{net}/mtu"] = str(mtu)
    tree[f"{net}/tun_flags"] = ""
    tree[f"{net}/master"] = LinkTo(f"/sys/devices/virtual/net/{master}")
    tree[f"{net}/upper_{master}"] = LinkTo(f"/sys/devices/virtual/net/{master}")


def _said(tree: Tree, argv: list[str], text: str) -> None:
    tree[f"/commands/{commands.slug(argv)}"] = text


def _table(headings: str, *rows: list[object]) -> str:
    return json.dumps({"data": rows, "headings": headings.split()}, separators=(",", ":"))


def _uuid(number: int) -> list[str]:
    return ["uuid", f"00000000-0000-4000-8000-{number:012d}"]


def _map(**pairs: str) -> list[object]:
    return [
        "map",
        [[key.replace("_", "-") if key.startswith("ovn") else key, text] for key, text in pairs.items()],
    ]


def _set(*items: object) -> list[object]:
    return ["set", list(items)]


NONE = _set()


def ovn_database(ends: tuple[str, ...], own: str, taps: tuple[str, ...]) -> str:
    """What ovs-vsctl prints on a chassis of OVN: guests on ``br-int``, a tunnel to each other chassis."""
    interfaces: list[list[object]] = [[_uuid(100), "br-int", "internal", ["map", []], NONE]]
    for number, tap in enumerate(taps):
        interfaces.append([_uuid(110 + number), tap, "", ["map", []], NONE])
    for number, end in enumerate(ends):
        options = _map(csum="true", key="flow", remote_ip=end)
        interfaces.append([_uuid(150 + number), f"ovn-hv{number + 2}-0", "geneve", options, NONE])
    ports = [[_uuid(number), row[1], row[0], NONE, NONE] for number, row in enumerate(interfaces, start=10)]
    return "\n".join(
        [
            _table("name ports", ["br-int", _set(*(port[0] for port in ports))]),
            _table("_uuid name interfaces bond_mode bond_active_slave", *ports),
            _table("_uuid name type options mac_in_use", *interfaces),
            _table("external_ids", [_map(ovn_bridge="br-int", ovn_encap_ip=own, ovn_encap_type="geneve")]),
        ]
    )


def ovn() -> Tree:
    """A chassis of OVN: guests on br-int, geneve in metadata mode over a bond of two ports with MTU 9000."""
    own, ends = "10.20.0.11", ("10.20.0.12", "10.20.0.13")
    ports = tuple(
        Port(
            name,
            address,
            "mlx5_core",
            0,
            hosts.mlx5(first, address, range(8), "0-15"),
            9000,
            master="bond0",
        )
        for name, address, first in (("ens1f0np0", "0000:3b:00.0", 80), ("ens1f1np1", "0000:3b:00.1", 100))
    )
    owner = [{"ifname": "bond0", "addr_info": [{"family": "inet", "local": own, "prefixlen": 24}]}]
    bond = {"mode": "active-backup", "number": 1, "active_slave": "ens1f1np1"}
    host = Host(
        nodes={0: Node("0-7"), 1: Node("8-15")},
        ports=ports,
        devices=(
            Device("bond0", "bond", 9000, lower=("ens1f0np0", "ens1f1np1"), info=bond),
            Device("br-int", "openvswitch"),
            Device("ovs-system", "openvswitch"),
        ),
        routes=dict.fromkeys(ends, ("bond0", own)),
        said={("ip", "-json", "addr", "show", "to", own): owner, XFRM_POLICY: ""},
    )
    tree = hosts.build(host)
    tunnel = "/sys/devices/virtual/net/genev_sys_6081"
    tree["/sys/class/net/genev_sys_6081"] = LinkTo(tunnel)
    tree[f"{tunnel}/mtu"] = "65000"
    tree[f"{tunnel}/uevent"] = "DEVTYPE=geneve\nINTERFACE=genev_sys_6081"
    for name in ("master", "upper_ovs-system"):
        tree[f"{tunnel}/{name}"] = LinkTo("/sys/devices/virtual/net/ovs-system")
    data = {"external": True, "id": 0, "port": 6081, "udp_csum": False, "udp_zero_csum6_rx": True}
    shown = {"ifname": "genev_sys_6081", "linkinfo": {"info_kind": "geneve", "info_data": data}}
    _said(tree, [*LINK_SHOW, "genev_sys_6081"], json.dumps([shown], indent=1))
    for tap in ("vnet0", "vnet1"):
        _tap(tree, tap, "ovs-system", 8942)
    _said(tree, openvswitch.command(), ovn_database(ends, own, ("vnet0", "vnet1")))
    return dict(sorted(tree.items()))


def bridge_vlan() -> Tree:
    """Guests on a bridge on VLAN 200 of a port on node 1."""
    irqs = hosts.queues(60, "eno1", range(8, 16), "0-15")
    host = Host(
        nodes={0: Node("0-7"), 1: Node("8-15")},
        ports=(Port("eno1", "0000:81:00.0", "ixgbe", 1, irqs),),
        devices=(
            Device("eno1.200", "vlan", lower=("eno1",), master="br200"),
            Device("br200", "bridge", lower=("eno1.200",)),
        ),
    )
    tree = hosts.build(host)
    tree["/proc/net/vlan/eno1.200"] = "eno1.200  VID: 200\t REORDER_HDR: 1  dev->priv_flags: 1"
    _tap(tree, "vnet0", "br200")
    tree["/sys/devices/virtual/net/br200/brif/vnet0"] = LinkTo("/sys/devices/virtual/net/vnet0/brport")
    tree["/sys/devices/virtual/net/br200/lower_vnet0"] = LinkTo("/sys/devices/virtual/net/vnet0")
    return dict(sorted(tree.items()))


def virtual_function() -> Tree:
    """A VF of a port on node 1, held by vfio-pci for a guest."""
    physical, address = "0000:5e:00.0", "0000:5e:00.2"
    host = Host(
        nodes={0: Node("0-7"), 1: Node("8-15")},
        ports=(
            Port("ens2f0np0", physical, "mlx5_core", 1, hosts.mlx5(90, physical, range(8, 16), "0-15"), 9000),
        ),
    )
    tree = hosts.build(host)
    base = f"/sys/devices/pci0000:5e/{address}"
    tree[f"/sys/bus/pci/devices/{address}"] = LinkTo(base)
    tree[f"{base}/numa_node"] = "1"
    tree[f"{base}/physfn"] = LinkTo(f"/sys/devices/pci0000:5e/{physical}")
    tree[f"/sys/devices/pci0000:5e/{physical}/virtfn0"] = LinkTo(base)
    tree[f"{base}/driver"] = LinkTo("/sys/bus/pci/drivers/vfio-pci")
    for number, vector in enumerate(range(120, 124)):
        line = IrqLine(vector, f"vfio-msix[{number}]({address})", "8-15", str(8 + number))
        tree[f"{base}/msi_irqs/{line.number}"] = ""
        tree[f"/sys/kernel/irq/{line.number}/actions"] = line.action
        tree[f"/proc/irq/{line.number}/smp_affinity_list"] = line.affinity
        tree[f"/proc/irq/{line.number}/effective_affinity_list"] = line.effective
    return dict(sorted(tree.items()))


TREES: Mapping[str, Callable[[], Tree]] = {
    "ovn": ovn,
    "bridge-vlan": bridge_vlan,
    "vf": virtual_function,
    **hosts_tunnels.TREES,
}


def main(arguments: list[str]) -> int:
    """Rewrite the trees when asked to by ``--write``."""
    if arguments != ["--write"]:
        print("usage: python -m tests.hosts_network --write", file=sys.stderr)
        return 2
    for name, build in TREES.items():
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
        hosts.write(build(), FIXTURES / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
