"""The short way writes what the long one writes, or nothing, and says when its word is not enough."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner.domainxml import document, pieces
from libvirt_tuner.domainxml.document import Root, Source
from libvirt_tuner.domainxml.spelling import Writer, same, scan
from tests.unit.odd_documents import documents

QUOTES = st.sampled_from([b"'", b'"'])
NEWLINES = st.sampled_from([b"\n", b"\r\n"])
# A document with a CDATA section goes the long way.
DOCUMENTS = documents().map(lambda xml: re.sub(rb"<!\[CDATA\[.*?\]\]>", b"a = 'b'", xml))


def plain(root: etree._Element) -> bytes:
    return etree.tostring(root, encoding="utf-8", with_tail=False)


def source_of(root: etree._Element) -> Source:
    assert isinstance(root, Root)
    assert root.source is not None
    return root.source


def the_long_way(root: etree._Element, source: Source, nodes: list[etree._Element]) -> bytes:
    before = document.parse(source.text)
    writer = Writer(source.text, scan(source.text, source.start), list(before.iter()), nodes)
    return source.text[: source.start] + writer.written(root) + source.text[writer.spans[0].end :]


def edit(root: etree._Element, data: st.DataObject) -> None:
    """Put something in, change something, take something out."""
    elements = list(root.iter(etree.Element))
    chosen = data.draw(st.sampled_from(elements))
    if data.draw(st.booleans()):
        new = etree.Element(data.draw(st.sampled_from(["new", "{urn:new}new", "model"])))
        new.tail = data.draw(st.sampled_from([None, "\n  ", "a<b", 'it\'s "so"']))
        new.set("a", data.draw(st.sampled_from(["", "virtio", "'\"<&>", "\n\t"])))
        chosen.insert(data.draw(st.integers(0, len(chosen))), new)
    if data.draw(st.booleans()):
        chosen.set("changed", data.draw(st.sampled_from(["1", "it's", 'a "b"'])))
    gone = data.draw(st.sampled_from(elements))
    above = gone.getparent()
    if above is not None and data.draw(st.booleans()):
        above.remove(gone)


@given(xml=DOCUMENTS, data=st.data())
def test_odd_spelling_is_written_as_by_the_long_way_or_left_to_it(xml: bytes, data: st.DataObject) -> None:
    root = document.parse(xml)
    nodes = list(root.iter())
    edit(root, data)
    now = plain(root)
    found = pieces.written(source_of(root), now)
    if found is not None and pieces.is_read_alike(root, now):
        assert found == the_long_way(root, source_of(root), nodes)
        assert same(root, document.parse(found))


@given(xml=DOCUMENTS, quote=QUOTES, newline=NEWLINES, data=st.data())
def test_even_spelling_is_written_as_by_the_long_way(
    xml: bytes, quote: bytes, newline: bytes, data: st.DataObject
) -> None:
    text = plain(document.parse(xml.replace(b"\r\n", b"\n"))).replace(b'"', quote).replace(b"\n", newline)
    root = document.parse(text)
    source, nodes = source_of(root), list(root.iter())
    edit(root, data)
    found = pieces.written(source, plain(root))
    assert found is not None or not source.is_even
    if found is not None:
        assert found == the_long_way(root, source, nodes)
        assert same(root, document.parse(found))


EVEN = "<domain>\n  <devices>\n    <a x='1'/>\n    <a x='2'/>\n  </devices>\n</domain>\n"


def test_an_even_document_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    root = document.parse(EVEN)
    monkeypatch.delattr(document, "_tree")
    root[0][1].set("x", "3")
    assert document.serialize(root).decode() == EVEN.replace("2", "3")


@pytest.mark.parametrize(
    ("xml", "is_even"),
    [
        pytest.param(EVEN, True, id="libvirt's quotes"),
        pytest.param(EVEN.replace("'", '"'), True, id="lxml's quotes"),
        pytest.param(EVEN.replace("\n", "\r\n"), True, id="CRLF"),
        pytest.param("<!-- made --><domain/>", True, id="what stands before"),
        pytest.param("<domain><title>it's</title><a/></domain>", True, id="a quote in text"),
        pytest.param("<domain><title>it&apos;s</title><a/></domain>", False, id="an escape of libvirt's"),
        pytest.param(EVEN.replace("'1'", '"1"'), False, id="quotes of both kinds"),
        pytest.param("<domain><a></a></domain>", False, id="a pair"),
        pytest.param("<domain><a/></domain><!-- end -->", False, id="what stands behind"),
    ],
)
def test_even_is(xml: str, is_even: bool) -> None:
    assert source_of(document.parse(xml)).is_even is is_even


@pytest.mark.parametrize(
    "xml",
    [
        pytest.param("<domain><a></a><b/></domain>", id="a pair"),
        pytest.param("<domain><a><![CDATA[x]]></a><b/></domain>", id="a CDATA section"),
        pytest.param("<domain><a  x='1'/><a x='1'/><b/></domain>", id="one thing in two ways"),
        pytest.param("<domain><a/><b  x='1'/></domain>", id="what changes is odd"),
    ],
)
def test_left_to_the_long_way(xml: str) -> None:
    root = document.parse(xml)
    root[-1].set("x", "2")
    assert pieces.written(source_of(root), plain(root)) is None
    assert same(root, document.parse(document.serialize(root)))


def test_odd_spelling_elsewhere_stays() -> None:
    root = document.parse("<domain><title>it&apos;s</title><a  y='1'/><b x='1'/></domain>")
    root[-1].set("x", "2")
    written = b"<domain><title>it&apos;s</title><a  y='1'/><b x='2'/></domain>"
    assert pieces.written(source_of(root), plain(root)) == written


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("safe", "--><c/><!--", id="the end of a comment"),
        pytest.param("safe", "ends with -", id="a dash at its end"),
    ],
)
def test_what_a_comment_hides_is_not_written(old: str, new: str) -> None:
    root = document.parse(f"<domain><!--{old}--><a/></domain>")
    next(root.iter(etree.Comment)).text = new
    assert not pieces.is_read_alike(root, plain(root))


def test_no_namespace_below_a_default_one() -> None:
    root = document.parse("<domain><b xmlns='urn:b'/></domain>")
    root[0].append(etree.Element("c"))
    assert not pieces.is_read_alike(root, plain(root))
