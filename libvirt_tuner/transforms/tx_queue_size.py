"""``<driver tx_queue_size=>``: entries of a virtio NIC's transmit rings (docs/formatdomain.rst, >= 3.7.0).

On a tap or macvtap QEMU supports at most 256 entries. QEMU 8.1 and later refuse to start with more; earlier
versions silently use 256 (hw/net/virtio-net.c, virtio_net_max_tx_queue_size). A definition with more would
work until QEMU is upgraded, so this transform refuses it for all versions.
"""

from __future__ import annotations

from libvirt_tuner.domainxml.parts import LONG_TX_RING_TYPES
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def tx_queue_size(
    size: int | None,
    *,
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
) -> Transform:
    """Set the transmit ring of every virtio NIC that can have it, or of the selected ones. None removes it.

    Args:
        size: Entries: 256, 512 or 1024; more than 256 on vhost-user and vDPA interfaces only.
        mac, alias, index, nics: Interfaces to change, see :func:`libvirt_tuner.transforms.nic_setting`.

    Raises:
        ArgumentError: A bad size or selection. On a document: :class:`MissingDeviceError` if it has no such
            interface, or if a selected one is on a tap or macvtap and the size is more than 256.
    """
    _vnics.check_ring(size, "tx_queue_size")
    chosen = _vnics.choice(mac, alias, index, nics)
    is_long = size is not None and size > 256
    return _vnics.transform("tx_queue_size", STORE, size, chosen, _long_problem if is_long else _problem)


def _problem(interface: Element) -> str:
    return "" if _vnics.is_virtio(interface) else "only a virtio interface has tx_queue_size"


def _long_problem(interface: Element) -> str:
    problem = _problem(interface)
    if problem or interface.get("type") in LONG_TX_RING_TYPES:
        return problem
    return "QEMU allows more than 256 entries of tx_queue_size on vhostuser and vdpa interfaces only"


STORE = _vnics.VnicStore("driver", "tx_queue_size")
