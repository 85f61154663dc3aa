"""What ``ip -json`` and ``bridge -json`` print, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import iproute, links
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import Route

ANYWHERE = Sysfs("/")
FAR = "10.0.0.2"
GET = f"ip -json route get {FAR}"
MATCH = f"ip -json route get fibmatch {FAR}"
HOP = {"dst": FAR, "gateway": "10.9.0.1", "dev": "p0", "prefsrc": "10.0.0.1"}
ECMP = {
    "dst": "10.0.0.0/24",
    "nexthops": [{"gateway": "10.9.0.1", "dev": "p0"}, {"gateway": "10.9.1.1", "dev": "p1"}],
}

SEGMENTS = ["fd00::1", "fd00::2", "fd00::3", "fd00::4"]


class Programs:
    """Prints what it is told; anything else fails as ip does."""

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, sysfs: Sysfs, argv: Sequence[str]) -> str:
        command = " ".join(argv)
        self.asked.append(command)
        if command not in self.answers:
            raise HostError("RTNETLINK answers: Network is unreachable", where=command)
        answer = self.answers[command]
        return answer if isinstance(answer, str) else json.dumps(answer)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([{}, {"a": 1}, {}], [{"a": 1}], id="empty ones of an old ip"),
    ],
)
def test_objects(answer: object, found: list[object]) -> None:
    assert iproute.objects(ANYWHERE, Programs({"ip -json link": answer}), "link") == found


ODD: tuple[object, ...] = (None, True, -1, 1.5, "x", [], ["x"], [1], {}, {"x": 1}, [{}])
"""A value of each type that JSON has."""


def respelled(value: object) -> Iterator[object]:
    """The value with one part of it, at any depth, of another type."""
    yield from ODD
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: other} for other in respelled(part))
    if isinstance(value, list):
        for at, part in enumerate(value):
            yield from ([*value[:at], other, *value[at + 1 :]] for other in respelled(part))


ROUTE = [{"dst": FAR, "dev": "p0", "gateway": "10.9.0.1", "metrics": [{"mtu": 1400}], "encap": "mpls"}]


@pytest.mark.parametrize(("said", "wholly"), [(GET, ROUTE), (MATCH, [{**ECMP, "metrics": [{"mtu": 1400}]}])])
def test_a_route_of_other_types_is_an_error_of_the_host(said: str, wholly: object) -> None:
    for answer in respelled(wholly):
        with suppress(HostError):
            iproute.route(ANYWHERE, Programs({GET: ROUTE, said: answer}), FAR)


EVERYTHING = {
    "id": 7,
    "vni": 7,
    "remote": FAR,
    "remote6": "any",
    "local": "10.0.0.1",
    "port": 6081,
    "link": "p0",
    "external": False,
    "erspan_ver": 1,
    "okey": 1,
    "ocsum": True,
    "oseq": True,
    "inc_sci": True,
    "icv_len": 16,
    "encap": {"type": "gue", "remcsum": True},
    "inner_proto_inherit": True,
}


@pytest.mark.parametrize(
    "kind", ["geneve", "vxlan", "gretap", "ip6erspan", "ip6tnl", "macsec", "veth", "team", "dummy"]
)
def test_a_device_of_other_types_is_a_problem_of_the_link(tmp_path: Path, kind: str) -> None:
    (tmp_path / "sys/class/net/t").mkdir(parents=True)
    wholly = [{"ifname": "t", "link": "p0", "linkinfo": {"info_kind": kind, "info_data": EVERYTHING}}]
    for answer in respelled(wholly):
        says = Programs({"ip -json -details link show dev t": answer, GET: ROUTE})
        assert set(links.links(Sysfs(str(tmp_path)), ["t"], says)) == {"t"}


@pytest.mark.parametrize("answer", ["{", "\x00", "[1", '{"a": 1}x', "[1, 2]"])
def test_an_answer_that_is_no_json_is_an_error_of_the_host(answer: str) -> None:
    with pytest.raises(HostError):
        iproute.objects(ANYWHERE, Programs({"ip -json link": answer}), "link")


def test_the_first_and_none() -> None:
    told = Programs({"ip -json link": [{"a": 1}, {"a": 2}], "ip -json addr": []})
    assert iproute.first(ANYWHERE, told, "link") == {"a": 1}
    with pytest.raises(MissingError):
        iproute.first(ANYWHERE, told, "addr")


def test_a_device_is_asked_for_with_details() -> None:
    told = Programs({"ip -json -details link show dev t0": [{"ifname": "t0"}]})
    assert iproute.link(ANYWHERE, told, "t0") == {"ifname": "t0"}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param({}, "", id="none"),
        pytest.param({"remote": "any"}, "", id="any"),
        pytest.param({"remote": "0.0.0.0", "remote6": "::"}, "", id="unspecified"),
        pytest.param({"remote": "any", "remote6": "fd00::2"}, "fd00::2", id="the first that is set"),
    ],
)
def test_address(data: Mapping[str, object], found: str) -> None:
    assert iproute.address(data, "remote", "remote6") == found


def test_device_of_an_address() -> None:
    told = Programs({"ip -json addr show to 10.0.0.1": [{}, {"ifname": "lo"}]})
    assert iproute.device_of(ANYWHERE, told, "10.0.0.1") == "lo"
    with pytest.raises(MissingError):
        iproute.device_of(ANYWHERE, Programs({"ip -json addr show to 10.0.0.1": []}), "10.0.0.1")


@pytest.mark.parametrize(
    ("answers", "route"),
    [
        pytest.param({GET: [{"dst": FAR, "dev": "p0"}]}, Route(FAR, "p0"), id="on the link"),
        pytest.param({GET: [{"dst": FAR, "type": "unreachable"}]}, None, id="no device"),
        pytest.param(
            {GET: [{"type": "local", "dst": FAR, "dev": "lo"}]}, None, id="an address of the host itself"
        ),
        pytest.param({GET: [{"dst": FAR, "dev": 7}]}, None, id="a device that is no name"),
        pytest.param(
            {GET: [HOP], MATCH: [ECMP]}, Route(FAR, "p0", "10.0.0.1", others=("p1",)), id="every next hop"
        ),
        pytest.param({GET: [HOP]}, Route(FAR, "p0", "10.0.0.1"), id="the table's entry cannot be read"),
        pytest.param(
            {GET: [{**HOP, "metrics": [{"mtu": 1400}]}], MATCH: [{"metrics": [{"mtu": 1300}]}]},
            Route(FAR, "p0", "10.0.0.1", mtu=1300),
            id="the smaller MTU of the two",
        ),
        pytest.param(
            {GET: [{**HOP, "metrics": [{"mtu": 1400}]}], MATCH: [ECMP]},
            Route(FAR, "p0", "10.0.0.1", mtu=1400, others=("p1",)),
            id="a learnt MTU",
        ),
        pytest.param(
            {GET: [{"dst": "100/200", "dev": "p0", "encap": "mpls"}]},
            Route(FAR, "p0", labels=2),
            id="two labels",
        ),
        pytest.param(
            {GET: [{"dst": FAR, "dev": "p0", "encap": {"encap_type": "mpls", "dst": "100/200"}}]},
            Route(FAR, "p0", labels=2),
            id="two labels, as ip 6.15 prints them",
        ),
        pytest.param(
            {GET: [{"dst": FAR, "dev": "p0", "encap": {"encap_type": "seg6", "segs": SEGMENTS}}]},
            Route(FAR, "p0", encap="seg6", encap_bytes=112),
            id="segments, as ip 6.15 prints them",
        ),
        pytest.param(
            {GET: [{"dst": FAR, "dev": "vx", "encap": "ip", "id": 5}]},
            Route(FAR, "vx"),
            id="the device adds it",
        ),
        pytest.param(
            {GET: [{"dst": FAR, "dev": "p0", "encap": "seg6"}]},
            Route(FAR, "p0", encap="seg6"),
            id="segments that are not shown",
        ),
        pytest.param(
            {GET: [{"dst": FAR, "dev": "p0", "encap": "seg6", "mode": "encap", "segs": SEGMENTS}]},
            Route(FAR, "p0", encap="seg6", encap_bytes=40 + 8 + 64),
            id="four segments",
        ),
        pytest.param(
            {
                GET: [HOP],
                MATCH: [{"nexthops": [{"dev": "p0"}, {"dev": "p1", "encap": "mpls", "dst": "7/8"}]}],
            },
            Route(FAR, "p0", "10.0.0.1", others=("p1",), labels=2),
            id="labels of another next hop",
        ),
    ],
)
def test_route(answers: Mapping[str, object], route: Route | None) -> None:
    assert iproute.route(ANYWHERE, Programs(answers), FAR) == route


def test_a_route_in_a_vrf_is_asked_for_there() -> None:
    told = Programs({f"{GET} vrf blue": [HOP], f"{MATCH} vrf blue": [ECMP]})
    found = iproute.route(ANYWHERE, told, FAR, "blue")
    assert found is not None
    assert found.others == ("p1",)
    assert told.asked == [f"{GET} vrf blue", f"{MATCH} vrf blue"]


def test_no_route_is_an_error() -> None:
    with pytest.raises(HostError, match="unreachable"):
        iproute.route(ANYWHERE, Programs({}), FAR)


def test_far_ends_in_order_and_once() -> None:
    entries = [{"dst": "10.0.0.3"}, {"mac": "x"}, {"dst": FAR}, {"dst": "10.0.0.3"}, {"dst": "0.0.0.0"}]
    told = Programs({"bridge -json fdb show dev vx0": entries})
    assert iproute.far_ends(ANYWHERE, told, "vx0") == ("10.0.0.3", FAR)
