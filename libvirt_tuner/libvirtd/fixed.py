"""Domains that ``diagnose --fix`` changed through libvirt: settings before and after, and how to undo it.

The hook must not call libvirt, so these are not in the ledger, which the hook undoes when a domain stops.
They are in a file next to it. As the ledger, it is for root alone (a definition may have passwords) and is
lost at a reboot. ``libvirt-tuner revert`` still reverts a definition then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import asdict, evolve, field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import ConnectionFailed, HostError, LedgerError, MissingError, TunerError
from libvirt_tuner.host import cpus, processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, reverted
from libvirt_tuner.hostside.changes import Change, Outcome
from libvirt_tuner.hostside.ledger import DIRECTORY, LOCK_TIMEOUT, Ledger
from libvirt_tuner.hostside.libvirt_files import process_id

if TYPE_CHECKING:
    # "undo" works where libvirt-python is missing.
    from libvirt_tuner.libvirtd.connection import Connection, Domain

FILE = "fixed.json"
State = Mapping[tuple[str, str], str]
"""Settings of a domain by kind and target, in the order in which they are restored: ``definition``,
``vcpupin`` and the vCPU, ``emulatorpin``, ``iothreadpin`` and the iothread, ``numatune``, ``thread`` (a vhost
worker)."""


@frozen
class Setting:
    """One setting that a fix changed; ``after`` is None if the fix was killed before that was noted."""

    kind: str
    target: str
    before: str
    after: str | None = None


@frozen
class Fixed:
    """What one fix changed.

    Attributes:
        uuid, name: The domain's.
        command: The fix.
        process: QEMU's process and its start; "" if it did not run. Pins end with the process.
        settings: What it changed.
    """

    uuid: str
    name: str
    command: str
    process: str = ""
    settings: tuple[Setting, ...] = field(default=())


@contextmanager
def noted(conn: Connection, sysfs: Sysfs, domain: Domain, command: str) -> Iterator[None]:
    """Note a domain's settings before and after the block, which runs a fix.

    Raises:
        ConnectionFailed: The settings cannot be read.
        LedgerError: They cannot be noted. The block was not run then.
    """
    before = _state(conn, sysfs, domain)
    settings = tuple(Setting(*key, value) for key, value in before.items())
    note = Fixed(domain.uuid, domain.name, command, _process(sysfs, domain), settings)
    _replace(sysfs, lambda notes: [*notes, note])
    try:
        yield
    finally:
        after = _state(conn, sysfs, domain)
        changed = tuple(
            evolve(each, after=after[each.kind, each.target])
            for each in settings
            if after.get((each.kind, each.target), each.before) != each.before
        )
        now = [evolve(note, settings=changed)] if changed else []
        _replace(sysfs, lambda notes: [each for each in notes if each != note] + now)


def undo(
    conn: Callable[[], Connection], sysfs: Sysfs, names: Collection[str] | None
) -> tuple[tuple[Outcome, ...], frozenset[str]]:
    """Restore what fixes changed, the newest first. Settings that another program changed since then stay.

    A restored definition is left alone by the hook and the service, as after ``revert``.

    Args:
        conn: Opens libvirt; called if there is anything to undo.
        sysfs: The host.
        names: Domains by name or UUID; None for all.

    Returns:
        The outcomes, and the names and UUIDs of the domains that a fix had changed.

    Raises:
        LedgerError: The notes cannot be read or written.
    """
    chosen = [each for each in read(sysfs) if names is None or {each.uuid, each.name} & set(names)]
    outcomes: list[Outcome] = []
    for note in reversed(chosen):
        found = list(_undone(conn(), sysfs, note))
        outcomes += found
        failed = {(each.change.kind, each.change.target) for each in found if not each.ok}
        rest = tuple(each for each in note.settings if (each.kind, _target(note, each)) in failed)
        kept = [evolve(note, settings=rest)] if rest else []

        def without(notes: list[Fixed], note: Fixed = note, kept: list[Fixed] = kept) -> list[Fixed]:
            return [each for other in notes for each in (kept if other == note else [other])]

        _replace(sysfs, without)
    return tuple(outcomes), frozenset(name for each in chosen for name in (each.uuid, each.name))


def read(sysfs: Sysfs) -> list[Fixed]:
    """The notes, the oldest first.

    Raises:
        LedgerError: They cannot be read.
    """
    if not sysfs.exists(f"{DIRECTORY}/{FILE}"):
        return []
    with Ledger(sysfs).alone("fixed", LOCK_TIMEOUT):
        return _read(sysfs)


def _read(sysfs: Sysfs) -> list[Fixed]:
    path = f"{DIRECTORY}/{FILE}"
    try:
        data = json.loads(sysfs.read_or(path, "") or "[]")
        return [
            Fixed(**{**each, "settings": tuple(Setting(**setting) for setting in each["settings"])})
            for each in data
        ]
    except (ValueError, TypeError, KeyError) as err:
        raise LedgerError(f"cannot be read: {err}", where=path, advice=f"remove it: rm {path}") from None


def _replace(sysfs: Sysfs, edit: Callable[[list[Fixed]], list[Fixed]]) -> None:
    ledger = Ledger(sysfs)
    with ledger.alone("fixed", LOCK_TIMEOUT):
        notes = edit(_read(sysfs))
        ledger.write_beside(FILE, json.dumps([asdict(each) for each in notes]) if notes else "")


def _state(conn: Connection, sysfs: Sysfs, domain: Domain) -> State:
    """Read the settings. Those of a running domain are missing if it does not run."""
    definition = conn.definition(domain)
    found = {("definition", ""): definition} if definition is not None else {}
    with suppress(MissingError):
        pid = process_id(sysfs, domain.name, domain.uuid)
        spec = read_spec(document.parse(conn.xml(domain)))
        anywhere = spec.cpuset or _balanced(sysfs)
        pins = {("vcpupin", str(vcpu)): spec.vcpupin.get(vcpu, anywhere) for vcpu in range(spec.vcpus)}
        pins["emulatorpin", ""] = spec.emulatorpin or anywhere
        pins |= {("iothreadpin", str(each)): spec.iothreadpin.get(each, anywhere) for each in spec.iothreads}
        bound = spec.numatune.memory
        everywhere = frozenset(cell.id for cell in cpus.cells(sysfs))
        pins["numatune", ""] = bound.nodes if bound else everywhere
        for tid in processes.threads(sysfs, pid).vhost:
            start = processes.process_start(sysfs, tid)
            pins["thread", f"{tid}@{start}"] = processes.affinity(sysfs, tid)
        found |= {key: cpuset.format(value) for key, value in pins.items()}
    return found


def _process(sysfs: Sysfs, domain: Domain) -> str:
    """A domain's process as :attr:`Fixed.process` has it."""
    try:
        pid = process_id(sysfs, domain.name, domain.uuid)
        return f"{pid}@{processes.process_start(sysfs, pid)}"
    except MissingError:
        return ""


