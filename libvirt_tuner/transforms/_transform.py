"""The type of transforms: the settings that it wants in a document, and how missing ones are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Protocol, TypeVar

from attrs import frozen

from libvirt_tuner.domainxml import document
from libvirt_tuner.errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

Xml = TypeVar("Xml", bytes, str)
Fits = Callable[[str, str | None], bool]


class Store(Protocol):
    """Reads and writes one kind of setting in a document."""

    def read(self, root: Element) -> dict[str, str]:
        """Return the settings of the document, key to value, as they are written there."""

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        """Set every key. None removes it, and elements that become empty."""

    def same(self, one: str, other: str) -> bool:
        """Return whether two spellings of a value mean the same."""

    def fits(self, root: Element) -> Fits:
        """Return whether the key exists in this document and can have this value.

        The record needs this check, because anybody can write metadata.
        """

    def containers(self, root: Element) -> dict[str, Element]:
        """Return the elements, by a label, that :meth:`write_all` removes if they become empty."""


@frozen(repr=False)
class Stateless:
    """Base of a :class:`Store` without fields: two of the same class are equal, also after pickling."""


def check_version(given: object, where: str) -> None:
    """Refuse what is not a version.

    Raises:
        ArgumentError: It is not a tuple of numbers.
    """
    if not (isinstance(given, tuple) and given and all(type(part) is int for part in given)):
        raise ArgumentError("bad version", where=where, value=given, expected="a tuple as in (9, 0, 0)")


class Change(Protocol):
    """A change that :func:`compose` accepts."""

    @property
    def name(self) -> str:
        """Its name in the record and in messages: letters, digits and ``_``."""

    @property
    def on_arrival(self) -> bool:
        """Whether it may run on migrate and restore, where nothing the guest sees may change."""

    def describe(self) -> str:
        """What it does, in one line."""

    def missing(self, root: Element) -> dict[str, str | None]:
        """Return the settings that it would write, key to value."""

    def element(self, root: Element) -> None:
        """Change the document in place."""


class Recordable(Change, Protocol):
    """A change that the record can undo."""

    @property
    def store(self) -> Store:
        """Where its settings are read and written."""

    def wanted(self, root: Element) -> dict[str, str | None]:
        """The settings the document shall have, None for those it shall not."""


@frozen(repr=False)
class Transform:
    """A change of a domain document: a value, made by the factory of its name.

    It is idempotent: a setting that the document already has is not written again. Nothing else changes.

    Attributes:
        name: The factory's name.
        arguments: Arguments of the factory, in a fixed order, hashable.
        on_arrival: Whether it may run on migrate and restore, where nothing the guest sees may change.
        text: What it does, for people.
        store: Where its settings are read and written.
        wants: Gives the settings for a document and ``arguments``; a function of a module: it has to pickle.
    """

    name: str
    arguments: tuple[object, ...]
    on_arrival: bool
    text: str
    store: Store
    wants: Callable[..., dict[str, str | None]]

    def __repr__(self) -> str:
        return f"<{self.name}: {self.text}>"

    def describe(self) -> str:
        """What it does, in one line."""
        return self.text

    def wanted(self, root: Element) -> dict[str, str | None]:
        """The settings the document shall have, None for those it shall not.

        Raises:
            MissingDeviceError: The document has no device that the arguments name; ``where`` is the xpath.
            DomainXmlError: The document is not valid.
        """
        return self.wants(root, *self.arguments)

    def missing(self, root: Element) -> dict[str, str | None]:
        """Return those of :meth:`wanted` that the document does not have yet."""
        return differing(self.store, self.store.read(root), self.wanted(root))

    def element(self, root: Element) -> None:
        """Change the document in place.

        Raises:
            MissingDeviceError: The document has no device that the arguments name; it is unchanged then.
            DomainXmlError: The root is not a valid ``<domain>``; it is unchanged then.
            TypeError: Not an element of lxml's.
        """
        document.check(root)
        missing = self.missing(root)
        if missing:
            self.store.write_all(root, missing)

    def __call__(self, xml: Xml) -> Xml:
        """Return the changed document, in the type of the argument."""
        return rewritten(xml, self.element)


@frozen(repr=False)
class Chain:
    """Several changes that run one after the other; made by :func:`compose`."""

    transforms: tuple[Change, ...]
    name: str = "compose"

    def __repr__(self) -> str:
        return f"compose({', '.join(map(repr, self.transforms))})"

    @property
    def on_arrival(self) -> bool:
        """Whether all of them may run on migrate and restore."""
        return all(transform.on_arrival for transform in self.transforms)

    def describe(self) -> str:
        """Return one line for each, with what it does."""
        return "\n".join(transform.describe() for transform in self.transforms)

    def missing(self, root: Element) -> dict[str, str | None]:
        """Return what each would write into this document, ``NAME:KEY`` to value."""
        return {
            f"{transform.name}:{key}": value
            for transform in self.transforms
            for key, value in transform.missing(root).items()
        }

    def element(self, root: Element) -> None:
        """Change the document in place.

        Raises:
            DomainXmlError: One of them cannot be applied. The document is unchanged then.
            TypeError: Not an element of lxml's.
        """
        document.check(root)
        if len(self.transforms) > 1:
            # A later change may fail after an earlier one was made. So all run on a copy first.
            self._run(deepcopy(root))
        self._run(root)

    def __call__(self, xml: Xml) -> Xml:
        """Return the changed document, in the type of the argument. It is parsed and serialised once."""
        return rewritten(xml, self._run)

    def _run(self, root: Element) -> None:
        for transform in self.transforms:
            transform.element(root)


def compose(*transforms: Change) -> Chain:
    """Combine changes into one that runs them in the order given. Chains may be nested.

    Raises:
        TypeError: One of them is not a change. For a plain function use :func:`rewritten`.
    """
    return Chain(tuple(flattened(transforms)))


_PARTS = ("name", "on_arrival", "describe", "missing", "element")


def flattened(transforms: Iterable[Change]) -> list[Change]:
    """The changes without the chains around them.

    Raises:
        TypeError: One is no change.
    """
    flat: list[Change] = []
    for transform in transforms:
        lacking = [part for part in _PARTS if not hasattr(transform, part)]
        if lacking or isinstance(transform, type):
            raise TypeError(
                f"{transform!r} is not a transform: it has no {', '.join(lacking) or 'values'}; "
                "see libvirt_tuner.transforms.nic_setting, or use rewritten(xml, function)"
            )
        flat.extend(transform.transforms if isinstance(transform, Chain) else (transform,))
    return flat


def differing(
    store: Store, current: Mapping[str, str], wanted: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Those of ``wanted`` that ``current`` does not have, in their order."""
    return {key: value for key, value in wanted.items() if not is_same(store, current.get(key), value)}


def is_same(store: Store, one: str | None, other: str | None) -> bool:
    """Whether both are missing, or mean the same."""
    if one is None or other is None:
        return one is other
    return one == other or store.same(one, other)


def rewritten(xml: Xml, change: Callable[[Element], object]) -> Xml:
    """Change the document with any function of its root element. Returns the same bytes if nothing changed.

    Raises:
        DomainXmlError: The document is not a domain, or ``change`` raised the error.
        TypeError: Neither bytes nor str, or ``change`` is not a function.
    """
    if not callable(change):
        raise TypeError(f"need a function of the root element, not {change!r:.80}")
    root = document.parse(xml)
    change(root)
    result = document.serialize(root)
    return result.decode() if isinstance(xml, str) else result
