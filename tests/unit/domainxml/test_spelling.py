"""The writer: untouched bytes stay, and what is written is read as the edited tree, whatever the spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spelling import same
from libvirt_tuner.errors import DomainXmlError
from tests.unit.odd_documents import documents


@given(xml=documents(), data=st.data())
def test_any_edit_is_read_back_and_undone_byte_for_byte(xml: bytes, data: st.DataObject) -> None:
    root = document.parse(xml)
    elements = list(root.iter(etree.Element))
    chosen = data.draw(st.sampled_from(elements))
    new = etree.Element(data.draw(st.sampled_from(["new", "{urn:new}new", "model"])))
    new.tail = data.draw(st.sampled_from([None, "\n  ", "a<b"]))
    new.set("a", data.draw(st.sampled_from(["", "'\"<&>", "\n\t"])))
    position = data.draw(st.integers(0, len(chosen)))
    chosen.insert(position, new)
    chosen.set("changed", "1")
    written = document.serialize(root)
    again = document.parse(written)
    assert same(root, again)

    del chosen.attrib["changed"]
    new.tail = None
    chosen.remove(new)
    assert document.serialize(root) == xml


@given(xml=documents(), data=st.data())
def test_whatever_is_taken_out_or_moved_is_read_back(xml: bytes, data: st.DataObject) -> None:
    root = document.parse(xml)
    below = [element for element in root.iter() if element is not root]
    for node in data.draw(st.lists(st.sampled_from(below), max_size=4)):
        above = node.getparent()
        if above is not None and node is not root:
            above.remove(node)
            if data.draw(st.booleans()):
                root.append(node)
    assert same(root, document.parse(document.serialize(root)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "<domain><model type='virtio'></model>\n</domain>",
            "<domain><model type='virtio'></model><new/>\n</domain>",
            id="pair whose white space changes",
        ),
        pytest.param(
            "<domain>\r\n  <a x='1'  y = \"2\"/>\r\n</domain>",
            "<domain>\r\n  <a x='1'  y = \"2\"/><new/>\r\n</domain>",
            id="CRLF",
        ),
        pytest.param("<domain><b></b></domain>", "<domain><b></b><new/></domain>", id="pair at the end"),
        pytest.param("<domain/>", "<domain><new/></domain>", id="empty root"),
        pytest.param("<domain ></domain >", "<domain ><new/></domain >", id="blanks in tags"),
        pytest.param(
            "<domain><a><![CDATA[<b x='1'/>]]></a></domain>",
            "<domain><a><![CDATA[<b x='1'/>]]></a><new/></domain>",
            id="CDATA",
        ),
        pytest.param(
            "<domain><a><![CDATA[]]></a><b/></domain>",
            "<domain><a><![CDATA[]]></a><b/><new/></domain>",
            id="CDATA without anything",
        ),
        pytest.param(
            "<domain><a/><![CDATA[]]><b/><![CDATA[<c></c>]]></domain>",
            "<domain><a/><![CDATA[]]><b/><new/><![CDATA[<c></c>]]></domain>",
            id="CDATA between elements",
        ),
        pytest.param(
            "<domain><p:a xmlns:p='urn:p' p:x='>'/></domain>",
            "<domain><p:a xmlns:p='urn:p' p:x='>'/><new/></domain>",
            id="namespace, bare bracket",
        ),
    ],
)
def test_only_the_new_element_is_new(before: str, after: str) -> None:
    root = document.parse(before)
    tail = root[-1].tail if len(root) else None
    if len(root):
        root[-1].tail = None
    root.append(etree.Element("new"))
    root[-1].tail = tail
    assert document.serialize(root).decode() == after


def test_a_value_keeps_its_quotes_and_spacing() -> None:
    root = document.parse("<domain><a  x = \"1\"\n y='2' /></domain>")
    root[0].set("x", "it's <3")
    assert document.serialize(root) == b"<domain><a  x = \"it's &lt;3\"\n y='2' /></domain>"


def test_new_text_stays_ascii_where_ascii_is_declared() -> None:
    xml = b"<?xml version='1.0' encoding='ASCII'?>\n<domain><name>M&#252;ller</name></domain>"
    root = document.parse(xml)
    root[0].set("x", "ß")
    written = document.serialize(root)
    assert written.isascii()
    assert document.parse(written)[0].get("x") == "ß"


def test_a_tree_that_would_be_read_as_another_is_not_written() -> None:
    root = document.parse("<domain xmlns:a='urn:a'><b xmlns='urn:b'/></domain>")
    root[0].append(etree.Element("no-namespace"))
    with pytest.raises(DomainXmlError, match="cannot write"):
        document.serialize(root)


def test_a_copy_without_its_source_is_written_in_libvirts_quotes() -> None:
    made = etree.Element("domain", type="kvm")
    etree.SubElement(made, "name").text = "a & b"
    assert document.serialize(made) == b"<domain type='kvm'><name>a &amp; b</name></domain>"
