"""Reads values of a document as libvirt does. Every error has the xpath.

libvirt reads a text value with XPath's ``string()``, which ignores comments. It ignores blanks around numbers
(strtoul), but not around names.
"""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.cpuset import Cpus
from libvirt_tuner.errors import CpusetError, DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def child(parent: Element, tag: str) -> Element | None:
    """The first child of that tag."""
    return next(parent.iterchildren(tag), None)


def each(root: Element, *tags: str) -> Iterator[Element]:
    """Every element of that path, in document order."""
    first, *rest = tags
    for element in root.iterchildren(first):
        if rest:
            yield from each(element, *rest)
        else:
            yield element


def find(root: Element, *tags: str) -> Element | None:
    """The first element of that path."""
    return next(each(root, *tags), None)


def content(element: Element | None) -> str:
    """The element's own text, comments and instructions within it left out; "" without the element."""
    if element is None:
        return ""
    return (element.text or "") + "".join(inner.tail or "" for inner in element)


def text(parent: Element, tag: str) -> str:
    """The child's text without white space around it, "" without the child."""
    return content(child(parent, tag)).strip()


def attribute(parent: Element, tag: str, name: str) -> str:
    """The child's attribute, "" without either."""
    element = child(parent, tag)
    return "" if element is None else element.get(name, "")


def number(element: Element, name: str, where: str, *, default: int | None = None) -> int:
    """The attribute as a whole number.

    Raises:
        DomainXmlError: No number, or missing without a default.
    """
    return integer(element.get(name, ""), f"{where}/@{name}", default)


def cpus(element: Element, name: str, where: str) -> Cpus:
    """The attribute as a set of CPUs or nodes, which must not be empty.

    Raises:
        DomainXmlError: Not a cpulist, or an empty one.
    """
    given = element.get(name, "")
    try:
        found = cpuset.parse(given)
    except CpusetError as error:
        raise DomainXmlError(
            error.problem, where=f"{where}/@{name}", value=given, expected=error.expected
        ) from None
    if not found:
        raise DomainXmlError(
            "empty cpulist", where=f"{where}/@{name}", value=given, expected="at least one id"
        )
    return found


def integer(given: str, where: str, default: int | None = None) -> int:
    """Parse a non-negative decimal number with optional blanks around it. An empty text gives ``default``."""
    digits = given.strip(" \t\r\n")
    if not digits and default is not None:
        return default
    # Enough digits for any size in bytes. int() of a million digits is slow.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise DomainXmlError("not a number", where=where, value=given, expected="a whole number")
    return int(digits)
