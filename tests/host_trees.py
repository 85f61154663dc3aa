"""Hosts as values, and the trees of /sys and /proc that are written of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.host import commands

LINK_SHOW = ("ip", "-json", "-details", "link", "show", "dev")
IN_SYSFS = frozenset({"bridge", "bond", "vlan", "macvlan"})


@frozen
class LinkTo:
    """A symbolic link of a tree, by the absolute path (as the host has it) that it leads to."""

    path: str


Tree = dict[str, "str | LinkTo"]


@frozen
class Node:
    """A NUMA node: its online CPUs as a cpulist, memory in MiB, pools as size in KiB to (total, free)."""

    cpus: str = ""
    memory: int = 65536
    free: int = 49152
    hugepages: Mapping[int, tuple[int, int]] = field(factory=dict)


@frozen
class IrqLine:
    """An interrupt: number, the driver's name for it, where it may go and where it goes (cpulists)."""

    number: int
    action: str
    affinity: str
    effective: str


@frozen
class Port:
    """A network port and the device it sits on.

    ``parent`` is the PCI address; ``below`` is the rest of the way to the device on another bus
    (``usb2/2-1/2-1:1.0``, ``virtio2``) with ``bus`` its name. ``rps`` and ``xps`` are the queues' masks.
    """

    name: str
    parent: str
    driver: str
    node: int = -1
    irqs: tuple[IrqLine, ...] = ()
    mtu: int = 1500
    bus: str = "pci"
    below: str = ""
    physfn: str = ""
    master: str = ""
    wlan: bool = False
    rps: tuple[str, ...] = ()
    xps: tuple[str, ...] = ()


@frozen
class Device:
    """A virtual network device.

    ``info`` is the ``info_data`` that ip prints (a bond's: ``mode``, its ``number``, ``active_slave``);
    ``lower`` the devices below, which for a tunnel is empty; ``link`` the one ip calls so (a veth's peer).
    """

    name: str
    kind: str
    mtu: int = 1500
    lower: tuple[str, ...] = ()
    link: str = ""
    info: Mapping[str, object] = field(factory=dict)
    master: str = ""


@frozen
class Host:
    """A machine, as far as libvirt-tuner reads it.

    Attributes:
        nodes: Node id to node; distances are 10 to itself, ``distance`` (default 21) elsewhere.
        present: CPUs that are there, as a cpulist, where some of them are offline.
        siblings: SMT siblings that are online, one tuple a core; none means SMT is off.
        routes: Address to ``(device, source address)``.
        said: Further commands and what they printed, as text or as what their JSON stands for.
        cmdline: The kernel's, as far as a capture keeps it.
        files: Further files, by path.
    """

    nodes: Mapping[int, Node]
    distance: int = 21
    siblings: tuple[tuple[int, ...], ...] = ()
    present: str = ""
    isolated: str = ""
    nohz_full: str = ""
    ports: tuple[Port, ...] = ()
    devices: tuple[Device, ...] = ()
    routes: Mapping[str, tuple[str, str]] = field(factory=dict)
    said: Mapping[tuple[str, ...], object] = field(factory=dict)
    cmdline: str = ""
    files: Mapping[str, str] = field(factory=dict)


def build(host: Host) -> Tree:
    """The tree of a host: path to text (without the newline) or link."""
    tree: Tree = {}
    _add_cpus(tree, host)
    for node in host.nodes:
        _add_node(tree, host, node)
    for port in host.ports:
        _add_port(tree, port)
    for device in host.devices:
        _add_device(tree, host, device)
    _add_commands(tree, host)
    tree |= host.files
    return dict(sorted(tree.items()))


