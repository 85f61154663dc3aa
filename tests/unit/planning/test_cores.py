from __future__ import annotations

from collections.abc import Iterable

import pytest
from attrs import evolve

from libvirt_tuner.planning.cores import (
    Assignment,
    Demand,
    Free,
    assign,
    floats,
    housekeeping,
    remaining,
    service,
    single,
    workers,
)
from libvirt_tuner.topology import NO_CPUS, Core, Cpus, HostTopology
from tests.unit.builders import cpus, host


def found(here: HostTopology, demand: Demand, **left: Cpus) -> Assignment | None:
    """The assignment on the first node."""
    free = Free(here.online, **({"housekeeping": housekeeping(here, None)} | left))
    return assign(here, here.cells[:1], free, demand)


def seats(made: Assignment | None) -> list[int]:
    assert made is not None
    return [cpu for _, pin in sorted(made.vcpupin.items()) for cpu in pin]


@pytest.mark.parametrize(
    ("cores", "threads", "isolated", "kept"),
    [
        pytest.param(4, 1, (), cpus(0), id="at least a core"),
        pytest.param(16, 1, (), cpus(0, 1), id="an eighth"),
        pytest.param(8, 2, (), cpus(0, 8), id="with its siblings"),
        pytest.param(8, 1, range(6), cpus(6), id="never isolated ones"),
    ],
)
def test_housekeeping_stays_with_the_host(cores: int, threads: int, isolated: range, kept: Cpus) -> None:
    assert housekeeping(host(1, cores, threads, isolated=isolated), None) == kept


def test_a_core_with_one_cpu_taken_is_not_whole() -> None:
    here = host(nodes=1, cores=4, threads=2)
    made = found(here, Demand((0, 1, 2), emulator=cpus(0)), held=cpus(7), housekeeping=NO_CPUS)
    assert seats(made) == [0, 1, 2]


def test_no_assignment_on_a_node_without_cores() -> None:
    assert found(host(nodes=1, cores=2), Demand((0,)), held=cpus(0, 1)) is None


@pytest.mark.parametrize(
    ("emulator", "expected"),
    [
        pytest.param(None, cpus(1, 2, 3), id="a CPU for each helper"),
        pytest.param(1, cpus(1), id="as many as asked for"),
        pytest.param(cpus(7), cpus(), id="none where it is said which"),
    ],
)
def test_the_emulators_own(emulator: int | Cpus | None, expected: Cpus) -> None:
    made = found(host(nodes=1), Demand((0, 1, 2), helpers=3, emulator=emulator))
    assert made is not None
    assert made.emulator == expected
    assert not expected & made.cpus


def test_one_cpu_for_emulator_and_workers_is_not_worth_having() -> None:
    made = found(host(nodes=1, cores=4), Demand((0, 1)))
    assert made is not None
    assert (made.emulator, seats(made)) == (NO_CPUS, [1, 2])


@pytest.mark.parametrize(
    "demand",
    [
        pytest.param(Demand((0, 1, 2, 3)), id="cores run short"),
        pytest.param(Demand((0, 1), threads=2), id="guest siblings"),
    ],
)
def test_a_sibling_that_is_offline_costs_its_own_core_only(demand: Demand) -> None:
    whole = host(nodes=1, cores=4, threads=2)
    here = evolve(whole, cores=tuple(Core((1,), 0) if 1 in core.cpus else core for core in whole.cores))
    pins = seats(found(here, demand))
    assert pins[1::2] == [cpu + 4 for cpu in pins[::2]]


def test_emulators_of_others_are_spared_while_there_is_a_core() -> None:
    here = host(nodes=1)
    assert seats(found(here, Demand((0, 1)), service=cpus(1, 2, 3))) == [6, 7]
    assert seats(found(here, Demand((0, 1, 2, 3, 4)), service=cpus(1, 2, 3))) == [3, 4, 5, 6, 7]


def test_vhost_workers_of_others_are_spared_longer() -> None:
    here = host(nodes=1)
    assert found(here, Demand((0, 1, 2, 3, 4, 5)), workers=cpus(1, 2)) is None
    free = Free(here.online, workers=cpus(1, 2), last=cpus(0))
    made = single(here, here.cells, free, Demand(tuple(range(6))), last=True)
    assert made is not None
    assert cpus(0).isdisjoint(made.cpus)
    assert single(here, here.cells, free, Demand(tuple(range(8))), last=True) is None
    assert remaining(here, here.cells, free, Demand(tuple(range(8)))) is not None


class TestIsolationOfOneSibling:
    """CPUs 2-7 are isolated, their siblings 10-15 are not."""

    here = host(1, 8, 2, isolated=range(2, 8))

    def test_it_counts_as_a_core(self) -> None:
        made = found(self.here, Demand((0, 1, 2, 3)))
        assert made is not None
        assert made.cpus <= frozenset(range(2, 8))
        assert len(made.cpus) == 4

    def test_its_sibling_is_used_when_nothing_else_is_left(self) -> None:
        made = remaining(self.here, self.here.cells, Free(self.here.online), Demand(tuple(range(16))))
        assert made is not None
        assert made.cpus == self.here.online


