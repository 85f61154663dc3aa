"""How many bytes each layer between a vNIC and the wire takes, and the largest MTU that crosses whole. Pure.

Sizes are those of IP packets in bytes, as an MTU counts them. Sources: RFC 8926 (Geneve), RFC 7348 (VXLAN),
RFC 4303 (ESP), RFC 4302 (AH), RFC 3948 (NAT traversal), and the kernel's net/xfrm/xfrm_algo.c for what each
algorithm truncates its check value to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve, field, frozen

from libvirt_tuner.topology import HostTopology, Link, Route, XfrmPolicy, XfrmState, XfrmTemplate
from libvirt_tuner.uplink.path import TUNNELS, Path

IPV4 = 20
IPV6 = 40
UDP = 8
ETHERNET = 14
VLAN_TAG = 4
GENEVE = 8
VXLAN = 8
ESP_HEADER = 8
ESP_TRAILER = 2
AH_HEADER = 12
ASSUMED_UNDERLAY = 1500
ROUTE_BASED = ("xfrm", "vti", "vti6")
"""Kinds of interfaces whose packets IPsec takes by the route, not by a policy for their addresses."""

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
# Algorithm to bits of the check value where the state does not say.
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

    A packet of ``size`` bytes becomes ``kept + fixed + padded(size - kept)``, where what is padded has
    ``trailer`` bytes added and is rounded up to ``block``.

    Attributes:
        name: For people: ``geneve0``, ``ESP``.
        fixed: Bytes added to every packet.
        parts: What they are, for people.
        block: Padding goes to a multiple of this; 1 for none.
        trailer: Bytes that count into the padded part.
        kept: Bytes of the packet's own IP header, which stays outside the padded part.
        note: What was not known, so that the largest was taken.
    """

    name: str
    fixed: int
    parts: tuple[str, ...] = ()
    block: int = 1
    trailer: int = 0
    kept: int = 0
    note: str = ""

    @property
    def least(self) -> int:
        """Bytes it takes when nothing needs padding."""
        return self.fixed + self.trailer

    def wrapped(self, size: int) -> int:
        """The size on the wire of a packet of ``size``."""
        padded = -(-(size - self.kept + self.trailer) // self.block) * self.block
        return self.kept + self.fixed + padded

    def largest(self, limit: int) -> int:
        """The largest packet that is at most ``limit`` when wrapped."""
        room = (limit - self.kept - self.fixed) // self.block * self.block
        return self.kept + room - self.trailer

    def __str__(self) -> str:
        text = f"{self.name} takes {self.least}"
        if self.parts:
            text += f" ({', '.join(self.parts)})"
        if self.block > 1:
            text += f" and pads to {self.block}"
        return text


def wrapped(size: int, layers: Iterable[Layer]) -> int:
    """The size on the wire of a packet of ``size`` after all ``layers``, innermost first."""
    for layer in layers:
        size = layer.wrapped(size)
    return size


def largest(underlay: int, layers: Sequence[Layer]) -> int:
    """The largest packet that crosses an underlay of that MTU whole; ``layers`` innermost first."""
    for layer in reversed(layers):
        underlay = layer.largest(underlay)
    return underlay


def tunnel(
    kind: str, *, ipv6: bool = False, options: int = 0, ethernet: bool = True, name: str = ""
) -> Layer:
    """Geneve or VXLAN: outer IP, UDP, the tunnel's header, its options, the inner Ethernet header.

    Args:
        kind: ``geneve`` or ``vxlan``; any other is taken as large as these.
        ipv6: The outer packets are IPv6.
        options: Bytes of Geneve options.
        ethernet: False where the tunnel carries IP packets without Ethernet header.
        name: The device.
    """
    known = {"geneve": ("Geneve", GENEVE), "vxlan": ("VXLAN", VXLAN)}
    word, header = known.get(kind, (kind, GENEVE))
    parts = [(IPV6, "IPv6") if ipv6 else (IPV4, "IPv4"), (UDP, "UDP"), (header, word)]
    if options:
        parts.append((options, "options"))
    if ethernet:
        parts.append((ETHERNET, "inner Ethernet"))
    note = "" if kind in known else f"{kind} is not in our table: taken as large as Geneve"
    return Layer(
        name or word,
        fixed=sum(size for size, _ in parts),
        parts=tuple(f"{what} {size}" for size, what in parts),
        note=note,
    )


def vlan(name: str = "VLAN", tags: int = 1) -> Layer:
    """VLAN tags inside a tunnel. On the wire itself a tag is outside the MTU and costs nothing."""
    return Layer(name, fixed=VLAN_TAG * tags, parts=("tag 4",) * tags)


def esp(
    algorithms: Sequence[str],
    icv_bits: int | None = None,
    *,
    mode: str = "transport",
    ipv6: bool = False,
    nat: bool = False,
) -> Layer:
    """ESP; an unknown algorithm counts as the largest there is, with a note.

    Args:
        algorithms: An AEAD, or a cipher and a hash, by the kernel's names.
        icv_bits: Check value's length; None takes the algorithm's own.
        mode: ``transport`` or ``tunnel``; any other counts as tunnel.
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
    """IV, block and ICV in bytes, and a note where the largest was taken."""
    cipher = next((_CIPHERS[name] for name in algorithms if name in _CIPHERS), None)
    checks = [_CHECKS[name] for name in algorithms if name in _CHECKS]
    unknown = [name for name in algorithms if name not in _CIPHERS and name not in _CHECKS]
    note = ""
    if cipher is None or unknown:
        what = ", ".join(unknown) or ("no cipher named" if algorithms else "no state is there yet")
        note = f"ESP algorithm unknown ({what}): counted as the largest there is"
    if icv_bits is None and len(checks) == 1 and not unknown:
        icv_bits = checks[0]
    icv = _WORST_ICV if icv_bits is None else -(-icv_bits // 8)
    if not note and not checks and icv_bits is None:
        # A cipher alone, without integrity: the kernel allows it, and nothing is appended.
        icv = 0
    initial, block = cipher if cipher and not unknown else (_WORST_IV, _WORST_BLOCK)
    return initial, block, icv, note


def ah(icv_bits: int | None, *, mode: str = "transport", ipv6: bool = False) -> Layer:
    """AH: 12 bytes and the check value, to a multiple of 4 (IPv4) or 8 (IPv6)."""
    step = 8 if ipv6 else 4
    size = -(-(AH_HEADER + (_WORST_ICV if icv_bits is None else -(-icv_bits // 8))) // step) * step
    outer = 0 if mode == "transport" else IPV6 if ipv6 else IPV4
    note = "AH check value unknown: counted as the largest there is" if icv_bits is None else ""
    return Layer(f"AH {mode}", fixed=size + outer, note=note)


# From the path and the kernel's IPsec states to layers


@frozen(repr=False)
class Budget:
    """The largest MTU of a vNIC, and where the bytes went.

    Attributes:
        size: Bytes; None where nothing below the vNIC says.
        underlay: MTU at the bottom.
        underlay_name: Whose that is.
        layers: Innermost first.
        limits: ``(device, MTU)`` of devices on the way whose own MTU is smaller than what would cross.
        notes: What was not known or is not as it should be.
    """

    size: int | None
    underlay: int | None = None
    underlay_name: str = ""
    layers: tuple[Layer, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def explain(self) -> str:
        """One sentence with the bytes of each layer, and the notes."""
        if self.size is None:
            return "; ".join(self.notes) or "no uplink says what crosses"
        text = f"{self.underlay_name} carries {self.underlay}"
        text = ", ".join([text, *map(str, reversed(self.layers))])
        for name, mtu in self.limits:
            text += f", {name} itself has {mtu}"
        return "; ".join([text, *self.notes])


def vnic_mtu(path: Path, host: HostTopology, *, tags: int = 0) -> tuple[int | None, str]:
    """The largest MTU at which a vNIC's packets cross its uplink whole, and why.

    Args:
        path: From :func:`libvirt_tuner.uplink.path.trace`.
        host: The links, routes and IPsec states it was traced with.
        tags: VLAN tags the switch adds to the vNIC's packets before they enter a tunnel.

    Returns:
        Bytes, or None where there is no uplink to take it from, and a sentence for people.
    """
    found = budget(path, host, tags=tags)
    return found.size, found.explain()


def budget(path: Path, host: HostTopology, *, tags: int = 0) -> Budget:
    """As :func:`vnic_mtu`, in parts."""
    steps = [host.links[name] for name in path.steps if name in host.links]
    tunnels = [link for link in steps if link.kind in TUNNELS]
    underlay, name = _bottom(path, host)
    notes = [path.problem] if path.problem else []
    if underlay is None and not tunnels:
        return Budget(None, notes=tuple(notes))
    if underlay is None and steps[-1].kind not in TUNNELS:
        # Below it nothing is known, but it takes no more than its own MTU.
        underlay, name = steps[-1].mtu, steps[-1].name
    if underlay is None:
        underlay, name = ASSUMED_UNDERLAY, "the underlay"
        notes.append(f"what is below {tunnels[-1].name} is unknown: {ASSUMED_UNDERLAY} assumed")
    return _climb(steps, _Climb(underlay, name, notes), host, tags)


def _bottom(path: Path, host: HostTopology) -> tuple[int | None, str]:
    """The smallest MTU among the functions, backups included: a failover may not cut packets."""
    names = [name for name in path.functions or path.candidates if name in host.links]
    sizes = [(host.links[name].mtu, name) for name in names if host.links[name].kind == ""]
    return min(sizes, default=(None, ""))


class _Climb:
    """Collects on the way up."""

    __slots__ = ("bottom", "layers", "limit", "limits", "name", "notes")

    def __init__(self, bottom: int, name: str, notes: list[str]) -> None:
        self.bottom = self.limit = bottom
        self.name = name
        self.notes = notes
        self.layers: list[Layer] = []
        self.limits: list[tuple[str, int]] = []

    def through(self, layer: Layer) -> None:
        self.layers.insert(0, layer)
        self.limit = layer.largest(self.limit)
        if layer.note:
            self.notes.append(layer.note)

    def routed(self, address: str, route: Route | None) -> None:
        """A route may take less than its device."""
        if route is None or not 0 < route.mtu < self.limit:
            return
        self.limit = route.mtu
        if self.layers:
            self.limits.append((f"the route to {address}", route.mtu))
        else:
            self.bottom, self.name = route.mtu, f"the route to {address}"

    def at_most(self, link: Link) -> None:
        """A device's own MTU; below the first tunnel it is the underlay's, above it a limit of its own."""
        if link.mtu >= self.limit:
            return
        self.limit = link.mtu
        if self.layers:
            self.limits.append((link.name, link.mtu))
        else:
            self.bottom, self.name = link.mtu, link.name


def _climb(steps: Sequence[Link], climb: _Climb, host: HostTopology, tags: int) -> Budget:
    for place in range(len(steps) - 1, -1, -1):
        link = steps[place]
        if link.kind in TUNNELS:
            _through_tunnel(link, climb, host)
        elif link.kind in ROUTE_BASED:
            for layer in _route_based(link, host):
                climb.through(layer)
        elif link.kind == "vlan" and climb.layers:
            climb.through(vlan(link.name))
        # The vNIC's own tap or macvtap is what the answer is for; the internal port that goes by the name of
        # an Open vSwitch bridge is not on the packets' way.
        if (place or link.kind not in ("tun", "macvtap")) and link.kind != "openvswitch":
            climb.at_most(link)
    if tags and climb.layers:
        climb.through(vlan("the vNIC's VLAN", tags))
    return Budget(
        climb.limit, climb.bottom, climb.name, tuple(climb.layers), tuple(climb.limits), tuple(climb.notes)
    )


def _through_tunnel(link: Link, climb: _Climb, host: HostTopology) -> None:
    ipv6 = any(":" in address for address in _ends(link))
    for address in _ends(link):
        climb.routed(address, host.routes.get(address))
    for layer in ipsec(link, host):
        climb.through(layer)
    options = int(link.detail.get("options", "0"))
    ethernet = link.detail.get("no_ether") != "1"
    climb.through(tunnel(link.kind, ipv6=ipv6, options=options, ethernet=ethernet, name=link.name))
    if link.mtu > climb.limit and not link.external:
        climb.notes.append(
            f"{link.name} has an MTU of {link.mtu}, {link.mtu - climb.limit} more than crosses whole: "
            f"ip link set {link.name} mtu {climb.limit}"
        )


def _ends(link: Link) -> list[str]:
    """Outer addresses of a tunnel, far ends first."""
    remotes = [link.remote] if link.remote else link.detail.get("remotes", "").split()
    local = link.detail.get("local", "")
    return [*remotes, *([local] if local else [])]


def ipsec(link: Link, host: HostTopology) -> tuple[Layer, ...]:
    """What IPsec adds to a tunnel's packets, outermost first.

    The largest, where the far ends differ, are not known, or it cannot be told which policy a packet meets;
    the largest there is, where the kernel's policies cannot be read.
    """
    local = link.detail.get("local", "")
    remotes = [link.remote] if link.remote else link.detail.get("remotes", "").split()
    if host.xfrm.problem:
        ipv6 = any(":" in address for address in (*remotes, local))
        return (evolve(esp((), ipv6=ipv6, nat=True), note=f"IPsec could not be read: {host.xfrm.problem}"),)
    if not host.xfrm.policies:
        return ()
    port = int(link.detail["port"]) if link.detail.get("port", "").isdecimal() else None
    ways = [(_source(link, remote, host), remote) for remote in remotes] or [(local, "")]
    found = [
        _layers(policy, remote or policy.dst.partition("/")[0], host)
        for source, remote in ways
        for policy in _policies(host.xfrm.policies, source, remote, port)
    ]
    return max(found, key=_cost, default=())


def _cost(layers: Sequence[Layer]) -> int:
    """Compared by what a small packet becomes: the padding is in it."""
    return wrapped(1280, reversed(layers))


def _source(link: Link, remote: str, host: HostTopology) -> str:
    route = host.routes.get(remote)
    return link.detail.get("local", "") or (route.source if route else "")


def _layers(policy: XfrmPolicy, remote: str, host: HostTopology) -> tuple[Layer, ...]:
    return tuple(_state_layer(template, remote, host) for template in reversed(policy.templates))


def _policies(
    policies: Sequence[XfrmPolicy], source: str, remote: str, port: int | None
) -> tuple[XfrmPolicy, ...]:
    """Those that UDP from ``source`` to ``remote`` may meet: the lowest priority number, and narrow ones.

    A tunnel's source port is another for each flow, so that a policy for one does not meet it. Without a
    ``remote`` all that may be met by packets to anywhere.
    """
    fitting = [
        policy
        for policy in policies
        if policy.direction == "out"
        and not (policy.if_id or policy.block)
        and policy.proto in ("", "udp", "17")
        and policy.sport is None
        and (policy.dport is None or port is None or policy.dport == port)
        and (not remote or _within(remote, policy.dst))
        and (not source or _within(source, policy.src))
    ]
    if not remote:
        return tuple(fitting)
    narrow = [policy for policy in fitting if policy.narrow]
    wide = [policy for policy in fitting if not policy.narrow]
    return (*narrow, *sorted(wide, key=lambda policy: policy.priority)[:1])


def _route_based(link: Link, host: HostTopology) -> tuple[Layer, ...]:
    """What an IPsec interface (xfrm, vti) adds: the costliest of the policies for any, else the largest."""
    policies = [one for one in host.xfrm.policies if one.direction == "out" and (one.if_id or one.narrow)]
    found = [_layers(policy, policy.dst.partition("/")[0], host) for policy in policies if policy.templates]
    unknown = esp((), mode="tunnel", ipv6=link.kind == "vti6", nat=True)
    return max(found, key=_cost, default=(unknown,))


def _within(address: str, prefix: str) -> bool:
    if address == prefix.partition("/")[0] and prefix.endswith(("/32", "/128")):
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(prefix, strict=False)
    except (ValueError, TypeError):
        return False


def _state_layer(template: XfrmTemplate, remote: str, host: HostTopology) -> Layer:
    """The layer of the state a template resolves to; of several (while keys change) the largest."""
    unset = ("", "0.0.0.0", "::")
    far = remote if template.dst in unset else template.dst
    ipv6 = ":" in far
    fitting = [
        state
        for state in host.xfrm.states
        if (state.proto, state.mode, state.dst) == (template.proto, template.mode, far)
        and template.reqid in (0, state.reqid)
        and (template.src in unset or template.src == state.src)
    ]
    # Keys are not agreed on yet: the largest, in UDP too.
    unknown = XfrmState(template.src, far, template.proto, mode=template.mode, encap="espinudp")
    states = fitting or [unknown]
    layers = [_layer_of(state, ipv6=ipv6) for state in states]
    return max(layers, key=lambda layer: layer.wrapped(1280))


def _layer_of(state: XfrmState, *, ipv6: bool) -> Layer:
    if state.proto == "ah":
        return ah(state.icv_bits, mode=state.mode, ipv6=ipv6)
    return esp(state.algorithms, state.icv_bits, mode=state.mode, ipv6=ipv6, nat=bool(state.encap))
