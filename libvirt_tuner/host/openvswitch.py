"""Reads Open vSwitch's database with ``ovs-vsctl``: which devices are below which bridge.

The kernel shows no bridge of Open vSwitch in sysfs, and one metadata-mode device (``genev_sys_6081``) for all
of its tunnels. Errors are stored in :attr:`Switch.problem` and never raised, so that the hook continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import field, frozen

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import commands
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import Link, Tunnel, is_pci_address
from libvirt_tuner.uplink import kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libvirt_tuner.host.commands import Run

_SECONDS = 2
_TABLES = (
    ("Bridge", "name,ports,external_ids"),
    ("Port", "_uuid,name,interfaces,bond_mode,bond_active_slave"),
    ("Interface", "_uuid,name,type,options,mac_in_use,mtu,mtu_request,external_ids"),
    ("Open_vSwitch", "external_ids,other_config"),
)
_UNLIMITED = 65535
_OVN_OPTION_BYTES = 8
_TUNNELS = {
    "geneve": ("genev_sys", "6081"),
    "vxlan": ("vxlan_sys", "4789"),
    "gre": ("gre_sys", ""),
    "ip6gre": ("ip6gre_sys", ""),
    "erspan": ("erspan_sys", ""),
    "ip6erspan": ("ip6erspan_sys", ""),
    "bareudp": ("bareudp_sys", "6635"),
    "gtpu": ("gtpu_sys", "2152"),
    "stt": ("stt_sys", "7471"),
    "lisp": ("lisp_sys", "4341"),
    "srv6": ("srv6_sys", ""),
}
"""Type of a tunnel port, to the kernel's device for that type (``genev_sys_6081``) and its port."""

_VHOST_USER = frozenset({"dpdkvhostuser", "dpdkvhostuserclient"})
_SOCKETS = "/run/openvswitch"
_DPDK_MTU = 1500


@frozen
class Switch:
    """The parts of Open vSwitch's database that a path needs.

    Attributes:
        problem: Why the rest is empty.
        links: Links that the kernel does not have or cannot describe: tunnels, bonds, DPDK ports.
        ports: Bridge to the ports that may lead to hardware.
        bridge_of: Interface to its bridge.
        sockets: vhost-user socket's path to its interface.
        asked: Bridge or interface to the MTU it is asked to have (``mtu_request``, an external id).
        config: ``other_config`` of the switch (``pmd-cpu-mask``...).
    """

    problem: str = ""
    links: Mapping[str, Link] = field(factory=dict)
    ports: Mapping[str, tuple[str, ...]] = field(factory=dict)
    bridge_of: Mapping[str, str] = field(factory=dict)
    sockets: Mapping[str, str] = field(factory=dict)
    asked: Mapping[str, int] = field(factory=dict)
    config: Mapping[str, str] = field(factory=dict)


def command() -> list[str]:
    """The single call that reads the needed parts of Open vSwitch's database (ovs-vsctl(8), "list")."""
    argv = ["ovs-vsctl", f"--timeout={_SECONDS}", "--format=json"]
    for table, columns in _TABLES:
        argv += ["--", f"--columns={columns}", "list", table]
    return argv


