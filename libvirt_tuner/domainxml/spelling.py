"""How a document is spelled, such that what was not changed keeps its very bytes.

lxml knows a document's meaning, not its spelling: libvirt writes attributes in single quotes and metadata in
double quotes, a person as they like; lxml writes everything in double quotes. So the source, and lxml's own
spelling of it, stay with the root element for as long as anyone holds it. Both have the same pieces between
one ``<`` and the next, so a piece that lxml still spells as it did is written as the source had it.
"""

from __future__ import annotations

from collections.abc import Callable

_BLOCK = 32


def respelled(plain: bytes, old_plain: bytes, body: bytes) -> list[bytes]:
    """The pieces of ``plain``, each in the source's spelling where there is one."""
    pieces, old = plain.split(b"<"), old_plain.split(b"<")
    spelled = _paired(old, body.split(b"<"))
    quoted = single_quoted if body.count(b"='") >= body.count(b'="') else _unchanged
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


def single_quoted(piece: bytes) -> bytes:
    """lxml's spelling in libvirt's quotes; a double quote inside a value is always an entity there."""
    if piece.startswith((b"!", b"?", b"/")) or b'"' not in piece:
        return piece
    if not piece.startswith(b" ") and b">" not in piece:
        return piece.replace(b"'", b"&apos;").replace(b'"', b"'")
    tag, bracket, text = piece.partition(b">")
    return tag.replace(b"'", b"&apos;").replace(b'"', b"'") + bracket + text
