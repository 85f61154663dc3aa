"""Restores the original document byte for byte, also where a transform removed an element.

The record has values. An element that was removed is restored with libvirt's position and style. If the
original differs, the record has the difference, as ``spelled="AT LENGTH TEXT"``: in the reverted document,
LENGTH characters at AT were TEXT. Anybody can write metadata, so TEXT is used only if the document still
means the same to libvirt.
"""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner.domainxml import document, metadata, read
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import record
from libvirt_tuner.transforms._transform import Change, Xml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_SPELLED = "spelled"
_LONGEST = 65536


def recorded(xml: Xml, changes: Iterable[Change]) -> Xml | None:
    """The document with the transforms run and recorded; None where that changes nothing.

    Raises:
        DomainXmlError, TypeError: As :func:`libvirt_tuner.transforms.record.apply`.
    """
    root, changes = document.parse(xml), tuple(changes)
    if not record.apply(root, changes):
        return None
    element = metadata.record_element(root)
    if element is not None and any(entry.was is not None for entry in record.entries(root, changes).values()):
        element.attrib.pop(_SPELLED, "")
        back, before = reverted(_written(root, xml), changes), reverted(xml, changes)
        spelled = _difference(_text_of(back or xml), _text_of(before or xml))
        if spelled:
            element.set(_SPELLED, spelled)
    return _written(root, xml)


def reverted(xml: Xml, others: Iterable[Change]) -> Xml | None:
    """The document as it was before; None where there is no record.

    Raises:
        DomainXmlError: The document is malformed, or no domain.
    """
    root = document.parse(xml)
    element = metadata.record_element(root)
    spelled = "" if element is None else element.get(_SPELLED, "")
    if not record.revert(root, others):
        return None
    back = _written(root, xml)
    return _respelled(root, back, spelled) if spelled else back


def _written(root: Element, xml: Xml) -> Xml:
    """The document as the type that it was given as."""
    result = document.serialize(root)
    return result.decode() if isinstance(xml, str) else result


def _text_of(xml: bytes | str) -> str:
    return xml if isinstance(xml, str) else xml.decode()


def _difference(back: str, before: str) -> str:
    """What is different, as ``AT LENGTH TEXT``; "" where nothing is, or too much."""
    if back == before:
        return ""
    shorter = min(len(back), len(before))
    at = next((at for at in range(shorter) if back[at] != before[at]), shorter)
    behind = next((n for n in range(shorter - at) if back[-1 - n] != before[-1 - n]), shorter - at)
    text = before[at : len(before) - behind]
    return f"{at} {len(back) - behind - at} {text}" if len(text) <= _LONGEST else ""


def _respelled(root: Element, back: Xml, spelled: str) -> Xml:
    """The document with the note applied, if it is one."""
    at, _, rest = spelled.partition(" ")
    length, _, piece = rest.partition(" ")
    if not all(number.isascii() and number.isdecimal() and len(number) <= 9 for number in (at, length)):
        return back
    text = _text_of(back)
    changed = text[: int(at)] + piece + text[int(at) + int(length) :]
    before = changed if isinstance(back, str) else changed.encode()
    try:
        other = document.parse(before)
    except DomainXmlError:
        return back
    return before if _means_the_same(root, other) else back


def _means_the_same(one: Element, other: Element) -> bool:
    """Whether libvirt reads both alike.

    It asks for elements by name: the order counts among those of one name only. Comments, instructions and
    text that is only white space mean nothing.
    """
    if (one.tag, dict(one.items()), _text(one)) != (other.tag, dict(other.items()), _text(other)):
        return False
    ones, others = _children(one), _children(other)
    return len(ones) == len(others) and all(map(_means_the_same, ones, others))


def _text(element: Element) -> str:
    """The text; among other elements its white space is indentation."""
    text = read.content(element)
    return (
        "".join(text.split()) if next(element.iterchildren("*"), None) is not None else text.strip() and text
    )


def _children(element: Element) -> list[Element]:
    return sorted(element.iterchildren("*"), key=lambda child: str(child.tag))
