"""Queue pairs: never more than vCPUs, and only where libvirt takes several."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import ArgumentError, DomainXmlError
from libvirt_tuner.transforms import queues

DOMAINS = Path(__file__).parents[3] / "fixtures" / "domains"
SEED = (DOMAINS / "seed-in.xml").read_text()
NFV = (DOMAINS / "vhostuser-in.xml").read_text()
BRIDGE = (DOMAINS / "bridge-in.xml").read_text()


@pytest.mark.parametrize(
    ("count", "written"),
    [
        pytest.param(1, "1", id="one"),
        pytest.param(4, "4", id="as many as vCPUs"),
        pytest.param(5, "4", id="more than vCPUs"),
        pytest.param(256, "4", id="as many as a tap can have"),
        pytest.param("vcpus", "4", id="one per vCPU"),
    ],
)
def test_never_more_than_the_domain_has_vcpus(count: int | str, written: str) -> None:
    assert f"<driver queues='{written}'/>" in queues(count)(BRIDGE)


def test_vcpus_are_those_at_boot() -> None:
    tuned = queues("vcpus")(NFV)
    assert "<driver queues='3' rx_queue_size='1024'/>" in tuned
    assert tuned.count("queues=") == 2


def test_a_large_domain_gets_what_a_tap_can_have() -> None:
    large = BRIDGE.replace("<vcpu placement='static'>4<", "<vcpu placement='static'>400<")
    assert "queues='256'" in queues("vcpus")(large)


def test_the_same_number_is_not_written_again() -> None:
    assert queues(4, index=0)(SEED) == SEED


@pytest.mark.parametrize("count", [0, -1, 257, "all", ""])
def test_another_count_is_refused(count: int | str) -> None:
    with pytest.raises(ArgumentError, match="bad number of queues") as caught:
        queues(count)
    assert caught.value.expected == "1 to 256 or vcpus"


@pytest.mark.parametrize("kind", ["user", "vdpa", "udp", "internal"])
def test_a_named_nic_with_one_queue_only_is_refused(kind: str) -> None:
    document = BRIDGE.replace("<interface type='bridge'>", f"<interface type='{kind}'>")
    with pytest.raises(DomainXmlError, match=f"refuses queues on an interface of type {kind}"):
        queues(2, index=0)(document)


@pytest.mark.parametrize("kind", ["bridge", "network", "direct", "ethernet", "vhostuser"])
def test_types_that_libvirt_takes_several_queues_for(kind: str) -> None:
    document = BRIDGE.replace("<interface type='bridge'>", f"<interface type='{kind}'>")
    assert "queues='2'" in queues(2, index=0)(document)


def test_a_named_nic_that_is_not_virtio_is_refused() -> None:
    with pytest.raises(DomainXmlError, match="only a virtio interface"):
        queues(2, index=2)(NFV)


def test_none_takes_it_out_and_leaves_the_driver() -> None:
    assert queues(None)(queues(2)(NFV)) == NFV
    assert queues(None)(SEED) == SEED.replace(" queues='4'", "")


def test_it_says_what_it_does() -> None:
    assert queues("vcpus").describe() == "one queue per vCPU on every interface"
    assert queues(2, index=0).describe() == "queues 2 on interface 0"
