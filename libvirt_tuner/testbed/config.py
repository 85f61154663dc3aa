"""The configuration of a testbed: parses its TOML file and options into a checked value. Pure.

Both hosts use the same file. Only the role differs.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, field, fields, frozen

from libvirt_tuner.config import toml_lines
from libvirt_tuner.config.settings import did_you_mean
from libvirt_tuner.errors import PolicyError

ROLES = ("server", "client")
CRYPTO = ("auto", "offload", "kernel", "none")
TUNNELS = ("geneve", "vxlan")
PORTS = {"geneve": 6081, "vxlan": 4789}
"""UDP ports registered for each (RFC 8926, RFC 7348)."""
NONE = "none"
"""Value for no bond, or no encryption."""

IPV4_LEAST, IPV6_LEAST, LARGEST = 576, 1280, 65535
_VNI_LIMIT = 1 << 24
# Like the kernel's dev_valid_name(), without names that look like an option or several words.
_DEVICE = re.compile(r"(?!-|\.\.?$)[A-Za-z0-9_.-]{1,15}")


@frozen
class Config:
    """One end of a testbed.

    Attributes:
        role: ``server`` or ``client``: selects this host's address, keys and SPI. There is no default,
            because the same role on both hosts would be hard to find.
        devices: Network cards: the bond's ports, or a single device without a bond.
        bond: The bond's name, or ``none``.
        tunnel: ``geneve``, or ``vxlan`` where the kernel lacks it.
        name: The tunnel's device.
        vni: Its network identifier, 24 bits.
        port: Its UDP port; None for the registered one.
        crypto: What encrypts: the card (``offload``), the ``kernel``, ``auto`` (the card if it can), or
            ``none``.
        keys: The file that holds the keys.
        mtu: MTU of the cards and the bond in bytes; None: the smallest MTU of the cards.
        server, client: Outer addresses with prefix length, IPv4 or IPv6.
    """

    role: str = ""
    devices: tuple[str, ...] = ()
    bond: str = "bond0"
    tunnel: str = "geneve"
    name: str = "geneve0"
    vni: int = 100
    port: int | None = None
    crypto: str = "auto"
    keys: str = "/etc/libvirt-tuner-testbed.keys"
    mtu: int | None = None
    server: str = "192.168.1.1/24"
    client: str = "192.168.1.2/24"

    @property
    def local(self) -> str:
        """Our outer address, with prefix length."""
        return self.server if self.role == "server" else self.client

    @property
    def remote(self) -> str:
        """The peer's outer address, without."""
        return (self.client if self.role == "server" else self.server).partition("/")[0]

    @property
    def ipv6(self) -> bool:
        """Whether the outer packets are IPv6."""
        return ":" in self.server

    @property
    def base(self) -> str:
        """The device with the outer address."""
        return self.devices[0] if self.bond == NONE else self.bond

    @property
    def udp_port(self) -> int:
        """The tunnel's UDP port."""
        return self.port or PORTS[self.tunnel]


@frozen
class _Rule:
    """The check of one setting: ``turn`` returns the value, or raises ValueError."""

    expected: str
    turn: Callable[[Any], object]
    allowed: tuple[str, ...] = field(default=())


def _one_of(*words: str) -> _Rule:
    def turn(raw: Any) -> object:
        if raw not in words:
            raise ValueError
        return raw

    return _Rule(" or ".join([", ".join(words[:-1]), words[-1]]), turn, words)


def _number(least: int, most: int) -> _Rule:
    def turn(raw: Any) -> object:
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            raise ValueError
        return raw

    return _Rule(f"a whole number from {least} to {most}", turn)


def _device(raw: Any) -> str:
    if not isinstance(raw, str) or not _DEVICE.fullmatch(raw):
        raise ValueError
    return raw


def _devices(raw: Any) -> object:
    if not isinstance(raw, list | tuple) or not raw or len(set(raw)) < len(raw):
        raise ValueError
    return tuple(_device(name) for name in raw)


def _address(raw: Any) -> object:
    if not isinstance(raw, str) or "/" not in raw or "%" in raw:
        raise ValueError
    found = ipaddress.ip_interface(raw)
    if found.is_multicast or found.is_unspecified or found.is_link_local:
        raise ValueError
    return str(found)


def _file(raw: Any) -> object:
    if not isinstance(raw, str) or not raw.startswith("/") or "\0" in raw:
        raise ValueError
    return raw


_INTERFACE = _Rule("a network device's name, at most 15 characters", _device)
_RULES: Mapping[str, _Rule] = {
    "role": _one_of(*ROLES),
    "devices": _Rule("network devices, each once", _devices),
    "bond": _INTERFACE,
    "tunnel": _one_of(*TUNNELS),
    "name": _INTERFACE,
    "vni": _number(0, _VNI_LIMIT - 1),
    "port": _number(1, 65535),
    "crypto": _one_of(*CRYPTO),
    "keys": _Rule("an absolute path", _file),
    "mtu": _number(IPV4_LEAST, LARGEST),
    "server": _Rule("an address with prefix length, such as 192.168.1.1/24 or fd00::1/64", _address),
    "client": _Rule("an address with prefix length, such as 192.168.1.2/24 or fd00::2/64", _address),
}