def _add_cpus(tree: Tree, host: Host) -> None:
    base = "/sys/devices/system/cpu"
    tree[f"{base}/isolated"] = host.isolated
    tree[f"{base}/nohz_full"] = host.nohz_full or "(null)"
    if host.present:
        tree[f"{base}/present"] = host.present
    if host.cmdline:
        tree["/proc/cmdline"] = host.cmdline
    tree[f"{base}/smt/active"] = "1" if host.siblings else "0"
    for cpus in host.siblings:
        path = f"{base}/cpu{min(cpus)}/topology/thread_siblings_list"
        tree[path] = cpuset.format(frozenset(cpus))


def _add_node(tree: Tree, host: Host, number: int) -> None:
    node = host.nodes[number]
    base = f"/sys/devices/system/node/node{number}"
    tree["/sys/devices/system/node/online"] = cpuset.format(frozenset(host.nodes))
    tree[f"{base}/cpulist"] = node.cpus
    row = (10 if other == number else host.distance for other in sorted(host.nodes))
    tree[f"{base}/distance"] = " ".join(map(str, row))
    fields = {"MemTotal": node.memory, "MemFree": node.free, "FilePages": 0, "Shmem": 0}
    lines = [f"Node {number} {name + ':':<15}{mib * 1024:>9} kB" for name, mib in fields.items()]
    tree[f"{base}/meminfo"] = "\n".join(lines)
    for size in (2048, 1048576):
        pool = f"hugepages/hugepages-{size}kB"
        everywhere = sum(each.hugepages.get(size, (0, 0))[0] for each in host.nodes.values())
        tree[f"/sys/kernel/mm/{pool}/nr_hugepages"] = str(everywhere)
        if everywhere and node.memory:
            total, free = node.hugepages.get(size, (0, 0))
            tree[f"{base}/{pool}/nr_hugepages"] = str(total)
            tree[f"{base}/{pool}/free_hugepages"] = str(free)


def _pci(address: str) -> str:
    return f"/sys/devices/pci{address[:7]}/{address}"


def _add_port(tree: Tree, port: Port) -> None:
    function = _pci(port.parent)
    device = f"{function}/{port.below}" if port.below else function
    net = f"{device}/net/{port.name}"
    tree[f"/sys/class/net/{port.name}"] = LinkTo(net)
    tree[f"{net}/device"] = LinkTo(device)
    tree[f"{net}/mtu"] = str(port.mtu)
    _add_uevent(tree, net, "wlan" if port.wlan else "")
    if port.wlan:
        tree[f"{net}/phy80211"] = LinkTo(f"{function}/ieee80211/phy0")
    if port.master:
        tree[f"{net}/master"] = LinkTo(f"/sys/devices/virtual/net/{port.master}")
    tree[f"{device}/subsystem"] = LinkTo(f"/sys/bus/{port.bus}")
    tree[f"{device}/driver"] = LinkTo(f"/sys/bus/{port.bus}/drivers/{port.driver}")
    tree[f"/sys/bus/pci/devices/{port.parent}"] = LinkTo(function)
    tree[f"{function}/numa_node"] = str(port.node)
    if port.physfn:
        tree[f"{function}/physfn"] = LinkTo(_pci(port.physfn))
    for irq in port.irqs:
        _add_irq(tree, function, irq)
    for number, mask in enumerate(port.rps):
        tree[f"{net}/queues/rx-{number}/rps_cpus"] = mask
    for number, mask in enumerate(port.xps):
        tree[f"{net}/queues/tx-{number}/xps_cpus"] = mask


def _add_irq(tree: Tree, function: str, irq: IrqLine) -> None:
    tree[f"{function}/msi_irqs/{irq.number}"] = ""
    tree[f"/sys/kernel/irq/{irq.number}/actions"] = irq.action
    tree[f"/proc/irq/{irq.number}/smp_affinity_list"] = irq.affinity
    tree[f"/proc/irq/{irq.number}/effective_affinity_list"] = irq.effective


def _add_uevent(tree: Tree, net: str, kind: str) -> None:
    name = net.rpartition("/")[2]
    lines = [f"DEVTYPE={kind}"] if kind else []
    tree[f"{net}/uevent"] = "\n".join([*lines, f"INTERFACE={name}"])


