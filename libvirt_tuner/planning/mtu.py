"""Chooses the MTU of a vNIC, how it is set, and the MTU of its device on the host. Pure."""

from __future__ import annotations

from libvirt_tuner.config.values import AtMost
from libvirt_tuner.domainxml.spec import Vnic
from libvirt_tuner.planning.plan import MtuChoice, MtuSetting, Reason
from libvirt_tuner.topology import NETWORK, HostTopology, Link
from libvirt_tuner.uplink.budget import Budget, budget
from libvirt_tuner.uplink.path import Path, attachment

ETHERNET = 1500
"""The default MTU of a guest, which other members of its segment can receive."""

IPV6_LEAST = 1280
"""The smallest MTU that IPv6 works with (RFC 8200, 5)."""

SMALLEST, LARGEST = 68, 65535
"""What virtio's host_mtu may be (virtio specification, 5.1.4.1: at least 68)."""


def choose(
    vnic: Vnic, path: Path, host: HostTopology, wanted: str | int, *, libvirt: tuple[int, ...]
) -> tuple[MtuChoice | None, Reason]:
    """Choose the MTU of one virtio interface.

    Args:
        vnic: As its user wrote it. A smaller ``<mtu>`` stays.
        path: Its uplink.
        host: The host the path was traced on.
        wanted: The policy: ``auto`` (at most 1500 unless the network or its user asks for more), ``jumbo``
            (the largest without fragmentation), or bytes. :class:`~libvirt_tuner.config.values.AtMost` is an
            upper limit.
        libvirt: Version; decides how the MTU can be set.

    Returns:
        The choice (None: set nothing), and the reason.
    """
    subject = f"mtu of vNIC {vnic.index}"
    size, why = _size(vnic, path, host, wanted)
    if vnic.mtu is not None and (size is None or vnic.mtu <= size):
        return None, Reason(subject, str(vnic.mtu), "your own")
    if vnic.mtu is not None:
        why += f"; your MTU of {vnic.mtu} is too large and is lowered"
    if size is None:
        return None, Reason(subject, "not changed", why)
    how = mechanism(attachment(vnic, path, host), vnic.model, libvirt)
    choice = MtuChoice(vnic.index, size, how, vnic.mac, vnic.alias, vnic.target)
    return choice, Reason(subject, str(size), f"{why}; {guest_option(size)}" if how == "guest" else why)


def _size(vnic: Vnic, path: Path, host: HostTopology, wanted: str | int) -> tuple[int | None, str]:
    tags = len(vnic.vlan) if vnic.virtualport == "openvswitch" else 0
    found = budget(path, host, tags=tags)
    if isinstance(wanted, AtMost):
        return _lowered(int(wanted), vnic, path, host, found)
    if isinstance(wanted, int):
        return wanted, _as_told(wanted, found)
    if found.size is None:
        return None, found.explain()
    asked, who = _asked(vnic, path, host)
    ceiling = LARGEST if wanted == "jumbo" else max(asked or ETHERNET, vnic.mtu or 0)
    if not found.layers and found.size >= ETHERNET >= ceiling:
        return None, f"no encapsulation between the vNIC and {found.underlay_name}"
    size = min(found.size, ceiling)
    if not SMALLEST <= size <= LARGEST:
        return None, f"virtio does not support an MTU of {size}: {found.explain()}"
    if who == LIBVIRT and size == asked:
        return None, f"{who} already sets {asked}; {found.explain()}"
    return size, found.explain() + _limit(size, found.size, who) + _too_small(size)


def _lowered(
    wanted: int, vnic: Vnic, path: Path, host: HostTopology, found: Budget
) -> tuple[int | None, str]:
    """What the domain's metadata asks for, less where its path or its network takes less."""
    links = [host.links[name] for name in path.steps if name in host.links]
    bridges = [link.mtu for link in links if link.kind == "bridge"]
    crosses = found.size if found.size is not None else min(bridges, default=ETHERNET)
    asked, who = _asked(vnic, path, host)
    size = min(wanted, crosses, asked or wanted)
    if size < SMALLEST:
        return None, f"virtio does not support an MTU of {size}: {found.explain()}"
    if who == LIBVIRT and size == asked:
        return None, f"{who} already sets {asked}"
    if size == wanted:
        return size, f"set in the domain's metadata{_too_small(size)}"
    why = f"{who} asks for {asked}" if size == asked else found.explain()
    return (
        size,
        f"the domain's metadata asks for {wanted}, but may only lower the MTU: {why}{_too_small(size)}",
    )


