"""Bytes of each layer, checked against the standards' own sums and by counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.uplink import encapsulation
from libvirt_tuner.uplink.encapsulation import Layer, largest, wrapped

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
        pytest.param(encapsulation.ah(128), 32, id="AH IPv4 padded to 8, as the kernel does it"),
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


def test_the_largest_encapsulation_of_several_routes_counts() -> None:
    layer = encapsulation.of_routes({("seg6", 112), ("seg6", 64), ("ioam6", 0)})
    assert (layer.fixed, layer.note) == (112, "bytes of ioam6 are unknown; 100 assumed")
    assert encapsulation.of_routes({("seg6", 64), ("ioam6", 0)}).fixed == 100
