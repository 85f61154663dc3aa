"""Follows a virtual NIC down to the hardware that carries its packets. Pure, over topology values.

Nothing is guessed: :attr:`Path.problem` says what is unknown. The policy's ``uplink`` can then name the
device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

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


class Path(NamedTuple):
    """A path from a device down to the functions of the hardware.

    Attributes:
        device: Where it begins.
        steps: Device names from there to the function that carries the packets now.
        labels: The same for people.
        functions: Names of the NICs (PCI address for a function without network device): those that carry
            packets now, then a bond's backups; empty if the path does not end in hardware.
        active: Those of ``functions`` that carry packets now.
        problem: Why the path is incomplete or uncertain; else "".
        candidates: Possible functions, if several are possible and ``functions`` is empty.
        backups: Labels of the backup functions.
        ways: Like ``steps``, for each other possible path: a bond's other slaves, another next hop, another
            port. If ``functions`` is empty, all possible paths.
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
        """Device names from top to bottom, for each possible path."""
        return (self.steps, *self.ways) if self.functions or not self.ways else self.ways

    def __str__(self) -> str:
        chain = " > ".join(self.labels) or self.device
        return f"{chain}: {self.problem}" if self.problem else chain

    def describe(self) -> str:
        """Return the path in one line with its backup functions."""
        standby = ", ".join(self.backups)
        return f"{self}; backup: {standby}" if standby else str(self)

    def node(self, host: HostTopology) -> int | None:
        """Return the NUMA node of the function that carries the packets, or the common node of all
        candidates."""
        if self.functions:
            nic = nic_of(self.functions[0], host)
            return nic.node if nic else None
        nodes = {nic.node if (nic := nic_of(name, host)) else None for name in self.candidates}
        return nodes.pop() if len(nodes) == 1 else None


def devices_of(vnic: Vnic) -> tuple[str, ...]:
    """Return the first devices for a domain's interface, best first; none if the document has none.

    The host-side device is first (it exists while the domain runs), then the device to which libvirt attaches
    it. A network that the document does not resolve is ``network:NAME``.
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
    """Run :func:`trace` from the first of :func:`devices_of` that this host has."""
    names = devices_of(vnic)
    present = (name for name in names if name in host.links or nic_of(name, host))
    return trace(next(present, names[-1] if names else ""), host)


def trace_to(vnic: Vnic, uplink: str, host: HostTopology) -> Path:
    """Like :func:`trace_vnic`, but the path ends at ``uplink`` in any case.

    Devices above it (tunnels with their IPsec) stay on the path. A device that is not on the path replaces
    the part below the last tunnel. A passed-through function is its own uplink.
    """
    above = trace_vnic(vnic, host)
    if vnic.type == "hostdev" or not uplink:
        return above
    below = trace(uplink, host)
    through = next((chain for chain in (above.steps, *above.ways) if uplink in chain), ())
    kept = through[: through.index(uplink)] if through else _down_to_tunnel(above, host)
    labels = tuple(_label(host.links[name], host) for name in kept)
    return _joined(above._replace(steps=kept, labels=labels), below)


def _down_to_tunnel(path: Path, host: HostTopology) -> tuple[str, ...]:
    """Return the steps to keep if the policy names a device that is not among them."""
    virtual = {name for name, link in host.links.items() if link.kind not in ("", "pci")}
    chain = tuple(name for name in path.steps if name in virtual)
    last = max((place for place, name in enumerate(chain) if _wraps(host.links[name])), default=-1)
    return chain[: last + 1] if last >= 0 or not path.problem else chain


def _wraps(link: Link) -> bool:
    return link.tunnel is not None or link.kind not in ADDS_NOTHING or link.kind in ROUTE_BASED


def attachment(vnic: Vnic, path: Path, host: HostTopology) -> str:
    """Return the interface's type; for a libvirt network its actual type: ``bridge``, ``direct`` or
    ``hostdev``."""
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
        return Path(name, problem=f"loop: {' > '.join((*above, name))}")
    link = host.links.get(name)
    if link is None:
        if nic_of(name, host):
            return _hardware(name, None, host)
        return Path(name, problem=_missing(name))
    if link.kind in ("", "pci"):
        return _hardware(name, link, host)
    here = Path(name, steps=(name,), labels=(_label(link, host),))
    if link.problem:
        return here._replace(problem=link.problem)
    if link.tunnel:
        return _through_tunnel(here, link, link.tunnel, host, (*above, name))
    return _below(link)(here, link, host, (*above, name))


def _missing(name: str) -> str:
    if name.startswith(NETWORK):
        return f"network {name[len(NETWORK) :]}: cannot be resolved without libvirt"
    return f"there is no device {name}"


_Step = Callable[[Path, Link, HostTopology, "tuple[str, ...]"], Path]


def _below(link: Link) -> _Step:
    if link.kind in ("bond", "team"):
        return _through_bond
    # An IPsec interface may have several gateways.
    return _through_switch if link.kind in _SWITCHES or len(link.lower) > 1 else _through_one


def _hardware(name: str, link: Link | None, host: HostTopology) -> Path:
    """The end of the path. A function without network device has its PCI address as name, else its PF's."""
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
        return here._replace(problem=_dead_end(link))
    return _joined(here, _walk(link.lower[0], host, above))


def _dead_end(link: Link) -> str:
    if link.kind == "veth":
        if link.peer:
            return f"the other end of {link.name} (veth), {link.peer}, is not attached to a bridge"
        return f"the other end of {link.name} (veth) is in another namespace and unknown"
    if link.kind == "tun":
        return f"{link.name} is not attached to a bridge"
    if link.kind in ("vlan", "macvlan", "macvtap"):
        return f"the device below {link.name} ({link.kind}) is in another namespace and unknown"
    return f"{link.name} ({link.kind}) has no path to hardware"


