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
# Attributes of one element. lxml finds each by its name among all others.
MOST_ATTRIBUTES = 250
_FULL = MOST_ATTRIBUTES * len(b" a=''")
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
        start, end: Where the root element stands in it; ``end`` is behind a comment after it.
        plain: The root element as lxml spells it.
        quote, newline: Of most of its attributes and lines.
        is_ascii: Whether it declares ASCII.
        is_even: Whether these two are all in which it differs from lxml's spelling.
        nodes: What the root had within, in document order, where it differs in more: while somebody holds
            them, lxml gives the same objects again, so that a node of the source can be told from a new one.
    """

    text: bytes
    start: int
    end: int
    plain: bytes
    quote: bytes
    newline: bytes
    is_ascii: bool
    is_even: bool
    nodes: tuple[Element, ...]

    def usual(self, plain: bytes) -> bytes:
        """lxml's spelling in the source's quotes and line ends, where quotes stand around values only."""
        return _usual(plain, self.quote, self.newline)


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
        DomainXmlError: It is malformed, larger than 16 MiB, has more than 500000 tags or 250 attributes in
            one, is not UTF-8, or has another root element or a DOCTYPE (an entity could grow without limit
            or name a file).
        TypeError: Neither bytes nor str.
    """
    text = _utf8(xml)
    start = _root_start(text)
    root = _tree(text, tag)
    if isinstance(root, Root):
        is_ascii = isinstance(xml, bytes) and _declared_encoding(text).endswith("ascii")
        root.source = _source(root, text, start, is_ascii=is_ascii)
    return root


def _source(root: Element, text: bytes, start: int, *, is_ascii: bool) -> Source:
    end, plain = text.rfind(b">") + 1, _plain(root)
    newline = b"\r\n" if b"\r" in text and text.count(b"\r\n") * 2 > text.count(b"\n") else b"\n"
    body = text[start:end]
    for quote in (b"'", b'"') if b"<![CDATA[" not in plain else ():
        if body == _usual(plain, quote, newline):
            return Source(text, start, end, plain, quote, newline, is_ascii, True, ())
    quote = b"'" if text.count(b"='") >= text.count(b'="') else b'"'
    return Source(text, start, end, plain, quote, newline, is_ascii, False, tuple(root.iterdescendants()))


def _usual(plain: bytes, quote: bytes, newline: bytes) -> bytes:
    return plain.replace(b'"', quote).replace(b"\n", newline)


def check(root: Element) -> None:
    """Check that the element is an lxml element and a ``<domain>``.

    Raises:
        DomainXmlError: It is another element, such as ``<domainsnapshot>``.
        TypeError: It is not an lxml element.
    """
    if not isinstance(root, etree._Element):
        raise TypeError(f"need an lxml element, not {type(root).__module__}.{type(root).__qualname__}")
    _check_tag(root, "domain")


def serialize(root: Element) -> bytes:
    """Return the document as bytes. A tree that :func:`parse` did not create gets libvirt's quotes.

    Raises:
        DomainXmlError: The tree has no text that would be parsed back to it.
    """
    source = root.source if isinstance(root, Root) else None
    plain = _plain(root)
    if source is not None and plain == source.plain:
        return source.text
    from libvirt_tuner.domainxml import pieces

    written = None if source is None else pieces.written(source, plain)
    is_proven = written is not None and pieces.is_read_alike(root, plain)
    if written is None:
        written = _respelled(root, source)
    if source is not None and source.is_ascii:
        written = written.decode().encode("ascii", "xmlcharrefreplace")
    if not is_proven:
        _check_written(root, written)
    return written


def _respelled(root: Element, source: Source | None) -> bytes:
    """The document node by node."""
    writer = _writer(root, source)
    if source is None:
        return writer.written(root)
    return source.text[: source.start] + writer.written(root) + source.text[writer.spans[0].end :]


def _check_written(root: Element, written: bytes) -> None:
    from libvirt_tuner.domainxml.spelling import same

    try:
        again = _tree(written, str(root.tag))
    except DomainXmlError as error:
        raise DomainXmlError(
            "the document cannot be written", where=error.where, value=error.problem
        ) from None
    if not same(root, again):
        raise DomainXmlError("cannot write the document: it would read back differently", where="/")


def are_pairs(root: Element, elements: Sequence[Element]) -> list[bool]:
    """Return whether the source writes each as ``<a></a>``, not as ``<a/>``. lxml treats both alike."""
    source = root.source if isinstance(root, Root) else None
    if source is None or not elements or source.is_even:
        return [False] * len(elements)
    writer = _writer(root, source)
    return [writer.is_pair(element) for element in elements]


def _plain(root: Element) -> bytes:
    return etree.tostring(root, encoding="utf-8", with_tail=False)


def _writer(root: Element, source: Source | None) -> Writer:
    # Here: the hook reads a document at every start, and seldom writes one.
    from libvirt_tuner.domainxml.spelling import Writer, scan

    if source is None:
        return Writer(b"", (), (), ())
    before = _tree(source.text, str(root.tag))
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
        raise DomainXmlError("wrong root element", where="/", value=root.tag, expected=f"<{tag}>")


def _utf8(xml: bytes | str) -> bytes:
    if not isinstance(xml, (bytes, str)):
        raise TypeError(
            f"a document must be bytes or str, not {type(xml).__module__}.{type(xml).__qualname__}"
        )
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
    if any(len(piece) > _FULL and _is_overfull(piece) for piece in source.split(b"<")):
        raise DomainXmlError(
            "an element has too many attributes", where="/", expected=f"at most {MOST_ATTRIBUTES}"
        )
    return source


def _is_overfull(piece: bytes) -> bool:
    """Return whether a start tag, from behind its ``<``, has more attributes than are allowed."""
    import re

    attribute = rb"\s+[^\s=>]+\s*=\s*(?:'[^']*'|\"[^\"]*\")"
    return bool(re.match(rb"[^!?/\s>][^\s>]*(?:%b){%d}" % (attribute, MOST_ATTRIBUTES + 1), piece))


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
