"""Reads the devices, addresses, routes, IPsec states and policies of a testbed."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from attrs import frozen

from libvirt_tuner.errors import HostError, MissingError, RejectedError
from libvirt_tuner.host import commands, ethtool, iproute
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.host.xfrm import after, entries
from libvirt_tuner.testbed.config import NONE, Config
from libvirt_tuner.testbed.steps import FEATURES, WAYS, Port

NET = "/sys/class/net"
STATES = ("ip", "-s", "xfrm", "state", "list", "nokeys")
POLICIES = ("ip", "xfrm", "policy", "list")

_ETHERNET = "1"
_IFF_UP = 1
#: Routes that the kernel manages itself.
_KERNELS_OWN = ("local", "broadcast", "multicast", "anycast", "unreachable")
_NOT_TO_BE_GIVEN = frozenset({"linkdown", "dead"})


@frozen
class State:
    """The current data of one of our IPsec states.

    Attributes:
        way: ``server-to-client`` or ``client-to-server``.
        spi: Its index.
        offload: The device that encrypts, or "".
        bytes, packets: Counted so far.
    """

    way: str
    spi: int
    offload: str = ""
    bytes: int = 0
    packets: int = 0


def ports(sysfs: Sysfs, config: Config) -> tuple[Port, ...]:
    """The devices of a config as they are now.

    Raises:
        MissingError: A device is missing. RejectedError: One is not an Ethernet device.
    """
    return tuple(_port(sysfs, name, offload=config.crypto not in (NONE, "kernel")) for name in config.devices)


def _port(sysfs: Sysfs, name: str, *, offload: bool) -> Port:
    base = f"{NET}/{name}"
    if not sysfs.exists(base):
        raise MissingError(
            "no such device", errno=errno.ENODEV, where=name, expected="a device that 'ip link' shows"
        )
    if sysfs.read(f"{base}/type") != _ETHERNET:
        raise RejectedError("not an Ethernet device", where=name, value=sysfs.read(f"{base}/type"))
    facts = asked(sysfs, "address", "show", "dev", name)[0]
    return Port(
        name,
        mtu=int(sysfs.read(f"{base}/mtu")),
        up=is_up(sysfs, name),
        virgin=facts.get("qdisc") == "noop",
        master=sysfs.link_name(f"{base}/master"),
        addresses=tuple(addresses(facts)),
        routes=tuple(_routes(sysfs, name)),
        features=features(sysfs, name) if offload else {},
    )


def is_up(sysfs: Sysfs, name: str) -> bool:
    """Whether a device is set up (its carrier aside)."""
    return bool(int(sysfs.read(f"{NET}/{name}/flags"), 16) & _IFF_UP)


def addresses(facts: Mapping[str, Any]) -> Iterator[str]:
    """Addresses with prefix length in an object of ``ip -json address``, without link-local ones."""
    for entry in facts.get("addr_info", ()):
        if entry.get("scope") != "link":
            yield f"{entry['local']}/{entry['prefixlen']}"


def _routes(sysfs: Sysfs, name: str) -> Iterator[str]:
    for family in ("-4", "-6"):
        try:
            text = commands.run(sysfs, ("ip", family, "route", "show", "table", "all", "dev", name))
        except MissingError:
            raise
        except HostError:
            # A kernel without IPv6.
            continue
        for line in text.splitlines():
            words = line.split()
            if words and words[0] not in _KERNELS_OWN and ("proto", "kernel") not in pairwise(words):
                yield " ".join((family, *_lasting(words)))


def _lasting(words: Sequence[str]) -> list[str]:
    """Return a route's words without those of its current state."""
    kept = [word for word in words if word not in _NOT_TO_BE_GIVEN]
    if "expires" in kept:
        at = kept.index("expires")
        del kept[at : at + 2]
    return kept


def features(sysfs: Sysfs, name: str) -> dict[str, str]:
    """Return the card's :data:`FEATURES`. Without ethtool, none is known or used."""
    with suppress(HostError):
        return offload_states(commands.run(sysfs, ("ethtool", "-k", name)))
    return {}


def offload_states(text: str) -> dict[str, str]:
    """Parse :data:`FEATURES` in ``ethtool -k``: ``on``, ``off``, or ``fixed`` (off, cannot be changed)."""
    found = ethtool.parse_features(text)
    words = {name: "on" if one.on else "fixed" if one.fixed else "off" for name, one in found.items()}
    return {name: words[name] for name in FEATURES if name in words}


def asked(sysfs: Sysfs, *words: str) -> list[Any]:
    """The objects of ``ip -json``'s answer."""
    return iproute.objects(sysfs, commands.run, *words)


def uppers(sysfs: Sysfs, name: str) -> list[str]:
    """Return the devices on top of one: a bridge, a bond, VLANs, macvtaps."""
    entries = sysfs.listdir_or_empty(f"{NET}/{name}")
    return [entry.removeprefix("upper_") for entry in entries if entry.startswith("upper_")]


def elsewhere(sysfs: Sysfs, config: Config) -> str:
    """Return another device with an address in the testbed's network, or ""."""
    network = ipaddress.ip_interface(config.local).network
    for facts in asked(sysfs, "address", "show"):
        if facts.get("ifname") in config.devices:
            continue
        for address in addresses(facts):
            other = ipaddress.ip_interface(address).network
            if other.version == network.version and other.overlaps(network):
                return str(facts["ifname"])
    return ""


def mtus(sysfs: Sysfs, config: Config) -> Iterator[tuple[str, int]]:
    """Each device's MTU, from the tunnel down."""
    for name in dict.fromkeys((config.name, config.base, *config.devices)):
        text = sysfs.read_or(f"{NET}/{name}/mtu", "")
        if text:
            yield name, int(text)


def xfrm_errors(sysfs: Sysfs) -> Iterator[tuple[str, int]]:
    """Counters of ``/proc/net/xfrm_stat`` that are not 0."""
    for line in sysfs.read_or("/proc/net/xfrm_stat", "").splitlines():
        name, _, count = line.partition(" ")
        if count.strip() not in ("", "0"):
            yield name.strip(), int(count)


def parsed_states(text: str) -> tuple[State, ...]:
    """Return the states of ``ip -s xfrm state`` with our SPIs, with their counters."""
    found = []
    for words in entries(text):
        way = next((way for way in WAYS if after(words, "spi").endswith(f"({way.spi})")), None)
        if way is None or after(words, "reqid").partition("(")[0] != str(way.reqid):
            continue
        at = words.index("current:") if "current:" in words else len(words)
        counts = [int(word.partition("(")[0]) for word in words[at + 1 : at + 3]] or [0, 0]
        offload = after(words, "parameters:") == "dev" and after(words[words.index("parameters:") :], "dev")
        found.append(State(way.name, way.spi, offload or "", *counts))
    return tuple(found)
