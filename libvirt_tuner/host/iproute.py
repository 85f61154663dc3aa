"""The only reader of the output of ``ip -json`` and ``bridge -json``.

Import budget: commands, kinds, and ``json`` with the first answer.
"""

from __future__ import annotations

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import commands
from libvirt_tuner.topology import Route
from libvirt_tuner.uplink import kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from libvirt_tuner.host.commands import Run
    from libvirt_tuner.host.sysfs import Sysfs

NOT_SET = frozenset({"", "any", "0.0.0.0", "::"})
"""Addresses that are none."""

_COUNTED_ELSEWHERE = frozenset({"", "mpls", "ip", "ip6", "xfrm"})
"""Encapsulations of a route that its labels or its device stand for."""


def objects(sysfs: Sysfs, run: Run, *words: str, program: str = "ip") -> list[dict[str, Any]]:
    """Return the objects of an answer, without the empty ones that an old ``ip`` prints.

    Raises:
        HostError: The program failed, or its answer is not JSON.
    """
    argv = [program, "-json", *words]
    answer = commands.documents(run(sysfs, argv), argv)
    return [entry for entry in answer if isinstance(entry, dict) and entry]


def first(sysfs: Sysfs, run: Run, *words: str) -> dict[str, Any]:
    """The first object of an answer.

    Raises:
        HostError: ``ip`` failed, or its answer is not as expected.
    """
    found = objects(sysfs, run, *words)
    if not found:
        raise MissingError("no such object", where=" ".join(["ip", "-json", *words]))
    return found[0]


def link(sysfs: Sysfs, run: Run, name: str) -> dict[str, Any]:
    """A device with its details.

    Raises:
        HostError: There is none, or ``ip`` failed.
    """
    return first(sysfs, run, "-details", "link", "show", "dev", name)


def address(data: Mapping[str, Any], *names: str) -> str:
    """Return the first of these fields with an address; "" if none has one (``any``, ``0.0.0.0``)."""
    found = (str(data[name]) for name in names if name in data)
    return next((text for text in found if text not in NOT_SET), "")


def device_of(sysfs: Sysfs, run: Run, local: str) -> str:
    """The device that has an address, "" where none has.

    Raises:
        HostError: ``ip`` failed.
    """
    facts = first(sysfs, run, "addr", "show", "to", local)
    return str(facts.get("ifname", ""))


def route(sysfs: Sysfs, run: Run, far: str, vrf: str = "") -> Route | None:
    """Return the route of packets to an address; None if there is no route.

    If a route has a next hop, the table's entry is read too, because only that has all next hops (ECMP).

    Raises:
        HostError: ``ip`` failed; a missing route is such a failure.
    """
    within = ("vrf", vrf) if vrf else ()
    facts = first(sysfs, run, "route", "get", far, *within)
    device = facts.get("dev")
    if not isinstance(device, str) or device == "lo":
        # "lo": unreachable, or the address is the host's own.
        return None
    entry: dict[str, Any] = {}
    if "gateway" in facts or "via" in facts:
        try:
            entry = first(sysfs, run, "route", "get", "fibmatch", far, *within)
        except HostError:
            entry = {}  # the current route of the kernel is known in any case
    ways = (facts, *entry.get("nexthops", ()))
    hops = [str(hop["dev"]) for hop in ways[1:] if "dev" in hop]
    encaps = [_encap(hop) for hop in ways]
    labels = max((len(str(each.get("dst")).split("/")) for name, each in encaps if name == "mpls"), default=0)
    others = [(name, kinds.segment_routing(each)) for name, each in encaps if name not in _COUNTED_ELSEWHERE]
    return Route(
        far,
        device,
        source=str(facts.get("prefsrc", "")),
        mtu=min((size for each in (facts, entry) if (size := _mtu(each))), default=0),
        others=tuple(dict.fromkeys(hop for hop in hops if hop != device)),
        labels=labels,
        encap=",".join(dict.fromkeys(name for name, _ in others)),
        encap_bytes=max((size for _, size in others), default=0) if all(size for _, size in others) else 0,
    )


def _encap(hop: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and facts of a next hop's encapsulation, which older ``ip`` prints among those of the hop."""
    found = hop.get("encap", "")
    return (str(found.get("encap_type")), found) if isinstance(found, dict) else (str(found), hop)


def _mtu(facts: Mapping[str, Any]) -> int:
    """A route's MTU, set or learnt (``mtu lock`` prints the same); 0 where it has none."""
    return max((int(metric.get("mtu", 0)) for metric in facts.get("metrics", ())), default=0)


def far_ends(sysfs: Sysfs, run: Run, device: str) -> tuple[str, ...]:
    """Return the remote ends in a VXLAN device's forwarding database, configured or learnt, in order.

    Raises:
        HostError: ``bridge`` failed.
    """
    entries = objects(sysfs, run, "fdb", "show", "dev", device, program="bridge")
    found = (str(entry["dst"]) for entry in entries if "dst" in entry)
    return tuple(dict.fromkeys(end for end in found if end not in NOT_SET))
