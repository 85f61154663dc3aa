"""The transmit ring: long ones only where QEMU takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import ArgumentError, DomainXmlError
from libvirt_tuner.transforms import tx_queue_size

DOMAINS = Path(__file__).parents[3] / "fixtures" / "domains"
NFV = (DOMAINS / "vhostuser-in.xml").read_text()
BRIDGE = (DOMAINS / "bridge-in.xml").read_text()


def test_without_a_selector_only_vhostuser_gets_a_long_ring() -> None:
    tuned = tx_queue_size(1024)(NFV)
    assert tuned == NFV.replace(
        "<driver rx_queue_size='1024'/>", "<driver rx_queue_size='1024' tx_queue_size='1024'/>"
    )


def test_vdpa_gets_a_long_ring() -> None:
    vdpa = BRIDGE.replace("type='bridge'", "type='vdpa'").replace("bridge='br0'", "dev='/dev/vhost-vdpa-0'")
    assert "tx_queue_size='512'" in tx_queue_size(512)(vdpa)


def test_the_default_length_goes_on_a_tap() -> None:
    assert tx_queue_size(256)(NFV).count("tx_queue_size='256'") == 2


@pytest.mark.parametrize("kind", ["bridge", "network", "direct", "ethernet"])
def test_a_long_ring_on_a_named_tap_is_refused(kind: str) -> None:
    document = BRIDGE.replace("<interface type='bridge'>", f"<interface type='{kind}'>")
    with pytest.raises(DomainXmlError, match="vhostuser and vdpa") as caught:
        tx_queue_size(512, index=0)(document)
    assert (caught.value.where, caught.value.value) == ("/domain/devices/interface[1]", kind)


@pytest.mark.parametrize("size", [0, 128, 300, 2048])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(ArgumentError, match="bad ring size") as caught:
        tx_queue_size(size)
    assert caught.value.where == "tx_queue_size"


def test_a_named_nic_that_is_not_virtio_is_refused() -> None:
    with pytest.raises(DomainXmlError, match="only a virtio interface"):
        tx_queue_size(256, index=2)(NFV)


def test_none_takes_it_out_and_leaves_the_driver() -> None:
    assert tx_queue_size(None)(tx_queue_size(1024)(NFV)) == NFV
    assert tx_queue_size(None)(tx_queue_size(256)(BRIDGE)) == BRIDGE
