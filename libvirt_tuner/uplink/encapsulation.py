"""Computes the bytes that each layer adds to a packet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from libvirt_tuner.uplink.kinds import ETHERNET, IPV4, IPV6, KINDS, UDP, UNKNOWN, Parts

VLAN_TAG = 4
MPLS_LABEL = 4
ESP_HEADER = 8
ESP_TRAILER = 2
AH_HEADER = 12


# Algorithm to (IV, block) in bytes: an AEAD, or the cipher of a pair.
_CIPHERS = {
    "rfc4106(gcm(aes))": (8, 4),
    "rfc4309(ccm(aes))": (8, 4),
    "rfc4543(gcm(aes))": (8, 4),
    "rfc7539esp(chacha20,poly1305)": (8, 4),
    "rfc3686(ctr(aes))": (8, 4),
    "ctr(aes)": (8, 4),
    "ecb(cipher_null)": (0, 4),
    "cipher_null": (0, 4),
    "cbc(des)": (8, 8),
    "cbc(des3_ede)": (8, 8),
    "cbc(cast5)": (8, 8),
    "cbc(blowfish)": (8, 8),
    "cbc(aes)": (16, 16),
    "cbc(camellia)": (16, 16),
    "cbc(serpent)": (16, 16),
    "cbc(twofish)": (16, 16),
    "cbc(sm4)": (16, 16),
}


# Algorithm to bits of the check value, if the state does not have them.
_CHECKS = {
    "rfc4106(gcm(aes))": 128,
    "rfc4309(ccm(aes))": 128,
    "rfc4543(gcm(aes))": 128,
    "rfc7539esp(chacha20,poly1305)": 128,
    "digest_null": 0,
    "hmac(md5)": 96,
    "hmac(sha1)": 96,
    "hmac(sha256)": 128,
    "hmac(sha384)": 192,
    "hmac(sha512)": 256,
    "hmac(sm3)": 256,
    "hmac(rmd160)": 96,
    "xcbc(aes)": 96,
    "cmac(aes)": 96,
}


_WORST_IV = 16
_WORST_BLOCK = 16
_WORST_ICV = 32


@frozen(repr=False)
class Layer:
    """One layer's cost.

    A packet of ``size`` bytes becomes ``kept + fixed + padded(size - kept)``. ``padded`` adds ``trailer``
    bytes and rounds up to ``block``.

    Attributes:
        name: For people: ``geneve0``, ``ESP``.
        fixed: Bytes added to every packet.
        parts: Their names and sizes, for people.
        block: Packets are padded to a multiple of this; 1: no padding.
        trailer: Bytes added to the padded part.
        kept: Bytes of the packet's own IP header, which is outside the padded part.
        cap: Limit of the padding; 0: no limit.
        note: Unknown fact for which the largest value was assumed.
    """

    name: str
    fixed: int
    parts: tuple[str, ...] = ()
    block: int = 1
    trailer: int = 0
    kept: int = 0
    note: str = ""
    cap: int = 0

    @property
    def least(self) -> int:
        """Bytes added without padding."""
        return self.fixed + self.trailer

    def wrapped(self, size: int) -> int:
        """Return the size on the wire of a packet of ``size``."""
        whole = size - self.kept + self.trailer
        padded = -(-whole // self.block) * self.block
        if self.cap:
            padded = max(whole, min(padded, self.cap))
        return self.kept + self.fixed + padded

    def largest(self, limit: int) -> int:
        """Return the largest packet whose encapsulated size is at most ``limit``."""
        room = limit - self.kept - self.fixed
        if not 0 < self.cap <= room:
            room = room // self.block * self.block
        return self.kept + room - self.trailer

    def __str__(self) -> str:
        text = f"{self.name} adds {self.least}"
        if self.parts:
            text += f" ({', '.join(self.parts)})"
        if self.block > 1:
            text += f" and pads to {self.block}"
        return text


def wrapped(size: int, layers: Iterable[Layer]) -> int:
    """Return the size on the wire of a packet of ``size`` after all ``layers``, innermost first."""
    for layer in layers:
        size = layer.wrapped(size)
    return size


def largest(underlay: int, layers: Sequence[Layer]) -> int:
    """Return the largest packet that fits an underlay with that MTU; ``layers`` innermost first."""
    for layer in reversed(layers):
        underlay = layer.largest(underlay)
    return underlay


def tunnel(
    kind: str,
    *,
    ipv6: bool | None = False,
    extras: Parts = (),
    ethernet: bool | None = None,
    name: str = "",
    mtu: int = 0,
) -> Layer:
    """A tunnel: outer IP, its headers, its options, the inner Ethernet header.

    Args:
        kind: A row of :data:`libvirt_tuner.uplink.kinds.KINDS`. An unknown kind counts more than all of them.
        ipv6: Whether the outer packets are IPv6; None: unknown, counted as IPv6.
        extras: Optional parts, from :func:`libvirt_tuner.uplink.kinds.extras`.
        ethernet: Whether it carries Ethernet frames; None: the default of the kind.
        name: The device.
        mtu: The device's MTU, the limit of padding.
    """
    row = KINDS.get(kind)
    if row is None:
        return unknown(name or kind, kind)
    parts: list[tuple[str, int]] = []
    outer = row.outer if row.outer is not None else IPV4 if ipv6 is False else IPV6
    if outer:
        parts.append(("IPv4" if outer == IPV4 else "IPv6", outer))
    parts += [*row.parts, *extras]
    if row.ethernet if ethernet is None else ethernet:
        parts.append(("inner Ethernet", ETHERNET))
    guessed = ipv6 is None and row.outer is None
    return Layer(
        name or row.word,
        fixed=sum(size for _, size in parts),
        parts=tuple(f"{what} {size}" for what, size in parts),
        block=row.block,
        cap=mtu if row.block > 1 else 0,
        note=f"no outer address of {name or row.word} is known: IPv6 assumed" if guessed else "",
    )


def mpls(labels: int) -> Layer:
    """MPLS labels (RFC 3032), which go between the Ethernet header and the IP packet."""
    return Layer("MPLS", fixed=MPLS_LABEL * labels, parts=("label 4",) * labels)


def unknown(name: str, what: str) -> Layer:
    """Return a layer with unknown size."""
    return Layer(name, UNKNOWN, note=f"{what} is unknown; {UNKNOWN} bytes assumed")


def of_routes(encaps: Iterable[tuple[str, int]]) -> Layer:
    """Return the largest of several routes' encapsulations, given as name and bytes (0: unknown)."""
    name, size = max(encaps, key=lambda one: (one[1] or UNKNOWN, one[0]))
    unknown = ", ".join(sorted(name for name, size in encaps if not size))
    return Layer(
        "the route",
        size or UNKNOWN,
        parts=(f"{name} {size or UNKNOWN}",),
        note=f"bytes of {unknown} are unknown; {UNKNOWN} assumed" if unknown else "",
    )


