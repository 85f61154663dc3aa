"""The record: what is ours, what has become the user's, and that a revert gives the document there was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml import metadata as xmlrecord
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import ORDER, Transform, emulatorpin, numatune, record, rx_queue_size, vcpupin

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
    assert ("emulatorpin", "emulator") not in record.read(document.parse(applied(pinned)))


def test_replanning_keeps_what_was_there_before_us() -> None:
    users = emulatorpin({1})(PLAIN)
    again = applied(applied(users), [emulatorpin({7})])
    assert record.read(document.parse(again))["emulatorpin", "emulator"] == "7"
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
    "metadata",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"  <metadata/>\n", id="empty"),
        pytest.param(b"  <metadata>\n  </metadata>\n", id="white space"),
        pytest.param(b'  <metadata>\n    <x:y xmlns:x="urn:x"/>\n  </metadata>\n', id="somebody's"),
        pytest.param(b"  <metadata><!-- mine --></metadata>\n  <cputune/>\n", id="comment, empty cputune"),
        pytest.param(b"\n\n\t <!-- odd -->  <cputune>\n\n</cputune>\n", id="odd indentation"),
    ],
)
def test_revert_gives_the_very_document(metadata: bytes) -> None:
    xml = PLAIN.replace(b"  <memory ", metadata + b"  <memory ", 1)
    assert reverted(applied(xml)) == xml


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


def damaged(setting: str) -> str:
    return (
        "<domain><name>a</name><memory>1</memory><metadata><r:record xmlns:r='https://libvirt-tuner.org/record/1'>"
        f"{setting}</r:record></metadata></domain>"
    )


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("<r:setting transform='rm' key='0'/>", id="unknown transform"),
        pytest.param("<r:setting transform='vcpupin'/>", id="no key"),
        pytest.param("<r:setting transform='vcpupin' key='a b'/>", id="bad key"),
        pytest.param("<r:setting transform='vcpupin' key='0' run='x'/>", id="unknown attribute"),
        pytest.param("<r:setting transform='vcpupin' key='0' owner='root'/>", id="unknown owner"),
        pytest.param(f"<r:setting transform='vcpupin' key='0' value='{'1' * 5000}'/>", id="too long"),
        pytest.param("<r:setting transform='vcpupin' key='0'/>" * 2, id="twice"),
        pytest.param("<r:setting transform='vcpupin' key='0'><x/></r:setting>", id="child"),
        pytest.param("<x/>", id="another element"),
    ],
)
def test_a_damaged_record_is_refused(setting: str) -> None:
    root = document.parse(damaged(setting))
    for use in (record.read, record.revert, lambda root: record.apply(root, TUNE)):
        with pytest.raises(DomainXmlError) as caught:
            use(root)
        assert caught.value.where.startswith("/domain/metadata/record")


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("<r:setting transform='numatune' key='memory' was='x y=1'/>", id="no attribute"),
        pytest.param("<r:setting transform='numatune' key='script' was='strict 0'/>", id="another element"),
    ],
)
def test_a_record_that_names_what_no_numatune_has_is_refused(setting: str) -> None:
    with pytest.raises(DomainXmlError, match="numatune"):
        record.revert(document.parse(damaged(setting)))


def test_what_is_written_is_as_the_schema_says() -> None:
    schema = etree.RelaxNG(etree.parse(ROOT / "schemas" / "record.rng"))
    element = xmlrecord.record_element(document.parse(applied()))
    assert element is not None
    schema.assertValid(etree.fromstring(etree.tostring(element)))
