"""Follows a virtual NIC down to the hardware that carries its packets. Pure, over topology values.

What cannot be known is said in :attr:`Path.problem` and never guessed: the policy's ``uplink`` names the
device then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import evolve, frozen

from libvirt_tuner.topology import NETWORK, HostTopology, Link, Nic, Route, Tunnel
from libvirt_tuner.uplink.kinds import ADDS_NOTHING, ROUTE_BASED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from libvirt_tuner.domainxml.spec import Vnic

    _Item = TypeVar("_Item")

_SWITCHES = frozenset({"bridge", "openvswitch", "network", "vrf"})
_MOST_WAYS = 64
_WHOLE_BOND = frozenset({"active-backup", "balance-tlb", "balance-alb"})


@frozen(repr=False)
class Path:
    """From a device down to the functions of the hardware.

    Attributes:
        device: Where it begins.
        steps: Device names from there down to the function that carries the packets now.
        labels: The same as a person reads them.
        functions: Names of the NICs (or PCI address, for a function without network device), those that carry
            packets now first, then a bond's backups; empty where the path does not end in hardware.
        active: Those of ``functions`` that carry packets now.
        problem: Why the path ends early or is uncertain; "" when all is well.
        candidates: Functions it may be, where several are possible and ``functions`` is empty.
        backups: Labels of the functions that stand by.
        ways: As ``steps``, for each other way packets may take: by a bond's other slaves, another next hop,
            another port; for each way where several are possible and ``functions`` is empty.
    """

    device: str
    steps: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    problem: str = ""
    candidates: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()
    ways: tuple[tuple[str, ...], ...] = ()

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """Device names from the top to the bottom, for each way packets may take."""
        return (self.steps, *self.ways) if self.functions or not self.ways else self.ways

    def __str__(self) -> str:
        chain = " > ".join(self.labels) or self.device
        return f"{chain}: {self.problem}" if self.problem else chain

    def describe(self) -> str:
        """The path in one line with the functions that stand by."""
        standby = ", ".join(self.backups)
        return f"{self}; standing by: {standby}" if standby else str(self)

    def node(self, host: HostTopology) -> int | None:
        """The NUMA node of the function that carries the packets; of all candidates where they agree."""
        if self.functions:
            nic = nic_of(self.functions[0], host)
            return nic.node if nic else None
        nodes = {nic.node if (nic := nic_of(name, host)) else None for name in self.candidates}
        return nodes.pop() if len(nodes) == 1 else None


def devices_of(vnic: Vnic) -> tuple[str, ...]:
    """Names to begin at for a domain's interface, best first; none where the document does not say.

    The host-side device comes first (it is there while the domain runs), then what libvirt attaches it to.
    A network that is not resolved in the document is ``network:NAME``.
    """
    names = []
    if vnic.target and vnic.type not in ("hostdev", "vdpa", "vhostuser"):
        names.append(vnic.target)
    if vnic.source and (vnic.type != "network" or vnic.source != vnic.network):
        names.append(vnic.source)
    if vnic.network:
        names.append(NETWORK + vnic.network)
    return tuple(names)


def trace_vnic(vnic: Vnic, host: HostTopology) -> Path:
    """:func:`trace` from the first of :func:`devices_of` that this host has."""
    names = devices_of(vnic)
    present = (name for name in names if name in host.links or nic_of(name, host))
    return trace(next(present, names[-1] if names else ""), host)


def trace_to(vnic: Vnic, uplink: str, host: HostTopology) -> Path:
    """:func:`trace_vnic`, but the path ends at ``uplink``, whatever else the host says.

    What is above it, tunnels with their IPsec, stays on the path. A device that is not on the way takes the
    place of what is below the last tunnel. A function that is passed through is its own uplink.
    """
    above = trace_vnic(vnic, host)
    if vnic.type == "hostdev" or not uplink:
        return above
    below = trace(uplink, host)
    through = next((chain for chain in (above.steps, *above.ways) if uplink in chain), ())
    kept = through[: through.index(uplink)] if through else _down_to_tunnel(above, host)
    labels = tuple(_label(host.links[name], host) for name in kept)
    return _joined(evolve(above, steps=kept, labels=labels), below)


def _down_to_tunnel(path: Path, host: HostTopology) -> tuple[str, ...]:
    """The steps that stay where the policy names a device that is not among them."""
    virtual = {name for name, link in host.links.items() if link.kind not in ("", "pci")}
    chain = tuple(name for name in path.steps if name in virtual)
    last = max((place for place, name in enumerate(chain) if _wraps(host.links[name])), default=-1)
    return chain[: last + 1] if last >= 0 or not path.problem else chain


def _wraps(link: Link) -> bool:
    return link.tunnel is not None or link.kind not in ADDS_NOTHING or link.kind in ROUTE_BASED


def attachment(vnic: Vnic, path: Path, host: HostTopology) -> str:
    """The interface's type; for a libvirt network what it comes to: ``bridge``, ``direct`` or ``hostdev``."""
    first = host.links.get(path.steps[0]) if path.steps else None
    if vnic.type != "network" or first is None:
        return vnic.type
    if first.kind == "macvtap":
        return "direct"
    return first.attach or vnic.type if first.kind == "network" else vnic.type


