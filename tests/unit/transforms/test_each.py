"""Each transform's own rules: what it refuses, what it leaves alone, what it takes out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libvirt_tuner import compose, transforms
from libvirt_tuner.errors import ArgumentError, MissingDeviceError
from libvirt_tuner.transforms import (
    Transform,
    emulatorpin,
    host_mtu,
    iothreadpin,
    mtu,
    numatune,
    poll_us,
    queues,
    rx_queue_size,
    tx_queue_size,
    vcpupin,
)

DOMAINS = Path(__file__).parents[3] / "fixtures" / "domains"


def document(case: str) -> bytes:
    return (DOMAINS / f"{case}-in.xml").read_bytes()


@pytest.mark.parametrize(
    ("make", "where"),
    [
        pytest.param(lambda: vcpupin({0: set()}), "vcpupin of vCPU 0", id="no CPU"),
        pytest.param(lambda: emulatorpin({99999}), "emulatorpin", id="CPU too large"),
        pytest.param(lambda: numatune({0}, mode="odd"), "numatune", id="mode"),
        pytest.param(
            lambda: numatune({0}, memnodes={0: ({0}, "restrictive")}), "numatune", id="restrictive and strict"
        ),
        pytest.param(lambda: rx_queue_size(1000), "rx_queue_size", id="no power of two"),
        pytest.param(lambda: rx_queue_size(2048), "rx_queue_size", id="ring too long"),
        pytest.param(lambda: mtu(67), "mtu", id="MTU too small"),
        pytest.param(lambda: host_mtu(1400, libvirt=(8, 1, 0)), "host_mtu", id="no qemu:override"),
        pytest.param(lambda: poll_us(0), "poll_us", id="no polling"),
        pytest.param(lambda: poll_us(200, qemu=(2, 6, 0)), "poll_us", id="QEMU without poll-us"),
    ],
)
def test_arguments_are_checked_at_once(make: Callable[[], Transform], where: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("transform", "case", "where"),
    [
        pytest.param(vcpupin({4: {1}}), "bridge", "/domain/vcpu", id="no such vCPU"),
        pytest.param(iothreadpin({1: {1}}), "bridge", "/domain/iothreads", id="no iothreads"),
        pytest.param(
            numatune({0}, memnodes={0: ({0}, "strict")}), "bridge", "/domain/cpu/numa", id="no cells"
        ),
        pytest.param(
            rx_queue_size(1024, mac="52:54:00:00:00:00"),
            "bridge",
            "/domain/devices/interface",
            id="no such MAC",
        ),
        pytest.param(
            rx_queue_size(1024, index=1), "hostdev-between", "/domain/devices/interface[2]", id="hostdev"
        ),
        pytest.param(mtu(1400, index=0), "seed", "/domain/devices/interface[1]", id="MTU on macvtap"),
        pytest.param(
            mtu(1400, index=1), "hostdev-between", "/domain/devices/interface[2]", id="MTU on hostdev"
        ),
        pytest.param(host_mtu(1400, index=2), "sixty-devices", "/domain/devices/interface[3]", id="e1000e"),
        pytest.param(poll_us(200, index=0), "hugepages", "/domain/devices/interface[1]", id="no vhost-net"),
    ],
)
def test_a_document_that_cannot_be_served_is_refused_with_the_place(
    transform: Transform, case: str, where: str
) -> None:
    with pytest.raises(MissingDeviceError) as caught:
        transform(document(case))
    assert caught.value.where == where


def test_only_pins_and_memory_may_run_on_arrival() -> None:
    arriving = [vcpupin({0: {1}}), emulatorpin({1}), iothreadpin({1: {1}}), numatune({0})]
    staying = [rx_queue_size(1024), tx_queue_size(256), queues(2), mtu(1400), host_mtu(1400), poll_us(200)]
    assert all(transform.on_arrival for transform in arriving)
    assert not any(transform.on_arrival for transform in staying)
    assert not compose(*arriving, *staying).on_arrival


def test_equal_arguments_make_equal_values() -> None:
    assert vcpupin({1: [3, 2], 0: {1}}) == vcpupin({0: {1}, 1: {2, 3}})
    assert vcpupin({0: {1}}) != vcpupin({0: {2}})
    assert hash(poll_us(200)) == hash(poll_us(200))


def test_what_means_the_same_is_not_written_again() -> None:
    spelled = emulatorpin({1})(document("bridge")).replace(b"cpuset='1'", b"cpuset='2,1,0'")
    assert emulatorpin({0, 1, 2})(spelled) == spelled


@pytest.mark.parametrize(
    ("libvirt", "qemu", "takes_json_away"),
    [
        pytest.param((9, 0, 0), (7, 2, 0), True, id="Debian 12"),
        pytest.param((11, 3, 0), (10, 0, 0), True, id="Debian 13"),
        pytest.param((9, 0, 0), (7, 1, 0), False, id="QEMU without JSON netdevs"),
        pytest.param((7, 8, 0), (7, 2, 0), False, id="libvirt without JSON netdevs"),
        pytest.param((6, 0, 0), (4, 2, 0), False, id="both old"),
    ],
)
def test_poll_us_recipe_by_version(
    libvirt: tuple[int, ...], qemu: tuple[int, ...], takes_json_away: bool
) -> None:
    tuned = poll_us(200, libvirt=libvirt, qemu=qemu)(document("bridge"))
    assert b"value='netdev.hostnet0.poll-us=200'" in tuned
    assert (b"capability='netdev.json'" in tuned) is takes_json_away


def test_poll_us_leaves_json_off_for_another_set() -> None:
    tuned = poll_us(200)(document("bridge")).replace(
        b"</qemu:commandline>",
        b"<qemu:arg value='-set'/><qemu:arg value='netdev.hostnet0.sndbuf=0'/></qemu:commandline>",
    )
    left = poll_us(None)(tuned)
    assert b"poll-us" not in left
    assert b"capability='netdev.json'" in left


def test_poll_us_none_keeps_a_capability_of_the_users() -> None:
    users = document("user-commandline").replace(
        b"  <qemu:override>",
        b"  <qemu:capabilities><qemu:del capability='netdev.json'/></qemu:capabilities>\n  <qemu:override>",
    )
    assert poll_us(None)(users) == users


@pytest.mark.parametrize(
    ("transform", "case"),
    [
        pytest.param(rx_queue_size(1024), "no-nic", id="ring, no NIC"),
        pytest.param(mtu(1400), "no-nic", id="MTU, no NIC"),
        pytest.param(host_mtu(1400), "no-nic", id="host_mtu, no NIC"),
        pytest.param(poll_us(200), "no-nic", id="poll-us, no NIC"),
        pytest.param(poll_us(200), "hugepages", id="poll-us, no vhost"),
        pytest.param(rx_queue_size(None, mac=[]), "bridge", id="no MAC chosen"),
        pytest.param(rx_queue_size(512, nics=[]), "bridge", id="no NIC chosen"),
        pytest.param(mtu(1400, index=()), "bridge", id="no position chosen"),
        pytest.param(poll_us(200, nics=lambda vnic: vnic.source == "none"), "bridge", id="predicate of none"),
    ],
)
def test_nothing_is_done_where_nothing_can_have_it_or_none_is_chosen(transform: Transform, case: str) -> None:
    assert transform(document(case)) == document(case)


@pytest.mark.parametrize(
    "selection",
    [
        pytest.param({"mac": ""}, id="empty MAC"),
        pytest.param({"alias": ""}, id="empty alias"),
        pytest.param({"alias": ["net0", ""]}, id="one empty alias"),
        pytest.param({"index": -1}, id="negative"),
        pytest.param({"index": "0"}, id="position as text"),
        pytest.param({"nics": 1.5}, id="neither name nor position"),
    ],
)
def test_a_selection_that_says_nothing_is_refused(selection: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        rx_queue_size(1024, **selection)


def test_nics_are_chosen_by_mac_alias_position_or_predicate() -> None:
    xml = document("hostdev-between")
    wanted = rx_queue_size(512, index=2)(xml)
    several: list[Any] = [2, "ua-backup"]
    for nics in ("ua-backup", "52:54:00:11:22:03", 2, several, lambda vnic: vnic.index == 2):
        assert rx_queue_size(512, nics=nics)(xml) == wanted


@pytest.mark.parametrize("name", transforms.ORDER)
def test_none_changes_nothing_where_there_is_nothing(name: str) -> None:
    assert getattr(transforms, name)(None)(document("no-nic")) == document("no-nic")


def test_one_nic_by_alias_mac_or_position() -> None:
    xml = document("hostdev-between")
    by_alias = rx_queue_size(512, alias="ua-backup")(xml)
    assert by_alias == rx_queue_size(512, mac="52:54:00:11:22:03")(xml) == rx_queue_size(512, index=2)(xml)
    assert by_alias.count(b"rx_queue_size") == 1


def test_describe_names_every_setting() -> None:
    chain = compose(vcpupin({0: {20}}), compose(numatune({0}), poll_us(None)))
    assert chain.describe().splitlines() == [
        "vcpupin: 0 to 20",
        "numatune: strict 0",
        "remove poll-us from every interface",
    ]


def test_import_needs_neither_libvirt_nor_a_terminal() -> None:
    code = (
        "import libvirt_tuner.transforms, sys; print({'libvirt','psutil','click','rich'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
