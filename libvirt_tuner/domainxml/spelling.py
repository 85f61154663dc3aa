"""XML text to an lxml tree and back, such that what was not changed keeps its very bytes.

lxml knows a document's meaning, not its spelling: libvirt writes attributes in single quotes and metadata in
double quotes, a person as they like; lxml writes everything in double quotes. So the source, and lxml's own
spelling of it, stay with the root element for as long as anyone holds it. Both have the same pieces between
one ``<`` and the next, so a piece that lxml still spells as it did is written as the source had it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lxml import etree

from libvirt_tuner.errors import DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

LARGEST = 16 * 1024 * 1024
_BLOCK = 32


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


def parse(xml: bytes | str, tag: str) -> Element:
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
        return b"<".join([_single_quoted(piece) for piece in plain.split(b"<")])
    if plain == source.plain:
        return source.text
    body = source.text[source.start : source.end]
    pieces = _respelled(plain, source.plain, body)
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


def _respelled(plain: bytes, old_plain: bytes, body: bytes) -> list[bytes]:
    """The pieces of ``plain``, each in the source's spelling where there is one."""
    pieces, old = plain.split(b"<"), old_plain.split(b"<")
    spelled = _paired(old, body.split(b"<"))
    quoted = _single_quoted if body.count(b"='") >= body.count(b'="') else _unchanged
    result: list[bytes] = []
    at = 0
    number = -1
    while number + 1 < len(pieces):
        number += 1
        # Most of a document does not change: whole blocks at a time.
        if pieces[number : number + _BLOCK] == old[at : at + _BLOCK]:
            result += spelled[at : at + _BLOCK]
            at += _BLOCK
            number += _BLOCK - 1
            continue
        while number < len(pieces) and at < len(old) and pieces[number] == old[at]:
            result.append(spelled[at])
            at += 1
            number += 1
        if number == len(pieces):
            break
        piece = pieces[number]
        run = _inserted(pieces, number, old, at)
        if run:
            result += map(quoted, pieces[number : number + run])
            number += run - 1
            continue
        step = _step(pieces, number, old, at)
        if step is None:
            result.append(quoted(piece))
            continue
        at += step
        same = old[at] == piece
        result.append(spelled[at] if same else _merged(piece, old[at], spelled[at], quoted))
        at += 1
    return result


def _inserted(pieces: list[bytes], number: int, old: list[bytes], at: int) -> int:
    """How many new pieces stand before the old one, 0 if it does not follow soon."""
    if at == len(old) or (pieces[number + 1 : number + 2] == old[at + 1 : at + 2]):
        return 0
    ahead = pieces[number + 1 : number + 1 + _BLOCK]
    return ahead.index(old[at]) + 1 if old[at] in ahead else 0


def _step(pieces: list[bytes], number: int, old: list[bytes], at: int) -> int | None:
    """How many old pieces were taken out before this one; None if it is a new one."""
    piece = pieces[number]
    if piece not in old:
        return _changed(piece, old, at, frozenset(pieces[number:]))
    gone = next((gap for gap in range(1, len(old) - at) if old[at + gap] == piece), None)
    if gone is None:
        return None
    come = next(
        (gap for gap in range(1, gone + 1) if pieces[number + gap : number + gap + 1] == [old[at]]), None
    )
    return gone if come is None else None


def _changed(piece: bytes, old: list[bytes], at: int, present: frozenset[bytes]) -> int | None:
    """How far on the tag stands that became this one: the next of its name among those that are gone."""
    name = _name(piece)
    for gap in range(len(old) - at):
        if old[at + gap] in present:
            return None
        if _name(old[at + gap]) == name:
            return gap
    return None


def _name(piece: bytes) -> bytes:
    return piece.split(b">", 1)[0].split(None, 1)[0].rstrip(b"/") if piece else b""


def _paired(plain: list[bytes], source: list[bytes]) -> list[bytes]:
    """The source's pieces, one for each of lxml's: it writes ``<a></a>`` as ``<a/>``."""
    if len(plain) == len(source):
        return source
    paired: list[bytes] = []
    pieces = iter(source)
    for piece in plain:
        spelling = next(pieces, piece)
        if _is_empty_tag(piece) and not _is_empty_tag(spelling):
            spelling += b"<" + next(pieces, b"")
        paired.append(spelling)
    return paired if next(pieces, None) is None else plain


def _is_empty_tag(piece: bytes) -> bool:
    return not piece.startswith((b"!", b"?", b"/")) and piece[: _closing(piece)].endswith(b"/")


def _merged(piece: bytes, old: bytes, spelled: bytes, quoted: Callable[[bytes], bytes]) -> bytes:
    """A tag that changed: the attributes and text that did not are written as the source had them."""
    if piece.startswith((b"!", b"?", b"/")) or spelled == quoted(old):
        return quoted(piece)
    new_tag, _, new_text = piece.partition(b">")
    old_tag, _, old_text = old.partition(b">")
    end = _closing(spelled)
    source_tag = spelled[:end].removesuffix(b"/")
    was, source = _attributes(old_tag), _attributes(source_tag)
    if len(was) != len(source):
        return quoted(piece)
    spelling = dict(zip(was, source, strict=True))
    parts = [spelling.get(attribute) or quoted(attribute) for attribute in _attributes(new_tag)]
    parts.append(source_tag[len(source_tag.rstrip()) :])
    if new_tag.endswith(b"/") and (spelled[:end].endswith(b"/") or not old_tag.endswith(b"/")):
        parts.append(b"/")
    kept = new_text == old_text and new_tag.endswith(b"/") == old_tag.endswith(b"/")
    return b"".join(parts) + b">" + (spelled[end + 1 :] if kept else new_text)


def _closing(spelled: bytes) -> int:
    """Where the tag ends: a source may hold a bare ``>`` in a quoted value."""
    quote = 0
    for at, char in enumerate(spelled):
        if quote:
            quote = 0 if char == quote else quote
        elif char in b"\"'":
            quote = char
        elif char == 0x3E:
            return at
    return len(spelled)


def _attributes(tag: bytes) -> list[bytes]:
    """The tag's name, then each attribute with the white space before it."""
    parts: list[bytes] = []
    begin = quote = 0
    for at, char in enumerate(tag):
        if quote and char == quote:
            parts.append(tag[begin : at + 1])
            begin, quote = at + 1, 0
        elif not quote and char in b"\"'":
            quote = char
        elif not quote and not parts and tag[at : at + 1].isspace():
            parts.append(tag[begin:at])
            begin = at
    return parts or [tag.rstrip(b"/").rstrip()]


def _unchanged(piece: bytes) -> bytes:
    return piece


def _single_quoted(piece: bytes) -> bytes:
    """lxml's spelling in libvirt's quotes; a double quote inside a value is always an entity there."""
    if piece.startswith((b"!", b"?", b"/")) or b'"' not in piece:
        return piece
    if not piece.startswith(b" ") and b">" not in piece:
        return piece.replace(b"'", b"&apos;").replace(b'"', b"'")
    tag, bracket, text = piece.partition(b">")
    return tag.replace(b"'", b"&apos;").replace(b'"', b"'") + bracket + text
