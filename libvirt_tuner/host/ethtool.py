"""Parses the output of ``ethtool``."""

from __future__ import annotations

from attrs import frozen


@frozen
class Feature:
    """One line of ``ethtool -k``; ``requested``: somebody asked for the other value."""

    on: bool
    fixed: bool = False
    requested: bool = False


@frozen
class Pause:
    """Flow control as ``ethtool -a`` says it."""

    rx: bool
    tx: bool


def parse_features(text: str) -> dict[str, Feature]:
    """``tx-gso-partial: off [fixed]``, as ``ethtool -k`` prints them."""
    found = {}
    for entry in text.splitlines():
        name, colon, rest = entry.strip().partition(":")
        words = rest.split()
        if colon and words and words[0] in ("on", "off"):
            found[name] = Feature(words[0] == "on", fixed="[fixed]" in rest, requested="[requested" in rest)
    return found


_HASHED = {"L2DA": "m", "VLAN tag": "v", "L3 proto": "t", "IP SA": "s", "IP DA": "d"}


def parse_flow_hash(text: str) -> str:
    """The fields that a card hashes, as ``ethtool -N`` spells them, from what ``ethtool -n`` prints."""
    lines = [entry.strip() for entry in text.splitlines()]
    found = [letter for line, letter in _HASHED.items() if line in lines]
    found += ["f"] * any(line.startswith("L4 bytes 0 & 1") for line in lines)
    found += ["n"] * any(line.startswith("L4 bytes 2 & 3") for line in lines)
    return "".join(found)


def parse_pause(text: str) -> Pause:
    """``RX: on`` and ``TX: off``, as ``ethtool -a`` prints them. Negotiated values are preferred."""
    said = {}
    for entry in text.splitlines():
        name, _, value = entry.partition(":")
        said[name.strip().lower()] = value.strip() == "on"
    return Pause(
        rx=said.get("rx negotiated", said.get("rx", False)),
        tx=said.get("tx negotiated", said.get("tx", False)),
    )
