"""Planning for other programs: on captured hosts, domain after domain, without libvirt."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import libvirt_tuner
from libvirt_tuner import (
    ArgumentError,
    Held,
    Placement,
    Plan,
    Policy,
    TunerError,
    plan,
    read_host,
    revert,
    tune,
)
from libvirt_tuner.transforms import nic_setting, vcpupin

ROOT = Path(__file__).parents[2]
SEED = (ROOT / "fixtures/domains/seed-in.xml").read_bytes()
HUGE = (ROOT / "fixtures/domains/hugepages-in.xml").read_text()
GIB = 1024 * 1024


def host(name: str) -> libvirt_tuner.HostTopology:
    return read_host(str(ROOT / "fixtures/hosts" / name))


@pytest.mark.parametrize("xml", [SEED, SEED.decode()], ids=["bytes", "str"])
def test_a_document_is_planned_tuned_and_reverted(xml: Any) -> None:
    made = plan(host("seed"), xml)
    assert made.vcpupin[0] == {20}
    tuned = tune(xml, made)
    assert type(tuned) is type(xml)
    assert tune(tuned, made) is tuned
    assert revert(tuned) == xml
    assert revert(xml) is xml


@pytest.mark.parametrize(
    ("name", "case"), [("hostdev", "hostdev-nic"), ("ovs-dpdk", "ovs-dpdk"), ("evpn", "evpn")]
)
def test_all_that_a_domain_names_is_read(name: str, case: str) -> None:
    made = plan(host(name), (ROOT / f"fixtures/cases/{case}.xml").read_text())
    assert made.nodes == (1,)


def test_memory_that_others_are_bound_to_counts() -> None:
    here, held, modes = host("smt-2x32"), list[Placement](), []
    for _ in range(12):
        made = plan(here, HUGE, others=held)
        modes.append((made.nodes, made.numatune.mode if made.numatune else None))
        held.append(made)
    pages = {cell.id: cell.hugepages[1].free * GIB for cell in here.cells}
    strict = [made for made in held if made.numatune and made.numatune.mode == "strict"]
    bound = sum((made.holds for made in strict), Held()).memory
    assert all(kib <= pages[node] for (node, _), kib in bound.items())
    assert {mode for _, mode in modes} == {"strict", "preferred"}


def test_ordinary_memory_that_others_are_bound_to_is_not_free_any_more() -> None:
    here, held = host("seed"), list[Plan]()
    small = re.sub(rb"<vcpu.*?</vcpu>", b"<vcpu>1</vcpu>", SEED)
    small = re.sub(rb"<memory .*?</memory>", b"<memory unit='GiB'>8</memory>", small)
    for _ in range(20):
        held.append(plan(here, small, others=held))
    short = [any(why.subject == "memory" and "MiB free" in why.why for why in made.reasons) for made in held]
    bound = sum(
        (made.holds for made, is_short in zip(held, short, strict=True) if not is_short), Held()
    ).memory
    assert short == sorted(short)
    assert all(kib <= here.cells[node].free_kib for (node, _), kib in bound.items())
    assert sum(bound.values()) >= 10 * 8 * GIB


def test_cpus_of_others_are_left_to_them() -> None:
    first = plan(host("seed"), SEED)
    second = plan(host("seed"), SEED, others=[first])
    third = plan(host("seed"), SEED, others=[first, second])
    assert not first.holds.vcpus & second.holds.vcpus
    assert not third.holds.vcpus & (first.holds.vcpus | second.holds.vcpus)


def test_policy_is_given_as_a_value_or_as_a_files_text() -> None:
    kept = plan(host("seed"), SEED, policy=Policy(placement="keep"))
    assert kept.vcpupin == plan(host("seed"), SEED, config='[policy]\nplacement = "keep"\n').vcpupin == {}
    with pytest.raises(ArgumentError):
        plan(host("seed"), SEED, policy=Policy(), config="")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"placement": "exclusive"}, id="word"),
        pytest.param({"rx_queue_size": 17}, id="number"),
        pytest.param({"poll_us": -1}, id="below"),
        pytest.param({"emulator_cpus": frozenset({99999})}, id="CPU"),
        pytest.param({"housekeeping": "0-3"}, id="text for a set"),
        pytest.param({"uplink": "a/b"}, id="device"),
    ],
)
def test_a_policys_values_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(TunerError) as caught:
        Policy(**values)  # type: ignore[arg-type]
    assert caught.value.where == f"Policy({next(iter(values))}=)"
    assert caught.value.expected


def test_a_policys_words_for_nothing_are_none() -> None:
    assert Policy(poll_us=0) == Policy()
    assert Policy(rx_queue_size="keep").rx_queue_size is None  # type: ignore[arg-type]


def test_transforms_of_ones_own_are_recorded_and_reverted() -> None:
    own = nic_setting("iommu", "driver", "iommu", "on")
    tuned = libvirt_tuner.recorded(SEED, vcpupin({0: {3}}), own)
    assert b"iommu='on'" in tuned
    assert revert(tuned, others=[own]) == SEED


def test_reasons_and_what_is_held_can_be_printed() -> None:
    made = plan(host("seed"), SEED)
    assert str(made.reasons[0]) in repr(made.reasons)
    assert "vCPUs [20, 22, 24, 26, 28, 30]" in repr(made.holds)


def test_a_plan_pickles() -> None:
    made = plan(host("seed"), SEED)
    assert pickle.loads(pickle.dumps(made)) == made


def test_what_libvirt_ignores_is_said() -> None:
    from libvirt_tuner.planning.request import read_request

    surplus = HUGE.replace("<cputune>", "").replace(
        "  <devices>", "  <cputune><vcpupin vcpu='99' cpuset='1'/></cputune>\n  <devices>", 1
    )
    assert "vcpupin of vcpu 99" in str(read_request(surplus, None).problems)


def test_every_public_name_is_there_and_no_other() -> None:
    for name in libvirt_tuner.__all__:
        assert getattr(libvirt_tuner, name) is not None
    with pytest.raises(ImportError):
        from libvirt_tuner import nonsense  # type: ignore[attr-defined]  # noqa: F401
