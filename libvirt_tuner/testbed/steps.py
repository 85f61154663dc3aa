"""Plans the steps of a testbed from its configuration, each with its inverse. Pure.

A step can be repeated, and so can its inverse. Commands are lists of words. Those of ``ip`` go to ``ip -batch
-`` through its standard input, because everybody can read a program's arguments (``/proc/PID/cmdline``). A
key is only a placeholder here, so that a step can be shown and stored.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from libvirt_tuner.errors import TunerError
from libvirt_tuner.testbed.config import IPV6_LEAST, NONE, Config
from libvirt_tuner.uplink import encapsulation
from libvirt_tuner.uplink.encapsulation import Layer

Command = tuple[str, ...]
AEAD = "rfc4106(gcm(aes))"
ICV_BITS = 128
REPLAY_WINDOW = 256
"""In packets. The receiving card spreads packets over queues. ConnectX supports no larger window."""

FEATURES = ("esp-hw-offload", "esp-tx-csum-hw-offload")
"""Features of a card for crypto offload, by ethtool's names. The first is required."""

LEAST_INNER = 68
"""The smallest MTU of IPv4 (RFC 791), and of a virtio device."""


@frozen
class Way:
    """One direction of the traffic.

    Attributes:
        name: Names the key.
        spi: Security parameters index.
        reqid: Ties the state to the policies' templates.
    """

    name: str
    spi: int
    reqid: int


TO_CLIENT = Way("server-to-client", 300001, 10001)
TO_SERVER = Way("client-to-server", 400001, 20001)
WAYS = (TO_CLIENT, TO_SERVER)


@frozen
class Port:
    """A network card as it was before.

    Attributes:
        name: The device.
        mtu: Bytes.
        up: Whether it was up.
        virgin: Whether it was never up: ``qdisc noop``, to which a device does not return by itself.
        master: The bridge or bond it belonged to, or "".
        addresses: With prefix length, without link-local addresses of the kernel.
        routes: Lines of ``ip route show`` through it, after ``-4`` or ``-6``, without routes of the kernel.
        features: Of :data:`FEATURES`: ``on``, ``off``, or ``fixed`` (off, cannot be changed).
    """

    name: str
    mtu: int = 1500
    up: bool = False
    virgin: bool = False
    master: str = ""
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    features: Mapping[str, str] = field(factory=dict)

    @property
    def offers_offload(self) -> bool:
        """Whether the card can encrypt ESP."""
        return self.features.get(FEATURES[0], "fixed") != "fixed"


@frozen
class Step:
    """One step of the testbed.

    Attributes:
        kind: ``feature``, ``link``, ``mtu``, ``port``, ``up``, ``address``, ``state`` or ``policy``.
        target: The device; for a state its SPI, for a policy its direction.
        value: Value after the step: the link's kind, the MTU, the master...
        do: The commands of the step, with placeholders for keys.
        undo: Their inverse.
        needs: What the kernel needs, for the error.
    """

    kind: str
    target: str
    value: str
    do: tuple[Command, ...]
    undo: tuple[Command, ...] = ()
    needs: str = ""

    @property
    def id(self) -> str:
        """The step's id in its plan."""
        return " ".join(
            (self.kind, self.target, self.value if self.kind in ("feature", "address") else "")
        ).rstrip()

    def __str__(self) -> str:
        return "; ".join(" ".join(words) for words in self.do)

    def reverse(self) -> str:
        """The inverse, as text."""
        return "; ".join(" ".join(words) for words in self.undo) or "(goes with its device)"


@frozen
class Plan:
    """All steps of a testbed. Attributes:
    steps: In order. They are undone from last to first.
    underlay: MTU of the cards and the bond, bytes.
    inner: MTU of the tunnel: the largest without fragmentation.
    why: How it was computed.
    offload: Whether the card encrypts.
    crypto: What encrypts, and why, in a few words.
    """

    steps: tuple[Step, ...]
    underlay: int
    inner: int
    why: str
    offload: bool
    crypto: str


def placeholder(way: Way) -> str:
    """The placeholder for a key in a command."""
    return f"<key {way.name}>"


