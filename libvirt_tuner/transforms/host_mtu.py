"""virtio's ``host_mtu`` by ``<qemu:override>``: the guest's MTU where ``<mtu>`` is refused, as on macvtap.

docs/drvqemu.rst, "Overriding properties of QEMU devices" (libvirt >= 8.2.0). The guest's driver takes it as
its MTU and its largest. It holds from the next start; libvirt does not apply it to a device plugged in later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.domainxml import spec as domainxml
from libvirt_tuner.domainxml.edit import QEMU_NS
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Store, Transform
from libvirt_tuner.transforms.mtu import check_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_OVERRIDE, _DEVICE = f"{{{QEMU_NS}}}override", f"{{{QEMU_NS}}}device"
_FRONTEND, _PROPERTY = f"{{{QEMU_NS}}}frontend", f"{{{QEMU_NS}}}property"
FIRST_LIBVIRT = (8, 2, 0)


def host_mtu(
    size: int | None,
    *,
    mac: str | Iterable[str] | None = None,
    alias: str | Iterable[str] | None = None,
    index: int | Iterable[int] | None = None,
    libvirt: tuple[int, ...] = FIRST_LIBVIRT,
) -> Transform:
    """Give the guest an MTU on every virtio NIC, or on those named; None takes it out.

    Args:
        size: Bytes, 68 to 65535.
        mac, alias, index: Which interfaces; positions count from 0.
        libvirt: Version the document is for.

    Raises:
        DomainXmlError: Another size, or a libvirt before 8.2. On a document: an interface that is no virtio.
    """
    check_size(size, "host_mtu")
    if size is not None and libvirt < FIRST_LIBVIRT:
        version = ".".join(map(str, libvirt))
        raise DomainXmlError("no qemu:override", where="host_mtu", value=version, expected="libvirt >= 8.2.0")
    chosen = _vnics.choice(mac, alias, index)
    text = f"host_mtu {size} on {chosen}" if size else f"take host_mtu out of {chosen}"
    return Transform("host_mtu", (size, chosen), False, text, STORE, _wanted)


def read(root: Element) -> dict[str, str]:
    """Device alias to MTU."""
    return {alias: prop.get("value", "") for alias, prop in _properties(root)}


def write(root: Element, key: str, value: str | None) -> None:
    """Set one device's host_mtu; None takes it out."""
    write_all(root, {key: value})


def write_all(root: Element, settings: Mapping[str, str | None]) -> None:
    """:func:`write` for several devices."""
    properties = dict(_properties(root))
    for alias, value in settings.items():
        _set(root, alias, value, properties.get(alias))


def _set(root: Element, key: str, value: str | None, found: Element | None) -> None:
    if value is None:
        if found is not None:
            _take_out(found)
    elif found is not None:
        found.set("value", value)
    else:
        override = xmledit.ensure(root, _OVERRIDE)
        device = next((one for one in override.iterchildren(_DEVICE) if one.get("alias") == key), None)
        if device is None:
            device = xmledit.insert(override, xmledit.new(_DEVICE, alias=key))
        frontend = xmledit.ensure(device, _FRONTEND)
        xmledit.insert(frontend, xmledit.new(_PROPERTY, name="host_mtu", type="unsigned", value=value))


def _take_out(prop: Element) -> None:
    """With its device where nothing else is left there: libvirt takes no device without a frontend."""
    frontend = prop.getparent()
    device = None if frontend is None else frontend.getparent()
    xmledit.discard(prop)
    if device is not None and not len(device):
        xmledit.discard(device)


def _properties(root: Element) -> Iterator[tuple[str, Element]]:
    override = xmlread.child(root, _OVERRIDE)
    for device in () if override is None else override.iterchildren(_DEVICE):
        for frontend in device.iterchildren(_FRONTEND):
            for prop in frontend.iterchildren(_PROPERTY):
                if prop.get("name") == "host_mtu":
                    yield device.get("alias", ""), prop


def _problem(interface: Element) -> str:
    if _vnics.is_virtio(interface) and interface.get("type") != "vdpa":
        return ""
    return "only a virtio interface served by the host has host_mtu"


def _wanted(root: Element, size: int | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    if size is None and not chosen:
        return dict.fromkeys(read(root))
    aliases = domainxml.next_aliases(root)
    value = None if size is None else str(size)
    return {aliases[at]: value for at, _ in _vnics.selected(root, chosen, _problem, all_must=False)}


STORE = Store(read, write, write_all)
