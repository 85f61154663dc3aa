"""The steps of each kind of testbed, word for word, and their inverses."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.errors import TunerError
from libvirt_tuner.testbed.config import Config, checked
from libvirt_tuner.testbed.steps import Plan, Port, plan

ABLE = {"esp-hw-offload": "on", "esp-tx-csum-hw-offload": "on"}
HERE = "src 192.168.1.1 dst 192.168.1.2 proto esp"
BACK = "src 192.168.1.2 dst 192.168.1.1 proto esp"
OUT = "src 192.168.1.1/32 dst 192.168.1.2/32 proto udp dport 6081 dir"
IN = "src 192.168.1.2/32 dst 192.168.1.1/32 proto udp dport 6081 dir"
HOW = "mode transport replay-window 256 flag esn aead rfc4106(gcm(aes))"

STATES = [
    f"ip xfrm state add {HERE} spi 300001 reqid 10001 {HOW} <key server-to-client> 128",
    f"ip xfrm state add {BACK} spi 400001 reqid 20001 {HOW} <key client-to-server> 128",
]
POLICIES = [
    f"ip xfrm policy add {OUT} out tmpl {HERE} reqid 10001 mode transport",
    f"ip xfrm policy add {IN} in tmpl {BACK} reqid 20001 mode transport",
    f"ip xfrm policy add {IN} fwd tmpl {BACK} reqid 20001 mode transport",
]
NO_IPSEC = [
    f"ip xfrm policy delete {IN} fwd",
    f"ip xfrm policy delete {IN} in",
    f"ip xfrm policy delete {OUT} out",
    f"ip xfrm state delete {BACK} spi 400001",
    f"ip xfrm state delete {HERE} spi 300001",
]
NOOP = "tc qdisc replace dev {0} root pfifo; tc qdisc delete dev {0} root"
WITH_DEVICE = "(goes with its device)"


def made(config: Config, *ports: Port) -> Plan:
    return plan(checked(config), ports)


def offloaded(device: str) -> list[str]:
    ways = ("out", "in")
    return [f"{state} offload dev {device} dir {way}" for state, way in zip(STATES, ways, strict=True)]


BOND = Config("server", devices=("p0", "p1"))
ALONE = Config("server", devices=("p0",), bond="none", crypto="none")
UP = Port("p0", up=True)

CASES = [
    pytest.param(
        evolve(BOND, mtu=9000),
        (Port("p0", virgin=True, features=ABLE), Port("p1", mtu=1400, up=True, features=ABLE)),
        [
            "modprobe bonding max_bonds=0; ip link add name bond0 type bond mode active-backup miimon 100",
            "ip link set dev bond0 mtu 9000",
            "ip link set dev p0 down; ip link set dev p0 master bond0",
            "ip link set dev p1 down; ip link set dev p1 master bond0",
            "ip link set dev bond0 up",
            "ip address replace 192.168.1.1/24 dev bond0",
            *offloaded("bond0"),
            *POLICIES,
            "ip link add name geneve0 type geneve id 100 remote 192.168.1.2 dstport 6081",
            "ip link set dev geneve0 mtu 8916",
            "ip link set dev geneve0 up",
        ],
        [
            WITH_DEVICE,
            WITH_DEVICE,
            "ip link delete dev geneve0",
            *NO_IPSEC,
            "ip address delete 192.168.1.1/24 dev bond0",
            WITH_DEVICE,
            "ip link set dev p1 nomaster; ip link set dev p1 mtu 1400; ip link set dev p1 up",
            "ip link set dev p0 nomaster; ip link set dev p0 mtu 1500; ip link set dev p0 down; "
            + NOOP.format("p0"),
            WITH_DEVICE,
            "ip link delete dev bond0",
        ],
        id="the seed's: bond, geneve, crypto offload, jumbo frames",
    ),
    pytest.param(
        ALONE,
        (Port("p0", mtu=1400, virgin=True),),
        [
            "ip link set dev p0 mtu 1400",
            "ip link set dev p0 up",
            "ip address replace 192.168.1.1/24 dev p0",
            "ip link add name geneve0 type geneve id 100 remote 192.168.1.2 dstport 6081",
            "ip link set dev geneve0 mtu 1350",
            "ip link set dev geneve0 up",
        ],
        [
            WITH_DEVICE,
            WITH_DEVICE,
            "ip link delete dev geneve0",
            "ip address delete 192.168.1.1/24 dev p0",
            "ip link set dev p0 down; " + NOOP.format("p0"),
            "ip link set dev p0 mtu 1400",
        ],
        id="one device, no bond, no IPsec",
    ),
    pytest.param(
        evolve(ALONE, tunnel="vxlan", name="vx0", server="fd00::1/64", client="fd00::2/64", role="client"),
        (Port("p0", up=True, addresses=("fd00::2/64",)),),
        [
            "ip link set dev p0 mtu 1500",
            "ip link set dev p0 up",
            "ip address replace fd00::2/64 dev p0 nodad",
            "ip link add name vx0 type vxlan id 100 remote fd00::1 dstport 4789 local fd00::2",
            "ip link set dev vx0 mtu 1430",
            "ip link set dev vx0 up",
        ],
        [
            WITH_DEVICE,
            WITH_DEVICE,
            "ip link delete dev vx0",
            WITH_DEVICE,
            WITH_DEVICE,
            "ip link set dev p0 mtu 1500",
        ],
        id="vxlan over IPv6 on a device that was up and had the address",
    ),
]


@pytest.mark.parametrize(("config", "ports", "steps", "inverses"), CASES)
def test_steps(config: Config, ports: tuple[Port, ...], steps: list[str], inverses: list[str]) -> None:
    found = made(config, *ports)
    assert [str(step) for step in found.steps] == steps
    assert [step.reverse() for step in reversed(found.steps)] == inverses


@pytest.mark.parametrize(("config", "ports", "steps", "inverses"), CASES)
def test_steps_are_told_apart(
    config: Config, ports: tuple[Port, ...], steps: list[str], inverses: list[str]
) -> None:
    ids = [step.id for step in made(config, *ports).steps]
    assert len(set(ids)) == len(ids)


def test_both_ends_agree() -> None:
    ports = (Port("p0"), Port("p1"))
    server, client = (made(evolve(BOND, role=role), *ports) for role in ("server", "client"))
    states = [sorted(str(step) for step in end.steps if step.kind == "state") for end in (server, client)]
    assert states[0] == states[1] == sorted(STATES)
    ways = [step.target for step in client.steps if step.kind == "policy"]
    assert ways == ["out", "in", "fwd"]
    assert f"{IN} out tmpl {BACK} reqid 20001" in str(
        next(step for step in client.steps if step.kind == "policy")
    )


@pytest.mark.parametrize(
    ("config", "underlay", "inner"),
    [
        pytest.param(evolve(BOND, crypto="none"), 1500, 1450, id="geneve, IPv4"),
        pytest.param(evolve(BOND, crypto="kernel"), 1500, 1416, id="geneve over ESP, IPv4"),
        pytest.param(evolve(BOND, crypto="kernel"), 9000, 8916, id="geneve over ESP, jumbo frames"),
        pytest.param(
            evolve(BOND, crypto="kernel", server="fd00::1/64", client="fd00::2/64"),
            1500,
            1396,
            id="geneve over ESP, IPv6",
        ),
        pytest.param(evolve(BOND, crypto="kernel", tunnel="vxlan"), 1500, 1416, id="vxlan over ESP, IPv4"),
    ],
)
def test_mtu(config: Config, underlay: int, inner: int) -> None:
    found = made(config, Port("p0", mtu=underlay), Port("p1", mtu=9216))
    assert (found.underlay, found.inner) == (underlay, inner)
    assert found.why.startswith(f"{inner}: bond0 carries {underlay}, ")


@pytest.mark.parametrize(
    ("asked", "features", "offload"),
    [
        pytest.param("auto", ABLE, True, id="auto, offered"),
        pytest.param("auto", {}, False, id="auto, unknown"),
        pytest.param("auto", {"esp-hw-offload": "fixed"}, False, id="auto, not offered"),
        pytest.param("kernel", ABLE, False, id="kernel although offered"),
        pytest.param("offload", ABLE, True, id="offload, offered"),
    ],
)
def test_who_encrypts(asked: str, features: dict[str, str], offload: bool) -> None:
    found = made(evolve(BOND, crypto=asked), *(Port(name, features=features) for name in ("p0", "p1")))
    assert found.offload is offload
    assert any("offload dev" in str(step) for step in found.steps) is offload


def test_feature_that_is_off_is_switched_on_and_off_again() -> None:
    port = Port("p0", features={"esp-hw-offload": "off", "esp-tx-csum-hw-offload": "fixed"})
    first, *rest = made(Config("server", devices=("p0",)), port).steps
    assert str(first) == "ethtool -K p0 esp-hw-offload on"
    assert first.reverse() == "ethtool -K p0 esp-hw-offload off"
    assert rest[0].kind == "link"


def test_one_port_of_two_without_offload() -> None:
    ports = (Port("p0", features=ABLE), Port("p1"))
    assert made(BOND, *ports).crypto == "kernel: p1 does not offer esp-hw-offload"
    with pytest.raises(TunerError, match="p1: does not offer esp-hw-offload"):
        made(evolve(BOND, crypto="offload"), *ports)


@pytest.mark.parametrize(
    ("config", "mtu"),
    [
        pytest.param(BOND, 150, id="less than a packet"),
        pytest.param(evolve(BOND, server="fd00::1/64", client="fd00::2/64"), 1279, id="less than IPv6 needs"),
    ],
)
def test_no_room(config: Config, mtu: int) -> None:
    with pytest.raises(TunerError, match="no room for a tunnel"):
        made(config, Port("p0", mtu=mtu), Port("p1"))


def test_port_in_use_gets_everything_back() -> None:
    port = Port(
        "p0",
        mtu=1400,
        up=True,
        master="br0",
        addresses=("10.0.0.1/24", "fd00::5/64"),
        routes=("-4 default via 10.0.0.9 metric 7", "-6 default via fe80::1 proto ra"),
    )
    step = next(step for step in made(Config("server", devices=("p0",)), port).steps if step.kind == "port")
    assert str(step) == ("ip link set dev p0 down; ip address flush dev p0; ip link set dev p0 master bond0")
    assert step.reverse().split("; ") == [
        "ip link set dev p0 nomaster",
        "ip link set dev p0 mtu 1400",
        "ip link set dev p0 master br0",
        "ip link set dev p0 up",
        "ip address replace 10.0.0.1/24 dev p0",
        "ip address replace fd00::5/64 dev p0 nodad",
        "ip -4 route replace default via 10.0.0.9 metric 7 dev p0",
        "ip -6 route replace default via fe80::1 proto ra dev p0",
    ]
