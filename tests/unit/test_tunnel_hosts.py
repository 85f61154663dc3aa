"""Replayed hosts: each kind of tunnel, far ends that are learnt, functions outside the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import DomainSpec, Vnic
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning import planner
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.topology import HostTopology
from libvirt_tuner.uplink import budget, domain
from libvirt_tuner.uplink.path import devices_of, trace_to, trace_vnic
from tests import hosts, hosts_tunnels

BRIDGE = Vnic(0, type="bridge", source="br0", model="virtio")


def read(name: str, *devices: str) -> HostTopology:
    return probe.topology(Sysfs(str(hosts.FIXTURES / name)), devices)


@pytest.mark.parametrize("name", list(hosts_tunnels.OVERLAYS))
def test_each_kind_of_tunnel(name: str) -> None:
    host = read(f"tunnel-{name}", "br0")
    path = trace_vnic(BRIDGE, host)
    found = budget.budget(path, host)
    if name in hosts_tunnels.FAR_ENDS_UNKNOWN:
        assert "its remote end is unknown" in path.problem
        assert "unknown; MTU 1500 assumed" in found.explain()
    else:
        assert path.functions[0] == "enp129s0f0", path
        assert path.node(host) == 1
    assert found.size == hosts_tunnels.OVERLAYS[name].size, found.explain()
    assert ("bytes assumed" in found.explain()) == (name == "unheard-of")


def planned(name: str, *vnics: Vnic, hostdevs: tuple[str, ...] = (), **policy: object) -> Plan:
    spec = DomainSpec("vm", memory_kib=1048576, vnics=vnics, hostdevs=hostdevs)
    rules = Policy(**policy)  # type: ignore[arg-type]
    return planner.plan(read(name, *planner.devices(spec, rules)), spec, rules)


# An address on lo


EVPN = Vnic(0, type="bridge", source="br100", model="virtio")


def test_address_on_lo_says_nothing_about_where_packets_leave() -> None:
    made = planned("evpn", EVPN)
    assert [choice.size for choice in made.mtus] == [1450]
    assert made.nodes == (1,)
    why = next(reason.why for reason in made.reasons if reason.subject == "uplink of vNIC 0")
    assert "is on lo" in why
    assert "enp129s0f0, enp129s0f1" in why


def test_far_ends_of_the_forwarding_database_are_followed_by_every_next_hop() -> None:
    host = read("evpn-learnt", "br100")
    path = trace_vnic(EVPN, host)
    assert path.functions == path.active == ("enp129s0f0", "enp129s0f1")
    assert not path.problem
    assert budget.budget(path, host).size == 1450


def test_the_least_of_all_next_hops_counts(tmp_path: Path) -> None:
    tree = hosts_tunnels.evpn(("10.255.0.12",))
    tree["/sys/devices/pci0000:81/0000:81:00.1/net/enp129s0f1/mtu"] = "1400"
    hosts.write(tree, tmp_path / "host")
    host = probe.topology(Sysfs(str(tmp_path / "host")), ["br100"])
    assert budget.budget(trace_vnic(EVPN, host), host).size == 1350


# The policy's uplink


SEED = Vnic(0, type="direct", source="geneve0", model="virtio")


@pytest.mark.parametrize(
    ("uplink", "steps"),
    [
        pytest.param("bond0", ("geneve0", "bond0", "enp23s0f0np0"), id="a device on the way"),
        pytest.param("geneve0", ("geneve0", "bond0", "enp23s0f0np0"), id="the tunnel itself"),
        pytest.param("enp23s0f1np1", ("geneve0", "bond0", "enp23s0f1np1"), id="the backup"),
    ],
)
def test_uplink_of_the_policy_ends_the_path_and_keeps_the_tunnel(uplink: str, steps: tuple[str, ...]) -> None:
    host = read("seed", "geneve0", uplink)
    path = trace_to(SEED, uplink, host)
    assert path.steps == steps
    assert budget.budget(path, host).size == 1416


def test_uplink_that_is_not_on_the_way_takes_the_place_of_what_is_below_the_tunnel() -> None:
    host = read("evpn", "br100", "enp129s0f1")
    path = trace_to(EVPN, "enp129s0f1", host)
    assert path.steps == ("br100", "vxlan100", "enp129s0f1")
    assert not path.problem
    assert budget.budget(path, host).size == 1450


def test_uplink_without_a_tunnel_is_all_there_is() -> None:
    host = read("smt-2x32", "br0", "ens2f0np0")
    path = trace_to(BRIDGE, "ens2f0np0", host)
    assert path.steps == ("ens2f0np0",)
    assert path.node(host) == 1


# Functions outside the kernel


def test_function_passed_through_decides_the_node() -> None:
    made = planned("hostdev", BRIDGE, hostdevs=("0000:81:02.0",))
    assert made.nodes == (1,)
    spec = DomainSpec("vm", vnics=(BRIDGE,), hostdevs=("0000:81:02.0",))
    host = read("hostdev", *domain.devices(spec))
    vnic, function = domain.device_paths(spec, host)
    assert (vnic.node, vnic.passed_through) == (0, False)
    assert (function.node, function.passed_through, function.network) == (1, True, True)
    assert str(function.path) == "0000:81:02.0 node 1 (VF of ens8f0)"
    assert domain.by_weight((vnic, function))[0] is function


@pytest.mark.parametrize(
    "socket",
    [
        pytest.param("/run/vhost/vhu-vm1", id="QEMU's socket"),
        pytest.param("/var/run/openvswitch/vhu-vm2", id="the switch's socket"),
    ],
)
def test_vhost_user_socket_leads_to_the_card_of_open_vswitch(socket: str) -> None:
    vnic = Vnic(0, type="vhostuser", source=socket, model="virtio", queues=2)
    host = read("ovs-dpdk", *devices_of(vnic))
    path = trace_vnic(vnic, host)
    assert path.functions == ("0000:85:00.0",), path
    assert path.node(host) == 1
    assert planned("ovs-dpdk", vnic).mtus == ()


def test_socket_of_nobody_is_said() -> None:
    vnic = Vnic(0, type="vhostuser", source="/run/vhost/other")
    assert (
        "no port of Open vSwitch has the socket"
        in trace_vnic(vnic, read("ovs-dpdk", *devices_of(vnic))).problem
    )
    assert "Open vSwitch does not run" in trace_vnic(vnic, read("seed", *devices_of(vnic))).problem


# libvirt networks


def test_network_without_libvirt_is_said() -> None:
    vnic = Vnic(0, type="network", source="default", network="default", model="virtio")
    problem = trace_vnic(vnic, read("small-8", *devices_of(vnic))).problem
    assert problem == "network default: cannot be resolved without libvirt"


def test_network_is_asked_of_libvirt() -> None:
    vnic = Vnic(0, type="network", source="lan", network="lan", model="virtio")
    xml = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/><mtu size='1400'/></network>"
    sysfs = Sysfs(str(hosts.FIXTURES / "small-8"))
    host = probe.topology(sysfs, devices_of(vnic), networks={"lan": xml}.__getitem__)
    assert trace_vnic(vnic, host).steps[:2] == ("network:lan", "br0")
    assert host.links["network:lan"].asked == 1400
