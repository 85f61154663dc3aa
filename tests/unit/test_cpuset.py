"""Cpulists and masks: what is read, what is refused, and that both forms come back as they went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError

CPUS = st.frozensets(st.integers(0, 1023))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        pytest.param("", set(), id="empty"),
        pytest.param("\n", set(), id="no isolated CPUs"),
        pytest.param("0", {0}, id="one"),
        pytest.param("0-3,8\n", {0, 1, 2, 3, 8}, id="kernel's newline"),
        pytest.param("0-7,^3", {0, 1, 2, 4, 5, 6, 7}, id="exclusion"),
        pytest.param("^3,0-4", {0, 1, 2, 3, 4}, id="exclusion before its range takes nothing out"),
        pytest.param("0 - 2, 5", {0, 1, 2, 5}, id="libvirt's white space"),
        pytest.param("0-15:2/8", {0, 1, 8, 9}, id="stride"),
        pytest.param("1-7:1/2", {1, 3, 5, 7}, id="stride from 1"),
        pytest.param("16383", {16383}, id="largest"),
    ],
)
def test_parse_reads(text: str, cpus: set[int]) -> None:
    assert cpuset.parse(text) == cpus


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "1-",
        "-1",
        "1,,2",
        ",",
        "3-1",
        "0-1000000000",
        "16384",
        "0:1/2",
        "0-3:0/2",
        "0-3:3/2",
        "0-3:1",
        "^1",
        "0-3,^0-1",
        "1 2",
        "٣",
        "0x3",
        "1;2",
        "9" * 5000,
        "1," * 100000,
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(CpusetError) as caught:
        cpuset.parse(text, where="/domain/vcpu/@cpuset")
    assert caught.value.where == "/domain/vcpu/@cpuset"
    assert caught.value.expected


@pytest.mark.parametrize(
    ("mask", "cpus"),
    [
        pytest.param("0", set(), id="none"),
        pytest.param("3", {0, 1}, id="short"),
        pytest.param("00000001,00000000\n", {32}, id="two words"),
        pytest.param("ff,ffffffff", set(range(40)), id="40 CPUs"),
    ],
)
def test_parse_mask_reads(mask: str, cpus: set[int]) -> None:
    assert cpuset.parse_mask(mask) == cpus


@pytest.mark.parametrize(
    "mask", ["", ",", "0x3", "g", "123456789", "1,,1", "-1", "1_1", ",".join(["0"] * 513)]
)
def test_parse_mask_refuses(mask: str) -> None:
    with pytest.raises(CpusetError):
        cpuset.parse_mask(mask)


@pytest.mark.parametrize(
    ("cpus", "width", "mask"),
    [
        pytest.param(set(), None, "0", id="none"),
        pytest.param({0, 33}, None, "2,00000001", id="no wider than needed"),
        pytest.param({0, 33}, 64, "00000002,00000001", id="64"),
        pytest.param({0}, 36, "0,00000001", id="36"),
    ],
)
def test_format_mask(cpus: set[int], width: int | None, mask: str) -> None:
    assert cpuset.format_mask(cpus, width) == mask


def test_format_mask_refuses_a_cpu_outside() -> None:
    with pytest.raises(CpusetError):
        cpuset.format_mask({64}, 64)


@given(CPUS)
def test_list_comes_back(cpus: frozenset[int]) -> None:
    assert cpuset.parse(cpuset.format(cpus)) == cpus


@given(CPUS)
def test_mask_of_1024_cpus_comes_back(cpus: frozenset[int]) -> None:
    assert cpuset.parse_mask(cpuset.format_mask(cpus, 1024)) == cpus