def vlan(name: str = "VLAN", tags: int = 1) -> Layer:
    """VLAN tags inside a tunnel. On the wire itself, a tag does not count into the MTU."""
    return Layer(name, fixed=VLAN_TAG * tags, parts=("tag 4",) * tags)


def esp(
    algorithms: Sequence[str],
    icv_bits: int | None = None,
    *,
    mode: str = "transport",
    ipv6: bool = False,
    nat: bool = False,
) -> Layer:
    """ESP. For an unknown algorithm the largest is assumed, with a note.

    Args:
        algorithms: An AEAD, or a cipher and a hash, by the kernel's names.
        icv_bits: Length of the check value; None: the algorithm's default.
        mode: ``transport`` or ``tunnel``. Others count as tunnel.
        ipv6: The outer packets are IPv6.
        nat: Encapsulated in UDP for NAT traversal.
    """
    initial, block, icv, note = _crypto(algorithms, icv_bits)
    parts = [(ESP_HEADER, "SPI and sequence"), (initial, "IV"), (icv, "ICV")]
    address = IPV6 if ipv6 else IPV4
    kept = address if mode == "transport" else 0
    if not kept:
        parts.insert(0, (address, "IPv6" if ipv6 else "IPv4"))
    if nat:
        parts.insert(0, (UDP, "UDP for NAT"))
    named = "+".join(algorithms) or "unknown algorithm"
    return Layer(
        f"ESP {mode} {named}",
        fixed=sum(size for size, _ in parts),
        parts=(*(f"{what} {size}" for size, what in parts if size), f"trailer {ESP_TRAILER}"),
        block=block,
        trailer=ESP_TRAILER,
        kept=kept,
        note=note,
    )


def _crypto(algorithms: Sequence[str], icv_bits: int | None) -> tuple[int, int, int, str]:
    """Return IV, block and ICV in bytes, and a note if the largest was assumed."""
    cipher = next((_CIPHERS[name] for name in algorithms if name in _CIPHERS), None)
    checks = [_CHECKS[name] for name in algorithms if name in _CHECKS]
    unknown = [name for name in algorithms if name not in _CIPHERS and name not in _CHECKS]
    note = ""
    if cipher is None or unknown:
        what = ", ".join(unknown) or ("no cipher" if algorithms else "no state exists yet")
        note = f"ESP algorithm unknown ({what}); the largest is assumed"
    if icv_bits is None and len(checks) == 1 and not unknown:
        icv_bits = checks[0]
    icv = _WORST_ICV if icv_bits is None else -(-icv_bits // 8)
    if not note and not checks and icv_bits is None:
        # A cipher without integrity: the kernel allows it, and no check value is added.
        icv = 0
    initial, block = cipher if cipher and not unknown else (_WORST_IV, _WORST_BLOCK)
    return initial, block, icv, note


def ah(icv_bits: int | None, *, mode: str = "transport", ipv6: bool = False) -> Layer:
    """AH: 12 bytes and the check value, to a multiple of 8.

    RFC 4302 has 4 for IPv4; the kernel does that only for states with ``flag align4`` (net/ipv4/ah4.c).
    """
    size = -(-(AH_HEADER + (_WORST_ICV if icv_bits is None else -(-icv_bits // 8))) // 8) * 8
    outer = 0 if mode == "transport" else IPV6 if ipv6 else IPV4
    note = "AH check value unknown; the largest is assumed" if icv_bits is None else ""
    return Layer(f"AH {mode}", fixed=size + outer, note=note)
