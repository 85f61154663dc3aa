"""Replayed hosts: from a vNIC the path, the node, the interrupts and the MTU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from libvirt_tuner.capture import capture
from libvirt_tuner.domainxml.spec import Vnic
from libvirt_tuner.host import commands, openvswitch, probe, xfrm
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning import interrupts, mtu
from libvirt_tuner.topology import HostTopology
from libvirt_tuner.uplink import budget
from libvirt_tuner.uplink.path import devices_of, nic_of, trace, trace_vnic
from tests import hosts, hosts_network


def replay(name: str, vnic: Vnic) -> HostTopology:
    return probe.topology(Sysfs(str(hosts.FIXTURES / name)), devices_of(vnic))


@pytest.mark.parametrize("name", list(hosts_network.TREES))
def test_fixture_hosts_are_what_their_description_says(name: str) -> None:
    assert hosts.read(hosts.FIXTURES / name) == hosts_network.TREES[name]()


@pytest.mark.parametrize("name", ["ovn", "bridge-vlan"])
def test_capturing_again_replays_to_the_same_host(name: str, tmp_path: Path) -> None:
    capture(Sysfs(str(hosts.FIXTURES / name)), str(tmp_path / "again"))
    again = probe.topology(Sysfs(str(tmp_path / "again")))
    assert again == probe.topology(Sysfs(str(hosts.FIXTURES / name)))


SEED = "geneve0 (vni 100, 192.168.1.2) > bond0 (active-backup) > enp23s0f0np0 0000:17:00.0 node 0"
OVN = (
    "vnet0 > br-int (Open vSwitch) > genev_sys_6081 (metadata mode, 10.20.0.11) > bond0 (active-backup)"
    " > ens1f1np1 0000:3b:00.1 node 0"
)
VLAN = "vnet0 > br200 > eno1.200 (vlan 200) > eno1 0000:81:00.0 node 1"
VF = "0000:5e:00.2 node 1 (VF of ens2f0np0)"
CASES = [
    pytest.param(
        "seed", Vnic(0, type="direct", source="geneve0", model="virtio"),
        SEED, 0, {"enp23s0f0np0": 16, "enp23s0f1np1": 16}, 1416, id="the seed's host",
    ),
    pytest.param(
        "ovn", Vnic(0, type="bridge", source="br-int", target="vnet0", virtualport="openvswitch"),
        OVN, 0, {"ens1f1np1": 8, "ens1f0np0": 8}, 8942, id="OVN",
    ),
    pytest.param(
        "bridge-vlan", Vnic(0, type="bridge", source="br200", target="vnet0", model="virtio"),
        VLAN, 1, {"eno1": 8}, 1500, id="a bridge on a VLAN",
    ),
    pytest.param(
        "vf", Vnic(0, type="hostdev", source="0000:5e:00.2"),
        VF, 1, {"0000:5e:00.2": 4}, None, id="a VF passed through",
    ),
    pytest.param(
        "laptop", Vnic(0, type="direct", source="wlp2s0", model="virtio"),
        "wlp2s0 0000:02:00.0 (Wi-Fi)", None, {"wlp2s0": 4}, 1500, id="a laptop on Wi-Fi",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "vnic", "text", "node", "irqs", "size"), CASES)
def test_path_node_interrupts_and_mtu(
    name: str, vnic: Vnic, text: str, node: int | None, irqs: dict[str, int], size: int | None
) -> None:
    host = replay(name, vnic)
    path = trace_vnic(vnic, host)
    found, why = budget.vnic_mtu(path, host)
    nics = {function: nic_of(function, host) for function in path.functions}
    queues = {name: len(interrupts.queue_irqs(nic)) for name, nic in nics.items() if nic}
    print(path.describe(), f"node {path.node(host)}", f"queue interrupts {queues}", why, sep="\n")
    assert str(path) == text
    assert path.node(host) == node
    assert list(path.functions) == list(irqs)
    assert queues == irqs
    assert found == size


def test_virtual_function_takes_its_mtu_from_the_guest_alone() -> None:
    vnic = Vnic(0, type="hostdev", source="0000:5e:00.2", model="virtio")
    host = replay("vf", vnic)
    choice, reason = mtu.choose(vnic, trace_vnic(vnic, host), host, 9000, libvirt=(9, 0, 0))
    assert choice is not None
    assert choice.how == "guest"
    assert "dhcp-option=26,9000" in reason.why


def test_network_that_deals_out_macvtaps_takes_host_mtu(tmp_path: Path) -> None:
    tree = hosts.build(hosts.seed())
    pool = "<network><name>pool</name><forward mode='vepa'><interface dev='geneve0'/></forward></network>"
    tree["/etc/libvirt/qemu/networks/pool.xml"] = pool
    hosts.write(tree, tmp_path / "host")
    vnic = Vnic(0, type="network", source="pool", network="pool", model="virtio")
    host = probe.topology(Sysfs(str(tmp_path / "host")), devices_of(vnic))
    choice, reason = mtu.choose(vnic, trace_vnic(vnic, host), host, "auto", libvirt=(9, 0, 0))
    assert choice is not None
    assert (choice.how, choice.size) == ("host_mtu", 1416), reason


@pytest.mark.parametrize(
    ("suffix", "text", "problem"),
    [
        pytest.param(".failed", "no answer within 2 s", "ovs-vsctl: no answer within 2 s", id="hangs"),
        pytest.param("", "{", "ovs-vsctl: not JSON", id="cut short"),
        pytest.param("", "[]", "of another form", id="another form"),
        pytest.param(None, "", "the program ovs-vsctl is missing", id="absent"),
    ],
)
def test_open_vswitch_that_does_not_answer_is_a_finding(
    tmp_path: Path, suffix: str | None, text: str, problem: str
) -> None:
    tree = hosts_network.ovn()
    said = f"/commands/{commands.slug(openvswitch.command())}"
    del tree[said]
    if suffix is not None:
        tree[said + suffix] = text
    hosts.write(tree, tmp_path / "host")
    host = probe.topology(Sysfs(str(tmp_path / "host")), ["vnet0"])
    path = trace("vnet0", host)
    assert problem in path.problem
    assert path.functions == ()


def test_open_vswitch_that_hangs_costs_its_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ovs-vsctl"
    program.write_text("#!/bin/sh\nsleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def run(_: Sysfs, argv: Sequence[str]) -> str:
        return commands.run(Sysfs("/"), argv, timeout=0.3)

    began = time.monotonic()
    host = probe.topology(Sysfs(str(hosts.FIXTURES / "ovn")), ["vnet0", "vnet1", "br-int"], run)
    # Once, whatever asks for it: not once per device.
    assert time.monotonic() - began < 1.5
    assert "ovs-vsctl: no answer within 0.3 s" in str(trace("vnet0", host))


def broken_seed(root: Path, change: Callable[[hosts.Tree], None]) -> HostTopology:
    tree = hosts.build(hosts.seed())
    change(tree)
    hosts.write(tree, root / "host")
    return probe.topology(Sysfs(str(root / "host")), ["geneve0"])


def without_route(tree: hosts.Tree) -> None:
    del tree[f"/commands/{commands.slug(['ip', '-json', 'route', 'get', '192.168.1.2'])}"]


def without_slaves(tree: hosts.Tree) -> None:
    for path in [path for path in tree if "/net/bond0/lower_" in path]:
        del tree[path]
    tree["/sys/devices/virtual/net/bond0/bonding/slaves"] = ""
    tree["/sys/devices/virtual/net/bond0/bonding/active_slave"] = ""


def unheard_of_algorithm(tree: hosts.Tree) -> None:
    path = f"/commands/{commands.slug(xfrm.XFRM_STATE)}"
    tree[path] = str(tree[path]).replace("rfc4106(gcm(aes))", "rfc9999(unheard)")


@pytest.mark.parametrize(
    ("change", "finding", "size"),
    [
        pytest.param(without_route, "no route to 192.168.1.2", 1416, id="no route"),
        pytest.param(without_slaves, "bond0 (bond) has no slaves", 1416, id="bond without slaves"),
        pytest.param(unheard_of_algorithm, "algorithm unknown (rfc9999(unheard))", 1408, id="algorithm"),
    ],
)
def test_broken_host_gives_a_finding_and_the_safe_number(
    tmp_path: Path, change: Callable[[hosts.Tree], None], finding: str, size: int
) -> None:
    host = broken_seed(tmp_path, change)
    found, why = budget.vnic_mtu(trace("geneve0", host), host)
    assert finding in why
    assert found == size


def test_plain_hosts_run_no_program() -> None:
    def refuse(sysfs: Sysfs, argv: object) -> str:
        raise AssertionError(argv)

    for name, device in (("bridge-vlan", "vnet0"), ("smt-2x32", "br0"), ("seed", "bond0")):
        host = probe.topology(Sysfs(str(hosts.FIXTURES / name)), [device], refuse)
        assert trace(device, host).functions
