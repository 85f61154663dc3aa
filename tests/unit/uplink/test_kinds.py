"""The table of tunnels: what a row is made of, what ip's and Open vSwitch's words add."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from libvirt_tuner.uplink import kinds
from libvirt_tuner.uplink.kinds import ADDS_NOTHING, ETHERNET, IPV6, KINDS, ROUTE_BASED, UNKNOWN

GRE_ALL = {"okey": "0.0.0.5", "ocsum": True, "oseq": True}


def test_a_kind_is_in_one_of_the_three_sets() -> None:
    sets = (frozenset(KINDS), ADDS_NOTHING, ROUTE_BASED)
    assert sum(map(len, sets)) == len(frozenset().union(*sets))


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_not_known_counts_more_than_any_row(kind: str) -> None:
    row = KINDS[kind]
    outer = IPV6 if row.outer is None else row.outer
    size = outer + sum(bytes_ for _, bytes_ in row.parts) + ETHERNET * row.ethernet
    assert 0 < size < UNKNOWN


@pytest.mark.parametrize(
    ("kind", "data", "size"),
    [
        pytest.param("vxlan", {"gbp": True}, 0, id="vxlan has no optional parts"),
        pytest.param("gre", {}, 0, id="gre"),
        pytest.param("gre", {"ikey": "0.0.0.5"}, 0, id="a key that is only received"),
        pytest.param("gre", {"okey": "0.0.0.5"}, 4, id="a key"),
        pytest.param("gretap", GRE_ALL, 12, id="key, checksum, sequence number"),
        pytest.param("gretap", {"external": True}, 12, id="told packet by packet: as if it had all"),
        pytest.param("ip6gre", {}, 8, id="the encapsulation limit is on by default"),
        pytest.param("ip6gre", {"ip6_tnl_f_ign_encap_limit": True}, 0, id="and can be off"),
        pytest.param("ip6gretap", {"external": True}, 12, id="none in metadata mode"),
        pytest.param("erspan", {"erspan_ver": 0}, 0, id="ERSPAN 0 is plain GRE"),
        pytest.param("erspan", {}, 12, id="ERSPAN 1 by default"),
        pytest.param("erspan", {"erspan_ver": 2}, 16, id="ERSPAN 2"),
        pytest.param("erspan", {"external": True}, 16, id="ERSPAN told packet by packet"),
        pytest.param("ip6erspan", {"erspan_ver": 2}, 24, id="ERSPAN 2 over IPv6"),
        pytest.param("ipip", {"encap": {"type": "fou"}}, 8, id="fou"),
        pytest.param("sit", {"encap": {"type": "gue"}}, 12, id="gue"),
        pytest.param("ip6tnl", {"encap": {"type": "gue", "remcsum": True}}, 28, id="gue, remote checksum"),
        pytest.param("ipip", {"encap": {"type": "none"}}, 0, id="no encap"),
        pytest.param("macsec", {}, 24, id="MACsec with SCI, as it is by default"),
        pytest.param("macsec", {"inc_sci": False}, 16, id="MACsec without SCI"),
        pytest.param("macsec", {"send_sci": "off", "icv_len": 8}, 8, id="MACsec with a short check value"),
        pytest.param("l2tpeth", {}, 24, id="L2TPv3: ip does not say, so all of it"),
        pytest.param("newtun", {}, 0, id="a kind that is not in the table"),
    ],
)
def test_optional_parts(kind: str, data: Mapping[str, object], size: int) -> None:
    assert sum(bytes_ for _, bytes_ in kinds.extras(kind, data)) == size


@pytest.mark.parametrize(
    ("kind", "options", "ours", "size", "ethernet"),
    [
        pytest.param("geneve", {}, "geneve", 0, None, id="geneve"),
        pytest.param("gre", {}, "gretap", 0, None, id="gre carries Ethernet there"),
        pytest.param("gre", {"packet_type": "legacy_l3", "key": "5"}, "gretap", 4, False, id="without"),
        pytest.param("gre", {"out_key": "flow", "csum": "true", "seq": "true"}, "gretap", 12, None, id="all"),
        pytest.param("ip6gre", {}, "ip6gretap", 0, None, id="no encapsulation limit there"),
        pytest.param("erspan", {"erspan_ver": "1"}, "erspan", 12, None, id="ERSPAN 1"),
        pytest.param("erspan", {}, "erspan", 16, None, id="a version that flows may choose"),
        pytest.param("srv6", {"srv6_segs": "fc00::1,fc00::2"}, "srv6", 32, None, id="SRv6, two segments"),
        pytest.param("srv6", {}, "srv6", 16, None, id="SRv6, at least one"),
        pytest.param("newtun", {}, "newtun", 0, None, id="a kind that is not in the table"),
    ],
)
def test_ports_of_open_vswitch(
    kind: str, options: Mapping[str, str], ours: str, size: int, ethernet: bool | None
) -> None:
    name, parts, bare = kinds.open_vswitch(kind, options)
    assert (name, sum(bytes_ for _, bytes_ in parts), bare) == (ours, size, ethernet)


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        pytest.param({}, 0, id="segments not shown"),
        pytest.param({"segs": "fd00::1"}, 0, id="segments of another form"),
        pytest.param({"mode": "encap", "segs": ["fd00::1"] * 4}, 112, id="four, more than the safe number"),
        pytest.param({"mode": "inline", "segs": ["fd00::1", "::"]}, 40, id="no outer header"),
        pytest.param({"mode": "l2encap", "segs": ["fd00::1"]}, 78, id="with a frame"),
        pytest.param({"mode": "encap.red", "segs": ["fd00::1"], "hmac": "0x1"}, 104, id="with an HMAC"),
    ],
)
def test_segments_of_a_route(facts: Mapping[str, object], size: int) -> None:
    assert kinds.segment_routing(facts) == size
