"""All kinds of tunnels in Linux and Open vSwitch, and the bytes that each adds to a packet. Pure.

A kind is defined only here: a row of :data:`KINDS`, and its optional parts in :func:`extras`. docs/tunnels.md
shows the table with the evidence for each row. A test compares both.

Bytes are counted as in an MTU: from the inner IP packet (or its VLAN tag) to the outer IP packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IPV4 = 20
IPV6 = 40
UDP = 8
ETHERNET = 14

UNKNOWN = 100
"""Bytes of an unknown kind: more than any row without options."""

Parts = tuple[tuple[str, int], ...]
"""Names and bytes of headers, outermost first."""


class Kind(NamedTuple):
    """One kind of tunnel.

    Attributes:
        word: For people.
        parts: Headers between the outer IP header and the packet.
        ethernet: Whether it carries Ethernet frames, whose header counts.
        outer: Bytes of the outer IP header; None: depends on the tunnel's address family; 0: none.
        block: The packet is padded to a multiple of this.
        protocols: Names and number of the outer IP protocol, as ``ip xfrm policy`` shows them.
        segmentation: Feature of a device (``ethtool -k``) that segments large packets of this kind in
            hardware.
    """

    word: str
    parts: Parts = ()
    ethernet: bool = False
    outer: int | None = None
    block: int = 1
    protocols: tuple[str, ...] = ("udp", "17")
    segmentation: str = "tx-udp_tnl-segmentation"


_GRE = ("gre", "47")
_IP_IN_IP = ("4", "41", "ipencap", "ipv4", "ipv6")
_GRE_SEGMENTATION = "tx-gre-segmentation"

KINDS: Mapping[str, Kind] = {
    # RFC 8926
    "geneve": Kind("Geneve", (("UDP", UDP), ("Geneve", 8)), ethernet=True),
    # RFC 7348; the group policy (gbp) uses bits of the same header
    "vxlan": Kind("VXLAN", (("UDP", UDP), ("VXLAN", 8)), ethernet=True),
    # RFC 2784 and 2890; net/ipv4/ip_gre.c, net/ipv6/ip6_gre.c
    "gre": Kind("GRE", (("GRE", 4),), protocols=_GRE, segmentation=_GRE_SEGMENTATION),
    "gretap": Kind("GRE", (("GRE", 4),), ethernet=True, protocols=_GRE, segmentation=_GRE_SEGMENTATION),
    "ip6gre": Kind("GRE", (("GRE", 4),), outer=IPV6, protocols=_GRE, segmentation=_GRE_SEGMENTATION),
    "ip6gretap": Kind(
        "GRE", (("GRE", 4),), ethernet=True, outer=IPV6, protocols=_GRE, segmentation=_GRE_SEGMENTATION
    ),
    # draft-foschiano-erspan: GRE with a sequence number, then a header by version
    "erspan": Kind("ERSPAN", (("GRE", 4),), ethernet=True, protocols=_GRE, segmentation=""),
    "ip6erspan": Kind("ERSPAN", (("GRE", 4),), ethernet=True, outer=IPV6, protocols=_GRE, segmentation=""),
    # RFC 2003, 4213, 2473
    "ipip": Kind("IP in IP", outer=IPV4, protocols=_IP_IN_IP, segmentation="tx-ipxip4-segmentation"),
    "sit": Kind("IP in IP", outer=IPV4, protocols=_IP_IN_IP, segmentation="tx-ipxip4-segmentation"),
    "ip6tnl": Kind("IP in IPv6", outer=IPV6, protocols=_IP_IN_IP, segmentation="tx-ipxip6-segmentation"),
    # drivers/net/bareudp.c: nothing but UDP
    "bareudp": Kind("bare UDP", (("UDP", UDP),)),
    # 3GPP TS 29.060: version 0's header, the larger one of those that drivers/net/gtp.c sends; each context
    # has its own version, and ip does not say which
    "gtp": Kind("GTP", (("UDP", UDP), ("GTP", 20)), segmentation=""),
    # Open vSwitch's: with the optional fields and one extension header, which flows may add
    "gtpu": Kind("GTP", (("UDP", UDP), ("GTP-U", 8), ("GTP-U optional fields", 8)), segmentation=""),
    # wireguard.com/protocol: type, receiver and counter 16, tag 16; padded to 16, at most to the device's MTU
    "wireguard": Kind("WireGuard", (("UDP", UDP), ("WireGuard", 32)), block=16, segmentation=""),
    # IEEE 802.1AE: six bytes of SecTAG and the EtherType after it
    "macsec": Kind(
        "MACsec", (("SecTAG", 6), ("EtherType", 2)), outer=0, protocols=(), segmentation="macsec-hw-offload"
    ),
    # IEC 62439-3
    "hsr": Kind("HSR", (("HSR tag", 6),), outer=0, protocols=(), segmentation=""),
    # RFC 3931: session id; the rest by the session
    "l2tpeth": Kind(
        "L2TPv3", (("session id", 4),), ethernet=True, protocols=("udp", "17", "l2tp", "115"), segmentation=""
    ),
    # draft-davie-stt: a TCP-like header and its own
    "stt": Kind("STT", (("TCP", 20), ("STT", 18)), ethernet=True, protocols=("tcp", "6"), segmentation=""),
    # RFC 6830
    "lisp": Kind("LISP", (("UDP", UDP), ("LISP", 8))),
    # RFC 8754: the segments are parts of the tunnel
    "srv6": Kind(
        "SRv6", (("routing header", 8),), outer=IPV6, protocols=("43", "ipv6-route"), segmentation=""
    ),
}

ADDS_NOTHING = frozenset(
    {"", "bridge", "bond", "team", "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "tun", "veth", "netkit"}
    | {"vrf", "dummy", "ifb", "openvswitch", "network", "pci", "dpdk", "vdpa", "vhostuser", "other", "lo"}
    | {"ipoib", "ppp", "wwan", "unknown"}
)
"""Kinds that add no bytes. A VLAN tag only counts above a tunnel."""

ROUTE_BASED = frozenset({"xfrm", "vti", "vti6"})
"""Kinds of interfaces with IPsec by route, not by a policy for addresses."""


def extras(kind: str, data: Mapping[str, Any]) -> Parts:
    """Optional parts of a tunnel's packets, from ``info_data`` of ``ip -json -details link``.

    A part that ``data`` does not have counts if it is the kernel's default.
    """
    if kind in ("gre", "gretap", "ip6gre", "ip6gretap"):
        return (*_gre(data), *_encapsulation_limit(kind, data), *_in_udp(data))
    if kind in ("erspan", "ip6erspan"):
        version = 2 if data.get("external") else data.get("erspan_ver", 1)
        return (*_erspan(version), *_encapsulation_limit(kind, data))
    if kind in ("ipip", "sit", "ip6tnl"):
        return (*_encapsulation_limit(kind, data), *_in_udp(data))
    if kind == "macsec":
        sci = data.get("inc_sci", data.get("send_sci", True)) not in (False, "off")
        return (*((("SCI", 8),) if sci else ()), ("ICV", int(data.get("icv_len", 16))))
    if kind == "l2tpeth":
        # ip does not show a session's settings, so all are assumed.
        return (("UDP", UDP), ("flags", 4), ("cookie", 8), ("sublayer", 4))
    return ()


def _gre(data: Mapping[str, Any]) -> Parts:
    """RFC 2890; "okey" exists if packets are sent with a key. In metadata mode each may have all."""
    if data.get("external"):
        return (("checksum", 4), ("key", 4), ("sequence number", 4))
    found = [("checksum", 4)] if data.get("ocsum") else []
    found += [("key", 4)] if "okey" in data else []
    found += [("sequence number", 4)] if data.get("oseq") else []
    return tuple(found)


def _erspan(version: object) -> Parts:
    """Version 0 is plain GRE; 1 and 2 have a sequence number and a header of 8 or 12 bytes."""
    if str(version) == "0":
        return ()
    return (("sequence number", 4), ("ERSPAN header", 8 if str(version) == "1" else 12))


def _encapsulation_limit(kind: str, data: Mapping[str, Any]) -> Parts:
    """RFC 2473, 4.1.1: an IPv6 option of 8 bytes, on by default, not in metadata mode."""
    limited = "ip6" in kind and not data.get("ip6_tnl_f_ign_encap_limit") and not data.get("external")
    return (("encapsulation limit", 8),) if limited else ()


def _in_udp(data: Mapping[str, Any]) -> Parts:
    """``encap fou`` and ``encap gue``: the tunnel's packets in UDP (net/ipv4/fou_core.c)."""
    encap = data.get("encap")
    if not isinstance(encap, Mapping) or encap.get("type") not in ("fou", "gue"):
        return ()
    if encap["type"] == "fou":
        return (("UDP", UDP),)
    checksum = (("GUE remote checksum", 8),) if encap.get("remcsum") else ()
    return (("UDP", UDP), ("GUE", 4), *checksum)


