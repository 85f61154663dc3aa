"""Selects interfaces for a transform, gives them stable keys, and reads and writes their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import field, frozen
from lxml import etree

from libvirt_tuner.domainxml import edit, parts, read
from libvirt_tuner.errors import ArgumentError, MissingDeviceError
from libvirt_tuner.transforms._transform import Fits, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

    from libvirt_tuner.domainxml.spec import Vnic

WHERE = "/domain/devices/interface"
Predicate = Callable[["Vnic"], bool]
Names = str | Iterable[str] | None
Positions = int | Iterable[int] | None
Nics = str | int | Predicate | Iterable[str | int | Predicate] | None
Problem = Callable[["Element"], str]


@frozen(repr=False)
class Choice:
    """Interfaces by MAC, alias, position or predicate, or ``every`` one that can have the setting."""

    macs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    every: bool = False

    def __str__(self) -> str:
        named = (*self.macs, *self.aliases, *(f"interface {index}" for index in self.indices))
        chosen = (*named, *(f"interfaces with {getattr(one, '__name__', one)}" for one in self.predicates))
        return "every interface" if self.every else ", ".join(chosen) or "no interface"

    def __repr__(self) -> str:
        return f"<{self}>"


def choice(mac: Names = None, alias: Names = None, index: Positions = None, nics: Nics = None) -> Choice:
    """Return the selection of a factory's keywords. An empty list selects nothing.

    Raises:
        ArgumentError: An empty name, a negative position, or something of another type.
    """
    if mac is None and alias is None and index is None and nics is None:
        return Choice(every=True)
    macs, aliases, indices = _several(mac, str), _several(alias, str), _several(index, int)
    predicates = []
    for one in _several(nics, (str, int)):
        if callable(one):
            predicates.append(one)
        elif isinstance(one, int):
            indices.append(one)
        else:
            (macs if str(one).count(":") == 5 else aliases).append(one)
    _check("mac", macs, str)
    _check("alias", aliases, str)
    _check("index", indices, int)
    lower = sorted({one.lower() for one in macs})
    return Choice(tuple(lower), tuple(sorted(set(aliases))), tuple(sorted(set(indices))), tuple(predicates))


def _several(given: object, single: type | tuple[type, ...]) -> list:  # type: ignore[type-arg]
    if given is None:
        return []
    if isinstance(given, single) or callable(given):
        return [given]
    if not isinstance(given, Iterable):
        raise ArgumentError("bad selection of interfaces", value=given, expected="one, or several of them")
    return list(given)


def _check(where: str, names: list[object], kind: type) -> None:
    for name in names:
        right = isinstance(name, kind) and not isinstance(name, bool)
        if not right or name == "" or (isinstance(name, int) and name < 0):
            expected = "a name" if kind is str else "a position, from 0"
            raise ArgumentError("bad selection of interfaces", where=where, value=name, expected=expected)


def selected(root: Element, chosen: Choice, problem: Problem) -> list[tuple[int, Element]]:
    """Position and element of the interfaces chosen, in document order.

    Args:
        root: The domain.
        chosen: Selection by the user, or every interface without a problem.
        problem: Function that returns why an interface cannot have the setting, or "".

    Raises:
        MissingDeviceError: There is no such interface, or a selected one cannot have the setting.
    """
    interfaces = list(enumerate(parts.interfaces(root)))
    if chosen.every:
        return [(index, interface) for index, interface in interfaces if not problem(interface)]
    served = _named(root, interfaces, chosen)
    for index, interface in served:
        why = problem(interface)
        if why:
            raise MissingDeviceError(why, where=f"{WHERE}[{index + 1}]", value=interface.get("type"))
    return served


def is_virtio(interface: Element) -> bool:
    """Return whether the guest sees a virtio-net device of QEMU."""
    model = read.attribute(interface, "model", "type")
    return model in parts.VIRTIO_MODELS and interface.get("type") != "hostdev"


def keys(root: Element) -> list[str]:
    """Return a key for each interface: its MAC if that is unique, else its position."""
    found = macs(root)
    seen: dict[str, int] = {}
    for mac in found:
        seen[mac] = seen.get(mac, 0) + 1
    return [f"mac={mac}" if mac and seen[mac] == 1 else f"index={at}" for at, mac in enumerate(found)]


def macs(root: Element) -> list[str]:
    """The MAC of each interface in lower case, "" where the document gives none."""
    return [read.attribute(interface, "mac", "address").lower() for interface in parts.interfaces(root)]


# QEMU, hw/net/virtio-net.c: both rings have 256 to VIRTQUEUE_MAX_SIZE entries, a power of two.
RING_SIZES = (256, 512, 1024)


def check_ring(size: int | None, where: str) -> None:
    """The size is one a virtio NIC's ring can have.

    Raises:
        ArgumentError: It is not.
    """
    if size is not None and not (isinstance(size, int) and size in RING_SIZES):
        raise ArgumentError("bad ring size", where=where, value=size, expected="256, 512 or 1024")


def is_number(value: str) -> bool:
    """Whether it is a decimal number of a setting's size."""
    return value.isascii() and value.isdecimal() and len(value) <= 9


