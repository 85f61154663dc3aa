"""Domain documents: bytes to an lxml tree and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lxml import etree

from libvirt_tuner.domainxml import read
from libvirt_tuner.errors import DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

    from libvirt_tuner.domainxml.spelling import Writer

LARGEST = 16 * 1024 * 1024
# Tags, comments and instructions. 16384 named and pinned vCPUs need a tenth of it.
MOST_TAGS = 500_000
# UTF-8, and ASCII, which lxml declares by default.
_ENCODINGS = frozenset({"utf-8", "utf8", "ascii", "us-ascii"})
_WIDE = (
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"<\x00", "UTF-16"),
    (b"\x00", "UTF-16 or UTF-32"),
)
_ASIDES = ((b"<!--", b"-->"), (b"<?", b"?>"))
_BLANK = b" \t\r\n"


class Source(NamedTuple):
    """The source text of a document.

    Attributes:
        text: All of it, in UTF-8.
        start: Where the root element begins in it.
        nodes: The nodes below the root, in document order. While they are referenced, lxml returns the same
            objects, so that nodes of the source can be told from new ones.
        is_ascii: Whether it declares ASCII.
    """

    text: bytes
    start: int
    nodes: list[Element]
    is_ascii: bool


class Root(etree.ElementBase):
    """A root element that remembers its source."""

    source: Source | None = None


_ROOTS = etree.ElementNamespaceClassLookup()
for _tag in ("domain", "domstatus"):
    _ROOTS.get_namespace(None)[_tag] = Root


def parse(xml: bytes | str, tag: str = "domain") -> Element:
    """Parse the document and return its root, which must be ``tag``. Comments, CDATA and other namespaces are
    kept.

    Raises:
        DomainXmlError: It is malformed, larger than 16 MiB, has more than 500000 tags, is not UTF-8, or has
            another root element or a DOCTYPE (an entity could grow without limit or name a file).
        TypeError: Neither bytes nor str.
    """
    source = _utf8(xml)
    is_ascii = isinstance(xml, bytes) and _declared_encoding(source).endswith("ascii")
    start = _root_start(source)
    root = _tree(source, tag)
    if isinstance(root, Root):
        nodes = root.iter()
        next(nodes)
        root.source = Source(source, start, list(nodes), is_ascii)
    return root


def check(root: Element) -> None:
    """Check that the element is an lxml element and a ``<domain>``.

    Raises:
        DomainXmlError: It is another element, such as ``<domainsnapshot>``.
        TypeError: It is not an lxml element.
    """
    if not isinstance(root, etree._Element):
        raise TypeError(f"an lxml element is needed, not {type(root).__module__}.{type(root).__qualname__}")
    _check_tag(root, "domain")


def serialize(root: Element) -> bytes:
    """Return the document as bytes. A tree that :func:`parse` did not create gets libvirt's quotes.

    Raises:
        DomainXmlError: The tree has no text that would be parsed back to it.
    """
    source = root.source if isinstance(root, Root) else None
    before = None if source is None else _tree(source.text, str(root.tag))
    if source is not None and before is not None and _same_bytes(root, before):
        return source.text
    writer = _writer(root, source, before)
    text, end = (b"", 0) if source is None else (source.text, writer.spans[0].end)
    start = 0 if source is None else source.start
    written = text[:start] + writer.written(root) + text[end:]
    if source is not None and source.is_ascii:
        written = written.decode().encode("ascii", "xmlcharrefreplace")
    from libvirt_tuner.domainxml.spelling import same

    try:
        again = _tree(written, str(root.tag))
    except DomainXmlError as error:
        raise DomainXmlError(
            "the document cannot be written", where=error.where, value=error.problem
        ) from None
    if not same(root, again):
        raise DomainXmlError("cannot write the document: its text would be read differently", where="/")
    return written


def are_pairs(root: Element, elements: Sequence[Element]) -> list[bool]:
    """Return whether the source writes each as ``<a></a>``, not as ``<a/>``. lxml treats both alike."""
    source = root.source if isinstance(root, Root) else None
    if source is None or not elements:
        return [False] * len(elements)
    writer = _writer(root, source, _tree(source.text, str(root.tag)))
    return [writer.is_pair(element) for element in elements]


def _same_bytes(one: Element, other: Element) -> bool:
    return etree.tostring(one, with_tail=False) == etree.tostring(other, with_tail=False)


def _writer(root: Element, source: Source | None, before: Element | None) -> Writer:
    # Imported here, because the hook seldom writes a document.
    from libvirt_tuner.domainxml.spelling import Writer, scan

    if source is None or before is None:
        return Writer(b"", (), (), ())
    spans = scan(source.text, source.start)
    return Writer(source.text, spans, list(before.iter()), (root, *source.nodes))


def _tree(source: bytes, tag: str) -> Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, strip_cdata=False, encoding="utf-8")
    parser.set_element_class_lookup(_ROOTS)
    try:
        root = etree.fromstring(source, parser)
    except etree.XMLSyntaxError as error:
        raise DomainXmlError(
            f"not well-formed XML: {error.msg}", where=f"line {error.lineno}", expected=f"a <{tag}> document"
        ) from None
    _check_tag(root, tag)
    return root


def _check_tag(root: Element, tag: str) -> None:
    if root.tag != tag:
        raise DomainXmlError("not the right document", where="/", value=root.tag, expected=f"<{tag}>")


def _utf8(xml: bytes | str) -> bytes:
    if not isinstance(xml, (bytes, str)):
        raise TypeError(f"a document is bytes or str, not {type(xml).__module__}.{type(xml).__qualname__}")
    if len(xml) > LARGEST:
        raise DomainXmlError("document is too large", value=len(xml), expected=f"at most {LARGEST} bytes")
    if isinstance(xml, bytes):
        wide = next((name for mark, name in _WIDE if xml.startswith(mark)), "")
        encoding = wide or _declared_encoding(xml)
        if encoding not in _ENCODINGS:
            where = "/" if wide else "line 1"
            raise DomainXmlError("another encoding", where=where, value=encoding, expected="UTF-8")
    try:
        source = xml.encode() if isinstance(xml, str) else xml
        source.decode()
    except UnicodeError:
        raise DomainXmlError("document is not UTF-8", where="/", expected="a document in UTF-8") from None
    tags = source.count(b"<")
    if tags > MOST_TAGS:
        raise DomainXmlError("document has too many tags", value=tags, expected=f"at most {MOST_TAGS}")
    return source


def _declared_encoding(source: bytes) -> str:
    """The encoding of the XML declaration, in lower case; ``utf-8`` without one."""
    text = source.removeprefix(b"\xef\xbb\xbf")
    declaration = text[: max(0, text.find(b"?>"))] if text[:6].rstrip() == b"<?xml" else b""
    _, found, rest = declaration.partition(b"encoding")
    spelled = rest.lstrip(_BLANK + b"=")
    if not found or spelled[:1] not in (b"'", b'"'):
        return "utf-8"
    return spelled[1:].partition(spelled[:1])[0].decode("ascii", "backslashreplace").lower()


def _root_start(source: bytes) -> int:
    """Return where the root's start tag begins. Text before it is never changed."""
    at = 3 if source.startswith(b"\xef\xbb\xbf") else 0
    while True:
        while source[at : at + 1] and source[at] in _BLANK:
            at += 1
        if source.startswith(b"<!DOCTYPE", at):
            line = source.count(b"\n", 0, at) + 1
            raise DomainXmlError("DOCTYPE is not allowed", where=f"line {line}", expected="no DTD")
        ends = next(
            (end for begin, end in ((b"<!--", b"-->"), (b"<?", b"?>")) if source.startswith(begin, at)), b""
        )
        closing = source.find(ends, at) if ends else -1
        if closing < 0:
            return at
        at = closing + len(ends)


def parse_status(xml: bytes | str) -> Element:
    """The ``<domstatus>`` element of a running domain's file under ``/run/libvirt/qemu``."""
    return parse(xml, "domstatus")


def live_domain(status: Element) -> Element:
    """The running domain's ``<domain>`` within a ``<domstatus>``.

    Raises:
        DomainXmlError: There is none.
    """
    domain = read.child(status, "domain")
    if domain is None:
        raise DomainXmlError("no domain", where="/domstatus", expected="a <domain> within")
    return domain
