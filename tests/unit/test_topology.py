"""Values of a host."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.topology import Core, HostTopology, NumaCell, is_pci_address

HOST = HostTopology(
    cells=(NumaCell(0, frozenset({0, 1, 4})), NumaCell(8, frozenset({2, 6}))),
    cores=(Core((0, 4), 0), Core((1,), 0), Core((2, 6), 8)),
)


def test_online_is_every_thread_of_every_core() -> None:
    assert HOST.online == {0, 1, 2, 4, 6}


@pytest.mark.parametrize(
    ("node", "cpus"),
    [
        pytest.param(1, None, id="no-such-node"),
        pytest.param(0, {0, 1, 4}, id="first"),
        pytest.param(8, {2, 6}, id="by-id-and-not-by-place"),
    ],
)
def test_cell(node: int, cpus: set[int] | None) -> None:
    cell = HOST.cell(node)
    assert (cell.cpus if cell else None) == cpus


@pytest.mark.parametrize(
    ("cpus", "siblings"),
    [
        pytest.param(set(), set(), id="none"),
        pytest.param({1}, {1}, id="alone-on-its-core"),
        pytest.param({4}, {0, 4}, id="second-thread"),
        pytest.param({0, 2}, {0, 2, 4, 6}, id="two-cores"),
        pytest.param({99}, set(), id="offline"),
    ],
)
def test_siblings(cpus: set[int], siblings: set[int]) -> None:
    assert HOST.siblings(frozenset(cpus)) == siblings


def test_values_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        HOST.cells = ()  # type: ignore[misc]


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
