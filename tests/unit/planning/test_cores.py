from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.planning.cores import Demand, floating, floats, room, seat, workers
from libvirt_tuner.topology import NO_CPUS, Core, Cpus
from tests.unit.builders import cpus, host


@pytest.mark.parametrize(
    ("cores", "threads", "kept"),
    [
        pytest.param(4, 1, cpus(0), id="at least a core"),
        pytest.param(16, 1, cpus(0, 1), id="an eighth"),
        pytest.param(8, 2, cpus(0, 8), id="with its siblings"),
    ],
)
def test_housekeeping_stays_with_the_host(cores: int, threads: int, kept: Cpus) -> None:
    here = host(nodes=1, cores=cores, threads=threads)
    place = room(here, here.cells[0], allowed=here.online, taken=NO_CPUS, housekeeping=None)
    assert place.housekeeping == kept
    assert not kept & {cpu for core in place.cores for cpu in core.cpus}


def test_isolated_cpus_are_never_housekeeping() -> None:
    here = host(nodes=1, isolated=range(6))
    place = room(here, here.cells[0], allowed=here.online, taken=NO_CPUS, housekeeping=None)
    assert place.housekeeping == cpus(6)


def test_a_core_with_one_cpu_taken_is_not_free() -> None:
    here = host(nodes=1, cores=4, threads=2)
    place = room(here, here.cells[0], allowed=here.online, taken=cpus(7), housekeeping=NO_CPUS)
    assert [core.cpus for core in place.cores] == [(0, 4), (1, 5), (2, 6)]


def test_no_seat_on_a_node_without_cores() -> None:
    here = host(nodes=1, cores=2)
    place = room(here, here.cells[0], allowed=here.online, taken=here.online, housekeeping=None)
    assert seat(place, Demand((0,))) is None


@pytest.mark.parametrize(
    ("emulator", "expected"),
    [
        pytest.param(None, cpus(1, 2, 3), id="a CPU for each helper"),
        pytest.param(1, cpus(1), id="as many as asked for"),
        pytest.param(cpus(7), cpus(7), id="exactly these"),
    ],
)
def test_the_emulators_share(emulator: int | Cpus | None, expected: Cpus) -> None:
    here = host(nodes=1)
    place = room(here, here.cells[0], allowed=here.online, taken=NO_CPUS, housekeeping=None)
    seats = seat(place, Demand((0, 1, 2), helpers=3, emulator=emulator))
    assert seats is not None
    assert seats.emulator == expected
    assert not expected & frozenset().union(*seats.vcpupin.values())


def test_without_a_spare_core_the_emulator_joins_housekeeping() -> None:
    here = host(nodes=1, cores=3)
    place = room(here, here.cells[0], allowed=here.online, taken=NO_CPUS, housekeeping=None)
    seats = seat(place, Demand((0, 1)))
    assert seats is not None
    assert seats.emulator == place.housekeeping


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
    place = room(here, here.cells[0], allowed=here.online, taken=NO_CPUS, housekeeping=None)
    seats = seat(place, demand)
    assert seats is not None
    pins = [next(iter(pin)) for _, pin in sorted(seats.vcpupin.items())]
    assert pins[1::2] == [cpu + 4 for cpu in pins[::2]]


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
    ("emulator", "count", "expected"),
    [
        pytest.param(cpus(), 2, (), id="nowhere to go"),
        pytest.param(cpus(4, 5), 0, (), id="no workers"),
        pytest.param(cpus(4, 5, 6), 2, (5, 6), id="the main loop keeps a CPU"),
        pytest.param(cpus(4, 5), 2, (4, 5), id="one each"),
        pytest.param(cpus(4, 5), 5, (4, 5, 4, 5, 4), id="round and round"),
    ],
)
def test_vhost_workers(emulator: Cpus, count: int, expected: tuple[int, ...]) -> None:
    assert workers(emulator, count) == expected


def test_floating_goes_to_the_next_node_only_when_the_first_is_too_small() -> None:
    here = host(cores=4, isolated=(3,))
    near = floating(here, here.cells, allowed=here.online, taken=cpus(0), wanted=2)
    far = floating(here, here.cells, allowed=here.online, taken=cpus(0), wanted=4)
    assert (near, far) == (cpus(1, 2), cpus(1, 2, 4, 5, 6, 7))
