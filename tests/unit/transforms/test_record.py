"""The record: what is ours, what has become the user's, and that a revert gives the document there was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner.domainxml import document, metadata
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import ArgumentError, DomainXmlError
from libvirt_tuner.transforms import (
    ORDER,
    Transform,
    emulatorpin,
    nic_setting,
    numatune,
    record,
    rx_queue_size,
    vcpupin,
)

ROOT = Path(__file__).parents[3]
PLAIN = (ROOT / "fixtures" / "domains" / "bridge-in.xml").read_bytes()
TUNE = [vcpupin({0: {2}, 1: {4}}), emulatorpin({6}), rx_queue_size(1024)]


def applied(xml: bytes = PLAIN, transforms: list[Transform] = TUNE) -> bytes:
    root = document.parse(xml)
    record.apply(root, transforms)
    return document.serialize(root)


def reverted(xml: bytes) -> bytes:
    root = document.parse(xml)
    record.revert(root)
    return document.serialize(root)


def test_nothing_recorded_is_nothing_to_revert() -> None:
    assert not record.revert(document.parse(PLAIN))


def test_a_second_apply_changes_nothing() -> None:
    assert not record.apply(document.parse(applied()), TUNE)


def test_a_setting_that_was_there_already_is_not_ours() -> None:
    pinned = emulatorpin({6})(PLAIN)
    assert ("emulatorpin", "emulator") not in record.entries(document.parse(applied(pinned)))


def test_replanning_keeps_what_was_there_before_us() -> None:
    users = emulatorpin({1})(PLAIN)
    again = applied(applied(users), [emulatorpin({7})])
    assert record.entries(document.parse(again))["emulatorpin", "emulator"].value == "7"
    assert reverted(again) == users


def test_what_a_transform_no_longer_wants_goes_back() -> None:
    root = document.parse(applied())
    record.apply(root, [vcpupin({0: {2}})])
    assert read_spec(root).vcpupin == {0: frozenset({2})}


@pytest.mark.parametrize("complete", [False, True])
def test_transforms_left_out_go_back_only_when_the_list_is_complete(complete: bool) -> None:
    root = document.parse(applied())
    record.apply(root, [vcpupin({0: {2}, 1: {4}})], complete=ORDER if complete else ())
    assert bool(read_spec(root).emulatorpin) is not complete


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(b"<emulatorpin cpuset='6'/>", b"<emulatorpin cpuset='3'/>", id="changed"),
        pytest.param(b"    <emulatorpin cpuset='6'/>\n", b"", id="taken out"),
        pytest.param(b" rx_queue_size='1024'", b" rx_queue_size='512'", id="attribute changed"),
    ],
)
def test_what_the_user_did_since_stays(ours: bytes, theirs: bytes) -> None:
    edited = applied().replace(ours, theirs)
    assert edited != applied()
    again = applied(edited, [vcpupin({0: {2}, 1: {4}}), emulatorpin({8}), rx_queue_size(256)])
    assert theirs in again
    assert b"cpuset='8'" not in again or b"rx_queue_size='512'" in again
    assert theirs in reverted(again)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"  <metadata/>\n", id="empty"),
        pytest.param(b"  <metadata>\n  </metadata>\n", id="white space"),
        pytest.param(b'  <metadata>\n    <x:y xmlns:x="urn:x"/>\n  </metadata>\n', id="somebody's"),
        pytest.param(b"  <metadata><!-- mine --></metadata>\n  <cputune/>\n", id="comment, empty cputune"),
        pytest.param(b"  <metadata></metadata>\r\n", id="a pair of tags, CRLF"),
        pytest.param(b"  <cputune></cputune>\n", id="a pair of tags around pins"),
        pytest.param(b"\n\n\t <!-- odd -->  <cputune>\n\n</cputune>\n", id="odd indentation"),
    ],
)
def test_revert_gives_the_very_document(before: bytes) -> None:
    xml = PLAIN.replace(b"  <memory ", before + b"  <memory ", 1)
    assert reverted(applied(xml)) == xml


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(b"<memory/>", id="no attribute"),
        pytest.param(b"<memory placement='static' nodeset='0'/>", id="attributes in another order"),
        pytest.param(b"<memory nodeset='0' mode='strict'/>", id="the same, both ours"),
    ],
)
def test_revert_gives_back_a_numatune_however_it_was_written(memory: bytes) -> None:
    xml = PLAIN.replace(b"  <memory ", b"  <numatune>" + memory + b"</numatune>\n  <memory ", 1)
    tuned = applied(xml, [numatune({3}, mode="preferred")])
    assert b"mode='preferred'" in tuned
    assert reverted(tuned) == xml


def test_what_could_not_be_put_back_is_not_replaced() -> None:
    xml = b"<domain><vcpu>1</vcpu><cputune><emulatorpin cpuset='^3'/></cputune></domain>"
    with pytest.raises(DomainXmlError, match="emulatorpin"):
        applied(xml, [emulatorpin({1})])


@given(
    pins=st.dictionaries(st.integers(0, 3), st.frozensets(st.integers(0, 63), min_size=1)),
    users=st.dictionaries(st.integers(0, 3), st.frozensets(st.integers(0, 63), min_size=1)),
    nodes=st.frozensets(st.integers(0, 7), min_size=1),
    indent=st.text(" \t\n", max_size=4),
)
def test_revert_undoes_apply(
    pins: dict[int, frozenset[int]], users: dict[int, frozenset[int]], nodes: frozenset[int], indent: str
) -> None:
    xml = vcpupin(dict(users))(PLAIN).replace(b"<cputune>", f"<!-- c -->{indent}<cputune>".encode())
    tuned = applied(xml, [vcpupin(dict(pins)), numatune(nodes), rx_queue_size(512)])
    assert reverted(tuned) == xml


def test_an_interface_is_known_again_once_libvirt_has_given_it_a_mac() -> None:
    mac = b"      <mac address='52:54:00:11:22:01'/>\n"
    tuned = applied(PLAIN.replace(mac, b""))
    defined = tuned.replace(b"    <interface type='bridge'>\n", b"    <interface type='bridge'>\n" + mac)
    assert reverted(defined) == PLAIN


def damaged(setting: str, inside: str = "") -> bytes:
    return (
        "<domain>\n  <name>a</name>\n  <memory>1</memory>\n  <metadata>\n    "
        f"<r:record xmlns:r='https://libvirt-tuner.org/record/1'>{setting}</r:record>\n  </metadata>\n"
        f"  <vcpu>2</vcpu>\n  <iothreads>1</iothreads>\n  <devices>{inside}</devices>\n</domain>\n"
    ).encode()


NIC = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>"
SCRIPT = "hostnet0.script"


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("<r:setting transform='vcpupin'/>", id="no key"),
        pytest.param("<r:setting transform='vcpupin' key='a b'/>", id="bad key"),
        pytest.param("<r:setting transform='vcpupin' key='0' was='1' run='x'/>", id="unknown attribute"),
        pytest.param("<r:setting transform='vcpupin' key='0' was='1' owner='root'/>", id="unknown owner"),
        pytest.param(f"<r:setting transform='vcpupin' key='0' was='{'1,' * 3000}1'/>", id="too long"),
        pytest.param("<r:setting transform='vcpupin' key='0' was='1'><x/></r:setting>", id="child"),
        pytest.param("<x/>", id="another element"),
        pytest.param("<r:setting transform='vcpupin' key='2' was='1'/>", id="no such vCPU"),
        pytest.param("<r:setting transform='vcpupin' key='0' was='x'/>", id="not a cpulist"),
        pytest.param("<r:setting transform='vcpupin' key='00' was='1'/>", id="another spelling of an id"),
        pytest.param("<r:setting transform='iothreadpin' key='7' was='1'/>", id="no such iothread"),
        pytest.param("<r:setting transform='emulatorpin' key='x' was='1'/>", id="no such key"),
        pytest.param("<r:setting transform='numatune' key='memory' was='x y=1'/>", id="no attribute"),
        pytest.param("<r:setting transform='numatune' key='memory' was='odd 0'/>", id="no mode"),
        pytest.param("<r:setting transform='numatune' key='script' was='strict 0'/>", id="no numatune"),
        pytest.param("<r:setting transform='numatune' key='memnode=0' was='strict 0'/>", id="no cell"),
        pytest.param("<r:setting transform='mtu' key='mac=52:54:00:00:00:02' was='1'/>", id="no such NIC"),
        pytest.param("<r:setting transform='rx_queue_size' key='index=0' was='x'/>", id="no ring size"),
        pytest.param("<r:setting transform='poll_us' key='hostnet1' was='1'/>", id="no such netdev"),
        pytest.param(f"<r:setting transform='poll_us' key='{SCRIPT}' was='/x'/>", id="another option"),
        pytest.param("<r:setting transform='poll_us' key='hostnet0' was='1,script=/x'/>", id="two options"),
        pytest.param("<r:setting transform='poll_us' key='netdev.json' was='x'/>", id="another capability"),
        pytest.param("<r:setting transform='host_mtu' key='disk0' was='9'/>", id="another device"),
    ],
)
def test_what_does_not_fit_in_a_record_does_nothing_and_is_said(setting: str) -> None:
    xml = damaged(setting, NIC)
    assert record.problems(document.parse(xml))
    assert not record.entries(document.parse(xml))
    clean = re.sub(rb"  <metadata>.*</metadata>\n", b"", xml, flags=re.DOTALL)
    assert reverted(xml) == clean
    assert not set(record.entries(document.parse(applied(xml)))) - set(
        record.entries(document.parse(applied(clean)))
    )


def test_the_second_of_two_settings_under_one_key_is_ignored() -> None:
    one = "<r:setting transform='vcpupin' key='0' was='{}'/>"
    root = document.parse(damaged(one.format(1) + one.format(0)))
    assert record.entries(root) == {("vcpupin", "0"): record.Entry(None, "1")}


def test_damage_is_said_where_the_document_is_read() -> None:
    assert read_spec(document.parse(damaged("<x/>"))).warnings


def test_kept_names_nothing_but_white_space() -> None:
    text = b"<script/>".hex()
    xml = damaged("").replace(b"record/1'", f"record/1' kept='cputune={text} x y=1 =='".encode())
    assert b"script" not in reverted(xml.replace(b"<vcpu>", b"<cputune/><vcpu>"))


def test_a_transform_that_is_not_known_stays_recorded() -> None:
    own = nic_setting("iommu", "driver", "iommu", "on")
    tuned = applied(PLAIN, [*TUNE, own])
    left = reverted(tuned)
    assert b"iommu='on'" in left
    assert b"rx_queue_size" not in left
    root = document.parse(left)
    assert record.problems(root) == ("transform 'iommu' is not known",)
    assert record.revert(root, [own])
    assert document.serialize(root) == PLAIN


def test_a_name_of_ours_is_not_anothers() -> None:
    with pytest.raises(ArgumentError, match="has that name"):
        applied(PLAIN, [nic_setting("mtu", "driver", "iommu", "on")])


def test_a_clones_record_is_matched_by_position() -> None:
    clone = re.sub(rb"52:54:00:11:22:", b"52:54:00:aa:bb:", applied())
    assert reverted(clone) == PLAIN.replace(b"52:54:00:11:22:", b"52:54:00:aa:bb:")


def test_what_is_written_is_as_the_schema_says() -> None:
    schema = etree.RelaxNG(etree.parse(ROOT / "schemas" / "record.rng"))
    element = metadata.record_element(document.parse(applied()))
    assert element is not None
    schema.assertValid(etree.fromstring(etree.tostring(element)))