@frozen(repr=False)
class VnicStore:
    """A setting of each interface: an attribute of a child element, by :func:`keys`.

    Attributes:
        child, attribute: ``driver`` and ``queues``, for instance.
        accepts: Function that returns whether the attribute can have a value.
    """

    child: str
    attribute: str
    accepts: Callable[[str], bool] = field(default=is_number)

    def read(self, root: Element) -> dict[str, str]:
        """Key to value, as it stands there."""
        found = [self._read(interface) for interface in parts.interfaces(root)]
        if not any(value is not None for value in found):
            return {}
        return {key: value for key, value in zip(keys(root), found, strict=True) if value is not None}

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        """Set every key. Missing interfaces are ignored."""
        for key, interface in zip(keys(root), parts.interfaces(root), strict=True):
            if key in settings:
                self._write(interface, settings[key])

    def same(self, one: str, other: str) -> bool:
        """Whether both are the same number."""
        return is_number(one.strip()) and is_number(other.strip()) and int(one) == int(other)

    def fits(self, root: Element) -> Fits:
        """An interface of the document, and a value the attribute can have."""
        known = frozenset(keys(root))
        return lambda key, value: key in known and (value is None or self.accepts(value))

    def containers(self, root: Element) -> dict[str, Element]:
        """The child element of each interface that has it."""
        found = {}
        for key, interface in zip(keys(root), parts.interfaces(root), strict=True):
            element = read.child(interface, self.child)
            if element is not None:
                found[f"{key}/{self.child}"] = element
        return found

    def _read(self, interface: Element) -> str | None:
        element = read.child(interface, self.child)
        return None if element is None else element.get(self.attribute)

    def _write(self, interface: Element, value: str | None) -> None:
        element = read.child(interface, self.child)
        if element is not None:
            edit.set_attribute(element, self.attribute, value)
            if value is None and edit.is_bare(element):
                edit.remove(element)
        elif value is not None:
            edit.insert(interface, etree.Element(self.child, {self.attribute: value}))


def transform(
    name: str,
    store: VnicStore,
    value: int | str | None,
    chosen: Choice,
    problem: Problem,
    *,
    on_arrival: bool = False,
) -> Transform:
    """Return the transform of a setting in that store. None removes it."""
    text = f"remove {name} from {chosen}" if value is None else f"{name} {value} on {chosen}"
    spelled = None if value is None else str(value)
    return Transform(name, (spelled, chosen, store, problem), on_arrival, text, store, wanted)


def wanted(
    root: Element, value: str | None, chosen: Choice, store: VnicStore, problem: Problem
) -> dict[str, str | None]:
    """Return one value for the selected interfaces, by :func:`keys`. None for every interface removes all.

    Raises:
        MissingDeviceError: As :func:`selected`.
    """
    if value is None and chosen.every:
        return dict.fromkeys(store.read(root))
    names = keys(root)
    return {names[at]: value for at, _ in selected(root, chosen, problem)}


def _vnics(root: Element) -> tuple[Vnic, ...]:
    # Its classes take as long to make as four transforms, and few callers have a predicate.
    from libvirt_tuner.domainxml import spec

    return spec.vnics(root)


def _named(root: Element, interfaces: list[tuple[int, Element]], chosen: Choice) -> list[tuple[int, Element]]:
    wanted: set[object] = {*chosen.macs, *chosen.aliases, *chosen.indices}
    vnics = _vnics(root) if chosen.predicates else ()
    met: set[object] = set()
    served = []
    following = parts.next_aliases(root)
    for index, interface in interfaces:
        mac, alias = (
            read.attribute(interface, "mac", "address").lower(),
            read.attribute(interface, "alias", "name"),
        )
        mine = {index, mac, alias, following[index]} & wanted
        met |= mine
        if mine or any(predicate(vnics[index]) for predicate in chosen.predicates):
            served.append((index, interface))
    unknown = wanted - met
    if unknown:
        raise MissingDeviceError(
            "no such interface",
            where=WHERE,
            value=min(map(str, unknown)),
            expected="its MAC, alias or position",
        )
    return served
