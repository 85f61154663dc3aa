"""Where a domain's devices lead: what to read for them, which of them matters most."""

from __future__ import annotations

import pytest

from libvirt_tuner.domainxml.spec import DomainSpec, Vnic
from libvirt_tuner.topology import HostTopology, Link, Nic
from libvirt_tuner.uplink import domain
from libvirt_tuner.uplink.domain import DevicePath, by_weight, device_paths
from libvirt_tuner.uplink.path import Path

ETHERNET_CLASS, GPU_CLASS = 0x020000, 0x030000
BRIDGE = Vnic(0, type="bridge", source="br0", target="vnet3", model="virtio", queues=4)
FUNCTION = "0000:81:02.0"


def host(device_class: int = ETHERNET_CLASS) -> HostTopology:
    nics = {
        "p0": Nic("p0", "0000:01:00.0", 0, "igb", (), device_class=ETHERNET_CLASS, speed=10000),
        FUNCTION: Nic(FUNCTION, FUNCTION, 1, "vfio-pci", (), device_class=device_class, speed=25000),
    }
    links = {
        "br0": Link("br0", "bridge", lower=("p0",)),
        "p0": Link("p0"),
        FUNCTION: Link(FUNCTION, "pci"),
        "network:pool": Link("network:pool", "network", lower=("p0",), attach="hostdev"),
    }
    return HostTopology((), (), nics=nics, links=links)


@pytest.mark.parametrize(
    ("spec", "uplink", "names"),
    [
        pytest.param(DomainSpec("vm"), "", (), id="no devices"),
        pytest.param(DomainSpec("vm", vnics=(BRIDGE,)), "", ("vnet3", "br0"), id="the tap, then the bridge"),
        pytest.param(
            DomainSpec("vm", vnics=(BRIDGE, BRIDGE), hostdevs=(FUNCTION,)),
            "bond0",
            ("vnet3", "br0", FUNCTION, "bond0"),
            id="each once, the policy's uplink last",
        ),
    ],
)
def test_what_is_to_be_read(spec: DomainSpec, uplink: str, names: tuple[str, ...]) -> None:
    assert domain.devices(spec, uplink) == names


def test_a_vnic_and_a_function_passed_through() -> None:
    spec = DomainSpec("vm", vnics=(BRIDGE,), hostdevs=(FUNCTION,))
    vnic, function = device_paths(spec, host())
    assert (vnic.subject, vnic.node, vnic.passed_through, vnic.queues, vnic.vnic) == (
        "vNIC 0",
        0,
        False,
        4,
        0,
    )
    assert vnic.path.steps == ("br0", "p0")
    assert (function.subject, function.node, function.vnic) == (f"hostdev {FUNCTION}", 1, None)
    assert function.passed_through
    assert (vnic.speed, function.speed) == (10000, 25000)


@pytest.mark.parametrize(
    ("device_class", "network"),
    [pytest.param(ETHERNET_CLASS, True, id="NIC"), pytest.param(GPU_CLASS, False, id="GPU")],
)
def test_a_function_carries_packets_by_its_class(device_class: int, network: bool) -> None:
    (function,) = device_paths(DomainSpec("vm", hostdevs=(FUNCTION,)), host(device_class))
    assert function.network is network


@pytest.mark.parametrize(
    ("vnic", "passed"),
    [
        pytest.param(Vnic(0, type="hostdev", source=FUNCTION), True, id="by its type"),
        pytest.param(Vnic(0, type="network", source="pool", network="pool"), True, id="by its network"),
        pytest.param(BRIDGE, False, id="a bridge"),
    ],
)
def test_an_interface_that_is_a_whole_function(vnic: Vnic, passed: bool) -> None:
    (found,) = device_paths(DomainSpec("vm", vnics=(vnic,)), host())
    assert found.passed_through is passed


def test_the_policys_uplink_ends_the_path() -> None:
    (found,) = device_paths(DomainSpec("vm", vnics=(BRIDGE,)), host(), uplink=FUNCTION)
    assert (found.path.functions, found.node, found.passed_through) == ((FUNCTION,), 1, False)


def test_a_device_that_is_not_there_has_no_node_and_says_why() -> None:
    (found,) = device_paths(DomainSpec("vm", vnics=(Vnic(0, type="bridge", source="br9"),)), host())
    assert (found.node, found.speed) == (None, 0)
    assert "br9" in found.path.problem


def test_order_of_weight() -> None:
    def device(name: str, **facts: object) -> DevicePath:
        return DevicePath(name, Path(name), node=None, **facts)  # type: ignore[arg-type]

    slow, fast = device("slow", speed=1000), device("fast", speed=100000)
    wide = device("wide", speed=1000, queues=8)
    function = device("function", passed_through=True, speed=1000)
    gpu = device("gpu", passed_through=True, network=False)
    assert by_weight([slow, wide, gpu, fast, function]) == [function, gpu, fast, wide, slow]
