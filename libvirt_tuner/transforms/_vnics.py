"""Which interfaces a transform is for, and what names them from one document to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import frozen

from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.domainxml import spec as domainxml
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms._transform import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

WHERE = "/domain/devices/interface"
# virtio-net in its three forms: <model type=> of docs/formatdomain.rst, "Setting the NIC model".
_VIRTIO = frozenset({"virtio", "virtio-transitional", "virtio-non-transitional"})


@frozen(repr=False)
class Choice:
    """Interfaces by MAC, alias or position; without any, all the transform can serve."""

    macs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.macs or self.aliases or self.indices)

    def __str__(self) -> str:
        named = (*self.macs, *self.aliases, *(f"interface {index}" for index in self.indices))
        return ", ".join(named) or "every interface"


def choice(
    mac: str | Iterable[str] | None, alias: str | Iterable[str] | None, index: int | Iterable[int] | None
) -> Choice:
    """The choice a factory's keywords make; one or several of each."""
    macs = (mac,) if isinstance(mac, str) else tuple(mac or ())
    aliases = (alias,) if isinstance(alias, str) else tuple(alias or ())
    indices = (index,) if isinstance(index, int) else tuple(index or ())
    return Choice(tuple(sorted(one.lower() for one in macs)), tuple(sorted(aliases)), tuple(sorted(indices)))


def selected(
    root: Element, chosen: Choice, problem: Callable[[Element], str], *, all_must: bool
) -> list[tuple[int, Element]]:
    """Position and element of the interfaces chosen, in document order.

    Args:
        root: The domain.
        chosen: By the user; without any, all that have no problem.
        problem: Why an interface cannot be served; "" when it can.
        all_must: Without a choice, an interface with a problem is refused rather than passed over.

    Raises:
        DomainXmlError: No such interface, one that cannot be served, or none that can.
    """
    interfaces = list(enumerate(domainxml.interfaces(root)))
    if chosen:
        interfaces = _named(root, interfaces, chosen)
    served = []
    for index, interface in interfaces:
        why = problem(interface)
        if not why:
            served.append((index, interface))
        elif chosen or all_must:
            raise DomainXmlError(why, where=f"{WHERE}[{index + 1}]", value=interface.get("type"))
    if not served:
        raise DomainXmlError("no interface to serve", where=WHERE, expected="at least one virtio interface")
    return served


def is_virtio(interface: Element) -> bool:
    """Whether the guest sees a virtio-net device that QEMU serves."""
    model = xmlread.child(interface, "model")
    return model is not None and model.get("type") in _VIRTIO and interface.get("type") != "hostdev"


def keys(root: Element) -> list[str]:
    """A key for each interface: its MAC where only it has that, else its position."""
    macs = [
        xmlread.attribute(interface, "mac", "address").lower() for interface in domainxml.interfaces(root)
    ]
    seen: dict[str, int] = {}
    for mac in macs:
        seen[mac] = seen.get(mac, 0) + 1
    return [f"mac={mac}" if mac and seen[mac] == 1 else f"index={at}" for at, mac in enumerate(macs)]


def store(read_one: Callable[[Element], str | None], set_one: Callable[[Element, str | None], None]) -> Store:
    """The store of a setting that each interface has for itself, by :func:`keys`.

    Args:
        read_one: The setting of one interface, None where it has none.
        set_one: Sets it; None takes it out. An interface that is gone is left alone.
    """

    def read(root: Element) -> dict[str, str]:
        values = [read_one(interface) for interface in domainxml.interfaces(root)]
        if not any(value is not None for value in values):
            return {}
        return {key: value for key, value in zip(keys(root), values, strict=True) if value is not None}

    def write(root: Element, key: str, value: str | None) -> None:
        write_all(root, {key: value})

    def write_all(root: Element, settings: Mapping[str, str | None]) -> None:
        for interface, value in _by_keys(root, settings):
            set_one(interface, value)

    return Store(read, write, write_all)


def wanted(
    root: Element,
    store: Store,
    size: int | None,
    chosen: Choice,
    problem: Callable[[Element], str],
    *,
    all_must: bool,
) -> dict[str, str | None]:
    """One size for the interfaces chosen, by :func:`keys`; None and no choice takes out all there are.

    Raises:
        DomainXmlError: As :func:`selected`.
    """
    if size is None and not chosen:
        return dict.fromkeys(store.read(root))
    names = keys(root)
    value = None if size is None else str(size)
    return {names[at]: value for at, _ in selected(root, chosen, problem, all_must=all_must)}


def _by_keys(root: Element, settings: Mapping[str, str | None]) -> Iterator[tuple[Element, str | None]]:
    """Interface and value for each of :func:`keys` there is; a key whose interface is gone is passed over."""
    for index, interface in enumerate(domainxml.interfaces(root)):
        mac = xmlread.attribute(interface, "mac", "address").lower()
        key = f"mac={mac}" if f"mac={mac}" in settings else f"index={index}"
        if key in settings:
            yield interface, settings[key]


def _named(root: Element, interfaces: list[tuple[int, Element]], chosen: Choice) -> list[tuple[int, Element]]:
    names: list[set[object]] = [
        {
            index,
            xmlread.attribute(interface, "mac", "address").lower(),
            xmlread.attribute(interface, "alias", "name"),
            following,
        }
        for (index, interface), following in zip(interfaces, domainxml.next_aliases(root), strict=True)
    ]
    wanted = {*chosen.macs, *chosen.aliases, *chosen.indices}
    unknown = wanted - set().union(*names)
    if unknown:
        raise DomainXmlError(
            "no such interface",
            where=WHERE,
            value=min(map(str, unknown)),
            expected="its MAC, alias or position",
        )
    return [pair for pair, mine in zip(interfaces, names, strict=True) if mine & wanted]
