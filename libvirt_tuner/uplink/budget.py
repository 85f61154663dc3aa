"""How many bytes each layer between a vNIC and the wire takes, and the largest MTU that crosses whole. Pure.

Sizes are those of IP packets in bytes, as an MTU counts them. Sources: RFC 8926 (Geneve), RFC 7348 (VXLAN),
RFC 4303 (ESP), RFC 4302 (AH), RFC 3948 (NAT traversal), and the kernel's net/xfrm/xfrm_algo.c for what each
algorithm truncates its check value to.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from libvirt_tuner.topology import HostTopology, Link, Route, Tunnel
from libvirt_tuner.uplink.kinds import ADDS_NOTHING, ROUTE_BASED
from libvirt_tuner.uplink.path import Path, underlays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.uplink.encapsulation import Layer

ASSUMED_UNDERLAY = 1500


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
        advice: What of it a command fixes, with the command.
    """

    size: int | None
    underlay: int | None = None
    underlay_name: str = ""
    layers: tuple[Layer, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def explain(self, *, advice: bool = True) -> str:
        """One sentence with the bytes of each layer, and the notes; the advice where it is asked for."""
        if self.size is None:
            return "; ".join(self.notes) or "no uplink says what crosses"
        text = f"{self.underlay_name} carries {self.underlay}"
        text = ", ".join([text, *map(str, reversed(self.layers))])
        for name, mtu in self.limits:
            text += f", {name} itself has {mtu}"
        return "; ".join([text, *self.notes, *(self.advice if advice else ())])


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
    """As :func:`vnic_mtu`, in parts: the smallest of all ways packets may take, a bond's backups included."""
    every = [_budget(chain, path, host, tags) for chain in path.chains]
    known = [each for each in every if each.size is not None]
    return min(known, key=lambda each: each.size or 0) if known else every[0]


def _budget(chain: Sequence[str], path: Path, host: HostTopology, tags: int) -> Budget:
    steps = [host.links[name] for name in chain if name in host.links]
    notes = [path.problem] if path.problem else []
    if steps and steps[-1].kind == "pci":
        # A function outside the kernel has no MTU of its own; Open vSwitch has one for its DPDK port.
        steps = steps[:-1]
    wraps = any(_adds(link) for link in steps)
    if not steps or not (wraps or steps[-1].kind in ("", "dpdk")):
        return Budget(None, notes=tuple(notes))
    bottom = steps[-1]
    if bottom.tunnel is None:
        # Even where nothing is known below it, it takes no more than its own MTU.
        return _climb(steps, _Climb(bottom.mtu, bottom.name, notes), host, tags)
    notes.append(f"what is below {bottom.name} is unknown: {ASSUMED_UNDERLAY} assumed")
    return _climb(steps, _Climb(ASSUMED_UNDERLAY, "the underlay", notes), host, tags)


def _adds(link: Link) -> bool:
    return link.tunnel is not None or link.kind in ROUTE_BASED or link.kind not in ADDS_NOTHING


class _Climb:
    """Collects on the way up."""

    __slots__ = ("advice", "bottom", "layers", "limit", "limits", "name", "notes")

    def __init__(self, bottom: int, name: str, notes: list[str]) -> None:
        self.bottom = self.limit = bottom
        self.name = name
        self.notes = notes
        self.advice: list[str] = []
        self.layers: list[Layer] = []
        self.limits: list[tuple[str, int]] = []

    def through(self, layer: Layer) -> None:
        self.layers.insert(0, layer)
        self.limit = layer.largest(self.limit)
        if layer.note:
            self.notes.append(layer.note)

    def routed(self, address: str, route: Route) -> None:
        """A route may take less than its device."""
        if not 0 < route.mtu < self.limit:
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
        if _adds(link) or (link.kind == "vlan" and climb.layers):
            _through(link, climb, host)
        # The vNIC's own tap or macvtap is what the answer is for; the internal port that goes by the name of
        # an Open vSwitch bridge is not on the packets' way.
        if (place or link.kind not in ("tun", "macvtap")) and link.kind != "openvswitch":
            climb.at_most(link)
    if tags and climb.layers:
        from libvirt_tuner.uplink import encapsulation

        climb.through(encapsulation.vlan("the vNIC's VLAN", tags))
    return Budget(
        size=climb.limit,
        underlay=climb.bottom,
        underlay_name=climb.name,
        layers=tuple(climb.layers),
        limits=tuple(climb.limits),
        notes=tuple(climb.notes),
        advice=tuple(climb.advice),
    )


def _through(link: Link, climb: _Climb, host: HostTopology) -> None:
    # Here: where nothing wraps packets, as on a bridge on a NIC, the hook does without.
    from libvirt_tuner.uplink import encapsulation, ipsec

    if link.tunnel:
        _through_tunnel(link, link.tunnel, climb, host)
    elif link.kind in ROUTE_BASED:
        for layer in ipsec.route_based(link, host):
            climb.through(layer)
    elif link.kind == "vlan":
        climb.through(encapsulation.vlan(link.name))
    else:
        climb.through(encapsulation.unknown(link.name, link.kind))


def _through_tunnel(link: Link, tunnel: Tunnel, climb: _Climb, host: HostTopology) -> None:
    from libvirt_tuner.uplink import encapsulation, ipsec

    routes = underlays(tunnel, host)
    for route in routes:
        climb.routed(route.address, route)
    if labels := max((route.labels for route in routes), default=0):
        climb.through(encapsulation.mpls(labels))
    for encap in dict.fromkeys(route.encap for route in routes if route.encap):
        climb.through(encapsulation.unknown("the route", encap))
    for layer in ipsec.ipsec(link.kind, tunnel, host):
        climb.through(layer)
    ipv6 = any(":" in address for address in tunnel.ends) if tunnel.ends else None
    climb.through(
        encapsulation.tunnel(
            link.kind,
            ipv6=ipv6,
            extras=tunnel.extras,
            ethernet=tunnel.ethernet,
            name=link.name,
            mtu=link.mtu,
        )
    )
    climb.notes += tunnel.notes
    if (unseen := len(tunnel.remotes) - len(routes)) > 0 and routes:
        climb.notes.append(f"{unseen} of {len(tunnel.remotes)} far ends of {link.name} were not looked at")
    if link.mtu > climb.limit and not tunnel.external:
        climb.advice.append(
            f"{link.name} has an MTU of {link.mtu}, {link.mtu - climb.limit} more than crosses whole: "
            f"ip link set {link.name} mtu {climb.limit}"
        )
