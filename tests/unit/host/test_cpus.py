"""CPUs, cores and NUMA nodes, on hosts described in tests/hosts.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.host import cpus, probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import NO_CPUS, HugePages
from tests import hosts
from tests.unit.trees import put

NODES = "sys/devices/system/node"
CPUS = "sys/devices/system/cpu"


def host(name: str) -> Sysfs:
    return Sysfs(str(hosts.FIXTURES / name))


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
    put(tmp_path, "sys/fs/cgroup/cpuset.cpus.isolated", "1")
    assert cpus.isolated(Sysfs(str(tmp_path))) == {1}


@pytest.mark.parametrize(
    ("speeds", "fast"),
    [
        pytest.param([1024] * 4, {0, 1, 2, 3}, id="alike"),
        pytest.param([446, 446, 1024, 1024], {2, 3}, id="slow ones first"),
        pytest.param([1024, 446, 446, 1024], {0, 3}, id="the first and the last alike"),
        pytest.param([446, 871, 871, 1024], {1, 2, 3}, id="preferred ones"),
    ],
)
def test_cores_that_differ(tmp_path: Path, speeds: list[int], fast: set[int]) -> None:
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")})), tmp_path)
    for cpu, speed in enumerate(speeds):
        put(tmp_path, f"{CPUS}/cpu{cpu}/cpu_capacity", str(speed))
    cores = cpus.cpus_and_cells(Sysfs(str(tmp_path)))[1]
    most = max(core.capacity for core in cores)
    assert {core.cpus[0] for core in cores if core.capacity == most} == fast
