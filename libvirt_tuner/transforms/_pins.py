"""What the three pin transforms share: elements of ``<cputune>`` with a cpuset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.errors import CpusetError, DomainXmlError
from libvirt_tuner.transforms._transform import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

Pins = tuple[tuple[int, str | None], ...]


def cpulist(cpus: Iterable[int] | None, where: str) -> str | None:
    """The CPUs as libvirt writes them; None stays None.

    Raises:
        CpusetError: No CPU, or an id outside 0..16383.
    """
    if cpus is None:
        return None
    listed = frozenset(cpus)
    if not listed or not all(0 <= cpu < cpuset.LIMIT for cpu in listed):
        expected = f"at least one CPU, each 0 to {cpuset.LIMIT - 1}"
        raise CpusetError("bad set of CPUs", where=where, value=sorted(listed), expected=expected)
    return cpuset.format(listed)


def normal(pins: Mapping[int, Iterable[int] | None] | None, where: str) -> Pins | None:
    """The pins in ascending order, each set as libvirt writes it."""
    if pins is None:
        return None
    return tuple((number, cpulist(cpus, f"{where} {number}")) for number, cpus in sorted(pins.items()))


def described(pins: Pins | None, what: str) -> str:
    """What a pin transform does, in one line."""
    if pins is None:
        return f"take every {what} out"
    return f"{what}: " + ", ".join(f"{number} to {cpus or 'anywhere'}" for number, cpus in pins)


def same(one: str, other: str) -> bool:
    """Whether two cpulists name the same CPUs; one that cannot be read is like no other."""
    try:
        return cpuset.parse(one) == cpuset.parse(other)
    except CpusetError:
        return False


def numbered(tag: str, key: str) -> Store:
    """The store of pins that are told apart by an id in the attribute ``key``: id to cpuset."""

    def read(root: Element) -> dict[str, str]:
        return {pin.get(key, ""): pin.get("cpuset", "") for pin in _pins(root, tag)}

    def write(root: Element, number: str, cpus: str | None) -> None:
        write_all(root, {number: cpus})

    def write_all(root: Element, pins: Mapping[str, str | None]) -> None:
        present = {pin.get(key): pin for pin in _pins(root, tag)}
        for number, cpus in pins.items():
            found = present.get(number)
            if cpus is None:
                if found is not None:
                    xmledit.discard(found)
            elif found is not None:
                found.set("cpuset", cpus)
            else:
                cputune = xmledit.ensure(root, "cputune")
                xmledit.insert(cputune, etree.Element(tag, {key: number, "cpuset": cpus}))

    return Store(read, write, write_all, same)


def check(numbers: Iterable[int], known: frozenset[int], where: str, what: str) -> None:
    """Every id is one the domain has.

    Raises:
        DomainXmlError: One is not.
    """
    for number in numbers:
        if number not in known:
            expected = cpuset.format(known) if known else f"a domain with a {what}"
            raise DomainXmlError(
                f"the domain has no {what} {number}", where=where, value=number, expected=expected
            )


def _pins(root: Element, tag: str) -> Iterable[Element]:
    cputune = xmlread.child(root, "cputune")
    return () if cputune is None else cputune.iterchildren(tag)