def read(text: str, file: str) -> Config:
    """The config file's content.

    Args:
        text: TOML, a table ``[testbed]``.
        file: Its name, for errors.

    Raises:
        PolicyError: The text is not TOML, or has an unknown key or a bad value. The error has the line, the
            value and what is allowed.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(f"not valid TOML: {error}", where=file) from None
    for key, table in document.items():
        if key != "testbed" or not isinstance(table, dict):
            line = toml_lines.line_of(text, (key,))
            raise PolicyError("unknown table", where=f"{file}:{line}", value=key, expected="[testbed]")
    table = document.get("testbed", {})
    return with_values(Config(), table, lambda key: f"{file}:{toml_lines.line_of(text, ('testbed', key))}")


def with_values(config: Config, values: Mapping[str, object], where: Callable[[str], str]) -> Config:
    """Return a config with these settings instead of its own. It is not yet :func:`checked` as a whole.

    Args:
        config: The settings so far.
        values: By the attributes' names.
        where: Function that returns where the value of a name is.

    Raises:
        PolicyError: An unknown name, or a bad value.
    """
    turned = {}
    for key, raw in values.items():
        rule = _RULES.get(key)
        if rule is None:
            raise PolicyError(
                "unknown key",
                where=where(key),
                value=key,
                expected=", ".join(_RULES),
                advice=did_you_mean(key, _RULES),
            )
        try:
            turned[key] = rule.turn(raw)
        except (ValueError, TypeError):
            advice = did_you_mean(str(raw), rule.allowed)
            raise PolicyError(
                f"bad value of {key}", where=where(key), value=raw, expected=rule.expected, advice=advice
            ) from None
    return evolve(config, **turned)  # type: ignore[arg-type]


def checked(config: Config) -> Config:
    """Return the config if its settings are consistent.

    Raises:
        PolicyError: They do not.
    """
    if config.role not in ROLES:
        raise PolicyError(
            "the role of this host is not set", where="role", expected="--role server or --role client"
        )
    if not config.devices:
        raise PolicyError(
            "no network device is named", where="devices", expected='devices = ["eth0", "eth1"] or --device'
        )
    if config.bond == NONE and len(config.devices) > 1:
        raise PolicyError(
            "several devices need a bond",
            where="devices",
            value=", ".join(config.devices),
            expected="one device",
        )
    names = [*config.devices, config.name, *([config.bond] if config.bond != NONE else [])]
    if len(set(names)) < len(names):
        raise PolicyError(
            "the same name twice", where="name", value=", ".join(names), expected="names that differ"
        )
    _check_addresses(config)
    if config.ipv6 and config.mtu is not None and config.mtu < IPV6_LEAST:
        raise PolicyError(
            "too small for IPv6", where="mtu", value=config.mtu, expected=f"{IPV6_LEAST} to {LARGEST}"
        )
    return config


def _check_addresses(config: Config) -> None:
    server, client = ipaddress.ip_interface(config.server), ipaddress.ip_interface(config.client)
    pair = f"{config.server}, {config.client}"
    if server.version != client.version:
        raise PolicyError(
            "server and client differ in IP version",
            where="client",
            value=pair,
            expected="IPv4 or IPv6 for both",
        )
    if server.ip == client.ip:
        raise PolicyError(
            "server and client have the same address", where="client", value=pair, expected="two addresses"
        )
    if client.ip not in server.network or server.ip not in client.network:
        raise PolicyError(
            "server and client are not in one network", where="client", value=pair, expected="one network"
        )


def to_data(config: Config) -> dict[str, object]:
    """Return the config as JSON data. :func:`from_data` is the inverse."""
    data = {attribute.name: getattr(config, attribute.name) for attribute in fields(Config)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


def from_data(data: Mapping[str, object], where: str) -> Config:
    """The config that :func:`to_data` gave.

    Raises:
        PolicyError: The data is not from :func:`to_data`.
    """
    given = {key: value for key, value in data.items() if value is not None}
    return checked(with_values(Config(), given, lambda _: where))


def differences(old: Config, new: Config) -> tuple[str, ...]:
    """Return the differences, as ``mtu 1500, not 9000``: first the wanted value, then the current one."""
    return tuple(
        f"{attribute.name} {_said(getattr(new, attribute.name))}, not {_said(getattr(old, attribute.name))}"
        for attribute in fields(Config)
        if getattr(old, attribute.name) != getattr(new, attribute.name)
    )


def _said(value: object) -> str:
    if value is None:
        return "the default"
    return " ".join(value) if isinstance(value, tuple) else str(value)
