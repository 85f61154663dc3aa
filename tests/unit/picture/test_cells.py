"""What is folded, and what is not."""

from __future__ import annotations

from attrs import evolve

from libvirt_tuner.picture.cells import folds, nodes
from libvirt_tuner.picture.host import Picture, Tenant, arrange
from libvirt_tuner.topology import HostTopology
from tests.unit.picture import scenes


def ids(*pictures: Picture, fold: bool = True) -> list[list[list[str]]]:
    """CPUs of the cells, by L3, by node."""
    found = nodes(pictures, fold=fold)
    return [[[cell.ids for cell in cache.cells] for cache in node.caches] for node in found]


def pinned(host: HostTopology, *places: int, name: str = "web") -> Picture:
    tenants = [Tenant("vcpu", number, name, frozenset({cpu})) for number, cpu in enumerate(places)]
    return arrange(host, tenants)


def test_nothing_is_folded_unless_asked() -> None:
    assert ids(pinned(scenes.host(4)), fold=False) == [[["0", "1", "2", "3"]]]


def test_neighbours_that_look_the_same_are_one() -> None:
    assert ids(pinned(scenes.host(8), 2, 3, 4)) == [[["0-1", "2-4", "5-7"]]]


def test_vms_are_told_apart() -> None:
    host = scenes.host(6)
    tenants = [Tenant("vcpu", cpu % 2, "ab"[cpu // 2], frozenset({cpu})) for cpu in range(4)]
    (node,) = nodes([arrange(host, tenants)], fold=True)
    assert [(cell.ids, cell.says(0)) for cell in node.caches[0].cells] == [
        ("0-1", "vCPU 0-1 a"),
        ("2-3", "vCPU 0-1 b"),
        ("4-5", "free"),
    ]


def test_siblings_stand_together() -> None:
    (node,) = nodes([pinned(scenes.host(8, threads=2), 0, 4, 1)], fold=True)
    assert [(cell.ids, cell.says(0)) for cell in node.caches[0].cells] == [
        ("0+4", "vCPU 0 web | vCPU 1 web"),
        ("1+5", "vCPU 2 web | free"),
        ("2-3+6-7", "free"),
    ]


def test_nodes_are_never_folded_and_alike_l3s_are() -> None:
    host = scenes.host(16, nodes=2, l3=2)
    picture = pinned(host, 0)
    assert ids(picture) == [[["0", "1"], ["2-7"]], [["8-15"]]]
    caches = [cache.says for node in nodes([picture], fold=True) for cache in node.caches]
    assert caches == ["L3 from CPU 0", "3 L3s, from CPUs 2,4,6", "4 L3s, from CPUs 8,10,12,14"]


def test_cores_with_an_offline_sibling_stand_apart() -> None:
    host = scenes.host(8, threads=2)
    cores = tuple(core._replace(cpus=core.cpus[:1]) if core.cpus[0] == 1 else core for core in host.cores)
    assert ids(arrange(evolve(host, cores=cores), [])) == [[["0+4", "1", "2-3+6-7"]]]


def test_of_two_pictures_what_is_alike_in_both_is_one() -> None:
    host = scenes.host(8)
    now, planned = pinned(host, 0, 1, 2, 3), pinned(host, 2, 3)
    assert ids(now, planned) == [[["0-1", "2-3", "4-7"]]]
    (node,) = nodes([now, planned], fold=True)
    assert [cell.changed for cell in node.caches[0].cells] == [True, True, False]
    assert node.caches[0].cells[1].says(1) == "vCPU 0-1 web"


def test_large_hosts_fold_by_themselves() -> None:
    assert not folds(pinned(scenes.host(64)))
    assert folds(pinned(scenes.host(65)))
