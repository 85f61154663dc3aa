"""Finds what a domain document has: interfaces, vCPUs, iothreads and guest NUMA cells.

It makes no objects, unlike :mod:`libvirt_tuner.domainxml.spec`: the transforms import it, and start fast.
"""

from __future__ import annotations

from itertools import islice

from libvirt_tuner import cpuset
from libvirt_tuner.cpuset import NumaMode
from libvirt_tuner.domainxml import read
from libvirt_tuner.errors import DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MULTIQUEUE_TYPES = frozenset({"network", "bridge", "direct", "ethernet", "vhostuser"})
"""Types of interface for which libvirt takes several queues."""
LONG_TX_RING_TYPES = frozenset({"vhostuser", "vdpa"})
"""Types of interface for which QEMU takes a transmit ring of more than 256 entries."""
# virtio-net in its three forms: <model type=> of docs/formatdomain.rst, "Setting the NIC model".
VIRTIO_MODELS = frozenset({"virtio", "virtio-transitional", "virtio-non-transitional"})
# Types whose netdev is QEMU's "tap", which is what vhost-net serves.
VHOST_TYPES = frozenset({"network", "bridge", "direct", "ethernet"})
# Modes of <numatune>'s memory (docs/formatdomain.rst, "NUMA Node Tuning").
MODES: tuple[NumaMode, ...] = ("strict", "preferred", "interleave", "restrictive")


def interfaces(root: Element) -> list[Element]:
    """The ``<interface>`` elements in document order."""
    devices = read.child(root, "devices")
    return [] if devices is None else list(devices.iterchildren("interface"))


def next_aliases(root: Element) -> list[str]:
    """The alias each interface's device will have at its next start (qemuAssignDeviceAliases).

    A user's own alias (``ua-``) stays. libvirt assigns the others again: ``netN`` counts the earlier
    interfaces with a ``netN``. An interface of type hostdev gets a ``hostdevN``, which also counts other
    devices: "" here.
    """
    aliases = []
    count = 0
    for interface in interfaces(root):
        alias = read.attribute(interface, "alias", "name")
        if not alias.startswith("ua-"):
            hostdev = interface.get("type") == "hostdev"
            alias = "" if hostdev else f"net{count}"
            count += not hostdev
        aliases.append(alias)
    return aliases


def vcpu_count(root: Element) -> int:
    """Maximum vCPUs; libvirt's default is 1."""
    return vcpu_counts(root)[0]


def vcpus_at_boot(root: Element) -> int:
    """vCPUs online at boot (``<vcpu current=>``), else the maximum."""
    return vcpu_counts(root)[1]


def vcpu_counts(root: Element) -> tuple[int, int]:
    """Maximum vCPUs, and how many are online at boot."""
    element = read.child(root, "vcpu")
    if element is None:
        return 1, 1
    where = "/domain/vcpu"
    maximum = read.integer(read.content(element), where, 1)
    current = read.number(element, "current", where, default=maximum)
    if not 1 <= maximum <= cpuset.LIMIT:
        raise DomainXmlError(
            "bad number of vCPUs", where=where, value=maximum, expected=f"1 to {cpuset.LIMIT}"
        )
    if not 1 <= current <= maximum:
        raise DomainXmlError(
            "bad number", where=f"{where}/@current", value=current, expected=f"1 to {maximum}"
        )
    return maximum, current


def iothreads(root: Element) -> tuple[int, ...]:
    """Ids of the iothreads: those of ``<iothreadids>``, and the lowest free ones up to ``<iothreads>``."""
    count = read.integer(read.text(root, "iothreads"), "/domain/iothreads", 0)
    ids = [
        read.number(element, "id", "/domain/iothreadids/iothread")
        for element in read.each(root, "iothreadids", "iothread")
    ]
    if count > cpuset.LIMIT:
        raise DomainXmlError(
            "too many iothreads", where="/domain/iothreads", value=count, expected="up to 16384"
        )
    free = iter(sorted(frozenset(range(1, count + len(ids) + 1)) - frozenset(ids)))
    return tuple(sorted([*ids, *islice(free, max(0, count - len(ids)))]))


def cell_ids(root: Element) -> tuple[int, ...]:
    """Ids of the guest NUMA cells; a cell without an id has its position, as libvirt counts."""
    numa = read.find(root, "cpu", "numa")
    if numa is None:
        return ()
    where = "/domain/cpu/numa/cell"
    return tuple(
        read.number(cell, "id", where, default=at) for at, cell in enumerate(numa.iterchildren("cell"))
    )
