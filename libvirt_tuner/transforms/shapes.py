"""Transforms of one's own, in the three shapes that most settings of a domain have.

They are composed, recorded and reverted as this package's own are. A name is used once: the record keeps the
settings under it, and ``revert`` needs the transform again, given as ``others``.
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
    """Set an attribute of a child of each interface, such as ``<driver iommu='on'>``; None takes it out.

    Args:
        name: The transform's name, letters, digits and ``_``.
        child, attribute: The interface's child element, made where there is none, and its attribute.
        value: What to set.
        mac, alias, index: Which interfaces, one or several of each; positions count from 0. An empty list
            chooses none. Without any, every interface that can have the setting.
        nics: The same, mixed: MACs, aliases, positions, or functions of a
            :class:`~libvirt_tuner.domainxml.spec.Vnic` that say whether it is meant.
        problem: Why an interface element cannot have the setting, "" when it can. Without it, only virtio
            interfaces can. A function of a module, so that the transform pickles.
        on_arrival: Whether it may run on migrate and restore: only what the guest cannot see may.

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
    """Pin threads by an element of ``<cputune>`` that has an id and a cpuset; None takes the pins out.

    Args:
        tag, key: The element, which is the transform's name as well, and its attribute with the id.
        pins: Id to CPUs; None for one takes its pin out, None for all takes every pin out.
        known: Gives the ids that a domain's root element has. A function of a module, so that it pickles.
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
    """Set an attribute of one element of the domain, as ``memoryBacking/source type=``; None takes it out.

    Args:
        name: The transform's name, letters, digits and ``_``.
        path: Tags from below ``<domain>``, with ``/`` between them; made where they are missing.
        attribute: Of the last of them.
        value: What to set.
        on_arrival: Whether it may run on migrate and restore.

    Raises:
        ArgumentError: A bad name, path or value.
    """
    _check(name, value)
    tags = tuple(path.split("/"))
    if not all(tags):
        raise ArgumentError("bad path", where=name, value=path, expected="tags as in 'memoryBacking/source'")
    text = f"take {attribute} out of {path}" if value is None else f"{path}: {attribute} {value}"
    spelled = None if value is None else str(value)
    return Transform(name, (spelled,), on_arrival, text, ElementStore(tags, attribute), _wanted)


def only_virtio(interface: Element) -> str:
    """Why the interface is not virtio, "" when it is."""
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
    if not (name.isascii() and name.isidentifier()):
        raise ArgumentError(
            "bad name of a transform", where="name", value=name, expected="letters, digits, '_'"
        )
    if value is not None and not is_text(str(value)):
        raise ArgumentError(
            "bad value", where=name, value=value, expected=f"up to {_LONGEST} printable characters"
        )
