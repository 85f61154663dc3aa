"""``<driver tx_queue_size=>``: entries of a virtio NIC's transmit rings (docs/formatdomain.rst, >= 3.7.0).

On a tap or macvtap QEMU has 256 entries and no more: 8.1 and later refuse to start with a larger number,
earlier ones take 256 without a message (hw/net/virtio-net.c, virtio_net_max_tx_queue_size). A definition that
asks for more would work until QEMU is upgraded, so it is refused there for all versions.
"""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner.domainxml.spec import LONG_TX_RING_TYPES
from libvirt_tuner.transforms import _driver, _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def tx_queue_size(
    size: int | None,
    *,
    mac: str | Iterable[str] | None = None,
    alias: str | Iterable[str] | None = None,
    index: int | Iterable[int] | None = None,
) -> Transform:
    """Set the transmit ring of every virtio NIC that can have it, or of those named; None takes it out.

    Args:
        size: Entries: 256, 512 or 1024; more than 256 on vhost-user and vDPA interfaces only.
        mac, alias, index: Which interfaces; positions count from 0.

    Raises:
        DomainXmlError: Another size. On a document: more than 256 for a named interface on a tap or macvtap.
    """
    _driver.check_ring(size, "tx_queue_size")
    chosen = _vnics.choice(mac, alias, index)
    text = f"tx_queue_size {size} on {chosen}" if size else f"take tx_queue_size out of {chosen}"
    return Transform("tx_queue_size", (size, chosen), False, text, STORE, _wanted)


def _wanted(root: Element, size: int | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    def problem(interface: Element) -> str:
        if not _vnics.is_virtio(interface):
            return "only a virtio interface has tx_queue_size"
        if size is not None and size > 256 and interface.get("type") not in LONG_TX_RING_TYPES:
            return "QEMU allows more than 256 entries of tx_queue_size on vhostuser and vdpa interfaces only"
        return ""

    return _vnics.wanted(root, STORE, size, chosen, problem, all_must=False)


STORE = _driver.store("tx_queue_size")