def read(sysfs: Sysfs, run: Run) -> Switch:
    """Read the database. If that fails, the result has the reason."""
    argv = command()
    try:
        tables = commands.documents(run(sysfs, argv), argv)
        return _Reader(sysfs, [_rows(table) for table in tables]).read()
    except MissingError:
        return Switch(problem="Open vSwitch is in use, but the program ovs-vsctl is missing")
    except HostError as error:
        return Switch(problem=f"ovs-vsctl: {error.problem}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return Switch(problem=f"ovs-vsctl gave an answer of another form: {error!r}")


def _rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table of ovs-vsctl as dicts; sets as tuples, maps as dicts (RFC 7047, 5.1)."""
    return [dict(zip(table["headings"], map(_plain, row), strict=True)) for row in table["data"]]


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "set":
        return tuple(_plain(item) for item in content)
    return dict(content) if kind == "map" else content


def _network_mtu(ids: Mapping[str, str]) -> int:
    """Return a network's MTU from external ids (``neutron:mtu``, ``ovn-mtu``, ``mtu``); 0 without one."""
    for key, text in ids.items():
        if key.replace(":", "-").rpartition("-")[2] == "mtu" and str(text).isdecimal():
            return int(text)
    return 0


def _several(value: Any) -> tuple[str, ...]:
    """A set column: one element comes without its set."""
    return value if isinstance(value, tuple) else (value,)


def _pci_address(devargs: str) -> str:
    """The PCI device of ``dpdk-devargs`` as sysfs spells it; DPDK takes it without its domain too."""
    address = devargs.partition(",")[0].removeprefix("pci:").lower()
    return f"0000:{address}" if is_pci_address(f"0000:{address}") else address


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdecimal()


class _Reader:
    """Turns the four tables into an :class:`Switch`."""

    def __init__(self, sysfs: Sysfs, tables: list[list[dict[str, Any]]]) -> None:
        bridges, ports, interfaces, switch = tables
        self._sysfs = sysfs
        self._bridges = bridges
        self._port = {row["_uuid"]: row for row in ports}
        self._interface = {row["_uuid"]: row for row in interfaces}
        self._ids: dict[str, str] = switch[0]["external_ids"] if switch else {}
        self._config: dict[str, str] = switch[0].get("other_config", {}) if switch else {}
        self._links: dict[str, Link] = {}
        self._bridge_of: dict[str, str] = {}

    def read(self) -> Switch:
        for bridge in self._bridges:
            for port in self._ports_of(bridge):
                for interface in self._interfaces_of(port):
                    self._bridge_of[interface["name"]] = bridge["name"]
        ports = {bridge["name"]: self._leading_out(bridge) for bridge in self._bridges}
        return Switch(
            links=self._links,
            ports=ports,
            bridge_of=self._bridge_of,
            sockets=dict(self._sockets()),
            asked=dict(self._asked()),
            config=self._config,
        )

    def _sockets(self) -> Iterator[tuple[str, str]]:
        """Open vSwitch creates the socket of a ``dpdkvhostuser`` port itself, with the port's name."""
        for row in self._interface.values():
            if row["type"] in _VHOST_USER:
                yield row["options"].get("vhost-server-path") or f"{_SOCKETS}/{row['name']}", row["name"]

    def _asked(self) -> Iterator[tuple[str, int]]:
        for row in (*self._bridges, *self._interface.values()):
            size = row.get("mtu_request") or _network_mtu(row.get("external_ids") or {})
            if isinstance(size, int) and size:
                yield row["name"], size

    def _ports_of(self, bridge: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self._port[uuid] for uuid in _several(bridge["ports"])]

    def _interfaces_of(self, port: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self._interface[uuid] for uuid in _several(port["interfaces"])]

    def _leading_out(self, bridge: Mapping[str, Any]) -> tuple[str, ...]:
        """Devices below a bridge: its tunnels as one device a kind, bonds, other bridges, NICs."""
        below = []
        tunnels: dict[str, list[dict[str, str]]] = {}
        for port in self._ports_of(bridge):
            interfaces = self._interfaces_of(port)
            if len(interfaces) > 1:
                below.append(self._bond(port, interfaces))
                continue
            for interface in interfaces:
                if interface["type"] in _TUNNELS:
                    tunnels.setdefault(interface["type"], []).append(interface["options"])
                else:
                    below.append(self._single(interface))
        for kind in self._own_tunnels(bridge, tunnels):
            below.append(self._tunnel(kind, tunnels.get(kind, [])))
        return tuple(dict.fromkeys(name for name in below if name))

    def _own_tunnels(self, bridge: Mapping[str, Any], found: Mapping[str, object]) -> list[str]:
        """Kinds of tunnel; OVN's integration bridge has its own even before another chassis is there."""
        kinds = sorted(found)
        if bridge["name"] != self._ids.get("ovn-bridge", "br-int") or not self._ids.get("ovn-encap-ip"):
            return kinds
        offered = self._ids.get("ovn-encap-type", "geneve").split(",")
        return kinds or [kind for kind in sorted(_TUNNELS) if kind in offered][:1]

    def _single(self, interface: Mapping[str, Any]) -> str:
        """Return the device below one interface; "" for internal ports and guests' ports."""
        name: str = interface["name"]
        kind = interface["type"]
        if kind == "patch":
            return self._bridge_of.get(interface["options"].get("peer", ""), "")
        if kind == "dpdk":
            address = _pci_address(interface["options"].get("dpdk-devargs", ""))
            lower = (address,) if is_pci_address(address) else ()
            problem = "" if lower else f"{name}: dpdk-devargs names no PCI device: {address or 'not set'}"
            self._links[name] = Link(name, "dpdk", self._mtu(interface), lower, problem=problem)
            return name
        if kind.startswith("afxdp"):
            # The kernel's own device, whose queues Open vSwitch polls by AF_XDP.
            return name
        return name if kind in ("", "system") else ""

    def _bond(self, port: Mapping[str, Any], interfaces: Sequence[Mapping[str, Any]]) -> str:
        """Read a bond of Open vSwitch. Its active member is identified by MAC."""
        name: str = port["name"]
        mac = port["bond_active_slave"]
        active = next((entry["name"] for entry in interfaces if mac and entry["mac_in_use"] == mac), None)
        mode = port["bond_mode"] or "active-backup"
        lower = [member for member in map(self._single, interfaces) if member]
        lower.sort(key=lambda member: (member != active, member))
        single = active if mode == "active-backup" else None
        self._links[name] = Link(
            name, kind="bond", mtu=_UNLIMITED, lower=tuple(lower), active=single, mode=mode
        )
        return name

    def _tunnel(self, kind: str, options: Sequence[Mapping[str, str]]) -> str:
        """All tunnels of one kind: the kernel has one metadata-mode device for them (``genev_sys_6081``)."""
        prefix, usual = _TUNNELS[kind]
        port = next((entry["dst_port"] for entry in options if "dst_port" in entry), usual)
        name = f"{prefix}_{port}" if port else prefix
        each = [kinds.open_vswitch(kind, entry) for entry in options] or [kinds.open_vswitch(kind, {})]
        ours, extras, _ = max(each, key=lambda one: sum(size for _, size in one[1]))
        ethernet = None if any(one[2] is None for one in each) else False
        # A name, which Open vSwitch resolves, tells no route and no family.
        ends = sorted({end for entry in options if _is_address(end := entry.get("remote_ip", ""))})
        local = next((entry["local_ip"] for entry in options if "local_ip" in entry), "")
        # OVN sends the ports' keys in one option of four bytes and its header (ovn-architecture(7)).
        of_ovn = kind == "geneve" and bool(self._ids.get("ovn-encap-ip"))
        tunnel = Tunnel(
            tuple(ends),
            local=local or self._encap_address(),
            port=int(port) if port.isdecimal() else None,
            external=True,
            extras=(*extras, *((("options", _OVN_OPTION_BYTES),) if of_ovn else ())),
            ethernet=ethernet,
        )
        mtu = int(self._sysfs.read_or(f"/sys/class/net/{name}/mtu", "") or _UNLIMITED)
        self._links[name] = Link(name, ours, mtu, tunnel=tunnel)
        return name

    def _mtu(self, interface: Mapping[str, Any]) -> int:
        """Return the MTU of a port outside the kernel: the current one, else the requested one, else DPDK's
        default."""
        sizes = (interface.get("mtu"), interface.get("mtu_request"))
        return next((size for size in sizes if isinstance(size, int) and size), _DPDK_MTU)

    def _encap_address(self) -> str:
        return self._ids.get("ovn-encap-ip", "").partition(",")[0]
