from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import Held
from libvirt_tuner.planning.planner import PINS, plan
from libvirt_tuner.topology import Cpus
from tests.unit.builders import beside, cpus, domain, host
from tests.unit.planning.reading import NOBODY, standing, why

SHARED = Policy(placement="shared")
EIGHT = frozenset(range(8))


def test_more_vcpus_than_cpus_share_as_without_the_tool() -> None:
    made = plan(host(nodes=1), domain(7), Policy(), beside(cpus(2, 3)))
    assert (made.placement, made.vcpupin, made.emulatorpin) == ("shared", {}, None)
    assert (made.holds, made.vhost) == (Held(), ())
    assert made.reach == EIGHT
    assert why(made, "vcpus").endswith("fewer CPUs than running vCPUs; all domains share them")


def test_what_a_definition_has_for_its_next_start_stays_meanwhile() -> None:
    made = plan(host(nodes=1), domain(7), Policy(), beside(cpus(2, 3)))
    assert made.unknown >= PINS


def test_isolated_cpus_are_not_shared() -> None:
    made = plan(host(nodes=1, isolated=(6, 7)), domain(9), Policy(), NOBODY)
    assert made.reach == frozenset(range(6))


def test_it_floats_over_no_sibling_of_another_domains_vcpu() -> None:
    # 16 CPUs on 8 cores: 2 and 10 are siblings.
    made = plan(host(nodes=1, threads=2), domain(2), SHARED, beside(cpus(2, 3)))
    floats = frozenset().union(*made.vcpupin.values())
    assert floats
    assert not floats & cpus(2, 3, 10, 11)


def test_a_running_domain_is_widened() -> None:
    here, spec = host(nodes=1), domain(4)
    first = plan(here, spec, Policy(), NOBODY, running=True)
    more = beside(floating=5, over=EIGHT)
    again = plan(here, spec, Policy(), more, previous=standing(spec, first), running=True, home=first.nodes)
    assert set(again.vcpupin.values()) == {EIGHT}
    assert (again.emulatorpin, again.nodes, again.numatune) == (EIGHT, first.nodes, first.numatune)


def test_a_vcpu_on_an_isolated_cpu_stays_though_a_user_pins_another_there() -> None:
    here, spec = host(nodes=1, isolated=(4, 5, 6, 7)), domain(2)
    first = plan(here, spec, Policy(), NOBODY, running=True)
    more = [*beside(floating=6, over=frozenset(range(4))), Neighbour(fixed=tuple(first.vcpupin.values()))]
    before, seats = standing(spec, first), first.holds.vcpus
    again = plan(here, spec, Policy(), more, previous=before, running=True, home=first.nodes, seats=seats)
    assert again.vcpupin == first.vcpupin


def test_a_vcpu_on_an_isolated_cpu_takes_nothing_from_those_who_share() -> None:
    here, spec = host(nodes=1, isolated=(4, 5, 6, 7)), domain(2)
    first = plan(here, spec, Policy(), NOBODY, running=True)
    more = beside(floating=6, over=frozenset(range(4)))
    again = plan(here, spec, Policy(), more, previous=standing(spec, first), running=True, home=first.nodes)
    assert again.vcpupin == first.vcpupin


@pytest.mark.parametrize(
    ("vcpus", "fixed", "expected"),
    [
        pytest.param(8, 1, frozenset(range(1, 8)), id="left to it while that is as fair"),
        pytest.param(30, 4, EIGHT, id="not where the others would get far less"),
    ],
)
def test_cpus_that_a_user_has_pinned_vcpus_to(vcpus: int, fixed: int, expected: Cpus) -> None:
    users = Neighbour(fixed=tuple(cpus(cpu) for cpu in range(fixed)))
    spec = domain(vcpus)
    before = evolve(spec, vcpupin=dict.fromkeys(range(vcpus), cpus(0, 1)))
    made = plan(host(nodes=1), spec, Policy(), [users], previous=before, running=True)
    assert set(made.vcpupin.values()) == {expected}


def test_a_running_domain_is_not_moved_off_a_cpu_that_a_user_pins_another_to() -> None:
    spec, users = domain(8), [Neighbour(fixed=(cpus(3),))]
    wide = {vcpu: EIGHT if vcpu == 3 else EIGHT - cpus(3) for vcpu in range(8)}
    for pins, seats in (({vcpu: cpus(vcpu) for vcpu in range(8)}, EIGHT), (wide, cpus())):
        before = evolve(spec, vcpupin=pins)
        made = plan(
            host(nodes=1), spec, Policy(), users, previous=before, running=True, home=(0,), seats=seats
        )
        assert (made.placement, made.vcpupin) == ("shared", wide)


@pytest.mark.parametrize(
    ("loose", "expected"),
    [
        pytest.param(1, "dedicated", id="room to get out of a pinned vCPU's way"),
        pytest.param(4, "shared", id="no room"),
    ],
)
def test_vcpus_that_float_and_are_not_ours(loose: int, expected: str) -> None:
    made = plan(host(nodes=1), domain(2), Policy(), [Neighbour(fixed=(cpus(),) * loose)])
    assert made.placement == expected


def test_vcpus_that_somebody_else_has_bound_to_some_cpus_keep_those() -> None:
    bound = Neighbour(fixed=(cpus(1, 2, 3, 4),) * 3)
    made = plan(host(nodes=1), domain(2), Policy(), [bound])
    assert frozenset().union(*made.vcpupin.values()) <= cpus(5, 6, 7)