def nic_of(name: str, host: HostTopology) -> Nic | None:
    """The NIC of that name or PCI address."""
    if name in host.nics:
        return host.nics[name]
    return next((nic for nic in host.nics.values() if nic.address == name), None)


def trace(device: str, host: HostTopology) -> Path:
    """Follow ``device`` down through taps, bridges, VLANs, tunnels and bonds to the hardware.

    Args:
        device: A network device, the PCI address of a function passed through, ``/dev/vhost-vdpa-N``, or
            ``network:NAME`` for a libvirt network.
        host: With the links, routes and NICs below ``device`` (:mod:`libvirt_tuner.host.links`).
    """
    if not device:
        return Path(device="", problem="the domain's XML names no device of the host")
    return _walk(device, host, ())


def _walk(name: str, host: HostTopology, above: tuple[str, ...]) -> Path:
    if name in above:
        return Path(name, problem=f"it leads back to itself: {' > '.join((*above, name))}")
    link = host.links.get(name)
    if link is None:
        if nic_of(name, host):
            return _hardware(name, None, host)
        return Path(name, problem=_missing(name))
    if link.kind in ("", "pci"):
        return _hardware(name, link, host)
    here = Path(name, steps=(name,), labels=(_label(link, host),))
    if link.problem:
        return evolve(here, problem=link.problem)
    if link.tunnel:
        return _through_tunnel(here, link, link.tunnel, host, (*above, name))
    return _below(link)(here, link, host, (*above, name))


def _missing(name: str) -> str:
    if name.startswith(NETWORK):
        return f"network {name[len(NETWORK) :]}: not resolved without libvirt"
    return f"there is no device {name}"


_Step = Callable[[Path, Link, HostTopology, "tuple[str, ...]"], Path]


def _below(link: Link) -> _Step:
    if link.kind in ("bond", "team"):
        return _through_bond
    return _through_switch if link.kind in _SWITCHES else _through_one


def _hardware(name: str, link: Link | None, host: HostTopology) -> Path:
    """The end of the path. A function without network device goes by its PCI address, else by its PF."""
    nic = nic_of(name, host)
    owner = link.owner if link else ""
    if nic is None and link is not None and link.kind == "pci" and owner:
        nic = nic_of(owner, host)
    label = name
    if nic is not None:
        label += f" {nic.address}" if nic.address and nic.address != name else ""
        label += f" node {nic.node}" if nic.node is not None else ""
    if link is not None and link.wireless:
        label += " (Wi-Fi)"
    if owner:
        label += f" (VF of {owner})"
    known = nic.name if nic else name
    return Path(name, steps=(name,), labels=(label,), functions=(known,), active=(known,))


def _through_one(here: Path, link: Link, host: HostTopology, above: tuple[str, ...]) -> Path:
    if not link.lower:
        return evolve(here, problem=_dead_end(link))
    return _joined(here, _walk(link.lower[0], host, above))