def plan(config: Config, ports: tuple[Port, ...]) -> Plan:
    """The steps for one end.

    Args:
        config: As :func:`libvirt_tuner.testbed.config.checked` returned it.
        ports: The devices it names, in its order, as they were before any step.

    Raises:
        TunerError: No tunnel fits into the MTU, or the card should encrypt but cannot.
    """
    offload, crypto = _crypto(config, ports)
    underlay = config.mtu or min(port.mtu for port in ports)
    layers = _layers(config)
    inner = encapsulation.largest(underlay, layers)
    if inner < LEAST_INNER or (config.ipv6 and underlay < IPV6_LEAST):
        raise TunerError("no room for a tunnel", where="mtu", value=underlay, expected="a larger MTU")
    why = ", ".join([f"{inner}: {config.base} carries {underlay}", *map(str, reversed(layers))])
    steps = (
        *(step for port in ports for step in _features(port, offload=offload)),
        *(_bond(config, ports, underlay) if config.bond != NONE else _alone(ports[0], underlay)),
        _address(config, ports),
        *_ipsec(config, offload=offload),
        *_tunnel(config, inner),
    )
    return Plan(steps, underlay, inner, why, offload, crypto)


def _crypto(config: Config, ports: tuple[Port, ...]) -> tuple[bool, str]:
    """Whether the card encrypts, and the reason."""
    if config.crypto == NONE:
        return False, "none: others can read and forge the packets"
    if config.crypto == "kernel":
        return False, "kernel, as asked for"
    lacking = [port.name for port in ports if not port.offers_offload]
    if not lacking:
        verb = "offers" if len(ports) == 1 else "offer"
        return True, f"offload: {', '.join(port.name for port in ports)} {verb} {FEATURES[0]}"
    if config.crypto == "offload":
        raise TunerError(
            f"does not offer {FEATURES[0]}",
            where=lacking[0],
            value="crypto offload",
            expected="--crypto kernel, or a card that does (ethtool -k)",
        )
    return False, f"kernel: {lacking[0]} does not offer {FEATURES[0]}"


def _layers(config: Config) -> list[Layer]:
    """Return the layers added to a packet, innermost first."""
    layers = [encapsulation.tunnel(config.tunnel, ipv6=config.ipv6, name=config.name)]
    if config.crypto != NONE:
        layers.append(encapsulation.esp([AEAD], ICV_BITS, ipv6=config.ipv6))
    return layers


# The cards


def _features(port: Port, *, offload: bool) -> tuple[Step, ...]:
    """Yield features to switch on. The checksum feature needs the first one."""
    wanted = FEATURES if offload else ()
    return tuple(
        Step(
            "feature",
            port.name,
            name,
            (("ethtool", "-K", port.name, name, "on"),),
            (("ethtool", "-K", port.name, name, "off"),),
        )
        for name in wanted
        if port.features.get(name) == "off"
    )


def _bond(config: Config, ports: tuple[Port, ...], underlay: int) -> tuple[Step, ...]:
    # If ip loaded the driver, it would create its own bond0 unless max_bonds=0 is configured.
    load = ("modprobe", "bonding", "max_bonds=0")
    made = Step(
        "link",
        config.bond,
        "bond",
        (load, _ip("link add name", config.bond, "type bond mode active-backup miimon 100")),
        (_ip("link delete dev", config.bond),),
        needs="the module bonding (CONFIG_BONDING)",
    )
    return (
        made,
        _mtu(config.bond, underlay),
        *(_enslaved(port, config.bond) for port in ports),
        _up(config.bond),
    )


def _enslaved(port: Port, bond: str) -> Step:
    """Add a port to the bond. It must be down for that. The bond sets its MTU and brings it up."""
    flush = (_ip("address flush dev", port.name),) if port.addresses else ()
    do = (_ip("link set dev", port.name, "down"), *flush, _ip("link set dev", port.name, "master", bond))
    leave = _ip("link set dev", port.name, "nomaster")
    mtu = _ip("link set dev", port.name, "mtu", str(port.mtu))
    master = (_ip("link set dev", port.name, "master", port.master),) if port.master else ()
    return Step("port", port.name, bond, do, (leave, mtu, *master, *_as_it_was(port)))


def _alone(port: Port, underlay: int) -> tuple[Step, ...]:
    """The one device without a bond."""
    set_mtu = _mtu(port.name, underlay, before=port.mtu)
    undo = () if port.up else _as_it_was(port)
    return set_mtu, _up(port.name, undo=undo)


def _as_it_was(port: Port) -> tuple[Command, ...]:
    """Set the link up or down, and restore what is lost: IPv6 addresses, routes, the never-up state."""
    state = _ip("link set dev", port.name, "up" if port.up else "down")
    if not port.up:
        return state, *(_unqueued(port) if port.virgin else ()), *_addresses(port)
    routes = [
        ("ip", family, "route", "replace", *words, "dev", port.name)
        for family, *words in map(str.split, port.routes)
    ]
    return state, *_addresses(port), *routes


