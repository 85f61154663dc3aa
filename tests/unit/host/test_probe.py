"""What is read of a host, on hosts described in tests/hosts.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.errors import CpusetError, DeniedError, HostError, MissingError, RejectedError
from libvirt_tuner.host import commands, cpus, probe
from libvirt_tuner.host import nics as nics_
from libvirt_tuner.host.nics import function_node, irqs, is_hardware
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import NO_CPUS, HugePages, is_pci_address
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


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_names_that_are_no_names(name: str) -> None:
    for use in (nics_.nic, is_hardware, irqs, function_node):
        with pytest.raises(RejectedError):
            use(host("laptop"), name)


def test_a_driver_link_that_leads_out_is_only_a_name_and_a_device_link_is_refused(tmp_path: Path) -> None:
    hosts.make("small-8", tmp_path / "host")
    device = tmp_path / "host/sys/devices/pci0000:10/0000:10:00.0/net/ens1np0/device"
    device.unlink()
    device.symlink_to("/etc")
    with pytest.raises(DeniedError):
        nics_.nic(Sysfs(str(tmp_path / "host")), "ens1np0")


# CPUs, cores, cells


@pytest.mark.parametrize(
    ("name", "cells", "cores", "first"),
    [
        pytest.param("small-8", {0: 4, 1: 4}, 8, (0,), id="no-smt"),
        pytest.param("laptop", {0: 8}, 4, (0, 4), id="one-node-smt"),
        pytest.param("seed", {0: 16, 1: 16}, 32, (0,), id="interleaved"),
        pytest.param("smt-2x32", {0: 64, 1: 64}, 64, (0, 64), id="smt"),
        pytest.param("sparse-4node", {0: 7, 2: 7, 5: 8, 8: 0}, 12, (0, 1), id="sparse"),
    ],
)
def test_cells_and_cores(name: str, cells: dict[int, int], cores: int, first: tuple[int, ...]) -> None:
    found, found_cores = cpus.cpus_and_cells(host(name))
    assert {cell.id: len(cell.cpus) for cell in found} == cells
    assert len(found_cores) == cores
    assert found_cores[0].cpus == first
    assert [core.cpus for core in found_cores] == sorted(core.cpus for core in found_cores)
    assert all(
        set(core.cpus) <= next(cell.cpus for cell in found if cell.id == core.node) for core in found_cores
    )


def test_offline_cpus_are_on_no_core() -> None:
    topology = probe.topology(host("sparse-4node"), [])
    assert not topology.online & {7, 12}
    assert (6,) in [core.cpus for core in topology.cores]
    assert (13,) in [core.cpus for core in topology.cores]


def test_distances_and_memory_go_by_node_id() -> None:
    cells = {cell.id: cell for cell in cpus.cells(host("sparse-4node"))}
    assert cells[5].distances == {0: 40, 2: 40, 5: 10, 8: 40}
    assert (cells[5].memory_kib, cells[5].free_kib, cells[5].hugepages) == (0, 0, ())
    assert cells[8].cpus == NO_CPUS
    assert cells[8].memory_kib == 262144 * 1024


def test_hugepages() -> None:
    cells = cpus.cells(host("smt-2x32"))
    assert cells[1].hugepages == (HugePages(2048, 8192, 6144), HugePages(1048576, 32, 16))
    assert cpus.cells(host("seed"))[0].hugepages == (HugePages(2048, 0, 0), HugePages(1048576, 0, 0))


def test_the_page_cache_is_free_and_shared_memory_is_not(tmp_path: Path) -> None:
    hosts.make("small-8", tmp_path)
    lines = {"MemTotal": 1000, "MemFree": 100, "FilePages": 500, "Shmem": 200, "Active(file)": 7}
    text = "\n".join(f"Node 0 {key}: {value} kB" for key, value in lines.items())
    put(tmp_path, f"{NODES}/node0/meminfo", text)
    assert cpus.cells(Sysfs(str(tmp_path)))[0].free_kib == 400


def test_a_kernel_without_numa_is_one_cell(tmp_path: Path) -> None:
    put(tmp_path, f"{CPUS}/online", "0-3")
    put(tmp_path, f"{CPUS}/smt/active", "0")
    put(
        tmp_path,
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 300 kB\nShmem: 20 kB",
    )
    put(tmp_path, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "10")
    put(tmp_path, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4")
    cells, cores = cpus.cpus_and_cells(Sysfs(str(tmp_path)))
    assert len(cells) == 1
    assert (cells[0].id, cells[0].cpus, cells[0].distances) == (0, frozenset(range(4)), {0: 10})
    assert (cells[0].memory_kib, cells[0].free_kib) == (1000, 430)
    assert cells[0].hugepages == (HugePages(2048, 10, 4),)
    assert [core.cpus for core in cores] == [(0,), (1,), (2,), (3,)]


def test_without_smt_active_siblings_are_looked_for(tmp_path: Path) -> None:
    hosts.make("laptop", tmp_path)
    (tmp_path / f"{CPUS}/smt/active").unlink()
    assert len(cpus.cpus_and_cells(Sysfs(str(tmp_path)))[1]) == 4


def test_isolated_and_nohz_full(tmp_path: Path) -> None:
    assert cpus.isolated(host("seed")) == frozenset(range(16, 32, 2))
    assert cpus.nohz_full(host("seed")) == NO_CPUS
    put(tmp_path, f"{CPUS}/nohz_full", "2-3")
    assert cpus.nohz_full(Sysfs(str(tmp_path))) == {2, 3}
    assert cpus.isolated(Sysfs(str(tmp_path))) == NO_CPUS


# Network devices


@pytest.mark.parametrize(
    ("name", "pci"),
    [
        pytest.param("0000:17:00.0", True, id="usual"),
        pytest.param("10000:01:00.1", True, id="long-domain"),
        pytest.param("0000:17:00", False, id="no-function"),
        pytest.param("pci0000:17", False, id="bus"),
        pytest.param("virtio2", False, id="virtio"),
        pytest.param("2-1:1.0", False, id="usb"),
        pytest.param("000g:17:00.0", False, id="not-hex"),
        pytest.param("", False, id="empty"),
    ],
)
def test_is_pci_address(name: str, pci: bool) -> None:
    assert is_pci_address(name) is pci


@given(st.text(max_size=14))
def test_is_pci_address_takes_anything(name: str) -> None:
    assert is_pci_address(name) in (True, False)


def test_the_ports_of_the_seed() -> None:
    nics = nics_.nics(host("seed"))
    assert list(nics) == ["enp23s0f0np0", "enp23s0f1np1"]
    active = nics["enp23s0f0np0"]
    assert (active.address, active.node, active.driver) == ("0000:17:00.0", 0, "mlx5_core")
    assert [irq.number for irq in active.irqs] == list(range(213, 230))
    by_number = {irq.number: irq for irq in active.irqs}
    assert by_number[213].action == "mlx5_async0@pci:0000:17:00.0"
    assert by_number[229].action == "mlx5_comp15@pci:0000:17:00.0"
    assert by_number[229].effective == {1}
    assert by_number[221].effective == {14}
    assert by_number[229].affinity == frozenset(range(32))


def test_usb_has_no_address_and_no_interrupts() -> None:
    nic = nics_.nic(host("laptop"), "enp0s20f0u1")
    assert (nic.address, nic.node, nic.driver, nic.irqs) == ("", None, "r8152", ())


def test_the_pci_function_of_virtio_is_its_parent(tmp_path: Path) -> None:
    irq = hosts.IrqLine(37, "virtio2-input.0", "0-3", "1")
    port = hosts.Port("eth0", "0000:00:03.0", "virtio_net", 1, (irq,), bus="virtio", below="virtio2")
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(port,))), tmp_path)
    nic = nics_.nic(Sysfs(str(tmp_path)), "eth0")
    assert (nic.address, nic.node, nic.driver) == ("0000:00:03.0", 1, "virtio_net")
    assert [(irq.number, irq.action, sorted(irq.effective)) for irq in nic.irqs] == [
        (37, "virtio2-input.0", [1])
    ]


def test_virtual_and_missing_devices_are_no_nics() -> None:
    assert nics_.nics(host("laptop"), ["virbr0", "nothing", "network:default", "/dev/vhost-vdpa-0"]) == {}
    assert not is_hardware(host("laptop"), "virbr0")
    with pytest.raises(MissingError):
        nics_.nic(host("laptop"), "virbr0")


def test_a_function_without_network_device() -> None:
    nics = nics_.nics(host("seed"), ["0000:17:00.1", "0000:ff:00.0"])
    assert list(nics) == ["0000:17:00.1"]
    assert (nics["0000:17:00.1"].node, len(nics["0000:17:00.1"].irqs)) == (0, 17)


def test_sr_iov(tmp_path: Path) -> None:
    pf = hosts.Port("ens1", "0000:17:00.0", "ice", 1)
    vf = hosts.Port("ens1v0", "0000:17:01.0", "iavf", 1, physfn="0000:17:00.0")
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(pf, vf))), tmp_path)
    sysfs = Sysfs(str(tmp_path))
    assert function_node(sysfs, "0000:17:01.0") == 1
    with pytest.raises(MissingError):
        function_node(sysfs, "0000:99:00.0")


def test_a_legacy_interrupt_and_an_action_from_procfs(tmp_path: Path) -> None:
    port = hosts.Port("ens1", "0000:17:00.0", "8139cp", 0)
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(port,))), tmp_path)
    put(tmp_path, "sys/bus/pci/devices/0000:17:00.0/irq", "11")
    assert nics_.nic(Sysfs(str(tmp_path)), "ens1").irqs == ()
    put(tmp_path, "proc/irq/11/smp_affinity_list", "0-3")
    (tmp_path / "proc/irq/11/ens1").mkdir()
    (irq,) = nics_.nic(Sysfs(str(tmp_path)), "ens1").irqs
    assert (irq.number, irq.action, irq.effective) == (11, "ens1", NO_CPUS)
    assert irq.affinity == {0, 1, 2, 3}


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
