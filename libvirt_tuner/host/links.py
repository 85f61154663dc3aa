"""Reads network devices, routes, Open vSwitch and IPsec states into topology values.

Most facts come from sysfs. ``ip -json`` is called for tunnels and routes, ``ovs-vsctl`` for Open vSwitch. A
bridge on a NIC, or a macvtap on a bond, needs no program. If something cannot be read, the link gets a
``problem``, which :func:`libvirt_tuner.uplink.path.trace` shows.

Import budget: commands, sysfs, topology, uplink; modules for Open vSwitch and libvirt's files only if the
host has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from attrs import evolve

from libvirt_tuner.errors import HostError, MissingError, TunerError
from libvirt_tuner.host import commands, iproute
from libvirt_tuner.host.commands import Run as Run
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import NETWORK, Link, Route, Tunnel, is_pci_address
from libvirt_tuner.uplink import kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libvirt_tuner.host import openvswitch

Networks = Callable[[str], str]
"""Name of a libvirt network to its XML."""

_NET = "/sys/class/net"
_ARPHRD_ETHER = "1"
_KNOWN_TYPES = frozenset({"bridge", "bond", "vlan", "macvlan", "vrf", "ipvlan"})
_VDPA = "/sys/bus/vdpa/devices"
_PASSED_THROUGH = ("0x02", "0x03", "0x12")
_MOST_REMOTES = 8
_MOST_PORTS = 16
_OVS_SOCKET = "/run/openvswitch/db.sock"
NETWORK_FILES = ("/run/libvirt/network", "/etc/libvirt/qemu/networks")


def network(
    sysfs: Sysfs,
    names: Iterable[str] | None = None,
    run: Run = commands.run,
    networks: Networks | None = None,
    switch: dict[str, str] | None = None,
) -> tuple[dict[str, Link], dict[str, Route]]:
    """Read everything below ``names``, also through routes.

    Args:
        sysfs: The host.
        names: Devices, PCI addresses, ``/dev/vhost-vdpa-N``, sockets of vhost-user, or ``network:NAME``;
            None: every device. Names that the host does not have are ignored.
        run: What runs programs.
        networks: Function that returns the XML of a libvirt network, or "". Without it, libvirtd's files are
            read. The hook has none, because it never calls libvirt.
        switch: Gets the settings of Open vSwitch (``other_config``), where it had to be asked.

    Returns:
        Links by name, and routes by address (a tunnel's far end, or its own address).
    """
    prober = _Prober(sysfs, run, networks)
    prober.follow(sysfs.listdir_or_empty(_NET) if names is None else names)
    if switch is not None:
        switch.update(prober.switch_config)
    return prober.links, prober.routes


def nameable(sysfs: Sysfs, run: Run = commands.run) -> list[str]:
    """Return what a domain's XML may name in addition to network devices.

    PCI functions (network cards, GPUs and accelerators, VFs, and those that VFIO holds), vDPA devices,
    sockets of Open vSwitch, libvirt's networks.
    """
    pci = "/sys/bus/pci/devices"
    found = []
    for address in sysfs.listdir_or_empty(pci):
        base = f"{pci}/{address}"
        card = sysfs.read_or(f"{base}/class", "").startswith(_PASSED_THROUGH)
        if card or sysfs.exists(f"{base}/physfn") or "vfio" in sysfs.link_name(f"{base}/driver"):
            found.append(address)
    for device in sysfs.listdir_or_empty(_VDPA):
        names = sysfs.listdir_or_empty(f"{_VDPA}/{device}")
        found += [f"/dev/{name}" for name in names if name.startswith("vhost-vdpa-")]
    if sysfs.exists(_OVS_SOCKET):
        from libvirt_tuner.host import openvswitch

        sockets = tuple(openvswitch.read(sysfs, run).sockets)
        found += [*sockets, *(f"/var{path}" for path in sockets if path.startswith("/run/"))]
    files = {file for directory in NETWORK_FILES for file in sysfs.listdir_or_empty(directory)}
    return found + sorted(NETWORK + file[:-4] for file in files if file.endswith(".xml"))


def links(sysfs: Sysfs, names: Iterable[str] | None = None, run: Run = commands.run) -> dict[str, Link]:
    """The links of :func:`network`."""
    return network(sysfs, names, run)[0]


def routes(sysfs: Sysfs, links: Mapping[str, Link], run: Run = commands.run) -> dict[str, Route]:
    """Read routes to the remote ends of the tunnels in ``links``, by address, if they are reachable."""
    prober = _Prober(sysfs, run)
    for link in links.values():
        prober.routes_of(link)
    return prober.routes


class _Prober:
    """One walk over the host: the results, and a cache of answers."""

    __slots__ = ("_networks", "_ovs", "_run", "_sysfs", "links", "routes")

    def __init__(self, sysfs: Sysfs, run: Run, networks: Networks | None = None) -> None:
        self._networks = networks
        self._sysfs = sysfs
        self._run = run
        self._ovs: openvswitch.Switch | None = None
        self.links: dict[str, Link] = {}
        self.routes: dict[str, Route] = {}

    def follow(self, names: Iterable[str]) -> None:
        """Read ``names`` and everything below them."""
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in self.links:
                continue
            try:
                link = self._link(name)
            except MissingError:
                continue
            except TunerError as error:
                link = Link(name, kind="unknown", problem=str(error))
            self.links[name] = link
            todo.extend(link.lower)
            todo += [device for route in self.routes_of(link) for device in route.devices]

    def _link(self, name: str) -> Link:
        if name.startswith(NETWORK):
            return self._network(name)
        if name.startswith("/dev/"):
            return self._vdpa(name)
        if name.startswith("/"):
            return self._vhost_user(name)
        if is_pci_address(name):
            return self._function(name)
        if self._ovs is not None and name in self._ovs.links:
            return self._ovs.links[name]
        try:
            return self._device(name)
        except MissingError:
            if self._ovs is None or name not in self._ovs.ports:
                raise
            # A bridge of Open vSwitch's user-space datapath, captured or read without its tap.
            return self._ovs_bridge(Link(name))

    # -- devices in sysfs

    def _device(self, name: str) -> Link:
        """Read a network device from sysfs."""
        if "/" in name or name in ("", ".", ".."):
            raise MissingError("no such device", where=f"{_NET}/{name}")
        base = f"{_NET}/{name}"
        entries = frozenset(self._sysfs.listdir(base))
        lower = tuple(sorted(entry[6:] for entry in entries if entry.startswith("lower_")))
        link = Link(name, mtu=_number(self._sysfs.read_or(f"{base}/mtu", ""), 1500), lower=lower)
        if "bridge" in entries or "brif" in entries:
            return evolve(link, kind="bridge", lower=self._bridge_ports(name))
        if "bonding" in entries:
            return self._bond(link, base)
        if "tun_flags" in entries:
            return self._tap(link, base)
        if "macvtap" in entries:
            return evolve(link, kind="macvtap")
        devtype = self._devtype(base)
        if "device" in entries:
            return self._hardware(link, base, entries, devtype)
        if devtype in _KNOWN_TYPES:
            return self._virtual(link, devtype)
        return self._asked(link, base, devtype)

    def _devtype(self, base: str) -> str:
        for line in self._sysfs.read_or(f"{base}/uevent", "").split("\n"):
            if line.startswith("DEVTYPE="):
                return line[8:]
        return ""

    def _bridge_ports(self, bridge: str) -> tuple[str, ...]:
        """Return ports that may lead to hardware. Guests' taps do not; containers' veths only if there is
        nothing else."""
        out: list[str] = []
        veths: list[str] = []
        for port in self._sysfs.listdir_or_empty(f"{_NET}/{bridge}/brif"):
            # Read each port only once: a bridge may have hundreds of guests.
            if self._is_guest(port):
                continue
            entries = self._sysfs.listdir_or_empty(f"{_NET}/{port}")
            (veths if self._is_veth(f"{_NET}/{port}", entries) else out).append(port)
        return tuple(out or veths[:_MOST_PORTS])

    def _is_veth(self, base: str, entries: Sequence[str]) -> bool:
        """Return whether it is a veth: Ethernet, no hardware, nothing below, and linked to another index (its
        peer)."""
        if "device" in entries or any(entry.startswith("lower_") for entry in entries):
            return False
        read = self._sysfs.read_or
        if read(f"{base}/type", "") != _ARPHRD_ETHER or self._devtype(base):
            return False
        return read(f"{base}/iflink", "") != read(f"{base}/ifindex", "")

    def _bond(self, link: Link, base: str) -> Link:
        read = self._sysfs.read_or
        slaves = read(f"{base}/bonding/slaves", "").split()
        active = read(f"{base}/bonding/active_slave", "") or None
        mode = read(f"{base}/bonding/mode", "").split(" ")[0]
        order = sorted(slaves, key=lambda name: name != active)
        return evolve(link, kind="bond", lower=tuple(order), active=active, mode=mode)

    def _tap(self, link: Link, base: str) -> Link:
        """Read a guest's tap. The next device on the path is its bridge."""
        master = self._sysfs.link_name(f"{base}/master")
        if not master and self._sysfs.exists(_OVS_SOCKET):
            return self._userspace_port(link)
        if master != "ovs-system":
            return evolve(link, kind="tun", lower=(master,) if master else ())
        ovs = self._switch()
        if ovs.problem:
            return evolve(link, kind="tun", lower=(), problem=ovs.problem)
        bridge = ovs.bridge_of.get(link.name)
        asked = ovs.asked.get(link.name, 0)
        return evolve(link, kind="tun", lower=(bridge,) if bridge else (), asked=asked)

    def _hardware(self, link: Link, base: str, entries: frozenset[str], devtype: str) -> Link:
        wireless = devtype == "wlan" or "phy80211" in entries or "wireless" in entries
        # A VLAN or macvtap above it is not a lower link. The conduit of a DSA port would be one.
        return evolve(link, kind="", lower=(), owner=self._physical(f"{base}/device"), wireless=wireless)

    def _address(self, device: str) -> str:
        """Return the PCI address of a device link. The function of a virtio device is its parent."""
        try:
            parts = self._sysfs.realpath(device).split("/")
        except HostError:
            return ""
        return next((part for part in reversed(parts) if is_pci_address(part)), "")

    def _physical(self, device: str) -> str:
        """Return the PF of a VF: its network device's name, else its PCI address; "" if it is not a VF."""
        address = self._sysfs.link_name(f"{device}/physfn")
        if not address:
            return ""
        return next(iter(self._sysfs.listdir_or_empty(f"{device}/physfn/net")), address)

    def _virtual(self, link: Link, kind: str) -> Link:
        words = self._vlan_file(link.name) if kind == "vlan" else ()
        number = next((after for word, after in pairwise(words) if word == "VID:"), "")
        return evolve(link, kind=kind, vlan=int(number) if number.isdecimal() else None)

    def _vlan_file(self, name: str) -> Sequence[str]:
        try:
            return self._sysfs.read(f"/proc/net/vlan/{name}").split()
        except HostError:
            # Only root can read it. The id is only displayed; the path does not need it.
            return ()

    # -- what is no network device

    def _function(self, address: str) -> Link:
        """Read a passed-through PCI function. It is the end of the path; its PF is the device below."""
        base = f"/sys/bus/pci/devices/{address}"
        if not self._sysfs.exists(base):
            raise MissingError("no such PCI function", where=base)
        physical = self._physical(base)
        lower = (physical,) if physical and not is_pci_address(physical) else ()
        return Link(address, kind="pci", lower=lower, owner=physical)

    def _vdpa(self, path: str) -> Link:
        """Read ``/dev/vhost-vdpa-N``. It is on the PCI function with the vDPA device."""
        character = path.rpartition("/")[2]
        for device in self._sysfs.listdir_or_empty(_VDPA):
            base = f"{_VDPA}/{device}"
            if self._sysfs.exists(f"{base}/{character}"):
                address = self._address(base)
                return Link(path, kind="vdpa", lower=(address,) if address else ())
        raise MissingError("no vDPA device has this character device", where=path)

    def _vhost_user(self, path: str) -> Link:
        """Read a vhost-user socket. The next device is the bridge of its switch port."""
        if not self._sysfs.exists(_OVS_SOCKET):
            problem = f"the owner of {path} is unknown: Open vSwitch does not run"
            return Link(path, kind="vhostuser", problem=problem)
        ovs = self._switch()
        if ovs.problem:
            return Link(path, kind="vhostuser", problem=ovs.problem)
        port = ovs.sockets.get(path) or ovs.sockets.get(path.replace("/var/run/", "/run/"), "")
        if not port:
            return Link(path, kind="vhostuser", problem=f"no port of Open vSwitch has the socket {path}")
        bridge = ovs.bridge_of.get(port)
        lower = (bridge,) if bridge else ()
        return Link(path, kind="vhostuser", lower=lower, asked=ovs.asked.get(port, 0))

    def _network(self, name: str) -> Link:
        """Read a libvirt network from libvirtd's state or its definition: its bridge or pool of devices."""
        plain = name[len(NETWORK) :]
        if "/" in plain or plain.startswith("."):
            raise MissingError("no such network", where=name)
        text = self._networks(plain) if self._networks else ""
        for directory in NETWORK_FILES:
            text = text or self._sysfs.read_or(f"{directory}/{plain}.xml", "")
        if not text:
            raise MissingError("no such network", where=name)
        attach, devices, asked = _network_devices(text)
        return Link(name, kind="network", lower=devices, attach=attach, asked=asked)

    # -- what only ip knows

    def _asked(self, link: Link, base: str, devtype: str) -> Link:
        """Read what sysfs does not have: tunnels, teams, veths and internal ports of Open vSwitch."""
        try:
            facts = iproute.link(self._sysfs, self._run, link.name)
        except HostError as error:
            kind = devtype or "unknown"
            return evolve(link, kind=kind, problem=f"{link.name}: {error}")
        info = facts.get("linkinfo", {})
        kind = info.get("info_kind") or devtype or "other"
        data = info.get("info_data", {})
        if kind in kinds.ROUTE_BASED:
            return self._route_based(evolve(link, kind=kind), data, facts.get("link"))
        if kind not in kinds.ADDS_NOTHING:
            return self._tunnel(evolve(link, kind=kind), base, data)
        if kind == "openvswitch":
            return self._ovs_bridge(link)
        if kind == "team":
            active = self._team_port(link.name)
            lower = tuple(sorted(link.lower, key=lambda name: name != active))
            return evolve(link, kind=kind, lower=lower, active=active)
        if kind == "veth" and isinstance(facts.get("link"), str):
            return self._veth(link, facts["link"])
        return evolve(link, kind=kind)

    def _route_based(self, link: Link, data: Mapping[str, Any], bound: object) -> Link:
        """Read an IPsec interface. Its packets leave by the routes to its remote end, or its policies'."""
        far = iproute.address(data, "remote", "remote6")
        gateways = (far,) if far else self._gateways(data.get("if_id"))
        routes = [route for gateway in gateways if (route := self._route(gateway, "")) is not None]
        lower = [device for route in routes for device in route.devices if device != link.name]
        if not lower and isinstance(bound, str) and bound != "lo":
            lower = [bound]
        return evolve(link, lower=tuple(dict.fromkeys(lower)))

    def _gateways(self, if_id: object) -> tuple[str, ...]:
        """Remote ends of the IPsec policies of an xfrm interface."""
        from libvirt_tuner.host import xfrm

        number = xfrm.integer(str(if_id))
        policies = xfrm.xfrm(self._sysfs, self._run).policies
        ours = [one for one in policies if number and one.if_id == number and one.direction == "out"]
        ends = (template.dst for policy in ours for template in policy.templates)
        return tuple(dict.fromkeys(end for end in ends if end not in iproute.NOT_SET))

    def _tunnel(self, link: Link, base: str, data: Mapping[str, Any]) -> Link:
        """Read a tunnel from ``info_data``, and remote ends that are stored elsewhere."""
        far = iproute.address(data, "remote", "remote6", "group", "group6")
        bound = data.get("link")
        lower = link.lower or ((bound,) if isinstance(bound, str) else ())
        vrf = lower[0] if lower and self._is_vrf(lower[0]) else ""
        port = data.get("port")
        tunnel = Tunnel(
            (far,) if far else (),
            local=iproute.address(data, "local", "local6"),
            port=port if isinstance(port, int) else None,
            vni=data.get("id", data.get("vni")),
            external=bool(data.get("external")),
            vrf=vrf,
            extras=kinds.extras(link.kind, data),
            ethernet=False if data.get("inner_proto_inherit") or data.get("gpe") else None,
        )
        if tunnel.external and self._sysfs.link_name(f"{base}/master") == "ovs-system":
            return self._ovs_tunnel(evolve(link, tunnel=tunnel))
        if link.kind == "vxlan":
            # Also in metadata mode: with "vnifilter", the database has the remote ends of all VNIs.
            tunnel = self._forwarding(link.name, tunnel)
        elif link.kind == "geneve" and tunnel.external:
            note = f"options of packets in {link.name} are told packet by packet: none is counted"
            tunnel = tunnel._replace(notes=(note,))
        elif link.kind == "wireguard":
            tunnel = self._peers(link.name, tunnel)
        elif link.kind == "l2tpeth":
            note = f"ip does not show the L2TP session of {link.name}; the largest header is assumed"
            tunnel = tunnel._replace(notes=(note,))
        return evolve(link, lower=() if vrf else lower, tunnel=tunnel)

    def _is_vrf(self, name: str) -> bool:
        """Whether a device is a VRF, which few kernels say in sysfs: of one that may be, ip is asked."""
        base = f"{_NET}/{name}"
        entries = self._sysfs.listdir_or_empty(base)
        devtype = self._devtype(base)
        if devtype or any(entry in entries for entry in ("device", "bonding", "bridge", "brif", "tun_flags")):
            return devtype == "vrf"
        try:
            facts = iproute.link(self._sysfs, self._run, name)
        except HostError:
            return False
        return bool(facts.get("linkinfo", {}).get("info_kind") == "vrf")

    def _forwarding(self, name: str, tunnel: Tunnel) -> Tunnel:
        """Add the remote ends of the forwarding database (EVPN, flannel, head-end replication)."""
        try:
            learnt = iproute.far_ends(self._sysfs, self._run, name)
        except HostError:
            # Use the configured remote end, or the tunnel's own address. The path reports it.
            return tunnel
        return tunnel._replace(remotes=tuple(dict.fromkeys((*tunnel.remotes, *learnt))))

    def _peers(self, name: str, tunnel: Tunnel) -> Tunnel:
        """Add the endpoints of WireGuard's peers. No ``wg`` command that prints a private key is run."""
        try:
            answer = self._run(self._sysfs, ["wg", "show", name, "endpoints"])
        except HostError as error:
            return tunnel._replace(notes=(f"wg show {name} endpoints: {error.problem}",))
        ends = (line.split()[-1].rpartition(":")[0].strip("[]") for line in answer.splitlines() if line)
        return tunnel._replace(remotes=tuple(dict.fromkeys(end for end in ends if end not in ("", "(none)"))))

    def _veth(self, link: Link, peer: str) -> Link:
        """Read a veth whose peer is in this namespace. The next device is the peer's bridge."""
        master = self._sysfs.link_name(f"{_NET}/{peer}/master")
        if master == "ovs-system":
            # OpenStack's hybrid plug: the guest's own bridge, and a veth into Open vSwitch.
            ovs = self._switch()
            if ovs.problem:
                return evolve(link, kind="veth", peer=peer, problem=ovs.problem)
            master = ovs.bridge_of.get(peer, "")
        return evolve(link, kind="veth", lower=(master,) if master else (), peer=peer)

    def _team_port(self, name: str) -> str | None:
        try:
            return self._run(self._sysfs, ["teamdctl", name, "state", "item", "get", "runner.active_port"])
        except HostError:
            # Without an answer of teamd, or without an active port, every port may carry packets.
            return None

    def routes_of(self, link: Link) -> list[Route]:
        """Read the routes to a tunnel's remote ends (a few, if there are many), and the device of its own
        address."""
        tunnel = link.tunnel
        if tunnel is None or link.problem:
            return []
        # It is bound to a device or a multicast group on one, so the route does not matter.
        bound = bool(link.lower) and not tunnel.external
        remotes = () if bound else tunnel.remotes[:_MOST_REMOTES]
        found = [self._route(address, tunnel.vrf) for address in remotes]
        if tunnel.local and not any(found) and not bound and (tunnel.external or not tunnel.remotes):
            found.append(self._own(tunnel.local))
        return [route for route in found if route is not None]

    def _route(self, address: str, vrf: str) -> Route | None:
        if address in self.routes:
            return self.routes[address]
        try:
            route = iproute.route(self._sysfs, self._run, address, vrf)
        except HostError:
            # The kernel has no route. The path ends there and reports it.
            return None
        if route is not None:
            self.routes[address] = route
        return route

    def _own(self, address: str) -> Route | None:
        """Return the device of a tunnel's own address, or every uplink if packets cannot leave by that
        device."""
        if address in self.routes:
            return self.routes[address]
        try:
            device = iproute.device_of(self._sysfs, self._run, address)
        except HostError:
            return None
        if not device:
            return None
        route = Route(address, device)
        if not self._leads_out(device) and (ways := self._uplinks()):
            route = Route(address, ways[0], others=ways[1:], stands_on=device)
        self.routes[address] = route
        return route

    def _leads_out(self, name: str) -> bool:
        """Return whether a device leads to hardware. ``lo``, dummies and guest-only bridges do not."""
        entries = self._sysfs.listdir_or_empty(f"{_NET}/{name}")
        if "brif" in entries:
            return bool(self._bridge_ports(name))
        below = any(entry.startswith("lower_") for entry in entries)
        if below or any(entry in entries for entry in ("device", "bonding", "tun_flags")):
            return True
        switched = self._ovs is not None or self._sysfs.exists(_OVS_SOCKET)
        return switched and name in self._switch().bridge_of

    def _uplinks(self) -> tuple[str, ...]:
        """Return devices that may carry the host's own packets: hardware and bonds without a master."""
        found = []
        for name in self._sysfs.listdir_or_empty(_NET):
            base = f"{_NET}/{name}"
            entries = self._sysfs.listdir_or_empty(base) if self._sysfs.exists(f"{base}/mtu") else []
            if "master" in entries or not ("device" in entries or "bonding" in entries):
                continue
            if not self._sysfs.link_name(f"{base}/device/physfn"):
                found.append(name)
        up = [name for name in found if self._sysfs.read_or(f"{_NET}/{name}/operstate", "") != "down"]
        return tuple(up or found)

    # -- Open vSwitch

    @property
    def switch_config(self) -> Mapping[str, str]:
        """Its settings, where it was asked."""
        return self._ovs.config if self._ovs else {}

    def _switch(self) -> openvswitch.Switch:
        if self._ovs is None:
            from libvirt_tuner.host import openvswitch

            self._ovs = openvswitch.read(self._sysfs, self._run)
        return self._ovs

    def _ovs_bridge(self, link: Link) -> Link:
        ovs = self._switch()
        if ovs.problem:
            return evolve(link, kind="openvswitch", problem=ovs.problem)
        ports = tuple(port for port in ovs.ports.get(link.name, ()) if not self._is_guest(port))
        if link.name not in ovs.ports and link.name in ovs.bridge_of:
            # An internal port that is not the bridge's own, for the host's addresses.
            ports = (ovs.bridge_of[link.name],)
        return evolve(link, kind="openvswitch", lower=ports, asked=ovs.asked.get(link.name, 0))

    def _userspace_port(self, link: Link) -> Link:
        """Read Open vSwitch's user-space datapath: its bridges are taps, and their ports have no master."""
        ovs = self._switch()
        if link.name in ovs.ports:
            return self._ovs_bridge(link)
        bridge = ovs.bridge_of.get(link.name)
        asked = ovs.asked.get(link.name, 0)
        lower = (bridge,) if bridge else ()
        return evolve(link, kind="tun", lower=lower, asked=asked, problem=ovs.problem)

    def _is_guest(self, port: str) -> bool:
        return self._sysfs.exists(f"{_NET}/{port}/tun_flags")

    def _ovs_tunnel(self, link: Link) -> Link:
        """The kernel's device for all of the switch's tunnels of one kind."""
        ovs = self._switch()
        if ovs.problem:
            return evolve(link, problem=ovs.problem)
        known = ovs.links.get(link.name)
        return known if known is not None else link


def _number(text: str, default: int) -> int:
    return int(text) if text.isdecimal() else default


def _network_devices(text: str) -> tuple[str, tuple[str, ...], int]:
    """Return how a libvirt network attaches a guest, its bridge or devices, and its MTU."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError:
        return "", (), 0
    if root.tag == "networkstatus":
        inner = root.find("network")
        root = root if inner is None else inner
    element = root.find("mtu")
    asked = _number("" if element is None else element.get("size", ""), 0)
    bridge = root.find("bridge")
    if bridge is not None and bridge.get("name"):
        return "bridge", (str(bridge.get("name")),), asked
    forward = root.find("forward")
    if forward is None:
        return "bridge", (), asked
    named = [forward.get("dev"), *(element.get("dev") for element in forward.findall("interface"))]
    named += [element.get("dev") for element in forward.findall("pf")]
    if not any(named):
        named = [_pci(element) for element in forward.findall("address")]
    attach = "hostdev" if forward.get("mode") == "hostdev" else "direct"
    return attach, tuple(dict.fromkeys(str(name) for name in named if name)), asked


def _pci(element: Any) -> str:
    """The address of a libvirt ``<address domain= bus= slot= function=>`` as sysfs writes it."""
    try:
        parts = [int(element.get(key, "0"), 16) for key in ("domain", "bus", "slot", "function")]
    except ValueError:
        return ""
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)
