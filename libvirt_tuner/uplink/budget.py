"""Computes the bytes of each layer between a vNIC and the wire, and the largest MTU without fragmentation.
Pure.

Sizes are those of IP packets in bytes, as an MTU counts them. Sources: RFC 8926 (Geneve), RFC 7348 (VXLAN),
RFC 4303 (ESP), RFC 4302 (AH), RFC 3948 (NAT traversal), and the kernel's net/xfrm/xfrm_algo.c for the length
of each algorithm's check value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import evolve

from libvirt_tuner.topology import HostTopology, Link, Route, Tunnel
from libvirt_tuner.uplink.kinds import ADDS_NOTHING, ROUTE_BASED
from libvirt_tuner.uplink.path import Path, underlays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.uplink.encapsulation import Layer

ASSUMED_UNDERLAY = 1500
WITHOUT_MTU = frozenset({"openvswitch", "network", "vhostuser", "vdpa"})
"""Kinds whose MTU is no limit: packets do not pass the internal port that has the name of an Open vSwitch
bridge, and the others are no devices of the kernel."""


# Layers from the path and the kernel's IPsec states


class Budget(NamedTuple):
    """The largest MTU of a vNIC, and the bytes of each layer.

    Attributes:
        size: Bytes; None if it is unknown.
        underlay: MTU of the underlay. underlay_name: Device with that MTU.
        layers: Innermost first.
        limits: ``(device, MTU)`` of devices on the path whose own MTU is a lower limit.
        notes: Unknown facts and problems.
        advice: Problems that a command fixes, with the command.
    """

    size: int | None
    underlay: int | None = None
    underlay_name: str = ""
    layers: tuple[Layer, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def explain(self, *, advice: bool = True) -> str:
        """Return one sentence with the bytes of each layer, the notes, and optionally the advice."""
        if self.size is None:
            return "; ".join(self.notes) or "the largest packet is unknown"
        text = f"{self.underlay_name} carries {self.underlay}"
        text = ", ".join([text, *map(str, reversed(self.layers))])
        for name, mtu in self.limits:
            text += f", {name} itself has {mtu}"
        return "; ".join([text, *self.notes, *(self.advice if advice else ())])


def vnic_mtu(path: Path, host: HostTopology, *, tags: int = 0) -> tuple[int | None, str]:
    """Return the largest MTU at which a vNIC's packets are not fragmented, and why.

    Args:
        path: From :func:`libvirt_tuner.uplink.path.trace`.
        host: The links, routes and IPsec states it was traced with.
        tags: VLAN tags the switch adds to the vNIC's packets before they enter a tunnel.

    Returns:
        Bytes (None if unknown), and a sentence for people.
    """
    found = budget(path, host, tags=tags)
    return found.size, found.explain()


def budget(path: Path, host: HostTopology, *, tags: int = 0) -> Budget:
    """Like :func:`vnic_mtu`, with details. It uses the smallest MTU of all possible paths, including a bond's
    backups."""
    every = [_budget(chain, path, host, tags) for chain in path.chains]
    known = [each for each in every if each.size is not None]
    return min(known, key=lambda each: each.size or 0) if known else every[0]


def _budget(chain: Sequence[str], path: Path, host: HostTopology, tags: int) -> Budget:
    steps = [host.links[name] for name in chain if name in host.links]
    notes = [path.problem] if path.problem else []
    if steps and steps[-1].kind == "pci":
        # A function outside the kernel has no MTU. Open vSwitch has one for its DPDK port.
        steps = steps[:-1]
    wraps = any(_adds(link) for link in steps)
    if not steps or not (wraps or steps[-1].kind in ("", "dpdk")):
        return Budget(None, notes=tuple(notes))
    bottom = steps[-1]
    if bottom.kind == "tun" and len(steps) > 1:
        # Not a guest's: a program (OpenVPN...) wraps what it reads there, and nothing says in how much.
        bottom = evolve(bottom, kind="a program's tunnel")
        steps = [*steps[:-1], bottom]
    elif bottom.tunnel is None:
        # Even if nothing is known below it, its own MTU is a limit.
        return _climb(steps, _Climb(bottom.mtu, bottom.name, notes), host, tags)
    notes.append(f"the device below {bottom.name} is unknown; MTU {ASSUMED_UNDERLAY} assumed")
    return _climb(steps, _Climb(ASSUMED_UNDERLAY, "the underlay", notes), host, tags)


def _adds(link: Link) -> bool:
    return link.tunnel is not None or link.kind in ROUTE_BASED or link.kind not in ADDS_NOTHING


class _Climb:
    """Collects layers and limits from the bottom up."""

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
        """The MTU of a route may be smaller than that of its device."""
        if not 0 < route.mtu < self.limit:
            return
        self.limit = route.mtu
        if self.layers:
            self.limits.append((f"the route to {address}", route.mtu))
        else:
            self.bottom, self.name = route.mtu, f"the route to {address}"

    def at_most(self, link: Link) -> None:
        """Apply a device's own MTU. Below the first tunnel it is the underlay's, else a separate limit."""
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
        # The vNIC's own tap or macvtap is what the answer is for.
        if (place or link.kind not in ("tun", "macvtap")) and link.kind not in WITHOUT_MTU:
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
    if encaps := {(route.encap, route.encap_bytes) for route in routes if route.encap}:
        climb.through(encapsulation.of_routes(encaps))
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
        climb.notes.append(f"{unseen} of {len(tunnel.remotes)} remote ends of {link.name} were not checked")
    if link.mtu > climb.limit and not tunnel.external:
        climb.advice.append(
            f"{link.name} has an MTU of {link.mtu}, {link.mtu - climb.limit} bytes too large; run: "
            f"ip link set {link.name} mtu {climb.limit}"
        )
