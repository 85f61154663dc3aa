"""ip's text about IPsec, read without ever holding a key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import xfrm
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import Xfrm, XfrmPolicy, XfrmState, XfrmTemplate

KEY = "0x6b6579206d617465726961" + "00" * 8

POLICY = """\
src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 6081 uid 0
\tdir out action allow index 1 priority 100 ptype main share any flag  (0x00000000)
\tlifetime config:
\t  limit: soft (INF)(bytes), hard (INF)(bytes)
\ttmpl src 10.0.0.1 dst 10.0.0.2
\t\tproto esp spi 0x00000000(0) reqid 10001(0x00002711) mode transport
\t\tlevel required share any
\t\tenc-mask ffffffff auth-mask ffffffff comp-mask ffffffff
src fd00::/64 dst fd01::/64 uid 0
\tdir out action allow index 9 priority 7 ptype main share any flag  (0x00000000)
\tif_id 0x29
\ttmpl src :: dst fd01::1
\t\tproto esp spi 0x00000000(0) reqid 1(0x00000001) mode tunnel
\ttmpl src :: dst fd01::1
\t\tproto ah spi 0x00000000(0) reqid 2(0x00000002) mode transport
src 0.0.0.0/0 dst 0.0.0.0/0 uid 0
\tsocket in action allow index 27 priority 0 ptype main share any flag  (0x00000000)
"""


def state(*lines: str) -> str:
    head = ["src 10.0.0.1 dst 10.0.0.2", "\tproto esp spi 0x00000001(1) reqid 7(0x00000007) mode transport"]
    return "\n".join([*head, *(f"\t{line}" for line in lines), "\tsel src 10.0.0.1/32 dst 10.0.0.2/32 uid 0"])


def read(states: str, policies: str = POLICY) -> Xfrm:
    answers = {xfrm.XFRM_STATE: states, xfrm.XFRM_POLICY: policies}
    return xfrm.xfrm(Sysfs("/"), lambda _, argv: answers[tuple(argv)])


def expected(**more: object) -> XfrmState:
    return XfrmState("10.0.0.1", "10.0.0.2", reqid=7, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(
            state("aead rfc4106(gcm(aes)) <<Keys hidden>> 128"),
            expected(algorithms=("rfc4106(gcm(aes))",), icv_bits=128),
            id="AEAD",
        ),
        pytest.param(
            state(f"aead rfc4106(gcm(aes)) {KEY} (160 bits) 96"),
            expected(algorithms=("rfc4106(gcm(aes))",), icv_bits=96),
            id="AEAD with its key, as an old ip prints",
        ),
        pytest.param(
            state("auth-trunc hmac(sha256) <<Keys hidden>> 128", "enc cbc(aes) <<Keys hidden>>"),
            expected(algorithms=("cbc(aes)", "hmac(sha256)"), icv_bits=128),
            id="cipher and hash",
        ),
        pytest.param(
            state(f"auth hmac(sha1) {KEY} (160 bits)", f"enc cbc(aes) {KEY} (128 bits)"),
            expected(algorithms=("cbc(aes)", "hmac(sha1)")),
            id="hash without truncation",
        ),
        pytest.param(
            state("encap type espinudp sport 4500 dport 4500 addr 0.0.0.0"),
            expected(encap="espinudp"),
            id="NAT traversal",
        ),
        pytest.param(
            state("crypto offload parameters: dev p0 dir out mode packet"),
            expected(offload="p0", direction="out"),
            id="offload, whose mode is not the state's",
        ),
    ],
)
def test_state(text: str, found: XfrmState) -> None:
    assert read(text).states == (found,)


def test_several_states_are_told_apart() -> None:
    one, other = state(), state().replace("10.0.0.1", "fd00::1").replace("10.0.0.2", "fd00::2")
    assert [found.src for found in read(f"{one}\n{other}").states] == ["10.0.0.1", "fd00::1"]


def test_no_key_is_held() -> None:
    text = state(
        f"aead rfc4106(gcm(aes)) {KEY} (160 bits) 128", f"auth hmac(sha1) {KEY}", f"enc cbc(aes) {KEY}"
    )
    assert KEY[2:] not in repr(read(text))


def test_ip_is_asked_to_leave_the_keys_out() -> None:
    assert xfrm.XFRM_STATE[-1] == "nokeys"


def test_policies() -> None:
    transport, through_interface = read("").policies
    assert transport == XfrmPolicy(
        "10.0.0.1/32",
        "10.0.0.2/32",
        proto="udp",
        dport=6081,
        priority=100,
        templates=(XfrmTemplate("10.0.0.1", "10.0.0.2", reqid=10001),),
    )
    assert (through_interface.if_id, through_interface.priority) == (0x29, 7)
    modes = [(template.proto, template.mode) for template in through_interface.templates]
    assert modes == [("esp", "tunnel"), ("ah", "transport")]


@pytest.mark.parametrize(
    ("head", "more", "changes"),
    [
        pytest.param("sport 68", "", {"sport": 68}, id="source port"),
        pytest.param("dev eth0", "", {"narrow": True}, id="device"),
        pytest.param("", "\n\tmark 0x1/0xffffffff", {"narrow": True}, id="mark"),
        pytest.param("", " action block", {"block": True}, id="block"),
    ],
)
def test_selector(head: str, more: str, changes: dict[str, object]) -> None:
    text = f"src 0.0.0.0/0 dst 0.0.0.0/0 proto udp {head}\n\tdir out{more} priority 0\n"
    text = text if "mark" not in more else text.replace(" priority 0", "")
    (found,) = xfrm.xfrm(Sysfs(), lambda _sysfs, argv: text if "policy" in argv else "").policies
    assert found == XfrmPolicy("0.0.0.0/0", "0.0.0.0/0", proto="udp", **changes)  # type: ignore[arg-type]


def test_without_policies_the_states_are_not_asked_for() -> None:
    asked: list[Sequence[str]] = []

    def run(_: Sysfs, argv: Sequence[str]) -> str:
        asked.append(tuple(argv))
        return ""

    assert xfrm.xfrm(Sysfs("/"), run) == Xfrm()
    assert asked == [xfrm.XFRM_POLICY]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        pytest.param(HostError("Operation not permitted"), "Operation not permitted", id="no root"),
        pytest.param(MissingError("gone"), "the program ip is missing", id="no ip"),
    ],
)
def test_what_cannot_be_read_is_said(error: HostError, problem: str) -> None:
    def run(_: Sysfs, __: Sequence[str]) -> str:
        raise error

    assert xfrm.xfrm(Sysfs("/"), run) == Xfrm(problem=problem)


def test_captured_host_without_an_answer_has_no_ipsec(tmp_path: Path) -> None:
    assert xfrm.xfrm(Sysfs(str(tmp_path))) == Xfrm()
