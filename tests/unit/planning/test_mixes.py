"""Several domains on one host: nobody is worse off than without this tool."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import HostTopology
from tests import hosts
from tests.unit.builders import cpus, host
from tests.unit.planning.population import Running, moved_off, overlaps, worst_share


@pytest.fixture(scope="module")
def small() -> HostTopology:
    """The laboratory's: two nodes of four CPUs, even ones on node 0, where the uplink is."""
    return probe.topology(Sysfs(str(hosts.FIXTURES / "small-8")), ("br0",))


def started(here: HostTopology, *vcpus: int) -> Running:
    """Domains of so many vCPUs, named by their position."""
    running = Running(here)
    for number, count in enumerate(vcpus):
        running.start(f"vm{number}", count)
    return running


class TestTheLaboratory:
    def test_four_two_one(self, small: HostTopology) -> None:
        running = started(small, 4, 2, 1)
        assert [running.cpus(f"vm{n}") for n in range(3)] == [[1, 3, 5, 7], [2, 4], [6]]
        assert running.placements["vm2"].vhost == (0,)
        assert {each.emulatorpin for each in running.placements.values()} == {cpus(0)}

    def test_one_four_two(self, small: HostTopology) -> None:
        running = started(small, 1, 4, 2)
        assert [running.cpus(f"vm{n}") for n in range(3)] == [[6], [1, 3, 5, 7], [2, 4]]
        assert running.placements["vm0"].vhost == (0,)
        assert {each.emulatorpin for each in running.placements.values()} == {cpus(0)}

    @pytest.mark.parametrize("mix", [(2, 4, 1), (4, 1, 1), (1, 1, 4), (2, 2, 1), (2, 2, 2, 1), (1, 2, 2, 2)])
    def test_a_cpu_for_each_and_one_for_the_rest(self, small: HostTopology, mix: tuple[int, ...]) -> None:
        running = started(small, *mix)
        assert {each.placement for each in running.placements.values()} == {"dedicated"}
        assert not overlaps(running.placements)
        seats = frozenset(cpu for name in running.specs for cpu in running.cpus(name))
        assert 0 not in seats
        for each in running.placements.values():
            assert not seats & (each.emulatorpin or seats)
            assert not seats & set(each.vhost)

    def test_as_many_as_there_are(self, small: HostTopology) -> None:
        running = started(small, 2, 2, 2, 2)
        assert {each.placement for each in running.placements.values()} == {"dedicated"}
        assert not overlaps(running.placements)
        for name, each in running.placements.items():
            assert each.emulatorpin == frozenset(running.cpus(name)), "its own, as no other is free"

    @pytest.mark.parametrize("mix", [(8, 1), (1, 8), (4, 4, 1), (2, 2, 2, 2, 1)])
    def test_more_than_there_are_share_all(self, small: HostTopology, mix: tuple[int, ...]) -> None:
        running = started(small, *mix)
        assert {each.placement for each in running.placements.values()} == {"shared"}
        assert set(running.pins()) == {small.online}

    @pytest.mark.parametrize("mix", [(8, 1), (4, 4, 1), (2, 2, 2, 2, 1)])
    def test_room_that_comes_back_is_given_back(self, small: HostTopology, mix: tuple[int, ...]) -> None:
        running = started(small, *mix)
        running.end(f"vm{len(mix) - 1}")
        assert {each.placement for each in running.placements.values()} == {"dedicated"}
        assert not overlaps(running.placements)

    def test_nobody_moves_to_another_node(self, small: HostTopology) -> None:
        running = started(small, 4, 2, 1)
        before = {name: running.placements[name].nodes for name in running.specs}
        running.start("late", 4)
        assert {name: running.placements[name].nodes for name in before} == before
        running.end("late")
        assert {name: running.placements[name].nodes for name in before} == before
        assert [running.cpus(f"vm{n}") for n in range(3)] == [[1, 3, 5, 7], [2, 4], [6]]

    @pytest.mark.parametrize("mix", [(1,), (4, 2, 1), (8,), (2, 2, 2, 2)])
    def test_nobody_is_moved_off_for_pins_of_a_users(self, small: HostTopology, mix: tuple[int, ...]) -> None:
        running = started(small, *mix)
        before = dict(running.placements)
        for number, cpu in enumerate(running.cpus("vm0")):
            running.start(f"pinned{number}", 1, vcpupin={0: cpus(cpu)})
        assert not moved_off(before, running.placements)
        assert worst_share(running.pins()) >= 0.95 * worst_share(running.untouched())

    def test_a_claim_stands(self, small: HostTopology) -> None:
        running = started(small, 8)
        made = running.start("net", 1, Policy(placement="dedicated"))
        own = frozenset(running.cpus("net"))
        assert (made.placement, made.claimed, len(own)) == ("dedicated", True, 1)
        (shared,) = set(running.placements["vm0"].vcpupin.values())
        assert shared == small.online - own - frozenset(made.vhost)
        assert len(shared) == 6

    def test_plenty(self, small: HostTopology) -> None:
        running = started(small, 2, 2)
        assert [running.cpus(f"vm{n}") for n in range(2)] == [[2, 4], [3, 5]]