def _through_switch(here: Path, link: Link, host: HostTopology, above: tuple[str, ...]) -> Path:
    """Follow the only port that leads to hardware. Several are a problem."""
    paths = [_walk(port, host, above) for port in link.lower]
    leading = [path for path in paths if path.functions or path.candidates]
    if not leading:
        return _no_port(here, link, paths)
    if len({frozenset(path.functions or path.candidates) for path in leading}) == 1:
        return _joined(here, leading[0], *leading[1:])
    ways = ", ".join(_unique(path.device for path in leading))
    return _undecided(
        here,
        leading,
        f"{link.name} has several paths to hardware ({ways}); set uplink in the policy to one of them",
    )


def _undecided(here: Path, paths: list[Path], problem: str) -> Path:
    """Return a path with several possible ends."""
    return here._replace(
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
        return here._replace(problem="; ".join(_unique(path.problem for path in paths)))
    return here._replace(
        problem=f"no port of {link.name} leads to hardware: it is isolated, routed or behind NAT"
    )


def _through_bond(here: Path, link: Link, host: HostTopology, above: tuple[str, ...]) -> Path:
    """Follow the active slave; the others are backups. In other modes all slaves are active."""
    if not link.lower:
        word = "ports" if link.kind == "team" else "slaves"
        return here._replace(problem=f"{link.name} ({link.kind}) has no {word}")
    order = sorted(link.lower, key=lambda name: name != link.active)
    paths = [_walk(name, host, above) for name in order]
    single = link.active is not None or link.mode in _WHOLE_BOND
    problem = "; ".join(_unique(path.problem for path in paths if path.problem))
    if single and link.active is None:
        problem = problem or f"{link.name} has no active slave; its links are down"
        return _shared(here, paths, paths[:1], problem)._replace(active=())
    return _shared(here, paths, paths[:1] if single else paths, problem)


def _shared(here: Path, paths: list[Path], carrying: list[Path], problem: str = "") -> Path:
    """Follow several devices: ``carrying`` share the packets, the rest of ``paths`` are backups."""
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
    """Follow to the device by which the outer packets leave: the bound one, else the routes'."""
    if link.lower:
        return _joined(here, _walk(link.lower[0], host, above))
    routes = underlays(tunnel, host)
    if not routes and tunnel.vrf:
        return _joined(here, _walk(tunnel.vrf, host, above))
    if not routes:
        return here._replace(problem=_no_underlay(link, tunnel))
    devices = _unique(device for route in routes for device in route.devices)
    paths = [_walk(device, host, above) for device in devices]
    if len({frozenset(path.functions) for path in paths}) == 1:
        return _joined(here, *paths)
    if len({frozenset(route.devices) for route in routes}) == 1 and not routes[0].stands_on:
        return _shared(here, paths, paths, "; ".join(_unique(path.problem for path in paths if path.problem)))
    return _undecided(
        here, paths, f"{_why(link, tunnel, routes, devices)}; set uplink in the policy to one of them"
    )


def _why(link: Link, tunnel: Tunnel, routes: tuple[Route, ...], devices: tuple[str, ...]) -> str:
    """Return why a tunnel's packets may leave by several devices."""
    named = ", ".join(devices)
    if routes[0].stands_on:
        return (
            f"the remote ends of {link.name} are unknown, its address {tunnel.local} is on"
            f" {routes[0].stands_on}, and its packets leave by one of {named}"
        )
    return f"the remote ends of {link.name} are reached by several devices ({named})"


def _no_underlay(link: Link, tunnel: Tunnel) -> str:
    if tunnel.remotes:
        return f"no route to {', '.join(tunnel.remotes)}"
    if tunnel.local:
        return f"no device has the address {tunnel.local} that {link.name} sends from"
    if not tunnel.external and link.kind != "vxlan":
        return f"{link.name} ({link.kind}) has no path to hardware: its remote end is unknown"
    told = "packet by packet" if tunnel.external else "from its forwarding table"
    return f"{link.name} learns its remote ends {told}; set uplink in the policy"


def underlays(tunnel: Tunnel, host: HostTopology) -> tuple[Route, ...]:
    """Return the routes to a tunnel's remote ends, or that of its own address if none is known."""
    found = tuple(host.routes[address] for address in tunnel.remotes if address in host.routes)
    own = host.routes.get(tunnel.local)
    return found or ((own,) if own else ())


def _joined(here: Path, below: Path, *others: Path) -> Path:
    """Append ``below`` to ``here``. ``others`` lead to the same hardware by other devices."""
    return below._replace(
        device=here.device,
        steps=here.steps + below.steps,
        labels=here.labels + below.labels,
        ways=_ways(here, (below, *others))[1 if below.functions else 0 :],
    )


def _label(link: Link, host: HostTopology) -> str:
    """Return a step for people: the name and details."""
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
"""Devices to which guests are attached. Their uplink is below."""


def uplinks(host: HostTopology) -> tuple[tuple[Nic, ...], tuple[Link, ...]]:
    """Return the functions by which guests' packets leave, and the bonds above them.

    Those below a bridge, bond or tunnel; without these, every network card.
    """
    paths = [trace(name, host) for name, link in host.links.items() if link.kind in SWITCHES]
    names = sorted({name for path in paths for name in path.functions}) or sorted(host.nics)
    nics = [nic for name in names if (nic := nic_of(name, host))]
    bonds = [link for link in host.links.values() if link.kind == "bond" and link.lower]
    return tuple(nics), tuple(bonds)
