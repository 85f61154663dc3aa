"""A host read as a whole, on hosts described in tests/hosts.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from libvirt_tuner.errors import CpusetError, HostError, MissingError
from libvirt_tuner.host import commands, probe
from libvirt_tuner.host.sysfs import Sysfs
from tests import hosts
from tests.unit.trees import Counting, put

NODES = "sys/devices/system/node"
CPUS = "sys/devices/system/cpu"


def host(name: str) -> Sysfs:
    return Sysfs(str(hosts.FIXTURES / name))


# Bad hosts


def test_an_empty_root_is_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        probe.topology(Sysfs(str(tmp_path)))
    assert caught.value.where == "/proc/meminfo"


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        pytest.param(f"{NODES}/online", "0-", CpusetError, id="node-ids"),
        pytest.param(f"{NODES}/node0/cpulist", "zero", CpusetError, id="cpulist"),
        pytest.param(f"{NODES}/node0/distance", "10 far", HostError, id="distance-no-number"),
        pytest.param(f"{NODES}/node0/distance", "10", HostError, id="too-few-distances"),
        pytest.param(f"{NODES}/node0/meminfo", "Node 0 MemTotal: much kB", HostError, id="memory"),
        pytest.param(f"{CPUS}/isolated", "16-oops", CpusetError, id="isolated"),
        pytest.param("proc/irq/100/smp_affinity_list", "-1", CpusetError, id="affinity"),
        pytest.param("sys/bus/pci/devices/0000:10:00.0/numa_node", "", HostError, id="numa-node"),
        pytest.param("sys/bus/pci/devices/0000:10:00.0/msi_irqs/x", "", HostError, id="irq-number"),
        pytest.param("sys/kernel/mm/hugepages/hugepages-bigkB/nr_hugepages", "0", HostError, id="page-size"),
    ],
)
def test_what_the_kernel_would_never_write(tmp_path: Path, path: str, text: str, kind: type) -> None:
    hosts.make("small-8", tmp_path)
    put(tmp_path, path, text)
    with pytest.raises(kind) as caught:
        probe.topology(Sysfs(str(tmp_path)), ["ens1np0"])
    # A file, or the directory whose name is no number.
    assert ("/" + path).rpartition("/")[0] in str(caught.value) or path in str(caught.value)


# The whole


def test_no_devices_no_links() -> None:
    topology = probe.topology(host("seed"), [])
    assert (topology.nics, topology.links, topology.routes) == ({}, {}, {})
    assert len(topology.online) == 32


def test_a_tunnel_is_followed_to_its_hardware() -> None:
    topology = probe.topology(host("seed"), ["geneve0"])
    assert sorted(topology.links) == ["bond0", "enp23s0f0np0", "enp23s0f1np1", "geneve0"]
    assert sorted(topology.nics) == ["enp23s0f0np0", "enp23s0f1np1"]
    assert topology.links["bond0"].active == "enp23s0f0np0"
    assert topology.routes["192.168.1.2"].device == "bond0"


def test_a_function_passed_through_is_a_nic_by_its_address() -> None:
    topology = probe.topology(host("seed"), ["0000:17:00.1"])
    assert topology.links["0000:17:00.1"].kind == "pci"
    assert topology.nics["0000:17:00.1"].node == 0


@pytest.mark.parametrize(
    ("device", "read"),
    [pytest.param("geneve0", True, id="a tunnel"), pytest.param("bond0", False, id="no tunnel")],
)
def test_ipsec_is_read_where_there_is_a_tunnel(device: str, read: bool) -> None:
    asked = []

    def run(sysfs: Sysfs, argv: Sequence[str]) -> str:
        asked.append(" ".join(argv))
        return commands.run(sysfs, argv)

    topology = probe.topology(host("seed"), [device], run)
    assert any("xfrm" in line for line in asked) is read
    assert bool(topology.xfrm.states) is read


def test_masks_of_queues_are_read_when_they_are_asked_for() -> None:
    assert probe.topology(host("misfit"), ["bond0"]).queues == ()
    assert probe.topology(host("misfit"), ["bond0"], queues=True).queues != ()


def test_names_the_host_does_not_have_are_left_out() -> None:
    topology = probe.topology(host("seed"), ["nothing", "../../etc", "0000:99:00.0", "/dev/vhost-vdpa-7"])
    assert (topology.nics, topology.links) == ({}, {})


def test_what_runs_programs_can_be_said() -> None:
    asked = []

    def run(sysfs: Sysfs, argv: Sequence[str]) -> str:
        asked.append(argv[-1])
        return commands.run(sysfs, argv)

    probe.topology(host("seed"), ["geneve0"], run)
    assert asked[:2] == ["geneve0", "192.168.1.2"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1,024-CPU host with 4,096 interrupts."""
    root = tmp_path_factory.mktemp("large") / "host"
    hosts.make_large(root)
    return root


def test_a_large_host_is_read_sparingly(large: Path) -> None:
    sysfs = Counting(str(large))
    topology = probe.topology(sysfs, ["br0"])
    assert (len(topology.cells), len(topology.cores), len(topology.online)) == (8, 512, 1024)
    assert list(topology.nics) == ["ens1np0"]
    assert len(os.listdir(large / "proc/irq")) == 4096
    assert "/proc/interrupts" not in sysfs.paths
    assert len(sysfs.paths) == len(set(sysfs.paths))
    assert sum("thread_siblings_list" in path for path in sysfs.paths) == 512
    irq_files = {path for path in sysfs.paths if "/irq/" in path}
    irq_files -= {"/proc/irq/default_smp_affinity"}
    assert len(irq_files) == 3 * len(topology.nics["ens1np0"].irqs) == 3 * 128
    assert len(sysfs.paths) < 512 + 384 + 64


def test_without_smt_no_file_of_a_core_is_read() -> None:
    sysfs = Counting(str(hosts.FIXTURES / "seed"))
    probe.topology(sysfs, [])
    assert not [path for path in sysfs.paths if "topology" in path]


# The running machine


def test_the_running_machine_agrees_with_the_c_library() -> None:
    topology = probe.topology(Sysfs(), [])
    assert len(topology.online) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert sum(cell.memory_kib for cell in topology.cells) > 0
