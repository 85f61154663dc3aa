"""One attribute of a virtio NIC's ``<driver>``: how it is read and written."""

from __future__ import annotations

from lxml import etree

from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

# QEMU, hw/net/virtio-net.c: both rings have 256 to VIRTQUEUE_MAX_SIZE entries, a power of two.
RING_SIZES = (256, 512, 1024)


def check_ring(size: int | None, where: str) -> None:
    """The size is one a virtio NIC's ring can have.

    Raises:
        DomainXmlError: It is not.
    """
    if size is not None and size not in RING_SIZES:
        raise DomainXmlError("bad ring size", where=where, value=size, expected="256, 512 or 1024")


def store(attribute: str) -> Store:
    """The store of the attribute, interface by interface; a ``<driver>`` left bare goes with it."""

    def read(interface: Element) -> str | None:
        driver = xmlread.child(interface, "driver")
        return None if driver is None else driver.get(attribute)

    def write(interface: Element, value: str | None) -> None:
        driver = xmlread.child(interface, "driver")
        if driver is not None:
            xmledit.set_attribute(driver, attribute, value)
            if value is None and xmledit.is_bare(driver):
                xmledit.remove(driver)
        elif value is not None:
            xmledit.insert(interface, etree.Element("driver", {attribute: value}))

    return _vnics.store(read, write)
