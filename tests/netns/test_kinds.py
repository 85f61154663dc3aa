"""Each kind of tunnel that this kernel has: the computed size crosses whole, the next one does not.

``tests/netns/kernel.py`` runs this file in user-mode Linux, which has more kinds than most test machines.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import frozen

from tests.netns.conftest import Namespace, Pair

WHOLE = {"made": 0, "received": 0, "whole": 1}
GCM = f"0x{'11' * 20}"


@frozen
class Case:
    """A kind with its options.

    Attributes:
        kind: As ``ip link add type`` has it.
        size: The largest MTU over a cable of 1500 bytes.
        options: For ``ip link add``; ``{here}`` and ``{there}`` are the outer addresses.
        ipv6: Those are IPv6.
        before: Further words of ip that go first, at each end.
    """

    kind: str
    size: int
    options: str = "local {here} remote {there}"
    ipv6: bool = False
    before: tuple[str, ...] = ()


ENDS = "local {here} remote {there}"
NO_LIMIT = f"{ENDS} encaplimit none"
CASES = {
    "geneve": Case("geneve", 1450, "id 5 remote {there}"),
    "geneve-ipv6": Case("geneve", 1430, "id 5 remote {there}", ipv6=True),
    "geneve-no-ethernet": Case("geneve", 1464, "id 5 remote {there} innerprotoinherit"),
    "vxlan": Case("vxlan", 1450, f"id 5 {ENDS} dstport 4789"),
    "vxlan-ipv6": Case("vxlan", 1430, f"id 5 {ENDS} dstport 4789", ipv6=True),
    "vxlan-gbp": Case("vxlan", 1450, f"id 5 {ENDS} dstport 4789 gbp"),
    "gre": Case("gre", 1476),
    "gre-key": Case("gre", 1472, f"{ENDS} key 5"),
    "gre-key-csum-seq": Case("gre", 1464, f"{ENDS} key 5 csum seq"),
    "gretap": Case("gretap", 1462),
    "gretap-key": Case("gretap", 1458, f"{ENDS} key 5"),
    "ip6gre": Case("ip6gre", 1448, ipv6=True),
    "ip6gre-no-limit": Case("ip6gre", 1456, NO_LIMIT, ipv6=True),
    "ip6gretap": Case("ip6gretap", 1434, ipv6=True),
    "ip6gretap-no-limit": Case("ip6gretap", 1442, NO_LIMIT, ipv6=True),
    "erspan-0": Case("erspan", 1462, f"{ENDS} erspan_ver 0"),
    "erspan-1": Case("erspan", 1450, f"{ENDS} seq key 5 erspan_ver 1 erspan 3"),
    "erspan-2": Case("erspan", 1446, f"{ENDS} seq key 5 erspan_ver 2 erspan_dir ingress erspan_hwid 3"),
    "ip6erspan-1": Case("ip6erspan", 1422, f"{ENDS} seq key 5 erspan_ver 1 erspan 3", ipv6=True),
    "ipip": Case("ipip", 1480),
    "ipip-fou": Case(
        "ipip",
        1472,
        f"{ENDS} encap fou encap-sport auto encap-dport 5555",
        before=("fou add port 5555 ipproto 4",),
    ),
    "ipip-gue": Case(
        "ipip", 1468, f"{ENDS} encap gue encap-sport auto encap-dport 5555", before=("fou add port 5555 gue",)
    ),
    "sit": Case("sit", 1480),
    "ip6tnl": Case("ip6tnl", 1452, f"{ENDS} mode any", ipv6=True),
    "ip6tnl-no-limit": Case("ip6tnl", 1460, f"{NO_LIMIT} mode any", ipv6=True),
}


def outer(number: int, ipv6: bool) -> dict[str, str]:
    """The outer addresses as this end sees them."""
    prefix = "fd77::" if ipv6 else "10.77.0."
    return {"here": f"{prefix}{number}", "there": f"{prefix}{3 - number}"}


def needs(end: Namespace, *words: object) -> None:
    """Run ip; skip the test where the kernel does not have what it asks for."""
    try:
        end.ip(*words)
    except AssertionError as error:
        without_fou = "encap" in words and "Invalid argument" in str(error)
        if without_fou or any(
            text in str(error) for text in ("Unknown device type", "not supported", "No such file", "fou")
        ):
            pytest.skip(f"this kernel cannot: ip {' '.join(map(str, words))}")
        raise


def made(pair: Pair, case: Case) -> None:
    """``t0`` at both ends, with an MTU no smaller than anything sent; 10.88.0.1 and .2."""
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        for words in case.before:
            needs(end, *words.split())
        options = case.options.format(**outer(number, case.ipv6))
        needs(end, "link", "add", "t0", "type", case.kind, *options.split())
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")


def crosses(pair: Pair, size: int, padding: int = 0) -> None:
    """``size`` crosses whole; what is larger by more than the padding does not."""
    pair.warm("send", "10.88.0.2", 100)
    assert WHOLE in (pair.sent(pair.a, "send", "10.88.0.2", size) for _ in range(5))
    result = pair.sent(pair.a, "send", "10.88.0.2", size + 1 + padding)
    assert result["made"] > 0 or result["whole"] == 0


@pytest.mark.parametrize("name", list(CASES))
def test_kind(pair: Pair, name: str) -> None:
    holds(pair, CASES[name])


def holds(pair: Pair, case: Case) -> None:
    """The size computed for a kind is the one that crosses whole."""
    made(pair, case)
    answer = pair.a.ask("plan", "t0")
    assert answer["size"] == case.size, answer
    assert answer["steps"] == ["t0", "cable"]
    crosses(pair, case.size)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        pytest.param("", 1468, id="with SCI"),
        pytest.param("send_sci off end_station on", 1476, id="without SCI"),
    ],
)
def test_macsec(pair: Pair, options: str, size: int) -> None:
    macsec(pair, options, size)


def macsec(pair: Pair, options: str, size: int) -> None:
    """MACsec on the cable, keys by hand."""
    pair.cable(1500)
    for end, far in ((pair.a, pair.b), (pair.b, pair.a)):
        words = f"link add link cable t0 type macsec encrypt on {options}"
        needs(end, *words.split())
        key = "11" * 16
        end.ip(*f"macsec add t0 tx sa 0 pn 1 on key 00 {key}".split())
        end.ip(*f"macsec add t0 rx port 1 address {far.mac('cable')}".split())
        end.ip(*f"macsec add t0 rx port 1 address {far.mac('cable')} sa 0 pn 1 on key 00 {key}".split())
    # The kernel lets no one set more than fits with an SCI.
    for number, end in enumerate((pair.a, pair.b), start=1):
        end.ip("link", "set", "t0", "mtu", 1468 if not options else end.mtu("t0"), "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")
    answer = pair.a.ask("plan", "t0")
    assert answer["steps"] == ["t0", "cable"]
    pair.warm("send", "10.88.0.2", 100)
    own = pair.a.mtu("t0")
    assert answer["size"] == min(size, own)
    assert WHOLE in (pair.sent(pair.a, "send", "10.88.0.2", answer["size"]) for _ in range(5))
    with pytest.raises(AssertionError):
        pair.a.ip("link", "set", "t0", "mtu", size + 1)


@pytest.mark.parametrize(
    ("ipv6", "size"), [pytest.param(False, 1440, id="IPv4"), pytest.param(True, 1420, id="IPv6")]
)
def test_wireguard(
    pair: Pair, ipv6: bool, size: int, wireguard_keys: Callable[[], tuple[str, str, str]]
) -> None:
    wireguard(pair, ipv6, size, (wireguard_keys(), wireguard_keys()))


Keys = tuple[str, str, str]


def wireguard(pair: Pair, ipv6: bool, size: int, keys: tuple[Keys, Keys]) -> None:
    """WireGuard between the outer addresses."""
    pair.cable(1500)
    for number, (end, mine, theirs) in enumerate(
        ((pair.a, keys[0], keys[1]), (pair.b, keys[1], keys[0])), start=1
    ):
        needs(end, "link", "add", "t0", "type", "wireguard")
        far = outer(number, ipv6)["there"]
        far = f"[{far}]" if ipv6 else far
        setup = f"set t0 listen-port 51820 private-key {mine[2]} peer {theirs[1]} endpoint {far}:51820"
        end.execute("wg", *setup.split(), "allowed-ips", "0.0.0.0/0")
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")
    answer = pair.a.ask("plan", "t0")
    assert answer["size"] == size, answer
    assert answer["steps"] == ["t0", "cable"]
    crosses(pair, size)


AEAD = ("aead", "rfc4106(gcm(aes))", GCM, "128")
CBC = ("enc", "cbc(aes)", f"0x{'11' * 16}")


def auth(name: str, bits: int, key: int) -> tuple[str, ...]:
    """A check value of so many bits, with a key of so many bytes."""
    return ("auth-trunc", f"hmac({name})", f"0x{'22' * key}", str(bits))


def ipsec(pair: Pair, ipv6: bool, mode: str, *crypto: str, proto: str = "esp") -> None:
    """IPsec for all that the two outer addresses exchange."""
    one, two = outer(1, ipv6)["here"], outer(1, ipv6)["there"]
    for end, way in ((pair.a, "out"), (pair.b, "in")):
        for src, dst, spi in ((one, two, 1), (two, one, 2)):
            state = f"xfrm state add src {src} dst {dst} proto {proto} spi {spi} reqid 7 mode {mode}"
            needs(end, *state.split(), *crypto)
            out = (src == one) == (way == "out")
            policy = (
                f"xfrm policy add src {src} dst {dst} dir {'out' if out else 'in'} tmpl src {src} dst {dst}"
            )
            end.ip(*policy.split(), *f"proto {proto} reqid 7 mode {mode}".split())


@pytest.mark.parametrize("kind", ["geneve", "vxlan"])
@pytest.mark.parametrize(
    ("ipv6", "mode", "size"),
    [
        pytest.param(False, "transport", 1416, id="IPv4 transport"),
        pytest.param(True, "transport", 1396, id="IPv6 transport"),
        pytest.param(False, "tunnel", 1396, id="IPv4 tunnel"),
        pytest.param(True, "tunnel", 1356, id="IPv6 tunnel"),
    ],
)
def test_over_esp(pair: Pair, kind: str, ipv6: bool, mode: str, size: int) -> None:
    over_ipsec(pair, CASES[f"{kind}-ipv6" if ipv6 else kind], size, ipv6, mode, *AEAD, padding=3)


def over_ipsec(
    pair: Pair,
    case: Case,
    size: int,
    ipv6: bool,
    mode: str,
    *crypto: str,
    proto: str = "esp",
    padding: int = 0,
) -> None:
    """The size computed for a tunnel over IPsec is the one that crosses whole."""
    made(pair, case)
    ipsec(pair, ipv6, mode, *crypto, proto=proto)
    answer = pair.a.ask("plan", "t0", "0", "xfrm")
    assert answer["size"] == size, answer
    crosses(pair, size, padding=padding)


@pytest.mark.parametrize(
    ("crypto", "size", "padding"),
    [
        # The packet less its IP header, plus a trailer of 2, fills whole blocks of 16.
        pytest.param((*CBC, *auth("sha256", 128, 32)), 1408, 15, id="AES-CBC and SHA-256"),
        pytest.param((*CBC, *auth("sha1", 96, 20)), 1408, 15, id="AES-CBC and SHA-1"),
        pytest.param(("aead", "rfc4106(gcm(aes))", GCM, "64"), 1424, 3, id="AES-GCM, ICV of 8 bytes"),
        pytest.param((*("enc", "ecb(cipher_null)", ""), *auth("sha256", 128, 32)), 1424, 3, id="no cipher"),
    ],
)
def test_crypto_of_esp(pair: Pair, crypto: tuple[str, ...], size: int, padding: int) -> None:
    over_ipsec(pair, CASES["vxlan"], size, False, "transport", *crypto, padding=padding)


@pytest.mark.parametrize(
    ("ipv6", "crypto", "size"),
    [
        pytest.param(False, auth("sha1", 96, 20), 1426, id="IPv4 SHA-1"),
        pytest.param(False, auth("sha256", 128, 32), 1418, id="IPv4 SHA-256, padded to 8"),
        pytest.param(True, auth("sha256", 128, 32), 1398, id="IPv6 SHA-256"),
    ],
)
def test_over_ah(pair: Pair, ipv6: bool, crypto: tuple[str, ...], size: int) -> None:
    case = CASES["vxlan-ipv6" if ipv6 else "vxlan"]
    over_ipsec(pair, case, size, ipv6, "transport", *crypto, proto="ah")


def test_bareudp(pair: Pair) -> None:
    """Where it sends to is told packet by packet: the outer header counts as IPv6, and is IPv4 here."""
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        needs(end, *["link", "add", "t0", "type", "bareudp", "dstport", "6635", "ethertype", "ipv4"])
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/32", "dev", "t0")
        far = outer(number, False)["there"]
        route = f"route add 10.88.0.{3 - number}/32 encap ip id 0 dst {far} dev t0 src 10.88.0.{number}"
        needs(end, *route.split())
    answer = pair.a.ask("plan", "t0")
    assert answer["size"] == 1500 - 48, answer
    assert "IPv6 assumed" in answer["why"]
    crosses(pair, 1472)


def test_l2tp(pair: Pair) -> None:
    """ip says nothing of a session: it counts as the largest there is."""
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        ends = outer(number, False)
        words = "l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 encap udp udp_sport 1701 udp_dport 1701"
        needs(end, *words.split(), *f"local {ends['here']} remote {ends['there']}".split())
        words = "l2tp add session name t0 tunnel_id 1 session_id 1 peer_session_id 1"
        end.ip(*words.split(), *f"cookie {'ab' * 8} peer_cookie {'ab' * 8}".split())
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")
    answer = pair.a.ask("plan", "t0")
    # IPv4 20 (taken for IPv6), UDP 8, flags 4, session 4, cookie 8, sublayer 4, Ethernet 14.
    assert answer["size"] == 1438 - 20, answer
    crosses(pair, 1438)


def test_label_of_a_route(pair: Pair) -> None:
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        far = 3 - number
        end.ip("addr", "add", f"10.66.{number}.1/32", "dev", "lo")
        hop = f"via 10.77.0.{far} src 10.66.{number}.1"
        needs(end, *f"route add 10.66.{far}.1 encap mpls 100 {hop}".split())
        end.execute("sysctl", "-q", "-w", "net.mpls.platform_labels=1000", "net.mpls.conf.cable.input=1")
        end.ip("-f", "mpls", "route", "add", "100", "dev", "lo")
        words = f"link add t0 type vxlan id 5 local 10.66.{number}.1 remote 10.66.{far}.1 dstport 4789"
        end.ip(*words.split())
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")
    answer = pair.a.ask("plan", "t0")
    assert answer["size"] == 1446, answer
    crosses(pair, 1446)


def test_underlay_in_a_vrf(pair: Pair) -> None:
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        needs(end, "link", "add", "blue", "type", "vrf", "table", 10)
        end.ip("link", "set", "blue", "up")
        end.ip("link", "set", "cable", "master", "blue")
        words = f"link add t0 type vxlan id 5 dev blue local 10.77.0.{number} remote 10.77.0.{3 - number}"
        end.ip(*words.split(), "dstport", 4789)
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")
    answer = pair.a.ask("plan", "t0")
    assert answer["steps"] == ["t0", "cable"], answer
    assert answer["size"] == 1450
    crosses(pair, 1450)


def test_next_hops_share_the_packets_and_the_least_counts(pair: Pair) -> None:
    pair.cable(1500)
    a = pair.a
    a.ip("link", "add", "second", "type", "veth", "peer", "name", "elsewhere")
    a.ip("link", "set", "second", "mtu", 1400, "up")
    a.ip("link", "set", "elsewhere", "up")
    a.ip("addr", "add", "10.78.0.1/24", "dev", "second")
    a.ip(*["route", "add", "10.66.2.1", "nexthop", "via", "10.77.0.2", "nexthop", "via", "10.78.0.2"])
    a.ip(*["link", "add", "t0", "type", "vxlan", "id", "5", "remote", "10.66.2.1", "dstport", "4789"])
    assert a.ask("plan", "t0")["size"] == 1350


def test_far_ends_of_the_forwarding_database(pair: Pair) -> None:
    pair.cable(1500)
    for number, end in enumerate((pair.a, pair.b), start=1):
        end.ip("addr", "add", f"10.66.{number}.1/32", "dev", "lo")
        far = 3 - number
        end.ip(*f"route add 10.66.{far}.1 via 10.77.0.{far} src 10.66.{number}.1 mtu 1470".split())
        end.ip(*f"link add t0 type vxlan id 5 local 10.66.{number}.1 dstport 4789".split())
        end.ip("link", "set", "t0", "mtu", 9000, "up")
        flood = f"bridge fdb append 00:00:00:00:00:00 dev t0 dst 10.66.{far}.1"
        end.execute(*flood.split())
        end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "t0")
    answer = pair.a.ask("plan", "t0")
    assert answer["steps"] == ["t0", "cable"], answer
    assert answer["size"] == 1420
    crosses(pair, 1420)