def test_a_claim_takes_cpus_of_those_without() -> None:
    made = plan(host(nodes=1), domain(1), Policy(placement="dedicated"), beside(EIGHT))
    assert (made.placement, made.claimed) == ("dedicated", True)
    assert len(made.holds.vcpus | frozenset(made.vhost)) == 2


def test_a_claim_takes_no_cpu_of_another() -> None:
    seats = tuple(cpus(cpu) for cpu in range(8))
    made = plan(host(nodes=1), domain(1), Policy(placement="dedicated"), [Neighbour(seats, claimed=True)])
    assert made.placement == "keep"
    assert "have claimed all CPUs" in why(made, "vcpus")


class TestRealTime:
    """A vCPU with ``<vcpusched>`` never yields: it has a CPU of its own, or is left alone."""

    def test_its_cpus_are_claimed(self) -> None:
        made = plan(host(nodes=1), domain(2, realtime=True), Policy(), NOBODY)
        assert (made.placement, made.claimed) == ("dedicated", True)

    def test_it_takes_none_of_others(self) -> None:
        made = plan(host(nodes=1), domain(2, realtime=True), Policy(), beside(EIGHT))
        assert (made.placement, made.vcpupin) == ("keep", {})

    def test_it_is_not_widened(self) -> None:
        spec, here = domain(2, realtime=True), host(nodes=1)
        first = plan(here, spec, Policy(), NOBODY, running=True)
        more = beside(floating=9, over=EIGHT)
        again = plan(
            here, spec, Policy(), more, previous=standing(spec, first), running=True, home=first.nodes
        )
        assert again.vcpupin == first.vcpupin


class TestPolicyShared:
    def test_floats_on_its_node_apart_from_others(self) -> None:
        made = plan(host(), domain(2), SHARED, beside(cpus(2, 3)))
        assert set(made.vcpupin.values()) == {cpus(0, 1, 4, 5, 6, 7)}
        assert not made.unknown

    def test_spreads_over_the_nodes_with_the_number_that_float(self) -> None:
        few = plan(host(), domain(2), SHARED, NOBODY)
        many = plan(host(), domain(2), SHARED, beside(over=few.vcpupin[0], floating=10))
        assert (few.nodes, many.nodes) == ((0,), (0, 1))

    def test_is_not_moved_for_each_that_starts(self) -> None:
        spec = domain(2)
        first = plan(host(), spec, SHARED, NOBODY)
        busy = beside(service=cpus(1, 2), over=first.vcpupin[0], floating=6)
        again = plan(host(), spec, SHARED, busy, previous=standing(spec, first), running=True)
        assert again.vcpupin == first.vcpupin

    def test_is_widened_when_more_float_there_than_there_are_cpus(self) -> None:
        spec = domain(2)
        first = plan(host(), spec, SHARED, NOBODY)
        busy = beside(over=first.vcpupin[0], floating=7)
        again = plan(host(), spec, SHARED, busy, previous=standing(spec, first), running=True)
        assert again.vcpupin[0] > first.vcpupin[0]


def test_one_vcpu_keeps_an_isolated_cpu() -> None:
    here, spec = host(1, 4, isolated=cpus(3)), domain(5)
    before = evolve(spec, vcpupin={0: cpus(3), 1: cpus(0), 2: cpus(1), 3: cpus(2), 4: cpus(3)})
    made = plan(here, spec, Policy(), NOBODY, previous=before, running=True, home=(0,))
    assert made.placement == "shared"
    assert [pin for pin in made.vcpupin.values() if 3 in pin] == [cpus(3)]


def test_a_domain_that_floats_over_one_cpu_holds_none() -> None:
    here = host(1, 8, isolated=range(1, 8))
    crowd = Neighbour((cpus(0), cpus(0)), reach=cpus(0), shares=True)
    made = plan(here, domain(7), Policy(), [crowd])
    assert (made.placement, made.emulatorpin) == ("dedicated", cpus(0))


def test_isolated_cpus_are_no_loss_to_those_that_share_the_others() -> None:
    made = plan(
        host(1, 8, isolated=range(4, 8)), domain(3), Policy(), beside(over=cpus(0, 1, 2, 3), floating=9)
    )
    assert made.placement == "dedicated"
    assert frozenset().union(*made.vcpupin.values()) <= cpus(4, 5, 6, 7)


def test_the_users_emulatorpin_costs_its_vcpus_nothing() -> None:
    made = plan(host(1, 4), domain(3, emulatorpin=cpus(1, 3)), Policy(), NOBODY)
    assert (made.placement, len(made.vcpupin)) == ("dedicated", 3)
    more = plan(host(1, 4), domain(5, emulatorpin=cpus(1, 3)), Policy(), NOBODY)
    assert (more.placement, more.vcpupin) == ("shared", {})


def test_a_new_domains_workers_avoid_those_that_float() -> None:
    pinned = {0: cpus(3), 1: cpus(4)}
    made = plan(host(2, 6), domain(2, vcpupin=pinned), Policy(), beside(over=cpus(0, 1, 2), floating=2))
    assert not (made.emulatorpin or cpus(0)) & cpus(0, 1, 2, 3, 4)
