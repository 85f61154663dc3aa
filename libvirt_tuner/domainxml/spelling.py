"""Writes a document so that unchanged parts keep their bytes.

lxml does not keep the exact text of a document. So the root element keeps the source, and nodes from the
source are recognized by identity. The writer copies the source's bytes for every unchanged node, attribute
and text, and only serializes new parts.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lxml import etree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_TOKEN = re.compile(
    rb"<(?:!--.*?--|!\[CDATA\[.*?\]\]|\?.*?\?|/[^>]*|[^\"'>]*(?:\"[^\"]*\"[^\"'>]*|'[^']*'[^\"'>]*)*)>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(rb"(\s+)([^\s=]+)(\s*=\s*)(\"[^\"]*\"|'[^']*')")
_XML_NS = "{http://www.w3.org/XML/1998/namespace}"
_SLASH, _BANG, _QUERY, _DASH = b"/!?-"
# On these levels of the tree, whole subtrees are compared at once; below, node by node.
_WHOLE = 3


class Span(NamedTuple):
    """Position of a node in the source: its start tag and its end tag.

    ``close`` is where the end tag begins; it is ``end`` for a comment and for ``<a/>``, which have none.
    """

    start: int
    opened: int
    close: int
    end: int


def scan(source: bytes, root: int) -> list[Span]:
    """The spans of the root element and all within it, in document order.

    Args:
        source: A well-formed document.
        root: Where its root element begins.
    """
    starts: list[int] = []
    opened: list[int] = []
    closes: list[int] = []
    ends: list[int] = []
    unclosed: list[int] = []
    for match in _TOKEN.finditer(source, root):
        start, end = match.span()
        kind = source[start + 1]
        if kind == _SLASH:
            at = unclosed.pop()
            closes[at], ends[at] = start, end
        elif kind != _BANG or source[start + 2] == _DASH:
            if kind not in (_BANG, _QUERY) and source[end - 2] != _SLASH:
                unclosed.append(len(starts))
            starts.append(start)
            for place in (opened, closes, ends):
                place.append(end)
        if not unclosed:
            break
    return [Span(*places) for places in zip(starts, opened, closes, ends, strict=True)]


class Writer:
    """Writes a tree that was parsed from ``source``, or a new tree."""

    def __init__(
        self, source: bytes, spans: Sequence[Span], old: Sequence[Element], now: Iterable[Element]
    ) -> None:
        """Bind the source.

        Args:
            source: The document; empty for a tree without one.
            spans: Of its nodes, from :func:`scan`.
            old: Its nodes as they were, in document order.
            now: The same nodes now.
        """
        self.source = source
        self.spans = spans
        self.old = old
        self.at = {node: at for at, node in enumerate(now)}
        self.old_at = {node: at for at, node in enumerate(old)}
        self.quote = b"'" if source.count(b"='") >= source.count(b'="') else b'"'
        self.newline = b"\r\n" if source.count(b"\r\n") * 2 > source.count(b"\n") else b"\n"
        self.out: list[bytes] = []

    def written(self, root: Element) -> bytes:
        """The root element."""
        self._node(root, 0)
        return b"".join(self.out)

    def is_pair(self, node: Element) -> bool:
        """Whether the source has it as ``<a></a>`` or with content, rather than as ``<a/>``."""
        at = self.at.get(node)
        return at is not None and self.spans[at].close < self.spans[at].end

    def _node(self, node: Element, level: int) -> None:
        at = self.at.get(node)
        span = None if at is None else self.spans[at]
        whole = 0 < level <= _WHOLE or not isinstance(node.tag, str)
        if at is not None and span is not None and whole and _plain(node) == _plain(self.old[at]):
            self.out.append(self.source[span.start : span.end])
        elif not isinstance(node.tag, str):
            self.out.append(_plain(node))
        else:
            known = at is not None and self.old[at].tag == node.tag
            self._element(node, at if known else None, level)

    def _element(self, node: Element, at: int | None, level: int) -> None:
        span = None if at is None else self.spans[at]
        self.out.append(self._opening(node, at))
        children = list(node)
        paired = span is not None and span.close < span.end
        if not children and not node.text and node.text is None:
            was_empty = (
                span is not None and at is not None and not len(self.old[at]) and not self.old[at].text
            )
            if not (paired and was_empty):
                self.out.append(b"/>")
                return
        self.out.append(b">")
        self._content(node, at, children, level)
        if span is not None and paired:
            self.out.append(self.source[span.close : span.end])
        else:
            self.out.append(b"</" + _name(node) + b">")

    def _content(self, node: Element, at: int | None, children: list[Element], level: int) -> None:
        gaps = None if at is None else _Gaps(self, at)
        anchor = 0
        self.out.append(self._text(gaps, anchor, node.text, own=True))
        for child in children:
            child_at = self.at.get(child)
            position = None if gaps is None or child_at is None else gaps.position.get(child_at)
            self._node(child, level + 1)
            anchor = anchor if position is None else position
            self.out.append(self._text(gaps, anchor, child.tail, own=position is not None))

    def _text(self, gaps: _Gaps | None, anchor: int, value: str | None, *, own: bool) -> bytes:
        """Return white space and text as in the source, at that place or nearby."""
        spelled = None if gaps is None else gaps.spelled(value or "", anchor, own=own)
        if spelled is not None or not value:
            return spelled or b""
        plain = value.encode()
        for character, escaped in _MARKUP:
            plain = plain.replace(character, escaped)
        return plain.replace(b"\r", b"&#13;").replace(b"\n", self.newline)

    def _opening(self, node: Element, at: int | None) -> bytes:
        """The start tag without its ``>`` or ``/>``."""
        if at is None:
            above = node.getparent()
            known = {} if above is None else above.nsmap
            spaces = [
                self._attribute(f"xmlns:{prefix}" if prefix else "xmlns", uri)
                for prefix, uri in node.nsmap.items()
                if known.get(prefix) != uri
            ]
            own = [self._attribute(_qualified(node, str(name)), str(value)) for name, value in node.items()]
            return b"".join([b"<", _name(node), *spaces, *own])
        span, old = self.spans[at], self.old[at]
        tag = self.source[span.start : span.opened]
        tag = tag[: -2 if span.close == span.end else -1]
        return tag if node.items() == old.items() else self._merged(node, old, tag)

    def _merged(self, node: Element, old: Element, tag: bytes) -> bytes:
        """Return the source's start tag with changed attributes. Names, blanks and quotes stay."""
        tokens = [match.groups() for match in _ATTRIBUTE.finditer(tag)]
        end = sum(len(part) for token in tokens for part in token)
        head = re.match(rb"<[^\s/>]+", tag)
        name = head.group() if head else b"<"
        own = (place for place, token in enumerate(tokens) if not _declares(token[1]))
        places = dict(zip(old.keys(), own, strict=True))
        result, written = [name], 0
        for key, value in node.items():
            place = places.get(key)
            if place is None:
                result.append(self._attribute(_qualified(node, str(key)), str(value)))
                continue
            for skipped in tokens[written:place]:
                result += skipped if _declares(skipped[1]) else ()
            written = max(written, place + 1)
            lead, spelled, equals, raw = tokens[place]
            if value != old.get(key):
                raw = _quoted(str(value), raw[:1])
            result += (lead, spelled, equals, raw)
        for skipped in tokens[written:]:
            result += skipped if _declares(skipped[1]) else ()
        return b"".join(result) + tag[len(name) + end :]

    def _attribute(self, name: str, value: str) -> bytes:
        return b" " + name.encode() + b"=" + _quoted(value, self.quote)


