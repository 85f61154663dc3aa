"""``<driver rx_queue_size=>``: entries of a virtio NIC's receive rings (docs/formatdomain.rst, >= 2.3.0).

A longer ring takes a longer burst before packets are dropped; it does nothing for throughput by itself.
"""

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

# QEMU, hw/net/virtio-net.c: VIRTIO_NET_RX_QUEUE_MIN_SIZE and VIRTQUEUE_MAX_SIZE.
SIZES = (256, 512, 1024)


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
    if size is not None and size not in SIZES:
        raise DomainXmlError("bad ring size", where="rx_queue_size", value=size, expected="256, 512 or 1024")
    chosen = _vnics.choice(mac, alias, index)
    text = f"rx_queue_size {size} on {chosen}" if size else f"take rx_queue_size out of {chosen}"
    return Transform("rx_queue_size", (size, chosen), False, text, STORE, _wanted)


def _read(interface: Element) -> str | None:
    driver = xmlread.child(interface, "driver")
    return None if driver is None else driver.get("rx_queue_size")


def _set(interface: Element, value: str | None) -> None:
    driver = xmlread.child(interface, "driver")
    if driver is not None:
        xmledit.set_attribute(driver, "rx_queue_size", value)
        if value is None and xmledit.is_bare(driver):
            xmledit.remove(driver)
    elif value is not None:
        xmledit.insert(interface, etree.Element("driver", {"rx_queue_size": value}))


def _problem(interface: Element) -> str:
    return "" if _vnics.is_virtio(interface) else "only a virtio interface has rx_queue_size"


def _wanted(root: Element, size: int | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    return _vnics.wanted(root, STORE, size, chosen, _problem, all_must=False)


STORE = _vnics.store(_read, _set)
