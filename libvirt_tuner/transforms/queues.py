"""``<driver queues=>``: queue pairs of a virtio NIC (docs/formatdomain.rst, "Multiqueue", >= 1.0.6).

Each queue pair of a tap has a vhost worker. A guest uses at most one pair per CPU. libvirt takes
the setting for tap, macvtap and vhost-user interfaces (src/qemu/qemu_hotplug.c: "Multiqueue network is not
supported for"). A tap has at most 256 (MAX_TAP_QUEUES, drivers/net/tun.c and include/linux/if_tap.h).
"""

from __future__ import annotations

from libvirt_tuner.domainxml.parts import MULTIQUEUE_TYPES, vcpus_at_boot
from libvirt_tuner.errors import ArgumentError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

LARGEST = 256
VCPUS = "vcpus"


def queues(
    count: int | str | None,
    *,
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
) -> Transform:
    """Set the queue pairs of every virtio NIC that can have several, or of the selected ones. None removes
    it.

    The guest sees the number, and QEMU refuses a change of it on migrate and restore.

    Args:
        count: 1 to 256, or ``"vcpus"``. It is limited to the document's vCPUs at boot.
        mac, alias, index, nics: Interfaces to change, see :func:`libvirt_tuner.transforms.nic_setting`.

    Raises:
        ArgumentError: A bad count or selection. On a document: :class:`MissingDeviceError` if it has no such
            interface, or if a selected one supports only one queue.
    """
    is_number = isinstance(count, int) and not isinstance(count, bool)
    fits = 1 <= int(count or 0) <= LARGEST if is_number else count in (None, VCPUS)
    if not fits:
        raise ArgumentError(
            "bad number of queues", where="queues", value=count, expected=f"1 to {LARGEST} or vcpus"
        )
    chosen = _vnics.choice(mac, alias, index, nics)
    number = "one queue per vCPU" if count == VCPUS else f"queues {count}"
    text = f"{number} on {chosen}" if count else f"remove queues from {chosen}"
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
    return _vnics.wanted(root, None if size is None else str(size), chosen, STORE, _problem)


STORE = _vnics.VnicStore("driver", "queues")
