"""What a transform is: settings it wants in a document, and the writing of those that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import field, frozen

from libvirt_tuner.domainxml import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

Xml = TypeVar("Xml", bytes, str)


@frozen(repr=False)
class Store:
    """How one kind of setting is read from a document and written into it.

    Attributes:
        read: The settings the document has, ``key -> value``, spelled as they stand there.
        write: Sets one key; None takes it out, with the containers that leaves empty.
        write_several: The same for several keys at once, where that is quicker.
        same: Whether two spellings mean the same.
    """

    read: Callable[[Element], dict[str, str]]
    write: Callable[[Element, str, str | None], None]
    write_several: Callable[[Element, Mapping[str, str | None]], None] | None = None
    same: Callable[[str, str], bool] = str.__eq__

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        """Set every key of ``settings``."""
        if self.write_several is not None:
            self.write_several(root, settings)
            return
        for key, value in settings.items():
            self.write(root, key, value)


@frozen(repr=False)
class Transform:
    """A change of a domain document: a value, made by the factory of its name.

    Idempotent and quiet: what the document has already is not written again, and nothing else is touched.

    Attributes:
        name: The factory's name.
        arguments: What the factory was given, in one order, hashable.
        on_arrival: Whether it may run on migrate and restore, where nothing the guest sees may change.
        text: What it does, for people.
    """

    name: str
    arguments: tuple[object, ...]
    on_arrival: bool
    text: str
    store: Store = field(eq=False, repr=False)
    _wanted: Callable[..., dict[str, str | None]] = field(eq=False, repr=False, alias="wanted")

    def describe(self) -> str:
        """What it does, in one line."""
        return self.text

    def wanted(self, root: Element) -> dict[str, str | None]:
        """The settings the document shall have, None for those it shall not.

        Raises:
            DomainXmlError: The document cannot be served; ``where`` is the xpath.
        """
        return self._wanted(root, *self.arguments)

    def missing(self, root: Element) -> dict[str, str | None]:
        """Those of :meth:`wanted` that the document does not have yet."""
        return differing(self.store, self.store.read(root), self.wanted(root))

    def element(self, root: Element) -> None:
        """Change the document in place.

        Raises:
            DomainXmlError: The document cannot be served; it is as it was then.
        """
        missing = self.missing(root)
        if missing:
            self.store.write_all(root, missing)

    def __call__(self, xml: Xml) -> Xml:
        """The document changed, as the type it was given as."""
        return rewritten(xml, self.element)


@frozen(repr=False)
class Chain:
    """Transforms one after the other, as one; made by :func:`compose`."""

    transforms: tuple[Transform, ...]
    name: str = "compose"

    @property
    def on_arrival(self) -> bool:
        """Whether every one may run on migrate and restore."""
        return all(transform.on_arrival for transform in self.transforms)

    def describe(self) -> str:
        """What each does, a line each."""
        return "\n".join(transform.describe() for transform in self.transforms)

    def element(self, root: Element) -> None:
        """Change the document in place.

        Raises:
            DomainXmlError: One of them cannot serve the document; those before it have run.
        """
        for transform in self.transforms:
            transform.element(root)

    def __call__(self, xml: Xml) -> Xml:
        """The document changed, parsed and serialised once, as the type it was given as."""
        return rewritten(xml, self.element)


def compose(*transforms: Transform | Chain) -> Chain:
    """The transforms as one, run in the order given; chains may be nested."""
    flat: list[Transform] = []
    for transform in transforms:
        flat.extend(transform.transforms if isinstance(transform, Chain) else (transform,))
    return Chain(tuple(flat))


def differing(
    store: Store, current: Mapping[str, str], wanted: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Those of ``wanted`` that ``current`` does not have, in their order."""
    return {key: value for key, value in wanted.items() if not _has(store, current.get(key), value)}


def _has(store: Store, now: str | None, value: str | None) -> bool:
    if now is None or value is None:
        return now is value
    return now == value or store.same(now, value)


def rewritten(xml: Xml, change: Callable[[Element], None]) -> Xml:
    """The document after ``change``; the very object given if nothing changed.

    Raises:
        DomainXmlError: Not a domain document, or ``change`` cannot serve it.
    """
    root = document.parse(xml)
    change(root)
    result = document.serialize(root)
    return result.decode() if isinstance(xml, str) else result