class _Gaps:
    """The text between the children of one element of the source, by position: 0 is before the first."""

    def __init__(self, writer: Writer, at: int) -> None:
        span, node = writer.spans[at], writer.old[at]
        self.position: dict[int, int] = {}
        self.values: list[str | None] = [node.text]
        begin = span.opened
        self.pieces: list[bytes] = []
        for place, child in enumerate(node, 1):
            child_at = writer.old_at[child]
            child_span = writer.spans[child_at]
            self.position[child_at] = place
            self.values.append(child.tail)
            self.pieces.append(writer.source[begin : child_span.start])
            begin = child_span.end
        self.pieces.append(writer.source[begin : span.close])
        self.places: dict[str, list[int]] = {}
        for place, value in enumerate(self.values):
            if value:
                self.places.setdefault(value, []).append(place)

    def spelled(self, value: str, anchor: int, *, own: bool) -> bytes | None:
        """Return the bytes of that text at the anchor, else at the next place with it, else at any."""
        if own and (self.values[anchor] or "") == value:
            # Not always nothing where the text is empty: <![CDATA[]]>.
            return self.pieces[anchor]
        places = self.places.get(value)
        if not places:
            return None
        return self.pieces[places[bisect_left(places, anchor) % len(places)]]


def same(one: Element, other: Element) -> bool:
    """Return whether two trees have the same names, attributes, text and comments.

    The canonical form alone is not enough: in it, an element without a namespace looks as if it had the
    default one.
    """
    if [node.tag for node in one.iter()] != [node.tag for node in other.iter()]:
        return False
    try:
        return _canonical(one) == _canonical(other)
    except etree.C14NError:
        # Namespaces that are relative have no canonical form.
        firsts, seconds = list(one.iter()), list(other.iter())
        return len(firsts) == len(seconds) and all(map(_alike, firsts, seconds))


def _canonical(root: Element) -> bytes:
    return etree.tostring(root, method="c14n", with_comments=True, with_tail=False)


def _alike(one: Element, other: Element) -> bool:
    return (
        (one.tag, one.items(), one.text or "", len(one))
        == (other.tag, other.items(), other.text or "", len(other))
        and (one.tail or "") == (other.tail or "")
        and (isinstance(one.tag, str) or _plain(one) == _plain(other))
    )


def _plain(node: Element) -> bytes:
    return etree.tostring(node, encoding="utf-8", with_tail=False)


def _name(node: Element) -> bytes:
    local = etree.QName(node).localname
    return f"{node.prefix}:{local}".encode() if node.prefix else local.encode()


def _qualified(node: Element, name: str) -> str:
    """An attribute's name with its prefix."""
    if name.startswith(_XML_NS):
        return f"xml:{name.removeprefix(_XML_NS)}"
    uri, brace, local = name.removeprefix("{").rpartition("}")
    if not brace:
        return name
    prefix = next(prefix for prefix, known in node.nsmap.items() if prefix and known == uri)
    return f"{prefix}:{local}"


def _declares(name: bytes) -> bool:
    return name == b"xmlns" or name.startswith(b"xmlns:")


_MARKUP = ((b"&", b"&amp;"), (b"<", b"&lt;"), (b">", b"&gt;"))
_ESCAPES = (*_MARKUP, (b"\t", b"&#9;"), (b"\n", b"&#10;"), (b"\r", b"&#13;"))


def _quoted(value: str, quote: bytes) -> bytes:
    plain = value.encode()
    for character, escaped in (*_ESCAPES, (quote, b"&quot;" if quote == b'"' else b"&apos;")):
        plain = plain.replace(character, escaped)
    return quote + plain + quote
