"""Every pair under fixtures/domains: what the transforms make of it, whether libvirt takes it, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from libvirt_tuner import compose
from libvirt_tuner.domainxml.document import parse, serialize
from libvirt_tuner.transforms import (
    Chain,
    Transform,
    emulatorpin,
    host_mtu,
    iothreadpin,
    mtu,
    numatune,
    poll_us,
    queues,
    record,
    rx_queue_size,
    tx_queue_size,
    vcpupin,
)

DOMAINS = Path(__file__).parents[3] / "fixtures" / "domains"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

PINS = compose(vcpupin({0: {20}, 1: {22}}), emulatorpin({16, 18}), numatune({0}))
CASES: dict[str, Transform | Chain] = {
    "seed": compose(
        vcpupin({vcpu: {20 + 2 * vcpu} for vcpu in range(6)}),
        emulatorpin({16, 18}),
        numatune({0}, mode="strict"),
        rx_queue_size(1024),
    ),
    "seed-macvtap-mtu": compose(PINS, host_mtu(1400, index=0), mtu(1500, index=1), poll_us(200, index=0)),
    "bridge": compose(PINS, rx_queue_size(1024), mtu(1416), poll_us(200)),
    "network": compose(rx_queue_size(1024), poll_us(50, libvirt=(7, 8, 0), qemu=(6, 1, 0))),
    "openvswitch": compose(PINS, rx_queue_size(512), mtu(8916)),
    "hostdev-between": compose(rx_queue_size(1024), poll_us(200), host_mtu(1300)),
    "guest-cells": numatune({0, 1}, memnodes={0: ({0}, "strict"), 1: ({1}, "preferred")}),
    "iothreads": compose(PINS, iothreadpin({1: {4}, 4: {6, 7}})),
    "hugepages": compose(PINS, rx_queue_size(1024), mtu(9000)),
    "user-pins": compose(vcpupin({0: {20}, 2: {24}, 3: {26}}), emulatorpin({16, 18})),
    "user-commandline": compose(poll_us(200), host_mtu(1400)),
    "comments": compose(vcpupin({0: {20}, 1: {22}}), emulatorpin({16}), rx_queue_size(1024)),
    "no-nic": PINS,
    "vhostuser": compose(PINS, tx_queue_size(1024), queues("vcpus")),
    "sixty-devices": compose(PINS, rx_queue_size(1024, mac="52:54:00:11:22:02"), poll_us(200)),
    "one-line": compose(PINS, rx_queue_size(1024), poll_us(200)),
}
EACH = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    # Fails where libvirt's schemas are missing: a pass without them would say nothing.
    return etree.RelaxNG(etree.parse(SCHEMA))


def before(case: str) -> bytes:
    return (DOMAINS / f"{case}-in.xml").read_bytes()


@EACH
def test_transforms_give_the_golden_document(case: str, request: pytest.FixtureRequest) -> None:
    golden = DOMAINS / f"{case}-out.xml"
    tuned = CASES[case](before(case))
    if request.config.getoption("--rewrite-golden"):
        golden.write_bytes(tuned)
    assert tuned.decode() == golden.read_text()


@EACH
@pytest.mark.parametrize("side", ["in", "out"])
def test_libvirts_schema_takes_the_document(case: str, side: str, schema: etree.RelaxNG) -> None:
    document = etree.parse(DOMAINS / f"{case}-{side}.xml")
    assert schema.validate(document), schema.error_log


def test_every_document_has_a_case_and_every_case_its_pair() -> None:
    assert {path.name for path in DOMAINS.glob("*.xml")} == {
        f"{case}-{side}.xml" for case in CASES for side in ("in", "out")
    }


@EACH
def test_a_second_run_changes_nothing(case: str) -> None:
    tuned = CASES[case](before(case))
    assert CASES[case](tuned) == tuned


@EACH
def test_str_gives_the_same_text(case: str) -> None:
    assert CASES[case](before(case).decode()) == CASES[case](before(case)).decode()


@EACH
def test_a_document_with_its_record_is_taken_by_libvirt_and_reverts(case: str, schema: etree.RelaxNG) -> None:
    root = parse(before(case))
    assert record.apply(root, [CASES[case]])
    tuned = serialize(root)
    assert schema.validate(etree.fromstring(tuned)), schema.error_log

    again = parse(tuned)
    assert not record.apply(again, [CASES[case]])
    assert record.revert(again)
    assert serialize(again) == before(case)


# The others have settings of their own under the same keys, which a plain None takes out as well.
@pytest.mark.parametrize("case", sorted(set(CASES) - {"network", "user-pins", "comments"}))
def test_what_was_put_in_comes_out(case: str) -> None:
    chain = compose(CASES[case])
    root = parse(before(case))
    chain.element(root)
    for transform in chain.transforms:
        assert isinstance(transform, Transform)
        transform.store.write_all(root, dict.fromkeys(transform.store.read(root)))
    assert serialize(root) == before(case)