def segment_routing(facts: Mapping[str, Any]) -> int:
    """Return the bytes that a route's ``encap seg6`` or ``encap rpl`` adds; 0 if its segments are unknown.

    RFC 8754; net/ipv6/seg6_iptunnel.c. ``ip`` shows every segment of the header, also the one that ``inline``
    keeps free for the packet's own address. A reduced header is smaller, and counts as a whole one.
    """
    segments = facts.get("segs")
    if not isinstance(segments, list) or not segments:
        return 0
    mode = str(facts.get("mode", "encap"))
    outer = 0 if mode == "inline" else IPV6
    frame = ETHERNET if mode.startswith("l2encap") else 0
    return outer + frame + 8 + 16 * len(segments) + (40 if facts.get("hmac") else 0)


def open_vswitch(kind: str, options: Mapping[str, str]) -> tuple[str, Parts, bool | None]:
    """Return kind, optional parts and Ethernet flag of an Open vSwitch tunnel port.

    ovs-vswitchd.conf.db(5), "Tunnel Options". Its ``gre`` carries Ethernet unless ``packet_type`` says
    otherwise.
    """
    bare = options.get("packet_type", "legacy_l2") == "legacy_l3"
    ours = {"gre": "gretap", "ip6gre": "ip6gretap"}.get(kind, kind)
    parts: list[tuple[str, int]] = []
    if ours in ("gretap", "ip6gretap"):
        keyed = any(name in options for name in ("key", "out_key"))
        data = {"ocsum": options.get("csum") == "true", "oseq": options.get("seq") == "true"}
        parts += _gre({**data, "okey": True} if keyed else data)
    elif ours in ("erspan", "ip6erspan"):
        parts += _erspan(options.get("erspan_ver", "2"))
    elif ours == "srv6":
        segments = [one for one in options.get("srv6_segs", "").split(",") if one]
        parts.append(("segments", 16 * max(1, len(segments))))
    return ours, tuple(parts), False if bare else None
