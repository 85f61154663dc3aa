"""Domain documents: bytes to an lxml tree and back."""

from __future__ import annotations

from typing import NamedTuple

from lxml import etree

from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.domainxml.spelling import respelled, single_quoted
from libvirt_tuner.errors import DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

LARGEST = 16 * 1024 * 1024


class Source(NamedTuple):
    """A document as it was given.

    Attributes:
        text: All of it.
        start, end: Where the root element begins and ends in it.
        plain: lxml's spelling of the root element.
    """

    text: bytes
    start: int
    end: int
    plain: bytes


class Root(etree.ElementBase):
    """A root element that remembers its source."""

    source: Source | None = None


_ROOTS = etree.ElementNamespaceClassLookup()
for _tag in ("domain", "domstatus"):
    _ROOTS.get_namespace(None)[_tag] = Root


def parse(xml: bytes | str, tag: str = "domain") -> Element:
    """The root element, which must be ``tag``; comments, CDATA and foreign namespaces are kept.

    Raises:
        DomainXmlError: Malformed, larger than 16 MiB, not UTF-8, another root element, or with a DOCTYPE
            (refused unread: an entity could grow without limit or name a file).
    """
    source = _utf8(xml)
    start = _root_start(source)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, strip_cdata=False, encoding="utf-8")
    parser.set_element_class_lookup(_ROOTS)
    try:
        root = etree.fromstring(source, parser)
    except etree.XMLSyntaxError as error:
        raise DomainXmlError(
            f"not well-formed XML: {error.msg}", where=f"line {error.lineno}", expected=f"a <{tag}> document"
        ) from None
    if root.tag != tag:
        raise DomainXmlError("not the right document", where="/", value=root.tag, expected=f"<{tag}>")
    if isinstance(root, Root):
        plain = etree.tostring(root, encoding="utf-8", with_tail=False)
        root.source = Source(source, start, _root_end(source), plain)
    return root


def serialize(root: Element) -> bytes:
    """The document as bytes; a tree that :func:`parse` did not make is written in libvirt's quotes."""
    plain = etree.tostring(root, encoding="utf-8", with_tail=False)
    source = root.source if isinstance(root, Root) else None
    if source is None:
        return b"<".join([single_quoted(piece) for piece in plain.split(b"<")])
    if plain == source.plain:
        return source.text
    body = source.text[source.start : source.end]
    pieces = respelled(plain, source.plain, body)
    return source.text[: source.start] + b"<".join(pieces) + source.text[source.end :]


def _utf8(xml: bytes | str) -> bytes:
    if len(xml) > LARGEST:
        raise DomainXmlError("document is too large", value=len(xml), expected=f"at most {LARGEST} bytes")
    try:
        source = xml.encode() if isinstance(xml, str) else bytes(xml)
        source.decode()
    except UnicodeError:
        raise DomainXmlError("document is not UTF-8", where="/", expected="a document in UTF-8") from None
    if isinstance(xml, bytes):
        _check_declared_encoding(source)
    return source


def _check_declared_encoding(source: bytes) -> None:
    """libvirt writes UTF-8 only; taking another encoding's bytes for UTF-8 would garble names."""
    declaration = source[: source.find(b"?>")] if source.startswith(b"<?xml ") else b""
    _, found, rest = declaration.partition(b"encoding")
    name = rest.strip(b" \t\r\n='\"").lower() if found else b"utf-8"
    if not name.startswith((b"utf-8", b"us-ascii")):
        raise DomainXmlError("another encoding", where="line 1", value=name.decode(), expected="UTF-8")


def _root_start(source: bytes) -> int:
    """Where the root's start tag begins; what stands before it is kept as it is."""
    at = 3 if source.startswith(b"\xef\xbb\xbf") else 0
    while True:
        at += len(source[at : at + 4096]) - len(source[at : at + 4096].lstrip(b" \t\r\n"))
        if source.startswith(b"<!DOCTYPE", at):
            line = source.count(b"\n", 0, at) + 1
            raise DomainXmlError("DOCTYPE is not allowed", where=f"line {line}", expected="no DTD")
        if source.startswith(b"<!--", at):
            closing = source.find(b"-->", at)
        elif source.startswith(b"<?", at):
            closing = source.find(b"?>", at)
        elif source[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
            continue
        else:
            return at
        if closing < 0:
            return at
        at = closing + (3 if source.startswith(b"-->", closing) else 2)


def _root_end(source: bytes) -> int:
    """Where the root's end tag ends; comments and white space after it are kept as they are."""
    end = len(source.rstrip())
    while True:
        if source.endswith(b"-->", 0, end):
            end = source.rfind(b"<!--", 0, end)
        elif source.endswith(b"?>", 0, end):
            end = source.rfind(b"<?", 0, end)
        else:
            return end
        end = len(source[:end].rstrip())


def parse_status(xml: bytes | str) -> Element:
    """The ``<domstatus>`` element of a running domain's file under ``/run/libvirt/qemu``."""
    return parse(xml, "domstatus")


def live_domain(status: Element) -> Element:
    """The running domain's ``<domain>`` within a ``<domstatus>``.

    Raises:
        DomainXmlError: There is none.
    """
    domain = xmlread.child(status, "domain")
    if domain is None:
        raise DomainXmlError("no domain", where="/domstatus", expected="a <domain> within")
    return domain
