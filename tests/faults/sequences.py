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
KILLS_PER_STEP = 8
"""SIGKILL at so many operations of each step, evenly over it, another each time."""


class Sequences:
    """Runs them on one scene; arguments as for :class:`tests.faults.campaign.Campaign`."""

    def __init__(self, scene: Scene, *, chance: float = 1.0, seed: int = 1) -> None:
        self.table = Table()
        self._scene = scene
        self._chance = chance
        self._random = random.Random(seed)
        scene.keep()

    def run(self) -> Table:
        """All of them."""
        for length in (1, 2, 3):
            for names in product(STEPS, repeat=length):
                if self._chance >= 1 or self._random.random() < self._chance:
                    self._one(names)
        return self.table

    def _one(self, names: tuple[str, ...]) -> None:
        for killed in (None, *range(len(names))):
            trial = Trial(_event(names), str(killed), (), KILL_BEFORE)
            self.table.note(trial, self._wrongs(names, killed))

    def _wrongs(self, names: tuple[str, ...], killed: int | None) -> Iterator[str]:
        self._scene.reset()
        for number, name in enumerate(names):
            step, which = STEPS[name]
            if number == killed:
                self._killed(step, which)
            else:
                step(self._scene, which)
            if twice(self._scene):
                yield WRONGS[1]
        yield from after(self._scene)

    def _killed(self, step: Callable[[Scene, int], None], which: int) -> None:
        """The step, in a process that is killed at one of its operations."""
        at = self._random.randrange(600)
        child = os.fork()
        if not child:
            with shimmed(Shim(at, KILL_BEFORE)):
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


def _event(names: tuple[str, ...]) -> Event:
    return Event(f"{len(names)} event{'s' if len(names) > 1 else ''}", lambda *_: None, lambda *_: (0, b""))
