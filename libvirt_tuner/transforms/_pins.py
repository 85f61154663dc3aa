"""Common code of the pin transforms: elements of ``<cputune>`` with a cpuset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import frozen
from lxml import etree

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import edit, read
from libvirt_tuner.errors import ArgumentError, CpusetError, MissingDeviceError
from libvirt_tuner.transforms._transform import Fits, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

Pins = tuple[tuple[int, str | None], ...]
Known = Callable[["Element"], frozenset[int]]


def cpulist(cpus: Iterable[int] | None, where: str) -> str | None:
    """Return the CPUs as libvirt writes them; None stays None.

    Raises:
        CpusetError: No CPU, or an id outside 0..16383.
    """
    if cpus is None:
        return None
    is_set = isinstance(cpus, Iterable) and not isinstance(cpus, str)
    listed = list(cpus) if is_set else []
    if not listed or not all(map(_is_id, listed)):
        expected = f"at least one CPU, each 0 to {cpuset.LIMIT - 1}"
        raise CpusetError(
            "bad set of CPUs",
            where=where,
            value=sorted(listed, key=str) if is_set else cpus,
            expected=expected,
        )
    return cpuset.format(frozenset(listed))


def _is_id(cpu: object) -> bool:
    return isinstance(cpu, int) and not isinstance(cpu, bool) and 0 <= cpu < cpuset.LIMIT


def normal(pins: Mapping[int, Iterable[int] | None] | None, where: str) -> Pins | None:
    """The pins in ascending order, each set as libvirt writes it."""
    if pins is None:
        return None
    if not isinstance(pins, Mapping) or not all(map(_is_id, pins)):
        raise ArgumentError("bad pins", where=where, value=pins, expected="a mapping of ids to sets of CPUs")
    return tuple((number, cpulist(cpus, f"{where} {number}")) for number, cpus in sorted(pins.items()))


def described(pins: Pins | None, what: str) -> str:
    """What a pin transform does, in one line."""
    if pins is None:
        return f"remove every {what}"
    return f"{what}: " + ", ".join(f"{number} to {cpus or 'anywhere'}" for number, cpus in pins)


def same(one: str, other: str) -> bool:
    """Return whether two cpulists have the same CPUs. An invalid one equals no other."""
    try:
        return cpuset.parse_bits(one) == cpuset.parse_bits(other)
    except CpusetError:
        return False


def is_cpulist(value: str | None) -> bool:
    """Return whether it is a cpulist with a CPU, or None."""
    try:
        return value is None or bool(cpuset.parse_bits(value))
    except CpusetError:
        return False


@frozen(repr=False)
class PinStore:
    """Pins with an id in an attribute: id to cpuset.

    Attributes:
        tag, key: The element and its attribute with the id.
        known: The ids the domain has.
        what: Name of the objects with the id, for messages.
        where: Its xpath.
    """

    tag: str
    key: str
    known: Known
    what: str
    where: str

    def read(self, root: Element) -> dict[str, str]:
        """Id to cpuset, as it stands there."""
        return {pin.get(self.key, ""): pin.get("cpuset", "") for pin in self._pins(root)}

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        """Set every pin. None removes it."""
        present = {pin.get(self.key): pin for pin in self._pins(root)}
        new = []
        for number, cpus in settings.items():
            found = present.get(number)
            if cpus is None:
                if found is not None:
                    edit.discard(found)
            elif found is not None:
                found.set("cpuset", cpus)
            else:
                new.append(etree.Element(self.tag, {self.key: number, "cpuset": cpus}))
        if new:
            new.sort(key=lambda pin: int(pin.get(self.key, "0")))
            edit.insert_all(edit.ensure(root, "cputune"), new)

    def same(self, one: str, other: str) -> bool:
        """Return whether both have the same CPUs."""
        return same(one, other)

    def fits(self, root: Element) -> Fits:
        """Check for an id of the domain, and a cpulist."""
        known = frozenset(map(str, self.known(root)))
        return lambda key, value: key in known and is_cpulist(value)

    def containers(self, root: Element) -> dict[str, Element]:
        """``<cputune>``."""
        found = read.child(root, "cputune")
        return {} if found is None else {"cputune": found}

    def _pins(self, root: Element) -> Iterable[Element]:
        return read.each(root, "cputune", self.tag)


def numbered(
    store: PinStore, pins: Mapping[int, Iterable[int] | None] | None, *, on_arrival: bool
) -> Transform:
    """The transform of pins in that store.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383.
    """
    listed = normal(pins, f"{store.tag} of {store.what}")
    text = described(listed, store.tag)
    return Transform(store.tag, (listed, store), on_arrival, text, store, wanted)


def wanted(root: Element, pins: Pins | None, store: PinStore) -> dict[str, str | None]:
    """Return the pins. Each must be of a thread of the domain.

    Raises:
        MissingDeviceError: One is not.
    """
    known = store.known(root)
    if pins is None:
        names = frozenset(map(str, known))
        return {number: None for number in store.read(root) if number in names}
    check((number for number, _ in pins), known, store.where, store.what)
    return {str(number): cpus for number, cpus in pins}


def check(numbers: Iterable[int], known: frozenset[int], where: str, what: str) -> None:
    """Check that the domain has every id.

    Raises:
        MissingDeviceError: One is not.
    """
    for number in numbers:
        if number not in known:
            expected = cpuset.format(known) if known else f"a domain with a {what}"
            raise MissingDeviceError(
                f"the domain has no {what} {number}", where=where, value=number, expected=expected
            )
