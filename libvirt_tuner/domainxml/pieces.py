"""The fast way to write a changed document: piece by piece. A piece is a tag with the text after it.

lxml writes a tree in one style only. So each piece of lxml's text of the tree before the change matches one
piece of the source. A piece that is still there after the change is copied from the source. Only new pieces
are written. A piece means the same at every position, so the result needs no second parse.

:mod:`libvirt_tuner.domainxml.spelling` writes the documents for which this is not possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxml import etree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

    from libvirt_tuner.domainxml.document import Source

# A comment, a CDATA section and an instruction may have a "<" within; a tag has none.
_PIECE = re.compile(rb"<((?:!--.*?-->|!\[CDATA\[.*?\]\]>|\?.*?\?>)?[^<]*)", re.DOTALL)
_VALUE = re.compile(rb'"([^"]*)"')
# The white space and the tag that begin a device: what did not change is passed over by the device.
_GAP = b"\n    "
_PART = _GAP + b"<"


def written(source: Source, now: bytes) -> bytes | None:
    """The document with its root element changed; None where the pieces do not tell how to spell it.

    Args:
        source: The document before.
        now: lxml's spelling of the changed root element.
    """
    # The tree has text moved out of a CDATA section as plain text: the long way still finds the section.
    if b"<![CDATA[" in source.plain:
        return None
    body = _by_part(source, now) if source.is_even else _by_piece(source, now)
    return None if body is None else source.text[: source.start] + body + source.text[source.end :]


def is_read_alike(root: Element, now: bytes) -> bool:
    """Whether lxml's spelling of the tree is read as the tree, as it is but for two exceptions.

    lxml does not look what is in a comment or an instruction, and writes an element without a namespace as if
    there were no default one.
    """
    asides = root.iter(etree.Comment, etree.PI) if _has_asides(now) else ()
    return b' xmlns="' not in now and not any(_breaks_out(aside.text or "") for aside in asides)


def _breaks_out(text: str) -> bool:
    return "--" in text or text.endswith("-") or "?>" in text


def _has_asides(text: bytes) -> bool:
    """Whether there are comments, CDATA sections or instructions."""
    # The single characters are rare, and found much faster.
    return (b"!" in text and b"<!" in text) or (b"?" in text and b"<?" in text)


def _pieces(text: bytes) -> list[bytes]:
    return _PIECE.findall(text) if _has_asides(text) else text.split(b"<")[1:]


def _by_part(source: Source, now: bytes) -> bytes:
    """The body where the source is spelled evenly: all but what is new is spelled as everything else."""
    has_asides = _has_asides(source.plain) or _has_asides(now)
    *olds, old_end = [source.plain] if has_asides else source.plain.split(_PART)
    *news, new_end = [now] if has_asides else now.split(_PART)
    gone, come = set(olds).difference(news), set(news).difference(olds)
    new = _all_pieces(come, new_end) - _all_pieces(gone, old_end)
    if not any(map(_has_own_quotes, new)):
        return source.usual(now)
    spelled = {piece: _new(source, piece) for piece in new}
    return b"".join([b"<" + spelled.get(piece, source.usual(piece)) for piece in _pieces(now)])


def _has_own_quotes(piece: bytes) -> bool:
    """Whether there are quotes but those around the values of a tag."""
    return (
        b"'" in piece
        or b"&quot;" in piece
        or b'"' in piece.partition(b">")[2]
        or piece.startswith((b"!", b"?"))
    )


def _all_pieces(parts: Iterable[bytes], end: bytes) -> set[bytes]:
    """The pieces of the parts, which stand before a gap, and of the last one."""
    return {*_pieces(b"<" + end)}.union(*[_pieces(b"<" + part + _GAP) for part in parts])


def _by_piece(source: Source, now: bytes) -> bytes | None:
    old, given, new = _pieces(source.plain), _pieces(source.text[source.start : source.end]), _pieces(now)
    # lxml spells <a></a> as <a/>.
    if len(old) != len(given) or not _are_steady(source, old, given, new):
        return None
    spelled = dict(zip(old, given, strict=True))
    for piece in set(new).difference(spelled):
        spelled[piece] = _new(source, piece)
    return b"".join([b"<", b"<".join(map(spelled.__getitem__, new))])


def _are_steady(source: Source, old: list[bytes], given: list[bytes], new: list[bytes]) -> bool:
    """Whether pieces that the source spells in another way than most are still there, each in its one way."""
    usual = _pieces(source.usual(source.plain))
    odd = {piece for piece, has, would in zip(old, given, usual, strict=True) if has != would}
    ways = {(piece, has) for piece, has in zip(old, given, strict=True) if piece in odd}
    return len(ways) == len(odd) and [*filter(odd.__contains__, new)] == [*filter(odd.__contains__, old)]


def _new(source: Source, piece: bytes) -> bytes:
    """A piece that the source does not have, in its quotes and line ends."""
    tag, end, text = piece.partition(b">")
    if source.quote == b"'" and not piece.startswith((b"!", b"?")):
        tag = _VALUE.sub(lambda match: _requoted(match, source.plain), tag)
    return (tag + end + text).replace(b"\n", source.newline)


def _requoted(match: re.Match[bytes], plain: bytes) -> bytes:
    value = match[1].replace(b"'", b"&apos;")
    if b"&quot;" in value and match[0] not in plain:
        value = value.replace(b"&quot;", b'"')
    return b"'" + value + b"'"
