"""``<driver rx_queue_size=>``: entries of a virtio NIC's receive rings (docs/formatdomain.rst, >= 2.3.0).

A larger ring absorbs longer bursts before packets are dropped. It does not raise throughput by itself.
"""

from __future__ import annotations

from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def rx_queue_size(
    size: int | None,
    *,
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
) -> Transform:
    """Set the receive ring of every virtio NIC, or of the selected ones. None removes the setting.

    Args:
        size: Entries: 256, 512 or 1024.
        mac, alias, index, nics: Interfaces to change, see :func:`libvirt_tuner.transforms.nic_setting`.

    Raises:
        ArgumentError: A bad size or selection. On a document: :class:`MissingDeviceError` if it has no such
            interface, or if a selected one is not virtio.
    """
    _vnics.check_ring(size, "rx_queue_size")
    chosen = _vnics.choice(mac, alias, index, nics)
    return _vnics.transform("rx_queue_size", STORE, size, chosen, _problem)


def _problem(interface: Element) -> str:
    return "" if _vnics.is_virtio(interface) else "only a virtio interface has rx_queue_size"


STORE = _vnics.VnicStore("driver", "rx_queue_size")
