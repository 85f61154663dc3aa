"""When the host is looked at again, and what comes of it on a replayed host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libvirt_tuner.daemon import upkeep
from libvirt_tuner.daemon.upkeep import AGAIN, LONGEST, QUIET, Pace, Upkeep
from libvirt_tuner.hostside import changes, holding
from libvirt_tuner.hostside.changes import Outcome
from libvirt_tuner.hostside.holding import Given
from libvirt_tuner.planning.plan import IrqMove, Plan
from tests.unit.replay import Domain, Replay

FIRST = range(214, 230)
WEB = Domain("web", 1)


class TestPace:
    def test_no_reason(self) -> None:
        assert Pace().due() is None

    def test_soon_after_one_event(self) -> None:
        pace = Pace()
        pace.notice(100)
        assert pace.due() == 100 + QUIET

    def test_once_it_is_quiet(self) -> None:
        pace = Pace()
        for moment in (100, 100.2, 100.4):
            pace.notice(moment)
        assert pace.due() == pytest.approx(100.4 + QUIET)

    def test_at_last_when_it_is_never_quiet(self) -> None:
        pace = Pace()
        for tenths in range(100):
            pace.notice(100 + tenths / 10)
        assert pace.due() == 100 + LONGEST

    def test_a_few_times_over(self) -> None:
        pace = Pace()
        pace.notice(100)
        pace.done(101, 101)
        for seconds in AGAIN:
            assert pace.due() == 101 + seconds
            pace.done(101 + seconds, 101 + seconds)
        assert pace.due() is None

    def test_an_event_comes_before_the_second_time(self) -> None:
        pace = Pace()
        pace.notice(100)
        pace.done(101, 101)
        pace.notice(102)
        assert pace.due() == 102 + QUIET

    @pytest.mark.parametrize(
        ("took", "rest"),
        [
            pytest.param(0.1, 2.0, id="twenty times as long"),
            pytest.param(5, 10.0, id="no longer than the repeats"),
        ],
    )
    def test_rests_between_events(self, took: float, rest: float) -> None:
        pace = Pace()
        pace.notice(100)
        pace.done(101, 101 + took)
        pace.notice(101 + took)
        assert pace.due() == pytest.approx(101 + took + min(rest, AGAIN[0]))


class Kept:
    """A replayed host with a domain, kept up."""

    def __init__(self, root: Path) -> None:
        self.host = Replay.make(root)
        self.said: list[str] = []
        self.fields: list[dict[str, str]] = []
        self.upkeep = Upkeep(self.host.sysfs, self.say)
        self.host.run(WEB)
        holding.give(self.host.sysfs, holding.read_request(self.host.sysfs, WEB.xml))

    def say(self, _priority: int, text: str, **fields: str) -> None:
        self.fields.append(fields)
        self.said.append(text)

    def scatter(self) -> None:
        for irq in FIRST:
            self.host.scatter(irq, "0-31")

    @property
    def steered(self) -> bool:
        return self.host.on_vcpus(FIRST) == []

    def wait_for(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end, self.said
            time.sleep(0.05)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    made.scatter()
    made.upkeep.start()
    yield made
    made.upkeep.stop()


def test_begins_with_everything_once(kept: Kept) -> None:
    kept.wait_for(lambda: kept.steered)
    kept.wait_for(lambda: kept.said)
    assert kept.said == ["web: 16 interrupts moved to 0,2,4,6,8,10,12,14"]
    assert kept.fields == [{"domain": "web", "uuid": WEB.uuid}]


def test_what_the_kernel_refused_is_not_among_what_was_done() -> None:
    moves = tuple(IrqMove(irq, "p0", frozenset({irq})) for irq in (4, 6))
    plan = Plan("web", irqs=moves)
    done, refused = (Outcome(changes.irq_affinity(move.irq, move.cpus)) for move in moves)
    refused = refused._replace(ok=False)
    assert upkeep._summary(Given(plan, (done, refused))) == "1 interrupts moved to 4"
    assert upkeep._summary(Given(plan, (done._replace(ok=False), refused))) == ""


def test_again_when_told(kept: Kept) -> None:
    kept.wait_for(lambda: kept.steered)
    kept.scatter()
    kept.upkeep.again()
    kept.wait_for(lambda: kept.steered)


def test_what_is_wrong_is_said_once(kept: Kept) -> None:
    kept.wait_for(lambda: kept.steered)
    kept.host.write("/run/libvirt/qemu/web.xml", "<domstatus>")
    for _ in range(3):
        kept.upkeep.again()
        kept.wait_for(lambda: kept.said and "are not changed" in kept.said[-1])
        time.sleep(0.5)
    assert len([line for line in kept.said if "are not changed" in line]) == 1
    assert {"event": "problem", "domain": "web"} in kept.fields


def test_restart_of_irqbalance_is_noticed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libvirt_tuner.daemon.upkeep.LOOK", 0.1)
    kept.wait_for(lambda: kept.steered)
    kept.upkeep.again()
    time.sleep(1)
    kept.scatter()
    # A leftover nobody listens on: enough to be looked at.
    kept.host.write("/run/irqbalance/irqbalance77.sock", "")
    kept.wait_for(lambda: kept.steered)


def test_stopping_does_not_wait_for_the_next_look(tmp_path: Path) -> None:
    upkeep = Kept(tmp_path).upkeep
    upkeep.start()
    time.sleep(0.1)
    began = time.monotonic()
    upkeep.stop()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param(["too slow", ""], 0, id="once: in the middle of a pass"),
        pytest.param(["too slow", "too slow"], 1, id="twice"),
        pytest.param(["too slow", "too slow", "too slow"], 1, id="no more often than once"),
    ],
)
def test_irqbalance_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str], said: int
) -> None:
    monkeypatch.setattr("libvirt_tuner.daemon.upkeep.AGAIN", (0.05, 0.1))
    left = list(answers)

    def tell(_sysfs: object) -> tuple[str, ...]:
        return tuple(filter(None, [left.pop(0) if left else ""]))

    monkeypatch.setattr(holding, "tell_irqbalance", tell)
    kept = Kept(tmp_path)
    kept.upkeep.start()
    kept.wait_for(lambda: not left)
    kept.upkeep.stop()
    assert len([line for line in kept.said if "irqbalance: too slow" in line]) == said
