"""Every fault of every operation, and what the host is like after it: the count of what went wrong."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from attrs import field, frozen
from lxml import etree

from libvirt_tuner import settle
from libvirt_tuner.errors import TunerError
from libvirt_tuner.hostside import holding
from libvirt_tuner.hostside.ledger import Claim
from libvirt_tuner.planning import stored
from libvirt_tuner.topology import NO_CPUS, Cpus
from tests import report
from tests.faults.inject import KILL_BEFORE, KILLS, NAMES, SHORT, Operation, Shim, shimmed
from tests.faults.scene import DOMAINS, EVENTS, POSITIONS, Event, Scene
from tests.unit.replay import Domain

WRONGS = (
    "domains that failed to start",
    "CPUs given twice",
    "prior values not restored",
    "stray output",
    "running domains moved",
)


@frozen
class Trial:
    """One fault or two: which event, at which domain, which operations (from 0), and what each does."""

    event: Event
    position: str
    faults: Mapping[int, int]

    @property
    def kills(self) -> bool:
        """Whether the process does not outlive it."""
        return any(fault in KILLS for fault in self.faults.values())

    def __str__(self) -> str:
        said = (f"{_name(fault)} at operation {number}" for number, fault in self.faults.items())
        return f"{self.event.name} of the {self.position} domain: {', '.join(said)}"


def _name(fault: int) -> str:
    return NAMES.get(fault) or ("SIGKILL" if fault in KILLS else os.strerror(fault))


@frozen
class Table:
    """What was tried, and what went wrong."""

    subject: str
    tried: Counter[str] = field(factory=Counter)
    wrong: Counter[str] = field(factory=Counter)
    examples: list[str] = field(factory=list)

    def note(self, trial: Trial, wrongs: Iterable[str]) -> None:
        """Count one trial."""
        self.tried[trial.event.name + (", two at once" if len(trial.faults) > 1 else "")] += 1
        for wrong in wrongs:
            self.wrong[wrong] += 1
            self.examples.append(f"{trial}: {wrong}")

    def __str__(self) -> str:
        rows = {name: f"{count:,}" for name, count in self.tried.items()}
        rows["**all**"] = f"**{sum(self.tried.values()):,}**"
        rows |= {name: str(self.wrong[name]) for name in WRONGS}
        return report.table((self.subject, "tried"), rows)


class Campaign:
    """Trials on one scene.

    Args:
        scene: The host.
        chance: The part of the trials that is made, chosen by ``seed``.
    """

    def __init__(self, scene: Scene, *, chance: float = 1.0, seed: int = 1) -> None:
        self.table = Table("faults during")
        self._scene = scene
        self._chance = chance
        self._random = random.Random(seed)
        self._known: dict[bytes, tuple[str, ...]] = {}

    def run(self, *, pairs: bool = False) -> Table:
        """Every event at every position; ``pairs``: of faults too, for events with few operations."""
        for event in EVENTS:
            for position in event.positions:
                self.one(event, position, pairs=pairs)
        return self.table

    def one(self, event: Event, position: str, *, pairs: bool) -> None:
        """One event at one position."""
        domain = DOMAINS[POSITIONS[position]]
        self._prepare(event, domain)
        for trial in self._trials(event, position, domain, pairs=pairs):
            if self._chance >= 1 or self._random.random() < self._chance:
                self.table.note(trial, self._wrongs(trial, domain))

    def _prepare(self, event: Event, domain: Domain) -> None:
        for each in DOMAINS:
            self._scene.end(each)
        holding.sweep(self._scene.host.sysfs)
        event.prepare(self._scene, domain)
        self._scene.keep()

    def _trials(self, event: Event, position: str, domain: Domain, *, pairs: bool) -> Iterator[Trial]:
        seen = self._operations(event, domain)
        for number, operation in enumerate(seen):
            for fault in (*operation.faults, *KILLS):
                yield Trial(event, position, {number: fault})
        if pairs and len(seen) <= _SHORTEST:
            for first, second in combinations(range(len(seen)), 2):
                faults = (_whole(seen[first]), (*_whole(seen[second]), KILL_BEFORE))
                if all(faults):
                    pair = map(self._random.choice, faults)
                    yield Trial(event, position, dict(zip((first, second), pair, strict=True)))

    def operations(self, event: Event, domain: Domain) -> list[Operation]:
        """What an event does to files, in order."""
        self._prepare(event, domain)
        return self._operations(event, domain)

    def _operations(self, event: Event, domain: Domain) -> list[Operation]:
        self._scene.reset()
        with shimmed(Shim()) as shim:
            event.happen(self._scene, domain)
        return list(shim.seen)

    def _wrongs(self, trial: Trial, domain: Domain) -> Iterator[str]:
        self._scene.reset()
        runs = {it.name for it in self._scene.running()}
        held = self._held(runs)
        status, output = self._happen(trial, domain)
        if status:
            yield WRONGS[0]
        if output and not (trial.event.arrives and _is_document(output)):
            yield WRONGS[3]
        if twice(self._scene):
            yield WRONGS[1]
        if trial.event.name not in _GIVES_UP and not held.items() <= self._held(runs).items():
            yield WRONGS[4]
        # What comes of a state of the host is always the same, and most faults leave one of a few.
        state = self._scene.digest()
        if state not in self._known:
            self._known[state] = tuple(self._after(runs))
        yield from self._known[state]

    def _happen(self, trial: Trial, domain: Domain) -> tuple[int, bytes]:
        """The event with its fault: exit status and output."""
        if not trial.kills:
            try:
                with shimmed(Shim(trial.faults)):
                    return trial.event.happen(self._scene, domain)
            except Exception:
                return 1, b""
        child = os.fork()
        if not child:
            with shimmed(Shim(trial.faults)):
                trial.event.happen(self._scene, domain)
            os._exit(0)
        os.waitpid(child, 0)
        # A killed hook is the killer's doing; what it leaves behind is ours.
        return 0, b""

    def _held(self, names: set[str]) -> dict[str, frozenset[int]]:
        claims = self._scene.host.book.claims.values()
        return {claim.name: claim.vcpus for claim in claims if claim.name in names}

    def _after(self, runs: set[str]) -> Iterator[str]:
        """All others start, the daemon looks after them, all end: nothing remains."""
        sysfs = self._scene.host.sysfs
        for domain in DOMAINS:
            if domain.name not in runs:
                self._scene.start(domain)
            elif domain.uuid not in self._scene.host.book.claims:
                settle.catch_up(sysfs, domain.name, started=True)
        for _, became in holding.give_all_again(sysfs):
            if isinstance(became, TunerError):
                yield WRONGS[0]
        if twice(self._scene):
            yield WRONGS[1]
        if len(self._scene.host.book.claims) < len(DOMAINS):
            yield WRONGS[0]
        for domain in DOMAINS:
            self._scene.end(domain)
        holding.sweep(sysfs)
        if self._scene.values() != self._scene.before:
            yield WRONGS[2]


def twice(scene: Scene, placement: str = "") -> bool:
    """Whether a CPU was given to two domains; of all, or of those with that placement."""
    claims = scene.host.book.claims.values()
    chosen = [claim for claim in claims if not placement or claim.plan.get("placement") == placement]
    cpus = [cpu for claim in chosen for cpu in claim.vcpus - _by_user(claim)]
    return len(cpus) != len(set(cpus))


def _by_user(claim: Claim) -> Cpus:
    """CPUs that its user's pins name."""
    if not claim.plan:
        return NO_CPUS
    placement = stored.from_dict(claim.plan)
    return NO_CPUS.union(*(cpus for vcpu, cpus in placement.vcpus.items() if vcpu not in placement.vcpupin))


_GIVES_UP = ("undo", "undo --all")
"""After these a domain that runs has no claim."""

_SHORTEST = 100
"""Operations of an event up to which pairs of faults are tried."""


def _whole(operation: Operation) -> tuple[int, ...]:
    """Its faults, without half a value in a file of the kernel's, whose place nobody is left to look at.

    The kernel takes what one write(2) brings as a whole (fs/kernfs/file.c).
    """
    kernel = operation.call == "os.write" and not operation.path.startswith("ledger")
    return tuple(fault for fault in operation.faults if not (kernel and fault == SHORT))


def _is_document(output: bytes) -> bool:
    try:
        return etree.fromstring(output).tag == "domain"
    except etree.XMLSyntaxError:
        return False