def _net(host: Host, name: str) -> str:
    """The real path of a network device of the host."""
    for port in host.ports:
        if port.name == name:
            return f"{_pci(port.parent)}/{port.below}/net/{name}".replace("//", "/")
    return f"/sys/devices/virtual/net/{name}"


def _add_device(tree: Tree, host: Host, device: Device) -> None:
    net = _net(host, device.name)
    tree[f"/sys/class/net/{device.name}"] = LinkTo(net)
    tree[f"{net}/mtu"] = str(device.mtu)
    for lower in device.lower:
        tree[f"{net}/lower_{lower}"] = LinkTo(_net(host, lower))
        tree[f"{_net(host, lower)}/upper_{device.name}"] = LinkTo(net)
    if device.kind == "bridge":
        tree[f"{net}/bridge"] = ""
        for port in device.lower:
            tree[f"{net}/brif/{port}"] = LinkTo(f"{_net(host, port)}/brport")
    elif device.kind == "bond":
        tree[f"{net}/bonding/slaves"] = " ".join(device.lower)
        tree[f"{net}/bonding/active_slave"] = str(device.info.get("active_slave", ""))
        tree[f"{net}/bonding/mode"] = f"{device.info['mode']} {device.info.get('number', 0)}"
    else:
        _add_uevent(tree, net, device.kind)
    for upper in (device.master,) if device.master else ():
        tree[f"{net}/master"] = LinkTo(_net(host, upper))


def _add_commands(tree: Tree, host: Host) -> None:
    said: dict[tuple[str, ...], object] = dict(host.said)
    for device in host.devices:
        if device.kind not in IN_SYSFS:
            said.setdefault((*LINK_SHOW, device.name), [_shown(device)])
    for address, (name, source) in host.routes.items():
        route = {"dst": address, "dev": name, "prefsrc": source, "flags": [], "uid": 0, "cache": []}
        said[("ip", "-json", "route", "get", address)] = [route]
    for argv, output in said.items():
        text = output if isinstance(output, str) else json.dumps(output, indent=1)
        tree[f"/commands/{commands.slug(argv)}"] = text


def _shown(device: Device) -> dict[str, object]:
    """What ``ip -json -details link show dev NAME`` prints of a virtual device, less its counters."""
    link: dict[str, object] = {"ifname": device.name}
    if device.link:
        link["link"] = device.link
    flags = ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"]
    info = {"info_kind": device.kind, "info_data": dict(device.info)}
    return link | {"flags": flags, "mtu": device.mtu, "link_type": "ether", "linkinfo": info}


def write(tree: Tree, target: Path) -> None:
    """Write a tree below ``target``; links become relative, as in sysfs."""
    # As on any host; the ledger's directory is made in it.
    os.makedirs(target / "run", exist_ok=True)
    made: set[str] = set()
    for path, content in tree.items():
        place = f"{target}{path}"
        directory = os.path.dirname(place)
        if directory not in made:
            os.makedirs(directory, exist_ok=True)
            made.add(directory)
        if isinstance(content, LinkTo):
            os.symlink(os.path.relpath(content.path, os.path.dirname(path)), place)
        else:
            with open(place, "w") as file:
                file.write(content + "\n" if content else "")


def read(root: Path) -> Tree:
    """The tree found below ``root``."""
    tree: Tree = {}
    for directory, subdirectories, files in os.walk(root):
        for name in [*files, *subdirectories]:
            path = Path(directory, name)
            inside = "/" + str(path.relative_to(root))
            if path.is_symlink():
                target = os.path.join(os.path.dirname(inside), os.readlink(path))
                tree[inside] = LinkTo(os.path.normpath(target))
            elif path.is_file():
                tree[inside] = path.read_text().rstrip("\n")
    return dict(sorted(tree.items()))
