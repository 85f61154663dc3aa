"""``<mtu size=>``: the MTU of a vNIC's tap, which virtio tells the guest (libvirt >= 3.1.0)."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

# The types qemuDomainNetSupportsMTU takes (libvirt, src/qemu/qemu_domain.c). A network that hands out
# macvtap or PCI functions is refused by libvirt itself, at start: the domain document does not show it.
_TYPES = frozenset({"network", "bridge", "ethernet", "vhostuser"})
SMALLEST, LARGEST = 68, 65535


def mtu(
    size: int | None,
    *,
    mac: str | Iterable[str] | None = None,
    alias: str | Iterable[str] | None = None,
    index: int | Iterable[int] | None = None,
) -> Transform:
    """Set the MTU of every interface, or of those named; None takes it out.

    Args:
        size: Bytes, 68 to 65535.
        mac, alias, index: Which interfaces; positions count from 0.

    Raises:
        DomainXmlError: Another size. On a document: an interface whose type libvirt refuses ``<mtu>`` for
            (direct, hostdev, vdpa...).
    """
    check_size(size, "mtu")
    chosen = _vnics.choice(mac, alias, index)
    text = f"mtu {size} on {chosen}" if size else f"take mtu out of {chosen}"
    return Transform("mtu", (size, chosen), False, text, STORE, _wanted)


def check_size(size: int | None, where: str) -> None:
    """The size is one an IPv4 link can have.

    Raises:
        DomainXmlError: It is not.
    """
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise DomainXmlError("bad MTU", where=where, value=size, expected=f"{SMALLEST} to {LARGEST} bytes")


def _read(interface: Element) -> str | None:
    element = xmlread.child(interface, "mtu")
    return None if element is None else element.get("size", "")


def _set(interface: Element, value: str | None) -> None:
    element = xmlread.child(interface, "mtu")
    if value is None:
        if element is not None:
            xmledit.remove(element)
    elif element is not None:
        element.set("size", value)
    else:
        xmledit.insert(interface, etree.Element("mtu", {"size": value}))


def _problem(interface: Element) -> str:
    kind = interface.get("type", "")
    if kind in _TYPES:
        return ""
    help_ = "; host_mtu can" if _vnics.is_virtio(interface) else ""
    return f"libvirt refuses <mtu> on an interface of type {kind}{help_}"


def _wanted(root: Element, size: int | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    return _vnics.wanted(root, STORE, size, chosen, _problem, all_must=True)


STORE = _vnics.store(_read, _set)
