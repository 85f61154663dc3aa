from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.errors import PolicyError
from libvirt_tuner.testbed.config import Config, checked, differences, from_data, read, to_data

GOOD = Config("server", devices=("p0", "p1"))


def test_empty_file_is_all_defaults() -> None:
    assert read("", "f") == Config()


def test_every_setting() -> None:
    text = """
    [testbed]
    role = "client"
    devices = ["p0"]
    bond = "none"
    tunnel = "vxlan"
    name = "vx0"
    vni = 7
    port = 8472
    crypto = "kernel"
    keys = "/k"
    mtu = 9000
    server = "fd00::1/64"
    client = "fd00::2/64"
    """
    expected = Config(
        "client", ("p0",), "none", "vxlan", "vx0", 7, 8472, "kernel", "/k", 9000, "fd00::1/64", "fd00::2/64"
    )
    assert checked(read(text, "f")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[testbed", "f: not valid TOML", id="no TOML"),
        pytest.param("\n[bed]", "f:2: unknown table: got 'bed', expected [testbed]", id="another table"),
        pytest.param("vni = 1", "f:1: unknown table: got 'vni'", id="outside the table"),
        pytest.param(
            '[testbed]\nroll = "server"', "f:2: unknown key: got 'roll', expected role, devices", id="a key"
        ),
        pytest.param(
            '[testbed]\nrole = "sever"',
            "got 'sever', expected server or client (did you mean server?)",
            id="role",
        ),
        pytest.param('[testbed]\ndevices = "p0"', "expected network devices, each once", id="a string"),
        pytest.param('[testbed]\ndevices = ["p0", "p0"]', "expected network devices, each once", id="twice"),
        pytest.param('[testbed]\ndevices = [["p0"]]', "expected network devices, each once", id="nested"),
        pytest.param('[testbed]\nbond = "a b"', "a network device's name", id="a blank in a name"),
        pytest.param('[testbed]\nbond = "a\\nlink"', "a network device's name", id="a new line in a name"),
        pytest.param('[testbed]\nname = "-x"', "a network device's name", id="an option as name"),
        pytest.param('[testbed]\nname = ".."', "a network device's name", id="a directory as name"),
        pytest.param('[testbed]\nname = "sixteen-letters-"', "at most 15", id="a long name"),
        pytest.param("[testbed]\nvni = 16777216", "a whole number from 0 to 16777215", id="vni"),
        pytest.param("[testbed]\nvni = true", "a whole number", id="true is no number"),
        pytest.param("[testbed]\nmtu = 100", "from 576 to 65535", id="mtu"),
        pytest.param('[testbed]\nkeys = "k"', "an absolute path", id="relative path"),
        pytest.param('[testbed]\nserver = "192.168.1.1"', "an address with prefix length", id="no length"),
        pytest.param('[testbed]\nserver = "fe80::1/64"', "an address with prefix length", id="link-local"),
        pytest.param('[testbed]\nserver = "1.2.3.4/33"', "an address with prefix length", id="length"),
    ],
)
def test_mistakes_in_the_file(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(text, "f")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(evolve(GOOD, role=""), "the role of this host is not set", id="no role"),
        pytest.param(evolve(GOOD, devices=()), "no network device is named", id="no device"),
        pytest.param(evolve(GOOD, bond="none"), "several devices need a bond", id="two without bond"),
        pytest.param(evolve(GOOD, bond="p1"), "the same name twice", id="bond and port of one name"),
        pytest.param(evolve(GOOD, client="fd00::2/64"), "differ in IP version", id="IPv4 and IPv6"),
        pytest.param(evolve(GOOD, client="192.168.1.1/24"), "the same address", id="one address"),
        pytest.param(evolve(GOOD, client="192.168.2.2/24"), "not in one network", id="two networks"),
        pytest.param(
            evolve(GOOD, mtu=1200, server="fd00::1/64", client="fd00::2/64"), "too small for IPv6", id="mtu"
        ),
    ],
)
def test_settings_that_do_not_go_together(config: Config, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        checked(config)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(GOOD, id="defaults"),
        pytest.param(evolve(GOOD, mtu=9000, port=1, role="client"), id="with what is optional"),
    ],
)
def test_there_and_back(config: Config) -> None:
    assert from_data(to_data(config), "f") == config


def test_differences() -> None:
    assert differences(GOOD, GOOD) == ()
    other = evolve(GOOD, mtu=9000, devices=("p0",))
    assert differences(GOOD, other) == ("devices p0, not p0 p1", "mtu 9000, not the default")