def _dead_end(link: Link) -> str:
    if link.kind == "veth":
        if link.peer:
            return f"the other end of {link.name} (veth), {link.peer}, is attached to no bridge"
        return f"the other end of {link.name} (veth) is in another namespace and unknown"
    if link.kind == "tun":
        return f"{link.name} is attached to no bridge"
    if link.kind in ("vlan", "macvlan", "macvtap"):
        return f"the device below {link.name} ({link.kind}) is in another namespace and unknown"
    return f"{link.name} ({link.kind}) leads to no hardware"


def _through_switch(here: Path, link: Link, host: HostTopology, above: tuple[str, ...]) -> Path:
    """Through the one port that leads to hardware; more than one is said."""
    paths = [_walk(port, host, above) for port in link.lower]
    leading = [path for path in paths if path.functions or path.candidates]
    if not leading:
        return _no_port(here, link, paths)
    if len({frozenset(path.functions or path.candidates) for path in leading}) == 1:
        return _joined(here, leading[0], *leading[1:])
    ways = ", ".join(_unique(path.device for path in leading))
    return _undecided(
        here, leading, f"{link.name} leads out by several ways ({ways}): name one as uplink in the policy"
    )


def _undecided(here: Path, paths: list[Path], problem: str) -> Path:
    """One of several ways, and it cannot be told which."""
    return evolve(
        here,
        candidates=_unique(name for path in paths for name in (*path.functions, *path.candidates)),
        problem=problem,
        ways=_ways(here, paths),
    )


def _ways(here: Path, paths: Iterable[Path]) -> tuple[tuple[str, ...], ...]:
    return _unique((*here.steps, *chain) for path in paths for chain in path.chains)[:_MOST_WAYS]


def _no_port(here: Path, link: Link, paths: list[Path]) -> Path:
    if len(paths) == 1:
        return _joined(here, paths[0])
    if paths:
        return evolve(here, problem="; ".join(_unique(path.problem for path in paths)))
    return evolve(here, problem=f"no port of {link.name} leads out: isolated, routed or behind NAT")


def _through_bond(here: Path, link: Link, host: HostTopology, above: tuple[str, ...]) -> Path:
    """Through the active slave, the others stand by; where all carry packets, all are active."""
    if not link.lower:
        word = "ports" if link.kind == "team" else "slaves"
        return evolve(here, problem=f"{link.name} ({link.kind}) has no {word}")
    order = sorted(link.lower, key=lambda name: name != link.active)
    paths = [_walk(name, host, above) for name in order]
    single = link.active is not None or link.mode in _WHOLE_BOND
    problem = "; ".join(_unique(path.problem for path in paths if path.problem))
    if single and link.active is None:
        problem = problem or f"{link.name} has no active slave: its links are down"
        return evolve(_shared(here, paths, paths[:1], problem), active=())
    return _shared(here, paths, paths[:1] if single else paths, problem)


def _shared(here: Path, paths: list[Path], carrying: list[Path], problem: str = "") -> Path:
    """Through several devices below: ``carrying`` share the packets, the rest of ``paths`` stands by."""
    first = paths[0]
    labels = " + ".join(path.labels[-1] for path in paths if path.labels)
    return Path(
        here.device,
        steps=here.steps + first.steps,
        labels=here.labels + (first.labels if len(carrying) == 1 else (labels,)),
        functions=_unique(name for path in paths for name in path.functions),
        active=_unique(name for path in carrying for name in path.active),
        problem=problem,
        candidates=_unique(name for path in paths for name in path.candidates),
        backups=tuple(path.labels[-1] for path in paths[1:] if len(carrying) == 1 and path.labels),
        ways=_ways(here, paths)[1:],
    )


def _through_tunnel(
    here: Path, link: Link, tunnel: Tunnel, host: HostTopology, above: tuple[str, ...]
) -> Path:
    """To the device the outer packets leave by: the one it is bound to, else the routes'."""
    if link.lower:
        return _joined(here, _walk(link.lower[0], host, above))
    routes = underlays(tunnel, host)
    if not routes and tunnel.vrf:
        return _joined(here, _walk(tunnel.vrf, host, above))
    if not routes:
        return evolve(here, problem=_no_underlay(link, tunnel))
    devices = _unique(device for route in routes for device in route.devices)
    paths = [_walk(device, host, above) for device in devices]
    if len({frozenset(path.functions) for path in paths}) == 1:
        return _joined(here, *paths)
    if len({frozenset(route.devices) for route in routes}) == 1 and not routes[0].stands_on:
        return _shared(here, paths, paths, "; ".join(_unique(path.problem for path in paths if path.problem)))
    return _undecided(here, paths, f"{_why(link, tunnel, routes, devices)}: name one as uplink in the policy")


