"""A seeded part of ``make faults``: faults that the test itself enumerates, and the host after them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.faults import crowd, life
from tests.faults.campaign import Campaign, Table
from tests.faults.inject import CALLS
from tests.faults.scene import DOMAINS, EVENTS, Scene
from tests.faults.sequences import Sequences
from tests.place import quick_directory

SEED = 20261125


@pytest.fixture
def scene() -> Iterator[Scene]:
    with quick_directory() as root:
        yield Scene(root)


def assert_nothing_wrong(table: Table, *, least: int) -> None:
    assert table.examples == []
    assert sum(table.tried.values()) >= least


def test_a_part_of_all_single_faults(scene: Scene) -> None:
    # Which lines run is seen from fewer, and each costs several times as much while that is measured.
    chance = 0.005 if "coverage" in sys.modules else 0.015
    assert_nothing_wrong(Campaign(scene, chance=chance, seed=SEED).run(), least=int(60_000 * chance))


def test_a_part_of_all_sequences(scene: Scene) -> None:
    assert_nothing_wrong(Sequences(scene, chance=0.02, seed=SEED).run(), least=60)


def test_a_host_is_what_it_was_after_whatever_happens() -> None:
    happened = life.live(events=60 if "coverage" in sys.modules else 250, seed=SEED)
    assert happened["start"] > 5
    assert happened["all given back"]


def test_hypothesis_finds_no_events_that_leave_anything() -> None:
    life.explore(lives=5, events=50)


def test_many_starts_at_once() -> None:
    with quick_directory() as root:
        found = crowd.run(root, count=24, cpus=256, irqs=1024)
    assert (found.refused, found.untuned, found.twice) == (0, 0, 0)


def test_the_shim_sees_what_the_hook_does(scene: Scene) -> None:
    """Were a call missed, its faults would not be tried."""
    campaign = Campaign(scene)
    seen = {operation.call for event in EVENTS for operation in campaign.operations(event, DOMAINS[1])}
    assert seen >= set(CALLS) - {"os.unlink", "os.mkdir", "os.link", "os.stat"}


def test_the_scene_has_something_to_lose(scene: Scene) -> None:
    for domain in DOMAINS:
        scene.start(domain)
    assert len(scene.host.book.changes) > 5
    assert {entry.kind for entry in scene.host.book.changes.values()} == {"irq", "mtu"}
    assert scene.values() != scene.before
    assert sorted(len(claim.vcpus) for claim in scene.host.book.claims.values()) == [1, 1, 1]
