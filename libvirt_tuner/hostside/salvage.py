"""What can be saved of a damaged ledger: its copy, else record by record, and claims from what runs.

A claim that is lost may give a CPU to two domains; a prior value that is lost cannot be put back. So both are
looked for wherever they may be, and what remains lost is said. Only loaded when there is damage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import evolve

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
"""Bytes of one record; what is longer is no record."""


def recovered(sysfs: Sysfs, directory: int, book: Book, reason: str) -> Book:
    """Fill an empty book with what can be saved.

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
        how = f"{len(book.changes)} prior values could be saved from it"
        book.lost = (
            f"{DIRECTORY}/{FILE} was damaged: interrupts, MTUs and queue masks that could not be saved from"
            f" it stay as they are until the host restarts; see {DIRECTORY}/{DAMAGED}; 'libvirt-tuner undo"
            " --all' gives back the others"
        )
    _claim_running(sysfs, book)
    for key, entry in book.changes.items():
        holders = tuple(uuid for uuid in entry.holders if uuid in book.claims)
        book.changes[key] = evolve(entry, holders=holders)
    book.trouble = f"{DIRECTORY}/{FILE}: damaged ({reason}); {how}; it is kept as {DAMAGED}"
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
    """Whatever in the data is a whole record, by its key."""
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
    """A record that could be written to the host: half a number is no number."""
    from libvirt_tuner.hostside.changes import KINDS

    entry = ledger.entry_in(item)
    kind = KINDS[entry.kind]
    kind.path(entry.target)
    for value in (entry.prior, entry.wanted, *entry.earlier):
        kind.spelled(value)
    return entry.key, entry


def _claim_running(sysfs: Sysfs, book: Book) -> None:
    """A claim for each domain that runs and has none: on the CPUs that libvirt has pinned it to."""
    for name in libvirt_files.running(sysfs):
        try:
            claim = _running(sysfs, name)
        except TunerError:
            continue  # it has ended meanwhile, or is told of by whoever needs its files
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
