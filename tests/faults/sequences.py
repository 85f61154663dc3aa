"""All sequences of up to three events, and each again with SIGKILL at an operation of one of them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from itertools import product

from libvirt_tuner.errors import TunerError
from libvirt_tuner.hostside import changes, holding
from libvirt_tuner.hostside.ledger import Ledger
from tests.faults.campaign import WRONGS, Table, Trial, twice
from tests.faults.inject import KILL_BEFORE, Shim, shimmed
from tests.faults.scene import DOMAINS, Event, Scene


def _start(scene: Scene, number: int) -> None:
    if DOMAINS[number] not in scene.running():
        scene.start(DOMAINS[number])


def _stop(scene: Scene, number: int) -> None:
    scene.end(DOMAINS[number])
    scene.hook(DOMAINS[number], "release")


def _call(operation: str) -> Callable[[Scene, int], None]:
    def call(scene: Scene, number: int) -> None:
        scene.hook(DOMAINS[number], operation)

    return call


def _upkeep(scene: Scene, _: int) -> None:
    holding.sweep(scene.host.sysfs)
    list(holding.give_all_again(scene.host.sysfs))


def _undo(scene: Scene, _: int) -> None:
    with Ledger(scene.host.sysfs).locked() as book:
        changes.give_back_all(scene.host.sysfs, book)


STEPS: dict[str, tuple[Callable[[Scene, int], None], int]] = {
    **{f"start {domain.name}": (_start, number) for number, domain in enumerate(DOMAINS[:2])},
    **{f"stop {domain.name}": (_stop, number) for number, domain in enumerate(DOMAINS[:2])},
    "crash of a": (lambda scene, number: scene.end(DOMAINS[number]), 0),
    "reconnect a": (_call("reconnect"), 0),
    "restore a": (_call("restore"), 0),
    "migrate b": (_call("migrate"), 1),
    "upkeep": (_upkeep, 0),
    "undo --all": (_undo, 0),
}
KILLS = {1: 40, 2: 8, 3: 1}
"""SIGKILL at so many operations of each step, by the length of the sequence."""


class Sequences:
    """Runs them on one scene; arguments as for :class:`tests.faults.campaign.Campaign`."""

    def __init__(self, scene: Scene, *, chance: float = 1.0, seed: int = 1) -> None:
        self.table = Table("sequences of")
        self._scene = scene
        self._chance = chance
        self._random = random.Random(seed)
        scene.keep()

    def run(self) -> Table:
        """All of them."""
        for length in KILLS:
            for names in product(STEPS, repeat=length):
                if self._chance >= 1 or self._random.random() < self._chance:
                    self._one(names)
        return self.table

    def _one(self, names: tuple[str, ...]) -> None:
        counts: list[int] = []
        self._note(names, "", self._wrongs(names, counts=counts))
        for killed, count in enumerate(counts):
            for _ in range(min(count, KILLS[len(names)])):
                at = self._random.randrange(count)
                self._note(names, f"{killed}", self._wrongs(names, killed=killed, at=at))

    def _note(self, names: tuple[str, ...], killed: str, wrongs: Iterator[str]) -> None:
        event = _event(len(names), killed=bool(killed))
        self.table.note(Trial(event, f"{', '.join(names)} ({killed})", {}), wrongs)

    def _wrongs(
        self,
        names: tuple[str, ...],
        *,
        killed: int | None = None,
        at: int = 0,
        counts: list[int] | None = None,
    ) -> Iterator[str]:
        """What is wrong after one of the steps, or at the end.

        Args:
            names: Of the steps.
            killed: The step that is killed.
            at: The operation of it, from 0.
            counts: Gets the number of operations of each step.
        """
        self._scene.reset()
        for number, name in enumerate(names):
            step, which = STEPS[name]
            if number == killed:
                self._killed(step, which, at)
            else:
                with shimmed(Shim()) as shim:
                    step(self._scene, which)
                if counts is not None:
                    counts.append(len(shim.seen))
            if twice(self._scene):
                yield WRONGS[1]
        yield from after(self._scene)

    def _killed(self, step: Callable[[Scene, int], None], which: int, at: int) -> None:
        """The step, in a process that is killed at one of its operations."""
        child = os.fork()
        if not child:
            with shimmed(Shim({at: KILL_BEFORE})):
                step(self._scene, which)
            os._exit(0)
        os.waitpid(child, 0)


def after(scene: Scene) -> Iterator[str]:
    """The daemon looks after those that run, all end: nothing remains."""
    for _, became in holding.give_all_again(scene.host.sysfs):
        if isinstance(became, TunerError):
            yield WRONGS[0]
    if twice(scene):
        yield WRONGS[1]
    for domain in DOMAINS:
        scene.end(domain)
        scene.hook(domain, "release")
    if scene.values() != scene.before or scene.host.book.changes:
        yield WRONGS[2]


def _event(length: int, *, killed: bool) -> Event:
    name = f"{length} event{'s' if length > 1 else ''}{', one of them killed' if killed else ''}"
    return Event(name, lambda *_: None, lambda *_: (0, b""))
