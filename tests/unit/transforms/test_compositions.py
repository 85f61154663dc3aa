"""Any composition, on any document: idempotent, taken back byte for byte, picklable, and never half done."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner import transforms as to
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spelling import same
from libvirt_tuner.errors import ArgumentError, DomainXmlError, MissingDeviceError
from libvirt_tuner.library import recorded, revert
from tests.unit.odd_documents import OUT, OWN, TRANSFORMS, documents

ANY = st.lists(TRANSFORMS | OUT, max_size=5)
SMALL = b"<domain><name>a</name><memory>1</memory></domain>"


@given(xml=documents(), several=ANY)
def test_composed_it_is_idempotent_and_read_back(xml: bytes, several: list[to.Transform]) -> None:
    chain = to.compose(*several)
    root = document.parse(xml)
    chain.element(root)
    tuned = chain(xml)
    assert same(document.parse(tuned), root)
    names = [transform.name for transform in several]
    if len(names) == len(set(names)):
        assert chain(tuned) == tuned


@given(xml=documents(), several=ANY)
def test_recorded_it_is_taken_back_byte_for_byte(xml: bytes, several: list[to.Transform]) -> None:
    tuned = recorded(xml, *several)
    assert recorded(tuned, *several) == tuned
    assert revert(tuned, others=OWN) == xml


@pytest.mark.parametrize("text", ["<![CDATA[ <a> ]]>", "stray"])
def test_text_between_elements_stays_where_it_is(text: str) -> None:
    pins = "<cputune><vcpupin vcpu='0' cpuset='3'/></cputune>"
    xml = f"<domain><name>a</name><memory>1</memory><vcpu>1</vcpu>{text}{pins}<devices/></domain>"
    without = recorded(xml, to.vcpupin(None))
    assert text in without
    assert pins not in without
    assert revert(without) == xml
    tuned = recorded(xml.replace(pins, ""), to.vcpupin({0: {3}}))
    assert revert(tuned) == xml.replace(pins, "")


@given(xml=documents(), first=ANY, second=ANY)
def test_what_is_recorded_later_is_taken_back_too(
    xml: bytes, first: list[to.Transform], second: list[to.Transform]
) -> None:
    # Own transforms are given again: without them the difference of spelling is taken of a document that has
    # their settings (docs/api.md).
    tuned = recorded(recorded(xml, *first), *first, *second)
    assert revert(tuned, others=OWN) == xml


@given(several=ANY)
def test_it_pickles_compares_hashes_and_has_a_repr(several: list[to.Transform]) -> None:
    chain = to.compose(*several)
    again = pickle.loads(pickle.dumps(chain))
    assert again == chain
    assert hash(again) == hash(chain)
    assert repr(again) == repr(chain)
    assert all(transform.name in repr(chain) for transform in several)


def test_an_error_pickles_compares_hashes_and_says_where() -> None:
    error = MissingDeviceError("no\u202e such", where="/domain/a\u2028b", value="\u0085", expected="x")
    again = pickle.loads(pickle.dumps(error))
    assert (again, hash(again), repr(again)) == (error, hash(error), repr(error))
    assert str(error).isprintable()


def test_a_chain_that_fails_leaves_the_element_as_it_was() -> None:
    root = document.parse(SMALL)
    with pytest.raises(MissingDeviceError):
        to.compose(to.emulatorpin({1}), to.mtu(1400, index=0)).element(root)
    assert document.serialize(root) == SMALL


@pytest.mark.parametrize(
    "transform", [to.emulatorpin({1}), to.compose(to.emulatorpin({1}))], ids=["one", "chain"]
)
@pytest.mark.parametrize("tag", ["network", "domainsnapshot", "domstatus"])
def test_another_document_is_refused_as_bytes_and_as_an_element(transform: to.Chain, tag: str) -> None:
    xml = f"<{tag}><domain/></{tag}>".encode()
    with pytest.raises(DomainXmlError, match="wrong root element"):
        transform(xml)
    with pytest.raises(DomainXmlError, match="wrong root element"):
        transform.element(etree.fromstring(xml))


def test_an_element_of_another_parser_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"xml\.etree\.ElementTree\.Element"):
        to.emulatorpin({1}).element(ElementTree.fromstring(SMALL))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes or str"):
        to.emulatorpin({1})(None)  # type: ignore[type-var]


@pytest.mark.parametrize(
    "wrong", [lambda root: None, to.emulatorpin, 5], ids=["function", "factory", "number"]
)
def test_what_is_no_transform_is_refused_at_once(wrong: object) -> None:
    with pytest.raises(TypeError, match="is not a transform"):
        to.compose(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("factory", "value"),
    [
        pytest.param(to.poll_us, "5", id="poll_us, text"),
        pytest.param(to.poll_us, True, id="poll_us, truth"),
        pytest.param(to.queues, True, id="queues, truth"),
        pytest.param(to.rx_queue_size, 256.0, id="ring, fraction"),
        pytest.param(to.emulatorpin, 5, id="emulatorpin, one CPU"),
        pytest.param(to.emulatorpin, "16,18", id="emulatorpin, text"),
        pytest.param(to.vcpupin, [1], id="vcpupin, list"),
        pytest.param(to.vcpupin, {"0": {1}}, id="vcpupin, text for an id"),
        pytest.param(to.vcpupin, {0: {True}}, id="vcpupin, truth for a CPU"),
    ],
)
def test_an_argument_of_another_type_is_an_argument_error(
    factory: Callable[[object], to.Transform], value: object
) -> None:
    with pytest.raises(ArgumentError) as caught:
        factory(value)
    assert caught.value.where
    assert caught.value.expected


def test_a_bare_function_changes_a_document() -> None:
    changed = to.rewritten(SMALL, lambda root: root.set("type", "kvm"))
    assert changed == SMALL.replace(b"<domain>", b"<domain type='kvm'>")