def _balanced(sysfs: Sysfs) -> frozenset[int]:
    """CPUs on which a thread without pins may run."""
    return frozenset[int]().union(*(cell.cpus for cell in cpus.cells(sysfs))) - cpus.isolated(sysfs)


def _target(note: Fixed, setting: Setting) -> str:
    return f"{note.name}/{setting.target}" if setting.target else note.name


def _undone(conn: Connection, sysfs: Sysfs, note: Fixed) -> Iterator[Outcome]:
    try:
        domain = conn.lookup(note.uuid)
        now = _state(conn, sysfs, domain)
    except ConnectionFailed as err:
        gone = err.kind == "missing"
        for each in note.settings:
            change = Change(each.kind, _target(note, each), f"as before '{note.command}'")
            error = None if gone else HostError(str(err))
            yield Outcome(change, ok=gone, error=error, note="gone" if gone else "")
        return
    same = _process(sysfs, domain) == note.process
    for each in note.settings:
        found = now.get((each.kind, each.target)) if same or each.kind == "definition" else None
        if found is not None and found != each.before:
            yield _restored(conn, sysfs, domain, note, each, found)


def _restored(
    conn: Connection, sysfs: Sysfs, domain: Domain, note: Fixed, setting: Setting, found: str
) -> Outcome:
    shown = setting.before if setting.kind != "definition" else f"as before '{note.command}'"
    change = Change(setting.kind, _target(note, setting), shown)
    if found != (setting.after or found):
        kept = "kept" if setting.kind == "definition" else f"kept {found}"
        return Outcome(change, note=f"{kept}, which another program wrote")
    try:
        _set(conn, sysfs, domain, setting, found)
    except TunerError as err:
        error = err if isinstance(err, HostError) else HostError(str(err))
        return Outcome(change, ok=False, error=error)
    left = f"left alone until 'libvirt-tuner apply {note.name}'" if setting.kind == "definition" else ""
    return Outcome(change, note=left)


def _set(conn: Connection, sysfs: Sysfs, domain: Domain, setting: Setting, found: str) -> None:
    if setting.kind == "definition":
        # Before the change, which the service hears of at once.
        reverted.remember(sysfs, domain.uuid)
        if not conn.redefine(domain, before=found, after=setting.before):
            raise HostError("another program changed it at the same time", where=domain.name)
        return
    wanted = cpuset.parse(setting.before)
    if setting.kind == "vcpupin":
        conn.pin_vcpu(domain, int(setting.target), wanted)
    elif setting.kind == "emulatorpin":
        conn.pin_emulator(domain, wanted)
    elif setting.kind == "iothreadpin":
        conn.pin_iothread(domain, int(setting.target), wanted)
    elif setting.kind == "numatune":
        conn.set_nodeset(domain, wanted)
    else:
        changes.thread_affinity(int(setting.target.partition("@")[0]), wanted)