def _addresses(port: Port) -> tuple[Command, ...]:
    return tuple(
        _ip("address replace", address, "dev", port.name, *(["nodad"] if ":" in address else []))
        for address in port.addresses
    )


def _unqueued(port: Port) -> tuple[Command, ...]:
    """Return to ``noop``: removing a queueing discipline from a device that is down does that."""
    return (
        ("tc", "qdisc", "replace", "dev", port.name, "root", "pfifo"),
        ("tc", "qdisc", "delete", "dev", port.name, "root"),
    )


def _address(config: Config, ports: tuple[Port, ...]) -> Step:
    """Set our outer address. If it existed before, it stays."""
    # Duplicate address detection would delay the use of an IPv6 address by a second.
    nodad = ["nodad"] if config.ipv6 else []
    there = config.bond == NONE and config.local in ports[0].addresses
    add = _ip("address replace", config.local, "dev", config.base, *nodad)
    delete = _ip("address delete", config.local, "dev", config.base)
    return Step("address", config.base, config.local, (add,), () if there else (delete,))


# IPsec


def _ipsec(config: Config, *, offload: bool) -> tuple[Step, ...]:
    """States come first, because a policy without its state blocks packets."""
    if config.crypto == NONE:
        return ()
    out, back = (TO_CLIENT, TO_SERVER) if config.role == "server" else (TO_SERVER, TO_CLIENT)
    here, there = config.local.partition("/")[0], config.remote
    return (
        _state(out, here, there, config, "out" if offload else ""),
        _state(back, there, here, config, "in" if offload else ""),
        _policy(out, here, there, config, "out"),
        _policy(back, there, here, config, "in"),
        _policy(back, there, here, config, "fwd"),
    )


def _state(way: Way, source: str, target: str, config: Config, direction: str) -> Step:
    """A state with 64-bit sequence numbers: 32 bits last less than half an hour at 200 Gbit/s."""
    name = f"src {source} dst {target} proto esp spi {way.spi}"
    offload = f"offload dev {config.base} dir {direction}" if direction else ""
    add = _ip(
        "xfrm state add",
        name,
        f"reqid {way.reqid} mode transport replay-window {REPLAY_WINDOW} flag esn",
        f"aead {AEAD}",
    )
    return Step(
        "state",
        str(way.spi),
        f"{source} {target} {config.base if direction else '-'}",
        ((*add, placeholder(way), str(ICV_BITS), *offload.split()),),
        (_ip("xfrm state delete", name),),
        needs=f"{'esp6' if config.ipv6 else 'esp4'} and gcm "
        f"(CONFIG_INET{'6' if config.ipv6 else ''}_ESP, CONFIG_CRYPTO_GCM)",
    )


def _policy(way: Way, source: str, target: str, config: Config, direction: str) -> Step:
    """Only for the tunnel's packets. Neighbour discovery and other traffic do not change."""
    length = 128 if config.ipv6 else 32
    selector = (
        f"src {source}/{length} dst {target}/{length} proto udp dport {config.udp_port} dir {direction}"
    )
    template = f"tmpl src {source} dst {target} proto esp reqid {way.reqid} mode transport"
    return Step(
        "policy",
        direction,
        f"{source}/{length} {target}/{length} {config.udp_port}",
        (_ip("xfrm policy add", selector, template),),
        (_ip("xfrm policy delete", selector),),
        needs="xfrm_user (CONFIG_XFRM_USER)",
    )


# The tunnel


def _tunnel(config: Config, inner: int) -> tuple[Step, ...]:
    options = f"type {config.tunnel} id {config.vni} remote {config.remote} dstport {config.udp_port}"
    if config.tunnel == "vxlan":
        options += f" local {config.local.partition('/')[0]}"
    made = Step(
        "link",
        config.name,
        config.tunnel,
        (_ip("link add name", config.name, options),),
        (_ip("link delete dev", config.name),),
        needs=f"the module {config.tunnel} (CONFIG_{config.tunnel.upper()})",
    )
    return made, _mtu(config.name, inner), _up(config.name)


def _mtu(device: str, size: int, before: int | None = None) -> Step:
    do = _ip("link set dev", device, "mtu", str(size))
    undo = () if before is None else (_ip("link set dev", device, "mtu", str(before)),)
    return Step("mtu", device, str(size), (do,), undo)


def _up(device: str, undo: tuple[Command, ...] = ()) -> Step:
    return Step("up", device, "up", (_ip("link set dev", device, "up"),), undo)


def _ip(*parts: str) -> Command:
    return ("ip", *(word for part in parts for word in part.split()))
