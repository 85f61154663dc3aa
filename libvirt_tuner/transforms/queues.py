"""``<driver queues=>``: queue pairs of a virtio NIC (docs/formatdomain.rst, "Multiqueue", >= 1.0.6).

Each queue pair of a tap has a vhost worker, and a guest uses no more of them than it has CPUs. libvirt takes
the setting for tap, macvtap and vhost-user interfaces (src/qemu/qemu_hotplug.c: "Multiqueue network is not
supported for"). A tap has at most 256 (MAX_TAP_QUEUES, drivers/net/tun.c and include/linux/if_tap.h).
"""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner.domainxml.spec import MULTIQUEUE_TYPES, vcpus_at_boot
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import _driver, _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

LARGEST = 256
VCPUS = "vcpus"


def queues(
    count: int | str | None,
    *,
    mac: str | Iterable[str] | None = None,
    alias: str | Iterable[str] | None = None,
    index: int | Iterable[int] | None = None,
) -> Transform:
    """Set the queue pairs of every virtio NIC that can have several, or of those named; None takes it out.

    A guest sees the number, and QEMU refuses another one on migrate and restore.

    Args:
        count: 1 to 256, or ``"vcpus"``; never more than the document's vCPUs at boot.
        mac, alias, index: Which interfaces; positions count from 0.

    Raises:
        DomainXmlError: Another count. On a document: a named interface of a type that has one queue only.
    """
    fits = 1 <= count <= LARGEST if isinstance(count, int) else count in (None, VCPUS)
    if not fits:
        raise DomainXmlError(
            "bad number of queues", where="queues", value=count, expected=f"1 to {LARGEST} or vcpus"
        )
    chosen = _vnics.choice(mac, alias, index)
    number = "one queue per vCPU" if count == VCPUS else f"queues {count}"
    text = f"{number} on {chosen}" if count else f"take queues out of {chosen}"
    return Transform("queues", (count, chosen), False, text, STORE, _wanted)


def _problem(interface: Element) -> str:
    if not _vnics.is_virtio(interface):
        return "only a virtio interface has queues"
    kind = interface.get("type", "")
    return "" if kind in MULTIQUEUE_TYPES else f"libvirt refuses queues on an interface of type {kind}"


def _wanted(root: Element, count: int | str | None, chosen: _vnics.Choice) -> dict[str, str | None]:
    size = None
    if count is not None:
        most = min(vcpus_at_boot(root), LARGEST)
        size = min(count, most) if isinstance(count, int) else most
    return _vnics.wanted(root, STORE, size, chosen, _problem, all_must=False)


STORE = _driver.store("queues")
