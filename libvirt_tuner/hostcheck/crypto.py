"""Findings about IPsec and its offload. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner.host.ethtool import Feature
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Finding
from libvirt_tuner.topology import Link
from libvirt_tuner.uplink.path import uplinks

ESP_FEATURES = {
    "esp-hw-offload": "the CPU encrypts every packet",
    "esp-tx-csum-hw-offload": "the CPU computes the checksum of every packet that the card encrypts",
    "tx-esp-segmentation": "the CPU segments large packets before encryption",
    "tx-gso-partial": "the CPU segments large packets in a tunnel",
}
"""Features with which an uplink offloads ESP, and the cost without them."""


def esp_features(facts: Facts) -> Iterator[Finding]:
    """Find ESP offloads that an uplink has but does not use, or that a bond does not pass on."""
    if not any(state.proto == "esp" for state in facts.host.xfrm.states):
        return
    nics, bonds = uplinks(facts.host)
    for nic in nics:
        features = facts.features.get(nic.name, {})
        idle = [name for name in ESP_FEATURES if name in features and not features[name].on]
        able = [name for name in idle if not features[name].fixed]
        if able:
            yield _feature(
                nic.name, able, " ".join(["ethtool -K", nic.name, *(f"{name} on" for name in able)])
            )
        elif "esp-hw-offload" in idle:
            yield Finding(
                "esp_features",
                f"{nic.name} has no esp-hw-offload",
                ESP_FEATURES["esp-hw-offload"],
                severity=NOTE,
            )
    for bond in bonds:
        yield from _bond(facts, bond)


def _bond(facts: Facts, bond: Link) -> Iterator[Finding]:
    above = facts.features.get(bond.name)
    slaves = [facts.features[name] for name in bond.lower if name in facts.features]
    if above is None or not slaves:
        return
    lost = [
        name
        for name in ESP_FEATURES
        if all(slave.get(name, Feature(False)).on for slave in slaves)
        and not above.get(name, Feature(False)).on
    ]
    able = [name for name in lost if name in above and not above[name].fixed and not above[name].requested]
    if able:
        yield _feature(bond.name, able, " ".join(["ethtool -K", bond.name, *(f"{name} on" for name in able)]))
    if stuck := [name for name in lost if name not in able]:
        fix = f"use a kernel with {_BOND_COMMITS}"
        if bond.mode not in ("", "active-backup"):
            fix = f"use mode active-backup, not {bond.mode}: bonding passes them on in that mode only"
        yield _feature(bond.name, stuck, fix)


_BOND_COMMITS = (
    "'bonding: add ESP offload features when slaves support' and 'bonding: Correctly support GSO ESP offload'"
)
"""Linux commits with which a bond in mode active-backup passes on features of its slaves."""


def _feature(device: str, names: list[str], fix: str) -> Finding:
    return Finding(
        "esp_features",
        f"{device}: {', '.join(names)} off",
        "; ".join(ESP_FEATURES[name] for name in names),
        fix,
    )


def esp_states(facts: Facts) -> Iterator[Finding]:
    """Find IPsec states without offload although a device offers it."""
    plain = [state for state in facts.host.xfrm.states if state.proto == "esp" and not state.offload]
    if not plain:
        return
    capable = [
        name for name, features in facts.features.items() if features.get("esp-hw-offload", Feature(False)).on
    ]
    ways = ", ".join(f"{state.src} > {state.dst}" for state in plain)
    if capable:
        # The states belong to the bond, which passes them to its active slave.
        bonds = [bond.name for bond in uplinks(facts.host)[1] if {bond.name, *bond.lower} & set(capable)]
        device = (bonds or capable)[0]
        yield Finding(
            "esp_states",
            f"the kernel encrypts ESP in software: {ways}",
            f"the CPU encrypts packets that {device} could encrypt",
            f"add these states again with 'offload dev {device} dir out' or 'dir in' (ip-xfrm(8))",
        )
    else:
        yield Finding(
            "esp_states",
            f"the kernel encrypts ESP in software: {ways}",
            "no network card here offers ESP offload",
            severity=NOTE,
        )
