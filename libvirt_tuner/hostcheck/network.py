"""Findings about links: flow control, uplinks and MTUs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from libvirt_tuner.host.ethtool import Pause
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Finding
from libvirt_tuner.topology import Xfrm
from libvirt_tuner.uplink.budget import WITHOUT_MTU, budget
from libvirt_tuner.uplink.path import trace, uplinks


def flow_control(facts: Facts) -> Iterator[Finding]:
    """Find pause frames that are on, or differ between the slaves of a bond."""
    for bond in uplinks(facts.host)[1]:
        known = {name: facts.pause[name] for name in bond.lower if name in facts.pause}
        if len(set(known.values())) > 1:
            said = ", ".join(f"{name} {_onoff(pause)}" for name, pause in known.items())
            yield Finding(
                "flow_control",
                f"{bond.name}: flow control differs between its slaves ({said})",
                "the link behaves differently after a failover",
                "ethtool -A DEVICE rx off tx off  # the same on each slave",
            )
    if busy := [name for name, pause in facts.pause.items() if pause.rx or pause.tx]:
        yield Finding(
            "flow_control",
            f"flow control is on: {', '.join(sorted(busy))}",
            "one slow queue stops the whole link",
            "; ".join(f"ethtool -A {name} rx off tx off" for name in sorted(busy)),
            NOTE,
        )


def _onoff(pause: Pause) -> str:
    return f"rx {'on' if pause.rx else 'off'} tx {'on' if pause.tx else 'off'}"


def broken_uplinks(facts: Facts) -> Iterator[Finding]:
    """Find tunnels and bonds without a path to hardware."""
    for name, link in sorted(facts.host.links.items()):
        if (link.tunnel or link.kind in ("bond", "team")) and (problem := trace(name, facts.host).problem):
            yield Finding(
                "broken_uplinks",
                f"{name}: {problem}",
                "for VMs that use it, node, interrupts and MTU cannot be planned",
                "fix it, or set uplink in /etc/libvirt-tuner.toml",
            )


def mtu_chain(facts: Facts) -> Iterator[Finding]:
    """Find devices with an MTU at which packets are fragmented below them."""
    # Another finding reports unreadable IPsec. The assumed overhead is no reason for a fix.
    host = evolve(facts.host, xfrm=Xfrm()) if facts.host.xfrm.problem else facts.host
    for link in host.links.values():
        if link.kind in ("", "pci") or link.kind in WITHOUT_MTU or (link.tunnel and link.tunnel.external):
            continue
        lifted = evolve(host, links={**host.links, link.name: evolve(link, mtu=_LARGEST)})
        found = budget(trace(link.name, lifted), lifted)
        if found.size is None or found.size >= link.mtu or found.underlay == _LARGEST:
            continue
        yield Finding(
            "mtu_chain",
            f"{link.name} has an MTU of {link.mtu}, {link.mtu - found.size} bytes too large",
            f"the CPU fragments larger packets, or they are dropped: {found.explain(advice=False)}",
            f"ip link set {link.name} mtu {found.size}",
        )


_LARGEST = 65535