class TestCoresThatDiffer:
    """Four fast cores of two threads, and eight slow ones of one."""

    here = HostTopology(
        cells=(evolve(host(1).cells[0], cpus=frozenset(range(16))),),
        cores=(
            *(Core((cpu, cpu + 1), 0, 68) for cpu in range(0, 8, 2)),
            *(Core((cpu,), 0, 41) for cpu in range(8, 16)),
        ),
    )

    @pytest.mark.parametrize(
        ("vcpus", "expected"),
        [
            pytest.param(2, range(8), id="a fast core each"),
            pytest.param(6, range(8), id="siblings of fast cores before slow ones"),
            pytest.param(8, range(8), id="every sibling of the fast ones"),
        ],
    )
    def test_are_not_mixed(self, vcpus: int, expected: range) -> None:
        made = found(self.here, Demand(tuple(range(vcpus))))
        assert made is not None
        assert made.cpus <= frozenset(expected)

    def test_slow_ones_alone_before_both(self) -> None:
        made = found(self.here, Demand(tuple(range(6))), held=cpus(0, 2))
        assert made is not None
        assert made.cpus <= frozenset(range(8, 16))

    def test_the_host_has_slow_ones(self) -> None:
        assert housekeeping(self.here, None) == cpus(8)

    def test_are_mixed_where_it_cannot_be_helped(self) -> None:
        made = found(self.here, Demand(tuple(range(10))))
        assert made is not None
        assert len(made.cpus) == 10


class TestCaches:
    """Two L3 caches of six cores each, on one node."""

    here = evolve(host(1, 12), cores=tuple(Core((cpu,), 0, 0, 0 if cpu < 6 else 6) for cpu in range(12)))

    def test_a_domain_stays_in_one(self) -> None:
        assert set(seats(found(self.here, Demand((0, 1, 2, 3))))) <= set(range(6, 12))
        made = found(self.here, Demand((0, 1, 2)))
        assert made is not None
        assert made.cpus | made.emulator == frozenset(range(1, 6))

    def test_a_larger_one_takes_both(self) -> None:
        made = found(self.here, Demand(tuple(range(8))))
        assert made is not None
        assert len(made.cpus) == 8


@pytest.mark.parametrize(
    ("left", "taken", "expected"),
    [
        pytest.param({}, cpus(1, 2, 3), cpus(0), id="what is left of the node"),
        pytest.param({"workers": cpus(0)}, cpus(2, 3), cpus(1), id="not with others' vhost workers"),
        pytest.param({"workers": cpus(0)}, cpus(1, 2, 3), cpus(4, 5, 6, 7), id="the next node before those"),
        pytest.param({}, frozenset(range(8)), frozenset(range(8)), id="its own where nothing else is"),
    ],
)
def test_service_cpus(left: dict[str, Cpus], taken: Cpus, expected: Cpus) -> None:
    here = host(cores=4)
    made, _ = service(here, here.cells, Free(here.online, **left), taken)
    assert made == expected


def test_service_cpus_for_several_workers() -> None:
    here = host(cores=4)
    made, cell = service(here, here.cells, Free(here.online), cpus(1, 2, 3), least=2)
    assert (made, cell) == (cpus(0, 4), here.cells[0])


@pytest.mark.parametrize(
    ("emulator", "expected"),
    [
        pytest.param(cpus(), False, id="none"),
        pytest.param(cpus(0, 1), False, id="half of the cores"),
        pytest.param(cpus(0, 1, 2, 3), True, id="every core of a node, a thread each"),
        pytest.param(cpus(0, 1, 4, 5), False, id="half of the cores of both nodes"),
    ],
)
def test_an_emulator_on_most_of_a_node_floats(emulator: Cpus, expected: bool) -> None:
    assert floats(host(nodes=2, cores=4, threads=2), emulator) is expected


@pytest.mark.parametrize(
    ("emulator", "count", "others", "expected"),
    [
        pytest.param(cpus(), 2, cpus(), (), id="nowhere to go"),
        pytest.param(cpus(4, 5), 0, cpus(), (), id="no workers"),
        pytest.param(cpus(4, 5, 6), 2, cpus(), (5, 6), id="the main loop keeps a CPU"),
        pytest.param(cpus(4, 5, 6, 7), 1, cpus(7), (6,), id="not where another's is"),
        pytest.param(cpus(4, 5), 1, cpus(5), (4,), id="with the main loop before another's worker"),
        pytest.param(cpus(4, 5), 1, (4, 5, 5), (4,), id="with the fewest of others where there is no other"),
        pytest.param(cpus(4, 5), 2, cpus(), (4, 5), id="one each"),
        pytest.param(cpus(4, 5), 5, cpus(), (4, 5, 4, 5, 4), id="round and round"),
    ],
)
def test_vhost_workers(emulator: Cpus, count: int, others: Iterable[int], expected: tuple[int, ...]) -> None:
    assert workers(emulator, count, others) == expected


def test_helpers_take_the_last_common_cores_beside_isolated_vcpus() -> None:
    made = found(host(1, 7, isolated=range(3, 7)), Demand((0, 1, 2, 3)))
    assert made is not None
    assert (made.cpus, made.emulator) == (frozenset(range(3, 7)), cpus(1, 2))
