"""Reading one value of a document, strictly; every error has the xpath."""

from __future__ import annotations

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError, DomainXmlError
from libvirt_tuner.topology import Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def child(parent: Element, tag: str) -> Element | None:
    """The first child of that tag."""
    return next(parent.iterchildren(tag), None)


def find(root: Element, *tags: str) -> Element | None:
    """The element down that path of first children."""
    element: Element | None = root
    for tag in tags:
        element = None if element is None else child(element, tag)
    return element


def text(parent: Element, tag: str) -> str:
    """The child's text without white space around it, "" without the child."""
    element = child(parent, tag)
    return "" if element is None else (element.text or "").strip()


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
    """A non-negative decimal number; empty is ``default`` where there is one."""
    if not given and default is not None:
        return default
    # As many digits as any size in bytes has; int() of a million would take its time.
    if not (given.isascii() and given.isdigit() and len(given) <= 20):
        raise DomainXmlError("not a number", where=where, value=given, expected="a whole number")
    return int(given)