def _why(link: Link, tunnel: Tunnel, routes: tuple[Route, ...], devices: tuple[str, ...]) -> str:
    """Why there are several devices a tunnel's packets may leave by."""
    named = ", ".join(devices)
    if routes[0].stands_on:
        return (
            f"the far ends of {link.name} are not known, and its address {tunnel.local} is on"
            f" {routes[0].stands_on}: its packets leave by one of {named}"
        )
    return f"the far ends of {link.name} are reached by several devices ({named})"


def _no_underlay(link: Link, tunnel: Tunnel) -> str:
    if tunnel.remotes:
        return f"no route to {', '.join(tunnel.remotes)}"
    if tunnel.local:
        return f"no device has the address {tunnel.local} that {link.name} sends from"
    if not tunnel.external and link.kind != "vxlan":
        return f"{link.name} ({link.kind}) leads to no hardware: where it sends to is not known"
    told = "packet by packet" if tunnel.external else "by its forwarding table"
    return f"{link.name} is told its far ends {told}: name the uplink in the policy"


def underlays(tunnel: Tunnel, host: HostTopology) -> tuple[Route, ...]:
    """The routes to a tunnel's far ends; where none is known, its own address's."""
    found = tuple(host.routes[address] for address in tunnel.remotes if address in host.routes)
    own = host.routes.get(tunnel.local)
    return found or ((own,) if own else ())


def _joined(here: Path, below: Path, *others: Path) -> Path:
    """``below``, from ``here`` on; ``others`` lead to the same hardware by other devices."""
    return evolve(
        below,
        device=here.device,
        steps=here.steps + below.steps,
        labels=here.labels + below.labels,
        ways=_ways(here, (below, *others))[1 if below.functions else 0 :],
    )


def _label(link: Link, host: HostTopology) -> str:
    """A step as a person reads it: the name, and what the name does not tell."""
    facts = _facts(link)
    return f"{link.name} ({', '.join(facts)})" if facts else link.name


def _facts(link: Link) -> list[str]:
    if link.tunnel:
        tunnel = link.tunnel
        vni = [f"vni {tunnel.vni}"] if tunnel.vni is not None and not tunnel.external else []
        far = ["metadata mode", tunnel.local] if tunnel.external else tunnel.remotes[:1]
        return vni + [word for word in far if word]
    if link.kind in ("bond", "team"):
        return [link.mode or link.kind]
    if link.kind == "vlan":
        return [f"vlan {link.vlan}" if link.vlan is not None else "vlan"]
    if link.kind == "openvswitch":
        return ["Open vSwitch"]
    return [] if link.kind in ("bridge", "tun", "macvtap", "network", "pci") else [link.kind]


def _unique(items: Iterable[_Item]) -> tuple[_Item, ...]:
    return tuple(dict.fromkeys(items))


SWITCHES = ("bridge", "bond", "team", "geneve", "vxlan", "vlan", "macvtap", "openvswitch")
"""Devices that guests hang on: what is below them is their uplink."""


def uplinks(host: HostTopology) -> tuple[tuple[Nic, ...], tuple[Link, ...]]:
    """The functions that guests' packets leave by, and the bonds above them.

    Those below a bridge, bond or tunnel; every network card where there is none of these.
    """
    paths = [trace(name, host) for name, link in host.links.items() if link.kind in SWITCHES]
    names = sorted({name for path in paths for name in path.functions}) or sorted(host.nics)
    nics = [nic for name in names if (nic := nic_of(name, host))]
    bonds = [link for link in host.links.values() if link.kind == "bond" and link.lower]
    return tuple(nics), tuple(bonds)
