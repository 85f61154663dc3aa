"""virtio's ``host_mtu`` by ``<qemu:override>``: the guest's MTU for interfaces that refuse ``<mtu>``
(macvtap).

docs/drvqemu.rst, "Overriding properties of QEMU devices" (libvirt >= 8.2.0). The guest's driver uses it as
its MTU and as the largest MTU. It takes effect at the next start. libvirt does not apply it to a hot-plugged
device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from libvirt_tuner.domainxml import edit, parts, read
from libvirt_tuner.domainxml.edit import QEMU_NS
from libvirt_tuner.errors import ArgumentError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Fits, Stateless, Transform, check_version
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
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
    libvirt: tuple[int, ...] = FIRST_LIBVIRT,
) -> Transform:
    """Set the guest's MTU on every virtio NIC, or on the selected ones. None removes it.

    Args:
        size: Bytes, 68 to 65535.
        mac, alias, index, nics: Interfaces to change, see :func:`libvirt_tuner.transforms.nic_setting`.
        libvirt: Version for which the document is written.

    Raises:
        ArgumentError: A bad size or selection, or a libvirt before 8.2. On a document:
            :class:`MissingDeviceError` if it has no such interface, or if a selected one is not virtio.
    """
    check_size(size, "host_mtu")
    check_version(libvirt, "libvirt")
    if size is not None and libvirt < FIRST_LIBVIRT:
        version = ".".join(map(str, libvirt))
        raise ArgumentError("no qemu:override", where="host_mtu", value=version, expected="libvirt >= 8.2.0")
    chosen = _vnics.choice(mac, alias, index, nics)
    text = f"host_mtu {size} on {chosen}" if size else f"remove host_mtu from {chosen}"
    return Transform("host_mtu", (size, chosen), False, text, STORE, _wanted)


class _Store(Stateless):
    """Device alias to MTU."""

    def read(self, root: Element) -> dict[str, str]:
        return {alias: prop.get("value", "") for alias, prop in _properties(root)}

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        properties = dict(_properties(root))
        devices = {device.get("alias", ""): device for device in read.each(root, _OVERRIDE, _DEVICE)}
        for alias, value in settings.items():
            _set(root, alias, value, properties.get(alias), devices.get(alias))

    def same(self, one: str, other: str) -> bool:
        return one == other

    def fits(self, root: Element) -> Fits:
        known = frozenset(filter(None, parts.next_aliases(root)))
        return lambda key, value: key in known and (value is None or _vnics.is_number(value))

    def containers(self, root: Element) -> dict[str, Element]:
        found = read.child(root, _OVERRIDE)
        return {} if found is None else {_OVERRIDE: found}


def _set(root: Element, key: str, value: str | None, found: Element | None, device: Element | None) -> None:
    if value is None:
        if found is not None:
            _take_out(found)
    elif found is not None:
        found.set("value", value)
    else:
        if device is None:
            device = edit.insert(edit.ensure(root, _OVERRIDE), edit.new(_DEVICE, alias=key))
        frontend = edit.ensure(device, _FRONTEND)
        edit.insert(frontend, edit.new(_PROPERTY, name="host_mtu", type="unsigned", value=value))


def _take_out(prop: Element) -> None:
    """Remove the device too if it is empty: libvirt refuses a device without a frontend."""
    frontend = prop.getparent()
    device = None if frontend is None else frontend.getparent()
    edit.discard(prop)
    if device is not None and not edit.has_children(device):
        edit.discard(device)


def _properties(root: Element) -> Iterator[tuple[str, Element]]:
    for device in read.each(root, _OVERRIDE, _DEVICE):
        for prop in read.each(device, _FRONTEND, _PROPERTY):
            if prop.get("name") == "host_mtu":
                yield device.get("alias", ""), prop


def _problem(interface: Element) -> str:
    if _vnics.is_virtio(interface) and interface.get("type") != "vdpa":
        return ""
    return "only a virtio interface that QEMU serves has host_mtu"


def _wanted(root: Element, size: int | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    if size is None and chosen.every:
        return dict.fromkeys(STORE.read(root))
    aliases = parts.next_aliases(root)
    value = None if size is None else str(size)
    return {aliases[at]: value for at, _ in _vnics.selected(root, chosen, _problem)}


STORE = _Store()
