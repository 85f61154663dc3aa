"""The list of steps to undo for a testbed, in ``/run/libvirt-tuner/testbed.json``."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from attrs import asdict, define, field

from libvirt_tuner.errors import LedgerError, MissingError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import DIRECTORY
from libvirt_tuner.testbed import config as testbedconfig
from libvirt_tuner.testbed.config import Config
from libvirt_tuner.testbed.steps import Port

JOURNAL = f"{DIRECTORY}/testbed.json"
VERSION = 1


@define
class Journal:
    """The steps to undo.

    Attributes:
        config: The configuration of the testbed.
        ports: The devices as they were before.
        fingerprint: Of the keys; "" without.
        begun: Steps that were made, or were about to be made, by id. The value is the ifindex of a created
            device, or 0.
    """

    config: Config
    ports: tuple[Port, ...]
    fingerprint: str = ""
    begun: dict[str, int] = field(factory=dict)


def save(sysfs: Sysfs, journal: Journal) -> None:
    """Replace the file atomically. Only root can write its directory, which is checked with the lock."""
    document = {
        "version": VERSION,
        "config": testbedconfig.to_data(journal.config),
        "ports": [asdict(port) for port in journal.ports],
        "fingerprint": journal.fingerprint,
        "begun": journal.begun,
    }
    path = sysfs.path(JOURNAL)
    try:
        fd = os.open(
            f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.rename(f"{path}.new", path)
    except OSError as err:
        raise LedgerError(f"cannot write: {err.strerror}", where=JOURNAL, advice="needs root") from None


def load(sysfs: Sysfs) -> Journal | None:
    """Return the journal; None if no testbed is up.

    Raises:
        LedgerError: The file is damaged.
    """
    try:
        data = sysfs.read_bytes(JOURNAL)
    except MissingError:
        return None
    try:
        return _understood(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        raise LedgerError(
            f"damaged ({err!r:.60})",
            where=JOURNAL,
            advice="undo by hand what is there (ip link, ip xfrm), then remove the file",
        ) from None


def forget(sysfs: Sysfs) -> None:
    """Remove the journal, because nothing is left to undo."""
    with suppress(FileNotFoundError):
        os.unlink(sysfs.path(JOURNAL))


def _understood(document: Any) -> Journal:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    return Journal(
        testbedconfig.from_data(document["config"], JOURNAL),
        tuple(
            Port(**{**port, "addresses": tuple(port["addresses"]), "routes": tuple(port["routes"])})
            for port in document["ports"]
        ),
        str(document["fingerprint"]),
        {str(key): int(value) for key, value in document["begun"].items()},
    )
