"""Finds the IPsec layers of a tunnel's packets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from libvirt_tuner.topology import HostTopology, Link, Tunnel, XfrmPolicy, XfrmState, XfrmTemplate
from libvirt_tuner.uplink.encapsulation import Layer, ah, esp, wrapped
from libvirt_tuner.uplink.kinds import KINDS, ROUTE_BASED


def ipsec(kind: str, tunnel: Tunnel, host: HostTopology) -> tuple[Layer, ...]:
    """Return the IPsec layers of packets of a tunnel of that kind, outermost first.

    Returns the largest possible layers if the remote ends differ or are unknown, or if several policies may
    apply. If the kernel's policies cannot be read, returns the largest layers of all.
    """
    row = KINDS.get(kind)
    if row is not None and row.outer == 0:
        return ()
    if host.xfrm.problem:
        ipv6 = any(":" in address for address in tunnel.ends)
        return (evolve(esp((), ipv6=ipv6, nat=True), note=f"IPsec could not be read: {host.xfrm.problem}"),)
    if not host.xfrm.policies:
        return ()
    ways = [(_source(tunnel, remote, host), remote) for remote in tunnel.remotes] or [(tunnel.local, "")]
    found = [
        _layers(policy, remote or policy.dst.partition("/")[0], host)
        for source, remote in ways
        for policy in _policies(host.xfrm.policies, source, remote, tunnel.port, row.protocols if row else ())
        if not (policy.narrow and _by_interface(remote, host))
    ]
    return max(found, key=_cost, default=())


def _by_interface(remote: str, host: HostTopology) -> bool:
    """Whether an IPsec interface takes the packets, whose own layers the policies with a mark are."""
    route = host.routes.get(remote)
    link = host.links.get(route.device) if route else None
    return link is not None and link.kind in ROUTE_BASED


def _cost(layers: Sequence[Layer]) -> int:
    """Compare by the size of a small packet, which includes the padding."""
    return wrapped(1280, reversed(layers))


def _source(tunnel: Tunnel, remote: str, host: HostTopology) -> str:
    route = host.routes.get(remote)
    return tunnel.local or (route.source if route else "")


def _layers(policy: XfrmPolicy, remote: str, host: HostTopology) -> tuple[Layer, ...]:
    return tuple(_state_layer(template, remote, host) for template in reversed(policy.templates))


def _policies(
    policies: Sequence[XfrmPolicy], source: str, remote: str, port: int | None, protocols: Sequence[str]
) -> tuple[XfrmPolicy, ...]:
    """Return the policies that may apply to packets from ``source`` to ``remote``: those with the lowest
    priority number, and narrow ones.

    A tunnel has a different source port for each flow, so a policy for one port does not apply. Without a
    ``remote``, returns policies for packets to any address.
    """
    fitting = [
        policy
        for policy in policies
        if policy.direction == "out"
        and not (policy.if_id or policy.block)
        and (not protocols or policy.proto in ("", *protocols))
        and policy.sport is None
        and (policy.dport is None or port is None or policy.dport == port)
        and (not remote or _within(remote, policy.dst))
        and (not source or _within(source, policy.src))
    ]
    if not remote:
        return tuple(fitting)
    narrow = [policy for policy in fitting if policy.narrow]
    wide = [policy for policy in fitting if not policy.narrow]
    return (*narrow, *sorted(wide, key=lambda policy: policy.priority)[:1])


def route_based(link: Link, host: HostTopology) -> tuple[Layer, ...]:
    """Return the layers of an IPsec interface (xfrm, vti): the largest of its policies, else the largest of
    all."""
    policies = [one for one in host.xfrm.policies if one.direction == "out" and (one.if_id or one.narrow)]
    found = [_layers(policy, policy.dst.partition("/")[0], host) for policy in policies if policy.templates]
    unknown = esp((), mode="tunnel", ipv6=link.kind == "vti6", nat=True)
    return max(found, key=_cost, default=(unknown,))


def _within(address: str, prefix: str) -> bool:
    if address == prefix.partition("/")[0] and prefix.endswith(("/32", "/128")):
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(prefix, strict=False)
    except (ValueError, TypeError):
        return False


def _state_layer(template: XfrmTemplate, remote: str, host: HostTopology) -> Layer:
    """Return the layer of a template's state. If there are several (during rekeying), return the largest."""
    unset = ("", "0.0.0.0", "::")
    far = remote if template.dst in unset else template.dst
    ipv6 = ":" in far
    fitting = [
        state
        for state in host.xfrm.states
        if (state.proto, state.mode, state.dst) == (template.proto, template.mode, far)
        and template.reqid in (0, state.reqid)
        and (template.src in unset or template.src == state.src)
    ]
    # There is no state yet: assume the largest, also with UDP.
    unknown = XfrmState(template.src, far, template.proto, mode=template.mode, encap="espinudp")
    states = fitting or [unknown]
    layers = [_layer_of(state, ipv6=ipv6) for state in states]
    return max(layers, key=lambda layer: layer.wrapped(1280))


def _layer_of(state: XfrmState, *, ipv6: bool) -> Layer:
    if state.proto == "ah":
        return ah(state.icv_bits, mode=state.mode, ipv6=ipv6)
    return esp(state.algorithms, state.icv_bits, mode=state.mode, ipv6=ipv6, nat=bool(state.encap))
