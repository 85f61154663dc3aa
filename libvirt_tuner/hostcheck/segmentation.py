"""Where large packets are cut into segments by the CPU instead of the card. Pure.

A guest sends up to 64 KiB in one piece. It stays one piece until the first device that cannot handle it.
There the kernel cuts it, and the devices below handle each packet on its own. Sources, of the kernel:
netif_skb_features and netdev_fix_features in net/core/dev.c, net/xfrm/xfrm_output.c,
iptunnel_handle_offloads in net/ipv4/ip_tunnel_core.c, wg_xmit in drivers/net/wireguard/device.c,
Documentation/networking/segmentation-offloads.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from libvirt_tuner.host.ethtool import Feature
from libvirt_tuner.hostcheck.facts import NOTE, WARNING, Facts, Finding
from libvirt_tuner.planning.plan import Reason
from libvirt_tuner.topology import HostTopology, Link, Tunnel, XfrmState
from libvirt_tuner.uplink.domain import DevicePath
from libvirt_tuner.uplink.ipsec import ipsec
from libvirt_tuner.uplink.kinds import KINDS, ROUTE_BASED, Kind
from libvirt_tuner.uplink.path import Path, trace

Features = Mapping[str, Mapping[str, Feature]]
"""Of ``ethtool -k``, by device."""

ESP_FEATURE = "tx-esp-segmentation"
PARTIAL = "tx-gso-partial"
TRANSPORT_COMMIT = "'xfrm_output: Force software GSO only in tunnel mode' (Linux 6.15)"
"""Until this change the kernel cut the packets of every tunnel before it handed them to an ESP offload."""

_ALSO = {
    "tx-udp_tnl-segmentation": "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation": "tx-gre-csum-segmentation",
}
"""The same for packets whose outer header has a checksum: which of the two counts, the tunnel decides."""


@frozen
class Cut:
    """The first device that large packets do not get past in one piece.

    Attributes:
        device: Where the CPU cuts them.
        why: What makes it so.
        fix: The command that changes it, or "".
        sure: False where it depends on the kernel's version.
    """

    device: str
    why: str
    fix: str = ""
    sure: bool = True


def first_cut(path: Path, host: HostTopology, features: Features) -> Cut | None:
    """Where large packets are cut on a way down; None where the card does it, or where nothing says.

    Without a tunnel on the way they are the card's: every card that Linux calls fast has TCP segmentation.

    Args:
        path: From a vNIC or any device.
        host: What it was traced on.
        features: Of the devices that could be asked.
    """
    inner: Link | None = None
    for name in path.steps:
        link = host.links.get(name)
        if link is None:
            continue
        row = KINDS.get(link.kind)
        if link.kind in ROUTE_BASED:
            return Cut(name, "IPsec handles its packets one by one")
        if link.tunnel and row:
            if cut := _tunnel(link, link.tunnel, row, inner, host, features):
                return cut
            inner = link
        elif inner and (cut := _device(name, KINDS[inner.kind], features)):
            return cut
    return None


def _tunnel(
    link: Link, tunnel: Tunnel, row: Kind, inner: Link | None, host: HostTopology, features: Features
) -> Cut | None:
    if not row.segmentation:
        return Cut(link.name, f"{row.word} handles packets one by one")
    if inner is not None:
        return Cut(link.name, f"{inner.name} is a tunnel inside it, and no card cuts packets in two tunnels")
    if not ipsec(link.kind, tunnel, host) or host.xfrm.problem:
        return None
    return _esp(link.name, _states(tunnel, host), features)


def _states(tunnel: Tunnel, host: HostTopology) -> list[XfrmState]:
    """Those that a tunnel's packets may leave by."""
    out = (policy for policy in host.xfrm.policies if policy.direction == "out")
    ends = {*tunnel.remotes, *(template.dst for policy in out for template in policy.templates)}
    return [one for one in host.xfrm.states if one.dst in ends and one.direction != "in"]


def _esp(name: str, states: list[XfrmState], features: Features) -> Cut | None:
    if not states or not all(state.offload for state in states):
        return Cut(name, "the CPU encrypts its packets one by one")
    device = states[0].offload
    if any(state.mode == "tunnel" for state in states):
        return Cut(name, "with ESP in tunnel mode, packets are cut before encryption")
    known = features.get(device, {})
    if ESP_FEATURE in known and not known[ESP_FEATURE].on:
        fix = "" if known[ESP_FEATURE].fixed else f"ethtool -K {device} {ESP_FEATURE} on"
        return Cut(device, f"{ESP_FEATURE} is off", fix)
    return Cut(name, f"unless the kernel has {TRANSPORT_COMMIT}", sure=False)


def _device(name: str, row: Kind, features: Features) -> Cut | None:
    """Whether a device below a tunnel takes its packets in one piece, as far as it was asked."""
    known = features.get(name, {})
    names = [each for each in (row.segmentation, _ALSO.get(row.segmentation, "")) if each in known]
    if not names or any(known[each].on for each in names):
        return None
    able = [each for each in names if not known[each].fixed]
    if not able:
        return Cut(name, f"it has no {row.segmentation}")
    if PARTIAL in known and not known[PARTIAL].on and not known[PARTIAL].fixed:
        # A driver that needs it for these loses them with it (netdev_fix_features).
        able.insert(0, PARTIAL)
    words = " ".join(f"{each} on" for each in able)
    return Cut(
        name, f"{' and '.join(able)} {'is' if len(able) == 1 else 'are'} off", f"ethtool -K {name} {words}"
    )


def segmentation(facts: Facts) -> Iterator[Finding]:
    """Tunnels whose large packets the CPU cuts, and the first device that makes it so."""
    for name, link in sorted(facts.host.links.items()):
        if not link.tunnel:
            continue
        cut = first_cut(trace(name, facts.host), facts.host, facts.features)
        if cut is None or (cut.device != name and _seen_below(name, cut, facts)):
            continue
        yield Finding(
            "segmentation",
            f"{name}: large packets are cut by the CPU{f' at {cut.device}' if cut.device != name else ''}"
            + ("" if cut.sure else f", {cut.why}"),
            cut.why if cut.sure else "the devices below handle each packet on its own",
            cut.fix,
            WARNING if cut.fix else NOTE,
        )


def _seen_below(name: str, cut: Cut, facts: Facts) -> bool:
    """Whether the device itself is a tunnel, which has a finding of its own."""
    below = facts.host.links.get(cut.device)
    return below is not None and below.tunnel is not None


def reason(device: DevicePath, host: HostTopology, features: Features) -> Reason | None:
    """For the plan of a domain: where the large packets of one of its devices are cut."""
    cut = first_cut(device.path, host, features)
    if cut is None:
        return None
    where = f"by the CPU at {cut.device}" if cut.sure else f"by the CPU at {cut.device}, {cut.why}"
    why = cut.why if cut.sure else "the devices below handle each packet on its own"
    return Reason(f"segmentation of {device.subject}", where, f"{why}: {cut.fix}" if cut.fix else why)
