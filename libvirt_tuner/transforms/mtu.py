"""``<mtu size=>``: the MTU of a vNIC's tap. virtio passes it to the guest (libvirt >= 3.1.0)."""

from __future__ import annotations

from libvirt_tuner.errors import ArgumentError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

# The types qemuDomainNetSupportsMTU takes (libvirt, src/qemu/qemu_domain.c). For a network of macvtap or PCI
# functions, libvirt refuses it at start. The domain document does not show that.
_TYPES = frozenset({"network", "bridge", "ethernet", "vhostuser"})
SMALLEST, LARGEST = 68, 65535


def mtu(
    size: int | None,
    *,
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
) -> Transform:
    """Set the MTU of every interface that can have one, or of the selected ones. None removes it.

    Args:
        size: Bytes, 68 to 65535.
        mac, alias, index, nics: Interfaces to change, see :func:`libvirt_tuner.transforms.nic_setting`.

    Raises:
        ArgumentError: A bad size or selection. On a document: :class:`MissingDeviceError` if it has no such
            interface, or if libvirt refuses ``<mtu>`` for the type of a selected one (direct, hostdev...).
    """
    check_size(size, "mtu")
    return _vnics.transform("mtu", STORE, size, _vnics.choice(mac, alias, index, nics), _problem)


def check_size(size: int | None, where: str) -> None:
    """The size is one an IPv4 link can have.

    Raises:
        ArgumentError: It is not.
    """
    if size is not None and not (isinstance(size, int) and SMALLEST <= size <= LARGEST):
        raise ArgumentError("bad MTU", where=where, value=size, expected=f"{SMALLEST} to {LARGEST} bytes")


def _problem(interface: Element) -> str:
    kind = interface.get("type", "")
    if kind in _TYPES:
        return ""
    help_ = "; use host_mtu" if _vnics.is_virtio(interface) else ""
    return f"libvirt refuses <mtu> on an interface of type {kind}{help_}"


STORE = _vnics.VnicStore("mtu", "size")
