"""``<driver rx_queue_size=>``: entries of a virtio NIC's receive rings (docs/formatdomain.rst, >= 2.3.0).

A longer ring takes a longer burst before packets are dropped; it does nothing for throughput by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner.transforms import _driver, _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def rx_queue_size(
    size: int | None,
    *,
    mac: str | Iterable[str] | None = None,
    alias: str | Iterable[str] | None = None,
    index: int | Iterable[int] | None = None,
) -> Transform:
    """Set the receive ring of every virtio NIC, or of those named; None takes the setting out.

    Args:
        size: Entries: 256, 512 or 1024.
        mac, alias, index: Which interfaces; positions count from 0.

    Raises:
        DomainXmlError: Another size.
    """
    _driver.check_ring(size, "rx_queue_size")
    chosen = _vnics.choice(mac, alias, index)
    text = f"rx_queue_size {size} on {chosen}" if size else f"take rx_queue_size out of {chosen}"
    return Transform("rx_queue_size", (size, chosen), False, text, STORE, _wanted)


def _problem(interface: Element) -> str:
    return "" if _vnics.is_virtio(interface) else "only a virtio interface has rx_queue_size"


def _wanted(root: Element, size: int | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    return _vnics.wanted(root, STORE, size, chosen, _problem, all_must=False)


STORE = _driver.store("rx_queue_size")
