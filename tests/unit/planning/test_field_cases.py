"""Placements that went wrong on hosts in the field, each with its right value."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import cpus as check_cpus
from libvirt_tuner.hostcheck.facts import Facts
from libvirt_tuner.planning import tuning
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.request import plan_request, read_request
from libvirt_tuner.topology import Cpus
from tests import hosts, hosts_placement, hosts_tunnels
from tests.hosts import Tree
from tests.unit.builders import cpus

CASES = Path(__file__).parents[3] / "fixtures" / "cases"
ON_BRIDGE = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>"


def planned(root: Path, tree: Tree, xml: bytes | str, config: str | None = None) -> Plan:
    """The plan of a document on a described host."""
    hosts.write(tree, root)
    sysfs = Sysfs(str(root))
    return plan_request(
        read_request(xml, config),
        lambda devices, partition: probe.topology(sysfs, devices, partition=partition),
    )


def case(name: str) -> bytes:
    return (CASES / f"{name}.xml").read_bytes()


def domain(vcpus: int, devices: str = ON_BRIDGE, more: str = "") -> str:
    return (
        f"<domain type='kvm'><name>vm</name><memory unit='GiB'>2</memory><vcpu>{vcpus}</vcpu>{more}"
        f"<devices>{devices}</devices></domain>"
    )


def seats(made: Plan) -> Cpus:
    return frozenset().union(*made.vcpupin.values())


class TestCoresThatDiffer:
    def test_hybrid(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.hybrid(), case("hybrid"))
        assert seats(made) == frozenset(range(0, 16, 2))
        assert (made.emulatorpin or cpus()) & frozenset(range(16, 32))

    @pytest.mark.parametrize("vcpus", [6, 12, 16])
    def test_hybrid_fast_ones_alone(self, tmp_path: Path, vcpus: int) -> None:
        made = planned(tmp_path, hosts_placement.hybrid(), domain(vcpus))
        assert seats(made) <= frozenset(range(16))
        assert len({cpu // 2 for cpu in seats(made)}) >= min(vcpus, 6)

    def test_arm(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.big_little(), domain(3))
        assert seats(made) <= cpus(4, 5, 6, 7)

    def test_firmware(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.firmware_says(), domain(6))
        assert seats(made) <= frozenset(range(1, 8))


class TestIsolationOfOneSibling:
    def test_four_of_those_isolated(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.half_isolated(), case("half-isolated"))
        assert seats(made) <= frozenset(range(2, 8))
        assert len(seats(made)) == 4

    def test_a_warning_names_their_siblings(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.half_isolated(), case("half-isolated"))
        said = " ".join(f"{reason.decision} {reason.why}" for reason in made.reasons)
        assert "10-15" in said

    def test_host_check_warns_too(self, tmp_path: Path) -> None:
        hosts.write(hosts_placement.half_isolated(), tmp_path)
        here = probe.topology(Sysfs(str(tmp_path)), ())
        found = check_cpus.partial_isolation(Facts(here))
        assert any("10-15" in finding.what for finding in found)


class TestDevicesThatDecideTheNode:
    def test_hostdev(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.passed_through(), case("hostdev-nic"))
        assert (made.nodes, seats(made), made.emulatorpin) == ((1,), frozenset(range(19, 27)), cpus(18, 50))
        assert made.numatune is not None
        assert made.numatune.nodes == cpus(1)

    def test_hostdev_before_a_bridge(self, tmp_path: Path) -> None:
        hostdev = case("hostdev-nic").decode()
        both = hostdev.replace("<hostdev", f"{ON_BRIDGE}<hostdev")
        made = planned(tmp_path, hosts_placement.passed_through(), both)
        assert made.nodes == (1,)

    def test_tunnel_whose_address_is_on_lo(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_tunnels.evpn(), case("evpn"))
        assert [(choice.size, choice.how) for choice in made.mtus] == [(1450, "mtu")]
        assert made.nodes == (1,)

    @pytest.mark.parametrize("uplink", ["bond0", "geneve0", "enp23s0f1np1"])
    def test_the_policy_s_uplink_forgets_no_tunnel(self, tmp_path: Path, uplink: str) -> None:
        seed = (CASES.parent / "domains" / "seed-in.xml").read_bytes()
        made = planned(
            tmp_path, hosts.read(hosts.FIXTURES / "seed"), seed, f"[policy]\nuplink = '{uplink}'\n"
        )
        assert made.mtus[0].size == 1416

    def test_socket_of_open_vswitch(self, tmp_path: Path) -> None:
        tree = hosts_tunnels.ovs_dpdk() | hosts_placement.poll_mode()
        made = planned(tmp_path, tree, case("ovs-dpdk"))
        assert made.nodes == (1,)
        assert not (seats(made) | (made.emulatorpin or cpus())) & cpus(1, 7, 13, 19)

    def test_the_policy_before_all(self, tmp_path: Path) -> None:
        config = "[policy]\nuplink = 'eno1'\n"
        made = planned(tmp_path, hosts_placement.passed_through(), case("hostdev-nic"), config)
        assert made.nodes == (0,)

    @pytest.mark.parametrize(
        ("first", "second", "node"),
        [
            pytest.param(1000, 25000, 1, id="the faster link"),
            pytest.param(25000, 25000, 0, id="the first of equals"),
            pytest.param(0, 1000, 1, id="one that is down is no fast one"),
        ],
    )
    def test_two_vnics(self, tmp_path: Path, first: int, second: int, node: int) -> None:
        tree = hosts_placement.passed_through()
        tree["/sys/devices/pci0000:01/0000:01:00.0/net/eno1/speed"] = str(first or -1)
        tree["/sys/devices/pci0000:81/0000:81:00.0/net/ens8f0/speed"] = str(second)
        direct = "<interface type='direct'><source dev='ens8f0'/><model type='virtio'/></interface>"
        made = planned(tmp_path, tree, domain(2, ON_BRIDGE + direct))
        assert made.nodes == (node,)


class TestCgroups:
    @pytest.mark.parametrize(
        ("version", "group", "more"),
        [
            pytest.param(2, "/machine.slice", "", id="v2"),
            pytest.param(1, "/machine.slice", "", id="v1, systemd"),
            pytest.param(1, "/machine", "", id="v1 without systemd"),
            pytest.param(
                2,
                "/machine.slice/machine-web.slice",
                "<resource><partition>/machine/web</partition></resource>",
                id="a partition",
            ),
            pytest.param(
                1,
                "/machine/web.partition",
                "<resource><partition>/machine/web</partition></resource>",
                id="a partition, v1 without systemd",
            ),
        ],
    )
    def test_no_pin_outside(self, tmp_path: Path, version: int, group: str, more: str) -> None:
        made = planned(tmp_path, hosts_placement.machine_slice(version, group), domain(8, more=more))
        assert seats(made) == frozenset(range(8, 16))
        assert (made.emulatorpin or cpus()) <= frozenset(range(24, 32))

    def test_the_case(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.machine_slice(), case("machine-slice"))
        assert seats(made) == frozenset(range(8, 16))

    def test_another_partition_is_not_bound(self, tmp_path: Path) -> None:
        more = "<resource><partition>/production</partition></resource>"
        made = planned(tmp_path, hosts_placement.machine_slice(), domain(8, more=more))
        assert seats(made) == frozenset(range(3, 11))


class TestPollModeDrivers:
    def test_no_thread_of_a_domain_where_they_poll(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.poll_mode(), case("ovs-dpdk"))
        assert made.placement == "dedicated"
        assert not (seats(made) | (made.emulatorpin or cpus())) & cpus(1, 7, 13, 19)

    def test_by_the_switchs_database(self) -> None:
        sysfs = Sysfs(str(hosts.FIXTURES / "ovs-dpdk"))
        made = plan_request(
            read_request(case("ovs-dpdk"), None),
            lambda devices, partition: probe.topology(sysfs, devices, partition=partition),
        )
        assert (made.placement, made.nodes) == ("dedicated", (1,))
        assert not (seats(made) | (made.emulatorpin or cpus())) & cpus(1, 7, 13, 19)

    def test_by_affinity(self, tmp_path: Path) -> None:
        tree = hosts_placement.poll_mode() | {
            "/run/openvswitch/ovs-vswitchd.pid": "2001",
            "/proc/2001/task/2010/status": "Name:\tpmd-c01/id:8\nCpus_allowed_list:\t2",
        }
        made = planned(tmp_path, tree, domain(6, ""))
        assert not seats(made) & cpus(2, 14, 7, 19)


class TestCaches:
    def test_a_domain_that_fits_in_one_stays_in_one(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.caches(), domain(6))
        used = {cpu // 8 for cpu in seats(made) | (made.emulatorpin or cpus())}
        assert len(used) == 1


class TestLargerThanANode:
    def test_whole_cores_of_the_nearest_nodes(self, tmp_path: Path) -> None:
        made = planned(tmp_path, hosts_placement.small_nodes(), domain(6))
        assert made.placement == "dedicated"
        assert seats(made) == frozenset({1, 2, 3, 5, 6, 7})
        assert made.nodes == (1, 0)
        (why,) = [reason.why for reason in made.reasons if reason.subject == "memory"]
        assert (made.numatune, why) == (None, "the vCPUs use nodes 0-1: each allocates memory near its CPU")


class TestArrival:
    @pytest.mark.parametrize("host", ["small-8", "laptop"])
    @pytest.mark.parametrize(
        "config",
        [
            pytest.param(None, id="no policy"),
            pytest.param("[policy]\nplacement = 'keep'\n", id="placement keep"),
            pytest.param("[policy]\nnuma_memory = 'keep'\n", id="memory keep"),
            pytest.param("[policy]\nselect = false\n", id="not selected"),
        ],
    )
    def test_what_another_host_had_is_taken_out(self, host: str, config: str | None) -> None:
        request = read_request(case("restore-elsewhere"), config)
        sysfs = Sysfs(str(hosts.FIXTURES / host))
        made = plan_request(request, lambda devices, _: probe.topology(sysfs, devices))
        out = tuning.filter_arrival(request, made)
        assert out is not None
        spec = read_spec(document.parse(out))
        assert (spec.vcpupin, spec.emulatorpin, spec.numatune.nodeset) == ({}, cpus(), None)
        assert spec.vnics[0].rx_queue_size == 1024, "the guest sees it"
