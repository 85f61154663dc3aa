"""Bytes of each layer, checked against the standards' own sums and by counting."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

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
from libvirt_tuner.uplink import budget, encapsulation
from libvirt_tuner.uplink.encapsulation import Layer, largest, wrapped
from libvirt_tuner.uplink.path import trace

GCM = ("rfc4106(gcm(aes))",)
CBC = "cbc(aes)"


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        pytest.param(encapsulation.tunnel("geneve"), 50, id="geneve IPv4"),
        pytest.param(encapsulation.tunnel("geneve", ipv6=True), 70, id="geneve IPv6"),
        pytest.param(encapsulation.tunnel("geneve", extras=(("options", 8),)), 58, id="geneve of OVN"),
        pytest.param(encapsulation.tunnel("vxlan"), 50, id="vxlan IPv4"),
        pytest.param(encapsulation.tunnel("vxlan", ipv6=True), 70, id="vxlan IPv6"),
        pytest.param(encapsulation.tunnel("geneve", ethernet=False), 36, id="geneve of IP packets"),
        pytest.param(encapsulation.vlan(tags=2), 8, id="two tags"),
        pytest.param(encapsulation.esp(GCM, 128), 34, id="AES-GCM, ICV 16"),
        pytest.param(encapsulation.esp(GCM, 96), 30, id="AES-GCM, ICV 12"),
        pytest.param(encapsulation.esp(GCM, 64), 26, id="AES-GCM, ICV 8"),
        pytest.param(encapsulation.esp(("rfc4309(ccm(aes))",), 64), 26, id="AES-CCM, ICV 8"),
        pytest.param(encapsulation.esp(("rfc4543(gcm(aes))",), 128), 34, id="AES-GMAC"),
        pytest.param(encapsulation.esp(("rfc7539esp(chacha20,poly1305)",), 128), 34, id="ChaCha20-Poly1305"),
        pytest.param(encapsulation.esp((CBC, "hmac(sha1)"), 96), 38, id="AES-CBC, SHA-1"),
        pytest.param(encapsulation.esp((CBC, "hmac(sha256)"), 128), 42, id="AES-CBC, SHA-256"),
        pytest.param(
            encapsulation.esp((CBC, "hmac(sha256)"), 96), 38, id="AES-CBC, SHA-256 as old kernels cut it"
        ),
        pytest.param(
            encapsulation.esp((CBC, "hmac(sha384)")), 50, id="AES-CBC, SHA-384, ICV by the algorithm"
        ),
        pytest.param(encapsulation.esp((CBC, "hmac(sha512)"), 256), 58, id="AES-CBC, SHA-512"),
        pytest.param(encapsulation.esp(("ecb(cipher_null)", "hmac(sha1)"), 96), 22, id="no cipher"),
        pytest.param(encapsulation.esp(GCM, 128, nat=True), 42, id="NAT traversal"),
        pytest.param(encapsulation.esp(GCM, 128, mode="tunnel"), 54, id="tunnel mode IPv4"),
        pytest.param(encapsulation.esp(GCM, 128, mode="tunnel", ipv6=True), 74, id="tunnel mode IPv6"),
        pytest.param(encapsulation.ah(96), 24, id="AH IPv4"),
        pytest.param(encapsulation.ah(96, ipv6=True), 24, id="AH IPv6"),
        pytest.param(encapsulation.ah(128, ipv6=True), 32, id="AH IPv6 padded to 8"),
    ],
)
def test_least_bytes_of_a_layer(layer: Layer, size: int) -> None:
    assert layer.least == size
    assert not layer.note


def geneve_over_esp(
    *, ipv6: bool = False, options: int = 0, mode: str = "transport", nat: bool = False
) -> list[Layer]:
    """Innermost first."""
    return [
        encapsulation.tunnel("geneve", ipv6=ipv6, extras=(("options", options),) if options else ()),
        encapsulation.esp(GCM, 128, mode=mode, ipv6=ipv6, nat=nat),
    ]


@pytest.mark.parametrize(
    ("underlay", "layers", "mtu"),
    [
        pytest.param(1500, [], 1500, id="nothing"),
        pytest.param(1500, [encapsulation.tunnel("geneve")], 1450, id="geneve IPv4"),
        pytest.param(1500, geneve_over_esp(), 1416, id="ESP, IPv4, 1500"),
        pytest.param(1500, geneve_over_esp(ipv6=True), 1396, id="ESP, IPv6, 1500"),
        pytest.param(9000, geneve_over_esp(), 8916, id="ESP, IPv4, 9000"),
        pytest.param(9000, geneve_over_esp(ipv6=True), 8896, id="ESP, IPv6, 9000"),
        pytest.param(1500, geneve_over_esp(options=8), 1408, id="ESP, options, 1500"),
        pytest.param(9000, geneve_over_esp(options=8), 8908, id="ESP, options, 9000"),
        pytest.param(1500, geneve_over_esp(mode="tunnel"), 1396, id="ESP tunnel mode, 1500"),
        pytest.param(9000, geneve_over_esp(mode="tunnel"), 8896, id="ESP tunnel mode, 9000"),
        pytest.param(1500, geneve_over_esp(nat=True), 1408, id="ESP with NAT traversal"),
        pytest.param(
            1500,
            [encapsulation.vlan(), encapsulation.tunnel("vxlan"), encapsulation.tunnel("geneve", ipv6=True)],
            1376,
            id="a tag in vxlan in geneve over IPv6",
        ),
    ],
)
def test_largest_mtu(underlay: int, layers: list[Layer], mtu: int) -> None:
    assert largest(underlay, layers) == mtu
    assert wrapped(mtu, layers) <= underlay < wrapped(mtu + 1, layers)


ALGORITHMS = st.sampled_from(
    [
        (GCM, 64),
        (GCM, 128),
        ((CBC, "hmac(sha256)"), 128),
        ((CBC, "hmac(sha512)"), 256),
        (("cbc(des3_ede)", "hmac(md5)"), 96),
        (("nobody-knows(this)",), None),
    ]
)
LAYERS = st.lists(
    st.one_of(
        st.builds(
            encapsulation.tunnel,
            st.sampled_from(["geneve", "vxlan"]),
            ipv6=st.booleans(),
            extras=st.integers(0, 63).map(lambda words: (("options", words * 4),)),
        ),
        st.builds(
            lambda crypto, mode, ipv6, nat: encapsulation.esp(*crypto, mode=mode, ipv6=ipv6, nat=nat),
            ALGORITHMS,
            st.sampled_from(["transport", "tunnel"]),
            st.booleans(),
            st.booleans(),
        ),
        st.builds(encapsulation.vlan),
    ),
    max_size=4,
)


@given(st.integers(1280, 9216), LAYERS)
def test_largest_is_the_last_that_fits(underlay: int, layers: list[Layer]) -> None:
    size = largest(underlay, layers)
    assert wrapped(size, layers) <= underlay
    # The next byte does not fit, or is the first of a new block of padding that does not.
    assert wrapped(size + 1, layers) > underlay


@given(LAYERS, st.integers(0, 9000))
def test_a_layer_never_shrinks_a_packet(layers: list[Layer], size: int) -> None:
    assert wrapped(size, layers) >= size + sum(layer.fixed for layer in layers)


@pytest.mark.parametrize(
    "algorithms",
    [
        pytest.param(("rfc9999(unheard)",), id="AEAD"),
        pytest.param(("cbc(unheard)", "hmac(sha256)"), id="cipher"),
        pytest.param((CBC, "hmac(unheard)"), id="hash"),
        pytest.param((), id="no state yet"),
    ],
)
def test_unknown_algorithm_counts_as_the_largest(algorithms: tuple[str, ...]) -> None:
    layer = encapsulation.esp(algorithms)
    assert "unknown" in layer.note
    known = [encapsulation.esp((CBC, "hmac(sha512)"), 256), encapsulation.esp(GCM, 128)]
    for size in range(1200, 1300):
        assert layer.wrapped(size) >= max(each.wrapped(size) for each in known)


def test_unknown_algorithm_keeps_the_check_value_the_kernel_gives() -> None:
    assert encapsulation.esp(("rfc9999(unheard)",), 64).fixed < encapsulation.esp(("rfc9999(unheard)",)).fixed


# From a path and IPsec states

POLICY = XfrmPolicy(
    "192.168.1.1/32",
    "192.168.1.2/32",
    proto="udp",
    dport=6081,
    templates=(XfrmTemplate("192.168.1.1", "192.168.1.2", reqid=7),),
)
STATE = XfrmState("192.168.1.1", "192.168.1.2", reqid=7, algorithms=GCM, icv_bits=128)
TUNNEL = Link("gnv", "geneve", 1450, tunnel=Tunnel(("192.168.1.2",), port=6081, vni=100))


NONE = Xfrm()


def host(*links: Link, xfrm: Xfrm = NONE) -> HostTopology:
    known = {link.name: link for link in (Link("p0", mtu=1500), *links)}
    routes = {"192.168.1.2": Route("192.168.1.2", "p0", "192.168.1.1"), "fd00::2": Route("fd00::2", "p0")}
    return HostTopology((), (), links=known, routes=routes, xfrm=xfrm)


def size(device: str, on: HostTopology, tags: int = 0) -> int | None:
    return budget.vnic_mtu(trace(device, on), on, tags=tags)[0]


@pytest.mark.parametrize(
    ("xfrm", "mtu"),
    [
        pytest.param(Xfrm(), 1450, id="no IPsec"),
        pytest.param(Xfrm((STATE,)), 1450, id="a state without policy"),
        pytest.param(Xfrm((STATE,), (POLICY,)), 1416, id="transport"),
        pytest.param(Xfrm((STATE,), (evolve(POLICY, direction="in"),)), 1450, id="inbound only"),
        pytest.param(Xfrm((STATE,), (evolve(POLICY, dport=4789),)), 1450, id="another port"),
        pytest.param(Xfrm((STATE,), (evolve(POLICY, proto="tcp"),)), 1450, id="another protocol"),
        pytest.param(Xfrm((STATE,), (evolve(POLICY, dst="10.0.0.0/8"),)), 1450, id="another far end"),
        pytest.param(Xfrm((STATE,), (evolve(POLICY, src="10.0.0.0/8"),)), 1450, id="another source"),
        pytest.param(Xfrm((STATE,), (evolve(POLICY, if_id=41),)), 1450, id="an xfrm interface's"),
        pytest.param(
            Xfrm((STATE,), (evolve(POLICY, src="192.168.0.0/16", dst="0.0.0.0/0"),)), 1416, id="a subnet's"
        ),
        pytest.param(
            Xfrm((STATE,), (POLICY, evolve(POLICY, priority=-1, templates=()))), 1450, id="bypass goes first"
        ),
        pytest.param(Xfrm((evolve(STATE, encap="espinudp"),), (POLICY,)), 1408, id="NAT traversal"),
        pytest.param(Xfrm((STATE, evolve(STATE, icv_bits=64)), (POLICY,)), 1416, id="two states, the larger"),
        pytest.param(Xfrm((evolve(STATE, reqid=8),), (POLICY,)), 1376, id="no state yet: the largest"),
    ],
)
def test_ipsec_from_the_kernels_states(xfrm: Xfrm, mtu: int) -> None:
    assert size("gnv", host(TUNNEL, xfrm=xfrm)) == mtu


@pytest.mark.parametrize(
    ("device", "links", "mtu"),
    [
        pytest.param("p0", [], 1500, id="the NIC itself"),
        pytest.param("br0", [Link("br0", "bridge", lower=("p0",))], 1500, id="a bridge on it"),
        pytest.param("br0", [Link("br0", "bridge", 1400, lower=("p0",))], 1400, id="a bridge with less"),
        pytest.param("v5", [Link("v5", "vlan", lower=("p0",))], 1500, id="a VLAN on the wire costs nothing"),
        pytest.param(
            "tap0",
            [Link("tap0", "tun", 900, lower=("br0",)), Link("br0", "bridge", lower=("p0",))],
            1500,
            id="the vNIC's own tap does not count",
        ),
        pytest.param("g6", [Link("g6", "geneve", 1500, tunnel=Tunnel(("fd00::2",)))], 1430, id="IPv6"),
        pytest.param("gnv", [evolve(TUNNEL, mtu=1300)], 1300, id="a tunnel somebody made smaller"),
        pytest.param(
            "gnv",
            [evolve(TUNNEL, tunnel=Tunnel(("192.168.1.2",), extras=(("options", 12),)))],
            1438,
            id="opts",
        ),
        pytest.param("v5", [TUNNEL, Link("v5", "vlan", 1450, lower=("gnv",))], 1446, id="a VLAN inside it"),
        pytest.param(
            "b0",
            [Link("b0", "bond", 1500, ("p0", "p1"), "p0"), Link("p1", mtu=1400)],
            1400,
            id="a backup with less",
        ),
    ],
)
def test_mtu_of_a_path(device: str, links: list[Link], mtu: int) -> None:
    assert size(device, host(*links)) == mtu


def test_tags_of_the_switch_cost_in_a_tunnel_only() -> None:
    on = host(TUNNEL, Link("br0", "bridge", lower=("p0",)))
    assert (size("gnv", on, tags=1), size("br0", on, tags=1)) == (1446, 1500)


def test_explanation_names_each_layer_with_its_bytes() -> None:
    on = host(TUNNEL, xfrm=Xfrm((STATE,), (POLICY,)))
    text = budget.vnic_mtu(trace("gnv", on), on)[1]
    for part in (
        "p0 carries 1500",
        "ESP transport rfc4106(gcm(aes)) takes 34",
        "gnv takes 50 (IPv4 20, UDP 8, Geneve 8, inner Ethernet 14)",
        "ip link set gnv mtu 1416",
    ):
        assert part in text


def test_no_uplink_no_mtu() -> None:
    on = host(Link("virbr0", "bridge"))
    assert size("virbr0", on) is None


def test_tunnel_without_route_gets_the_safe_number() -> None:
    on = host(evolve(TUNNEL, tunnel=Tunnel(("10.9.9.9",)), mtu=1500))
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1450
    assert "no route to 10.9.9.9" in why
    assert "1500 assumed" in why


def test_route_that_takes_less_than_its_device() -> None:
    on = evolve(host(TUNNEL), routes={"192.168.1.2": Route("192.168.1.2", "p0", mtu=1400)})
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1350
    assert "the route to 192.168.1.2 carries 1400" in why


def test_unreadable_ipsec_counts_as_the_largest_there_is() -> None:
    on = host(TUNNEL, xfrm=Xfrm(problem="needs root"))
    found, why = budget.vnic_mtu(trace("gnv", on), on)
    assert found == 1500 - 50 - (1500 - largest(1500, [encapsulation.esp((), nat=True)]))
    assert "IPsec could not be read: needs root" in why


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", sport=68), 1416, id="for one source port"),
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", narrow=True), 1416, id="for a mark"),
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", block=True), 1416, id="that blocks"),
        pytest.param(XfrmPolicy("0.0.0.0/0", "0.0.0.0/0"), 1450, id="that lets all through"),
    ],
)
def test_policy_that_comes_first(other: XfrmPolicy, expected: int) -> None:
    late = evolve(POLICY, priority=10)
    assert size("gnv", host(TUNNEL, xfrm=Xfrm((STATE,), (other, late)))) == expected


def test_far_ends_unknown_any_policy_of_its_address_may_be_met() -> None:
    told = evolve(TUNNEL, tunnel=Tunnel(local="192.168.1.1", port=6081))
    routes = {"192.168.1.1": Route("192.168.1.1", "p0")}
    on = evolve(host(told, xfrm=Xfrm((STATE,), (POLICY,))), routes=routes)
    assert trace("gnv", on).functions == ("p0",)
    assert size("gnv", on) == 1416


def test_ipsec_by_an_interface_is_counted() -> None:
    ipsec0 = Link("ipsec0", "xfrm", 1500)
    routes = {"192.168.1.2": Route("192.168.1.2", "ipsec0")}
    through = evolve(POLICY, if_id=42)
    known = evolve(host(TUNNEL, ipsec0, xfrm=Xfrm((STATE,), (through,))), routes=routes)
    assert size("gnv", known) == 1416
    unknown = evolve(host(TUNNEL, ipsec0), routes=routes)
    assert size("gnv", unknown) == largest(1500, [encapsulation.esp((), mode="tunnel", nat=True)]) - 50
