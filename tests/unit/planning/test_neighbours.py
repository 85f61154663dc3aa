"""What the domains that run need, summed up."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.planning.neighbours import Neighbour, Population, disturbs, neighbour, noted, overlaps
from libvirt_tuner.planning.plan import Held, Placement, Plan
from libvirt_tuner.topology import Cpus
from tests.unit.builders import cpus, domain, host

EIGHT = frozenset(range(8))


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        pytest.param(
            Placement("a", placement="shared", vcpus={0: cpus(), 1: cpus()}, reach=EIGHT),
            Neighbour(ours=(EIGHT, EIGHT), reach=EIGHT, shares=True),
            id="floats without pins",
        ),
        pytest.param(
            Placement("a", placement="shared", vcpupin={0: cpus(1, 2)}, vcpus={0: cpus(1, 2)}, reach=EIGHT),
            Neighbour(ours=(cpus(1, 2),), reach=EIGHT, shares=True),
            id="floats with pins",
        ),
        pytest.param(
            Placement("a", vcpus={0: cpus(3), 1: cpus()}), Neighbour(fixed=(cpus(3), cpus())), id="left alone"
        ),
        pytest.param(
            Placement(
                "a",
                placement="dedicated",
                vcpupin={0: cpus(4)},
                emulatorpin=cpus(1, 2),
                vhost=(2,),
                vcpus={0: cpus(4), 1: cpus(5)},
                reach=EIGHT,
                claimed=True,
            ),
            Neighbour((cpus(4),), (cpus(5),), cpus(1, 2), (2,), EIGHT, claimed=True),
            id="a claim, with a pin of its user's",
        ),
        pytest.param(
            Placement("a", placement="dedicated", vcpupin={0: cpus(4, 6)}, vcpus={0: cpus(4, 6)}),
            Neighbour((cpus(4), cpus(6))),
            id="a vCPU with a second CPU, as it shares the first",
        ),
    ],
)
def test_neighbour(placement: Placement, expected: Neighbour) -> None:
    assert neighbour(placement) == expected


def test_noted_as_it_was_started() -> None:
    made = noted(domain(2, vcpupin={1: cpus(3)}, emulatorpin=cpus(0)))
    assert (made.vcpus, made.holds, made.tuned) == ({0: cpus(), 1: cpus(3)}, Held(cpus(3), cpus(0)), False)


class TestPopulation:
    def test_a_claim_is_its_vcpus_and_one_cpu_for_its_workers(self) -> None:
        claim = Neighbour((cpus(2),), (), cpus(4, 5), (4, 5), EIGHT, claimed=True)
        found = Population(host(), [claim])
        assert (found.claimed, found.ours, found.held) == (cpus(2, 4), cpus(), cpus(2, 4))

    def test_vcpus_on_isolated_cpus_share_with_nobody(self) -> None:
        here = host(nodes=1, isolated=(6, 7))
        one = Neighbour(ours=(cpus(6), cpus(1)), fixed=(cpus(2), cpus(2, 3)), reach=EIGHT)
        assert Population(here, [one]).sharing() == 2

    def test_a_core_of_two_threads_is_ones_own(self) -> None:
        found = Population(host(threads=2), [Neighbour(fixed=(cpus(1, 17), cpus(2, 3)))])
        assert (found.fixed, found.strangers) == (cpus(1, 17), cpus(2, 3))

    @pytest.mark.parametrize(
        ("floating", "seats", "room"),
        [
            pytest.param(4, 4, True, id="just enough"),
            pytest.param(4, 5, False, id="one too many"),
            pytest.param(0, 8, True, id="nobody floats"),
        ],
    )
    def test_room_for_those_that_float(self, floating: int, seats: int, room: bool) -> None:
        others = Population(host(nodes=1), [Neighbour(ours=(EIGHT,) * floating, reach=EIGHT)])
        assert others.leaves_room(EIGHT, frozenset(range(seats))) is room

    @pytest.mark.parametrize(
        ("seats", "room"),
        [
            pytest.param(cpus(0, 1), False, id="on the two CPUs that one may use"),
            pytest.param(cpus(2, 3), True, id="elsewhere"),
        ],
    )
    def test_room_within_what_one_may_use(self, seats: Cpus, room: bool) -> None:
        bound = Neighbour(ours=(cpus(0, 1),), reach=cpus(0, 1))
        assert Population(host(nodes=1), [bound]).leaves_room(EIGHT, seats) is room

    @pytest.mark.parametrize(
        ("seats", "room"),
        [
            pytest.param(frozenset(range(4)), True, id="two CPUs for each are left"),
            pytest.param(frozenset(range(5)), False, id="fewer"),
        ],
    )
    def test_room_for_those_that_float_and_are_not_ours(self, seats: Cpus, room: bool) -> None:
        loose = Neighbour(fixed=(cpus(), cpus()))
        assert Population(host(nodes=1), [loose]).leaves_room(EIGHT, seats) is room

    def test_cpus_that_are_somebodys_own_are_no_room(self) -> None:
        floats, users = Neighbour(ours=(EIGHT,) * 4, reach=EIGHT), Neighbour(fixed=(cpus(7),))
        assert not Population(host(nodes=1), [floats, users]).leaves_room(EIGHT, frozenset(range(4)))

    def test_seats_apart_from_those_that_float_need_no_more_room(self) -> None:
        bound = Neighbour(fixed=(cpus(4, 5, 6),) * 2)
        assert Population(host(nodes=1), [bound]).leaves_room(EIGHT, cpus(0, 1))


OURS = Placement("b", placement="dedicated", holds=Held(cpus(4), cpus(1)), vhost=(2,), reach=EIGHT)


@pytest.mark.parametrize(
    ("plan", "other", "found"),
    [
        pytest.param(Plan("a", holds=Held(cpus(3))), OURS, False, id="apart"),
        pytest.param(Plan("a", holds=Held(cpus(4))), OURS, True, id="on a vCPU's CPU"),
        pytest.param(Plan("a", holds=Held(cpus(1))), OURS, True, id="on the emulator's"),
        pytest.param(Plan("a", holds=Held(cpus(2))), OURS, True, id="on a worker's"),
        pytest.param(
            Plan("a", placement="shared", unknown=frozenset({"vcpupin"})), OURS, True, id="all have to share"
        ),
        pytest.param(Plan("a", placement="shared"), OURS, False, id="shares because it is to"),
        pytest.param(
            Plan("a", placement="shared", unknown=frozenset({"vcpupin"})),
            evolve(OURS, claimed=True),
            False,
            id="a claim does not share",
        ),
        pytest.param(
            Plan("a", holds=Held(cpus(4))), Placement("b", holds=Held(cpus(4))), False, id="one left alone"
        ),
    ],
)
def test_disturbs(plan: Plan, other: Placement, found: bool) -> None:
    assert bool(disturbs(plan, [other])) is found


PLACED = Placement(
    "web", placement="dedicated", vcpupin={0: cpus(4)}, vcpus={0: cpus(4)}, holds=Held(cpus(4)), reach=EIGHT
)
PINNED = Placement("my db", vcpus={0: cpus(4)}, holds=Held(cpus(4)))


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        pytest.param(PLACED, evolve(PLACED, domain="db"), id="both were placed"),
        pytest.param(PINNED, evolve(PINNED, domain="db"), id="both are their users'"),
        pytest.param(PLACED, evolve(PINNED, vcpus={0: cpus(5)}, holds=Held(cpus(5))), id="apart"),
        pytest.param(PLACED, evolve(PINNED, vcpus={0: EIGHT}, holds=Held()), id="one that floats"),
        pytest.param(evolve(PLACED, placement="shared"), PINNED, id="one that shares anyway"),
    ],
)
def test_no_overlap_to_speak_of(mine: Placement, other: Placement) -> None:
    assert list(overlaps(mine, [other])) == []


@pytest.mark.parametrize(("mine", "other"), [(PLACED, PINNED), (PINNED, PLACED)], ids=["first", "later"])
def test_an_overlap_is_said_to_both(mine: Placement, other: Placement) -> None:
    (said,) = overlaps(mine, [other])
    assert said.startswith("vcpupin of my db names CPU 4, which web has; both run there")
    assert "virsh vcpupin 'my db' VCPU CPU --live" in said
