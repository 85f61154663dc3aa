"""A Geneve tunnel over one port, and IPsec for it."""

from __future__ import annotations

from libvirt_tuner.topology import (
    HostTopology,
    Link,
    Route,
    Tunnel,
    Xfrm,
    XfrmPolicy,
    XfrmState,
    XfrmTemplate,
)
from libvirt_tuner.uplink import budget
from libvirt_tuner.uplink.path import trace

POLICY = XfrmPolicy(
    "192.168.1.1/32",
    "192.168.1.2/32",
    proto="udp",
    dport=6081,
    templates=(XfrmTemplate("192.168.1.1", "192.168.1.2", reqid=7),),
)


STATE = XfrmState("192.168.1.1", "192.168.1.2", reqid=7, algorithms=("rfc4106(gcm(aes))",), icv_bits=128)
TUNNEL = Link("gnv", "geneve", 1450, tunnel=Tunnel(("192.168.1.2",), port=6081, vni=100))
NONE = Xfrm()


def host(*links: Link, xfrm: Xfrm = NONE) -> HostTopology:
    known = {link.name: link for link in (Link("p0", mtu=1500), *links)}
    routes = {"192.168.1.2": Route("192.168.1.2", "p0", "192.168.1.1"), "fd00::2": Route("fd00::2", "p0")}
    return HostTopology((), (), links=known, routes=routes, xfrm=xfrm)


def size(device: str, on: HostTopology, tags: int = 0) -> int | None:
    return budget.vnic_mtu(trace(device, on), on, tags=tags)[0]