LIBVIRT = "the libvirt network"


def _asked(vnic: Vnic, path: Path, host: HostTopology) -> tuple[int, str]:
    """Return the MTU that the nearest network asks for, and its name; 0 without one."""
    network = host.links.get(NETWORK + vnic.network) if vnic.network else None
    if network is not None and network.asked:
        return network.asked, LIBVIRT
    for name in path.steps:
        link = host.links.get(name)
        if link is None or link.tunnel:
            break
        if link.asked:
            return link.asked, LIBVIRT if link.kind == "network" else name
    return 0, ""


def _as_told(wanted: int, found: Budget) -> str:
    text = "set in the policy"
    if found.size is not None and found.size < wanted:
        text += f"; warning: {wanted - found.size} bytes too large, packets are fragmented: {found.explain()}"
    return text + _too_small(wanted)


def _limit(size: int, crosses: int, who: str) -> str:
    """Return why it is not the largest possible MTU."""
    if size >= crosses:
        return ""
    if who:
        return f"; {who} asks for {size}"
    return (
        f'; limited to {size} for the other members of the segment; mtu = "jumbo" in the policy allows more'
    )


def _too_small(size: int) -> str:
    return f"; warning: IPv6 needs {IPV6_LEAST}, so the guest disables it" if size < IPV6_LEAST else ""


def mechanism(vnic_type: str, model: str = "virtio", libvirt: tuple[int, ...] = (9, 0, 0)) -> MtuSetting:
    """Return how a vNIC gets its MTU: ``mtu``, ``host_mtu`` or ``guest``.

    ``<mtu size>`` is for network, bridge, ethernet and vhostuser interfaces (libvirt 3.1.0,
    docs/formatdomain.rst) and refused for others. A macvtap gets virtio's host_mtu by ``<qemu:override>``
    (libvirt 8.2.0). For the rest, only DHCP or the guest itself can set it.
    """
    if not model.startswith("virtio"):
        return "guest"
    if vnic_type in ("network", "bridge", "ethernet", "vhostuser") and libvirt >= (3, 1, 0):
        return "mtu"
    return "host_mtu" if vnic_type == "direct" and libvirt >= (8, 2, 0) else "guest"


def guest_option(size: int) -> str:
    """Return how to set a guest's MTU if libvirt cannot: the lines to add, in one sentence."""
    return (
        f"set MTU {size} in the guest, or by DHCP (dnsmasq: dhcp-option=26,{size}; libvirt network: "
        f"<dnsmasq:option value='dhcp-option=26,{size}'/>)"
    )


def host_side(target: str, size: int, host: HostTopology) -> tuple[tuple[str, int], ...]:
    """Return MTUs to set on the host after the domain has started, as ``(device, bytes)``.

    A tap with a smaller MTU lowers that of its Linux bridge: a bridge without its own MTU uses the smallest
    of its ports (``br_mtu_auto_adjust`` in net/bridge/br_if.c), and later taps start with the bridge's. So
    the tap gets the MTU of the bridge's other ports. The guest keeps its MTU, a property of its virtio
    device. A macvtap gets the guest's MTU. On other switches nothing is needed.

    Args:
        target: The vNIC's device on the host (``vnet0``).
        size: The guest's MTU.
        host: The host, read after the start with ``target`` and the devices below.
    """
    link = host.links.get(target)
    if link is None:
        return ()
    wanted = size if link.kind == "macvtap" else _beside(link, host)
    return ((target, wanted),) if wanted is not None and wanted != link.mtu else ()


def _beside(tap: Link, host: HostTopology) -> int | None:
    """Return the MTU of a tap's bridge without the tap; None if it is on no bridge, or alone."""
    bridge = host.links.get(tap.lower[0]) if tap.kind == "tun" and tap.lower else None
    if bridge is None or bridge.kind != "bridge":
        return None
    if bridge.mtu > tap.mtu:
        # The bridge does not follow its ports: somebody set its MTU (BROPT_MTU_SET_BY_USER).
        return bridge.mtu
    return min((host.links[name].mtu for name in bridge.lower if name in host.links), default=None)
