"""Factories for your own transforms, in the three shapes that most settings of a domain have.

You can compose, record and revert them like the transforms of this package. Use each name only once, because
the record keeps the settings under it. ``revert`` needs the transform again, as ``others``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from libvirt_tuner.domainxml import edit, read
from libvirt_tuner.errors import ArgumentError
from libvirt_tuner.transforms import _pins, _vnics
from libvirt_tuner.transforms._transform import Fits, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_LONGEST = 4096


def nic_setting(
    name: str,
    child: str,
    attribute: str,
    value: str | int | None,
    *,
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
    problem: _vnics.Problem | None = None,
    on_arrival: bool = False,
) -> Transform:
    """Set an attribute of a child of each interface, such as ``<driver iommu='on'>``. None removes it.

    Args:
        name: The transform's name, letters, digits and ``_``.
        child, attribute: The child element of the interface, created if missing, and its attribute.
        value: What to set.
        mac, alias, index: Interfaces to change, one or several of each. Positions count from 0. An empty list
            selects none. Without these arguments, every interface that can have the setting is changed.
        nics: The same in one list: MACs, aliases, positions, or functions that take a
            :class:`~libvirt_tuner.domainxml.spec.Vnic` and return whether to select it.
        problem: Function that returns why an interface element cannot have the setting, or "". Default: only
            virtio interfaces can. Use a module-level function, so that the transform can be pickled.
        on_arrival: Whether it may run on migrate and restore. Only allow changes that the guest cannot see.

    Raises:
        ArgumentError: A bad name, value or selection. On a document, :class:`MissingDeviceError`: no such
            interface, or one that was named cannot have the setting.
    """
    _check(name, value)
    chosen = _vnics.choice(mac, alias, index, nics)
    store = _vnics.VnicStore(child, attribute, is_text)
    return _vnics.transform(name, store, value, chosen, problem or only_virtio, on_arrival=on_arrival)


def pin_setting(
    tag: str,
    key: str,
    pins: Mapping[int, Iterable[int] | None] | None,
    *,
    known: _pins.Known,
    on_arrival: bool = True,
) -> Transform:
    """Pin threads by an element of ``<cputune>`` that has an id and a cpuset. None removes the pins.

    Args:
        tag, key: The element, which is the transform's name as well, and its attribute with the id.
        pins: Id to CPUs. None for an id removes its pin, None for all removes every pin.
        known: Function that returns the ids of a domain's root element. Use a module-level function, for
            pickling.
        on_arrival: Whether it may run on migrate and restore.

    Raises:
        ArgumentError: A bad name or set of CPUs. On a document, :class:`MissingDeviceError`: no such id.
    """
    _check(tag, None)
    return _pins.numbered(
        _pins.PinStore(tag, key, known, key, "/domain/cputune"), pins, on_arrival=on_arrival
    )


def domain_setting(
    name: str, path: str, attribute: str, value: str | int | None, *, on_arrival: bool = False
) -> Transform:
    """Set an attribute of one element of the domain, as ``memoryBacking/source type=``. None removes it.

    Args:
        name: The transform's name, letters, digits and ``_``.
        path: Tags below ``<domain>``, with ``/`` between them. Missing elements are created.
        attribute: Attribute of the last element.
        value: What to set.
        on_arrival: Whether it may run on migrate and restore.

    Raises:
        ArgumentError: A bad name, path or value.
    """
    _check(name, value)
    tags = tuple(path.split("/")) if isinstance(path, str) else ("",)
    if not all(tags):
        raise ArgumentError("bad path", where=name, value=path, expected="tags as in 'memoryBacking/source'")
    text = f"remove {attribute} from {path}" if value is None else f"{path}: {attribute} {value}"
    spelled = None if value is None else str(value)
    return Transform(name, (spelled,), on_arrival, text, ElementStore(tags, attribute), _wanted)


def only_virtio(interface: Element) -> str:
    """Return why the interface cannot have a virtio setting, or ""."""
    return "" if _vnics.is_virtio(interface) else "only a virtio interface can have it"


def is_text(value: str) -> bool:
    """Whether an attribute in the record can have the value."""
    return len(value) <= _LONGEST and value.isprintable()


@frozen(repr=False)
class ElementStore:
    """One attribute of one element, under the key ``value``."""

    tags: tuple[str, ...]
    attribute: str

    def read(self, root: Element) -> dict[str, str]:
        """``value`` to the attribute, as it stands there."""
        element = read.find(root, *self.tags)
        value = None if element is None else element.get(self.attribute)
        return {} if value is None else {"value": value}

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        """Set the attribute; None takes it out."""
        element, value = read.find(root, *self.tags), settings.get("value")
        if value is None:
            if element is not None:
                edit.set_attribute(element, self.attribute, None)
                if edit.is_bare(element):
                    edit.discard(element)
            return
        if element is None:
            element = root
            for tag in self.tags:
                element = edit.ensure(element, tag)
        edit.set_attribute(element, self.attribute, value)

    def same(self, one: str, other: str) -> bool:
        """Whether both are equal."""
        return one == other

    def fits(self, root: Element) -> Fits:
        """Any printable text."""
        return lambda key, value: key == "value" and (value is None or is_text(value))

    def containers(self, root: Element) -> dict[str, Element]:
        """The element and those around it."""
        found = {}
        for length in range(1, len(self.tags) + 1):
            element = read.find(root, *self.tags[:length])
            if element is not None:
                found["/".join(self.tags[:length])] = element
        return found


def _wanted(root: Element, value: str | None) -> dict[str, str | None]:
    return {"value": value}


def _check(name: str, value: str | int | None) -> None:
    if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
        raise ArgumentError(
            "bad name of a transform", where="name", value=name, expected="letters, digits, '_'"
        )
    if value is not None and not is_text(str(value)):
        raise ArgumentError(
            "bad value", where=name, value=value, expected=f"up to {_LONGEST} printable characters"
        )
