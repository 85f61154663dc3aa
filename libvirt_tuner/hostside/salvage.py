"""Recovers a damaged ledger: from its copy, else record by record, and claims from running domains.

A lost claim may give a CPU to two domains, and a lost prior value cannot be restored. So both are searched
everywhere, and losses are reported. Only imported for a damaged ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import HostError, TunerError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import ledger, libvirt_files
from libvirt_tuner.hostside.ledger import COPY, DAMAGE, DAMAGED, DIRECTORY, FILE, Book, Claim, Entry
from libvirt_tuner.topology import NO_CPUS

_CLAIM = re.compile(rb'"([^"\\\n]{1,100})":(?=\{"name":)')
_ENTRY = re.compile(rb'(?=\{"kind":)')
_LONGEST = 1 << 18
"""Largest size of a record in bytes."""


def recovered(sysfs: Sysfs, directory: int, book: Book, reason: str) -> Book:
    """Fill an empty book with the recovered data.

    Args:
        sysfs: The host.
        directory: The ledger's, open.
        book: Empty.
        reason: What is wrong with the ledger.

    Raises:
        LedgerError: A file cannot be read now.
    """
    damaged, copy = _tried(directory, FILE), _tried(directory, COPY)
    try:
        if copy is None:
            raise ValueError
        ledger.fill(book, copy)
        how = "its copy is used"
    except DAMAGE:
        book.claims, book.changes = {}, {}
        for data in filter(None, (copy, damaged)):
            _save_records(book, data)
        how = f"{len(book.changes)} earlier values were recovered"
        book.lost = (
            f"{DIRECTORY}/{FILE} was damaged: some earlier values of interrupts, MTUs and queue masks are"
            f" lost, so these stay changed until the host restarts (see {DIRECTORY}/{DAMAGED});"
            " 'libvirt-tuner undo --all' restores the others"
        )
    _claim_running(sysfs, book)
    for key, entry in book.changes.items():
        holders = tuple(uuid for uuid in entry.holders if uuid in book.claims)
        book.changes[key] = entry._replace(holders=holders)
    book.trouble = f"{DIRECTORY}/{FILE}: damaged ({reason}); {how}; the damaged file is kept as {DAMAGED}"
    return book


def _tried(directory: int, name: str) -> bytes | None:
    try:
        return ledger.contents(directory, name)
    except ValueError:
        return None


def _save_records(book: Book, data: bytes) -> None:
    for uuid, claim in _found(data, _CLAIM, lambda match, item: _claim(match, item)):
        book.claims[uuid] = claim
    for key, entry in _found(data, _ENTRY, lambda _, item: _entry(item)):
        book.changes[key] = entry


def _found(
    data: bytes, pattern: re.Pattern[bytes], read: Callable[[re.Match[bytes], Any], tuple[Any, Any]]
) -> Iterator[tuple[Any, Any]]:
    """Return every complete record in the data, by its key."""
    decoder = json.JSONDecoder()
    for match in pattern.finditer(data):
        end = data.find(b"\n", match.end(), match.end() + _LONGEST)
        text = data[match.end() : end if end >= 0 else match.end() + _LONGEST].decode("utf-8", "replace")
        try:
            yield read(match, decoder.raw_decode(text)[0])
        except (*DAMAGE, HostError):
            continue


def _claim(match: re.Match[bytes], item: dict[str, object]) -> tuple[str, Claim]:
    uuid = match[1].decode()
    return uuid, ledger.claim_in(uuid, item)


def _entry(item: dict[str, object]) -> tuple[tuple[str, str], Entry]:
    """Check that a record has valid values: a truncated number is not valid."""
    from libvirt_tuner.hostside.changes import KINDS

    entry = ledger.entry_in(item)
    kind = KINDS[entry.kind]
    kind.path(entry.target)
    for value in (entry.prior, entry.wanted, *entry.earlier):
        kind.spelled(value)
    return entry.key, entry


def _claim_running(sysfs: Sysfs, book: Book) -> None:
    """Add a claim for each running domain without one, on the CPUs of its live pins."""
    for name in libvirt_files.running(sysfs):
        try:
            claim = _running(sysfs, name)
        except TunerError:
            continue  # it has ended meanwhile, or its files are reported elsewhere
        if claim.uuid not in book.claims:
            book.claims[claim.uuid] = claim


def _running(sysfs: Sysfs, name: str) -> Claim:
    spec = read_spec(document.parse(libvirt_files.live_document(sysfs, name)))
    pid = libvirt_files.process_id(sysfs, name, spec.uuid)
    vcpus = (cpus for vcpu, cpus in spec.vcpupin.items() if vcpu in spec.online)
    pins = (*vcpus, *spec.iothreadpin.values())
    return Claim(
        spec.uuid,
        name,
        pid,
        processes.process_start(sysfs, pid),
        vcpus=NO_CPUS.union(*(cpus for cpus in pins if len(cpus) == 1)),
        emulators=spec.emulatorpin,
    )