@pytest.fixture(scope="module")
def large() -> HostTopology:
    """Two nodes of 32 cores with two threads each."""
    return probe.topology(Sysfs(str(hosts.FIXTURES / "smt-2x32")), ("br0",))


class TestLargeHost:
    def test_siblings_before_sharing(self, large: HostTopology) -> None:
        running = started(large, *[4] * 31)
        assert {each.placement for each in running.placements.values()} == {"dedicated"}
        assert not overlaps(running.placements)

    def test_far_too_many(self, large: HostTopology) -> None:
        running = started(large, *[4] * 40)
        assert worst_share(running.pins()) == worst_share(running.untouched()) == 128 / 160


EVENT = st.one_of(
    st.tuples(st.just("start"), st.integers(1, 10), st.sampled_from([1, 2])),
    st.tuples(st.just("end"), st.integers(0, 20), st.just(1)),
)


@st.composite
def some_hosts(draw: st.DrawFn) -> HostTopology:
    nodes, cores, threads = draw(st.integers(1, 3)), draw(st.integers(1, 8)), draw(st.sampled_from([1, 2]))
    here = host(nodes, cores, threads)
    if draw(st.integers(0, 3)):
        return here
    width = len(here.online)
    return evolve(here, isolated=frozenset(draw(st.sets(st.integers(0, width - 1), max_size=width - 1))))


@settings(max_examples=300, deadline=None)
@given(some_hosts(), st.lists(EVENT, min_size=1, max_size=10), st.booleans())
def test_the_worst_off_has_its_share(
    here: HostTopology, events: list[tuple[str, int, int]], pinned: bool
) -> None:
    running = Running(here)
    for number, (kind, size, threads) in enumerate(events):
        if kind == "start":
            own = {0: cpus(min(here.online))} if pinned and number == 0 else {}
            before = dict(running.placements)
            running.start(f"vm{number}", size, threads=threads, vcpupin=own)
            assert not moved_off(before, running.placements)
        elif running.specs:
            running.end(list(running.specs)[size % len(running.specs)])
        least = 0.95 if len(running.untouched()) <= len(running.balanced) else 0.85
        with_it, without = worst_share(running.pins()), worst_share(running.untouched())
        assert with_it >= least * without
        assert not overlaps(running.placements)


def one_each(draw: Random, online: list[int], vcpus: int) -> dict[str, object]:
    """The user's pins: a CPU for each vCPU."""
    return {"vcpupin": dict(enumerate(cpus(cpu) for cpu in draw.sample(online, min(len(online), vcpus))))}


def half_of_the_host(draw: Random, online: list[int], vcpus: int) -> dict[str, object]:
    """The user's pins: all vCPUs float over the same half."""
    half = frozenset(draw.sample(online, max(1, len(online) // 2)))
    return {"vcpupin": dict.fromkeys(range(vcpus), half)}


def nothing(draw: Random, online: list[int], vcpus: int) -> dict[str, object]:
    return {}


@pytest.mark.parametrize(
    ("user", "placement"),
    [
        pytest.param(one_each, "auto", id="users pin vCPUs to one CPU each"),
        pytest.param(half_of_the_host, "auto", id="users pin vCPUs to half of the host"),
        pytest.param(nothing, "shared", id="some share by the policy"),
        pytest.param(nothing, "keep", id="some are left alone"),
    ],
)
@pytest.mark.parametrize("seed", range(60))
def test_the_worst_off_among_others(
    user: Callable[[Random, list[int], int], dict[str, object]], placement: str, seed: int
) -> None:
    draw = Random(seed)
    here = host(draw.randint(1, 3), draw.randint(1, 8), draw.choice([1, 2]))
    running = Running(here)
    for number in range(draw.randint(1, 8)):
        if running.specs and draw.random() < 0.3:
            running.end(draw.choice(list(running.specs)))
        else:
            vcpus = draw.randint(1, 8)
            differs = draw.random() < 0.4
            changes = user(draw, sorted(here.online), vcpus) if differs else {}
            policy = Policy(placement=placement if differs else "auto")
            before = dict(running.placements)
            running.start(f"vm{number}", vcpus, policy, **changes)
            assert not moved_off(before, running.placements)
        least = 0.95 if len(running.untouched()) <= len(running.balanced) else 0.85
        assert worst_share(running.pins()) >= least * worst_share(running.untouched())
