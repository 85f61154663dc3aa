from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import GuestCell
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import NOTHING, Plan, Reserved
from libvirt_tuner.planning.planner import PINS, plan
from libvirt_tuner.topology import Cpus, HostTopology, HugePages
from tests.unit.builders import GIB, beside, cpus, domain, host, nic
from tests.unit.planning.reading import NOBODY, seats, standing, why


def test_the_uplinks_node_is_taken() -> None:
    made = plan(host(nics=(nic(node=1),)), domain(), Policy(), NOBODY)
    assert made.nodes == (1,)
    assert made.numatune == ("preferred", frozenset({1}))


@pytest.mark.parametrize("node", [0, None])
def test_a_node_whose_memory_the_cgroup_excludes_is_avoided(node: int | None) -> None:
    here = evolve(host(nics=(nic(node=node),)), allowed_nodes=cpus(1))
    made = plan(here, domain(), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((1,), ("preferred", cpus(1)))


def test_without_an_uplink_the_emptiest_node_is_taken() -> None:
    made = plan(host(), domain(vnics=()), Policy(), beside(vcpus=cpus(2, 3, 4)))
    assert made.nodes == (1,)
    assert made.irqs == ()


def test_a_full_node_sends_the_domain_to_the_nearest_other() -> None:
    made = plan(
        host(nodes=4, nics=(nic(node=2),)), domain(6), Policy(), beside(vcpus=frozenset(range(18, 24)))
    )
    assert made.nodes == (1,)
    assert "2 CPUs free, too few whole cores for 6 vCPUs" in why(made, "node")


def test_memory_decides_between_nodes_with_the_cores() -> None:
    here = host()
    tight = evolve(here, cells=(evolve(here.cells[0], free_kib=GIB), here.cells[1]))
    made = plan(tight, domain(), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((1,), ("preferred", frozenset({1})))


def test_memory_that_fits_nowhere_is_preferred_on_the_uplinks_node() -> None:
    made = plan(host(free_gib=1), domain(), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((0,), ("preferred", frozenset({0})))
    assert "1024 MiB free, 4096 MiB needed" in why(made, "memory")


def test_huge_pages_are_counted_in_their_own_size() -> None:
    pools = (HugePages(2048, 100, 100), HugePages(GIB, 8, 8))
    small = plan(host(hugepages=pools), domain(hugepage_kib=2048), Policy(), NOBODY)
    large = plan(host(hugepages=pools), domain(hugepage_kib=GIB), Policy(), NOBODY)
    assert small.numatune == ("preferred", frozenset({0}))
    assert large.numatune == ("strict", frozenset({0}))


def test_huge_pages_without_a_size_are_of_the_kernels_default() -> None:
    pools = (HugePages(2048, 10, 10), HugePages(GIB, 8, 8, default=True))
    assert plan(host(hugepages=pools), domain(hugepage_kib=0), Policy(), NOBODY).numatune == (
        "strict",
        frozenset({0}),
    )


def test_a_node_without_memory_borrows_the_nearest() -> None:
    here = host()
    bare = evolve(here, cells=(evolve(here.cells[0], memory_kib=0, free_kib=0), here.cells[1]))
    made = plan(bare, domain(), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((0,), ("preferred", frozenset({1})))


def test_a_large_guest_with_cells_gets_a_node_for_each() -> None:
    parts = (GuestCell(0, cpus(0, 1, 2, 3, 4), 20 * GIB), GuestCell(1, cpus(5, 6, 7, 8, 9), 20 * GIB))
    made = plan(host(), domain(10, 40, cells=parts), Policy(), NOBODY)
    assert made.nodes == (0, 1)
    assert max(seats(made)[:5]) < 8 <= min(seats(made)[5:])
    assert made.numatune == ("preferred", frozenset({0}))
    assert made.memnodes == {0: ("preferred", frozenset({0})), 1: ("preferred", frozenset({1}))}


@pytest.mark.parametrize(
    ("page", "pools"),
    [
        pytest.param(None, (), id="ordinary pages"),
        pytest.param(GIB, (HugePages(GIB, 32, 32),), id="huge pages"),
        pytest.param(0, (HugePages(GIB, 32, 32),), id="huge pages of the default size"),
    ],
)
def test_memory_that_others_are_bound_to_counts_before_they_use_it(
    page: int | None, pools: tuple[HugePages, ...]
) -> None:
    here = host(hugepages=pools)
    asked = domain(memory_gib=24, hugepage_kib=page)
    first = plan(here, asked, Policy(), NOBODY)
    second = plan(here, asked, Policy(), NOBODY, Reserved(memory={(0, page): 48 * GIB}))
    third = plan(here, asked, Policy(), NOBODY, Reserved(memory={(0, page): 48 * GIB, (1, page): 48 * GIB}))
    mode = "preferred" if page is None else "strict"
    assert (first.numatune, second.numatune) == ((mode, cpus(0)), (mode, cpus(1)))
    assert third.numatune == ("preferred", cpus(0))


def test_a_running_domain_keeps_the_mode_of_its_memory() -> None:
    first = plan(host(free_gib=1), domain(), Policy(), NOBODY)
    again = plan(host(), domain(), Policy(), NOBODY, previous=standing(domain(), first), running=True)
    assert first.numatune == again.numatune == ("preferred", cpus(0))


def test_other_definitions_are_avoided_until_nothing_else_is_left() -> None:
    one = host(nodes=1)
    apart = plan(one, domain(2), Policy(), NOBODY, Reserved(vcpus=cpus(3, 4)))
    together = plan(one, domain(5), Policy(), NOBODY, Reserved(vcpus=cpus(3, 4)))
    assert not set(seats(apart)) & {3, 4}
    assert together.placement == "dedicated"


def test_a_plan_made_before_is_kept_while_it_is_good() -> None:
    spec = domain()
    first = plan(host(), spec, Policy(), beside(vcpus=cpus(1, 2, 3)))
    again = plan(host(), spec, Policy(), NOBODY, previous=standing(spec, first))
    assert (again.vcpupin, again.emulatorpin) == (first.vcpupin, first.emulatorpin)
    assert again.vcpupin != plan(host(), spec, Policy(), NOBODY).vcpupin


def test_a_plan_made_before_is_dropped_when_another_vm_took_its_cpu() -> None:
    spec = domain()
    first = plan(host(), spec, Policy(), NOBODY)
    again = plan(host(), spec, Policy(), beside(vcpus=cpus(seats(first)[0])), previous=standing(spec, first))
    assert again.placement == "dedicated"
    assert seats(first)[0] not in seats(again)


@pytest.mark.parametrize(
    ("beside_it", "reserved"),
    [
        pytest.param(beside(floating=1, over=cpus(0, 1, 2)), NOTHING, id="one that floats"),
        pytest.param((), Reserved(vcpus=cpus(3)), id="a definition that asks for its CPU"),
    ],
)
def test_a_running_domain_stays_though_others_come_near(
    beside_it: tuple[Neighbour, ...], reserved: Reserved
) -> None:
    spec, here = domain(1), host(cores=4)
    first = plan(here, spec, Policy(), NOBODY)
    assert (seats(first), first.emulatorpin) == ([3], cpus(1, 2))
    before = standing(spec, first)
    again = plan(here, spec, Policy(), beside_it, reserved, previous=before, running=True)
    assert (again.vcpupin, again.emulatorpin) == (first.vcpupin, first.emulatorpin)


@pytest.mark.parametrize(
    ("running", "node"), [pytest.param(True, 0, id="stays"), pytest.param(False, 1, id="follows")]
)
def test_a_failover_moves_only_a_domain_that_does_not_run(running: bool, node: int) -> None:
    spec = domain()
    first = plan(host(), spec, Policy(), NOBODY)
    other = host(nics=(nic(node=1),))
    again = plan(other, spec, Policy(), NOBODY, previous=standing(spec, first), running=running)
    assert again.nodes == (node,)


def test_a_domain_stays_where_it_was_while_its_uplink_is_not_known() -> None:
    spec = domain()
    first = plan(host(nics=(nic(node=1),)), spec, Policy(), NOBODY)
    down = evolve(host(nics=(nic(node=1),)), links={})
    again = plan(down, spec, Policy(), NOBODY, previous=standing(spec, first))
    assert first.nodes == again.nodes == (1,)
    assert plan(down, spec, Policy(), NOBODY).nodes == (0,)


def test_a_vm_larger_than_a_node_takes_whole_cores_of_all() -> None:
    made = plan(host(nodes=2, cores=4), domain(6), Policy(), NOBODY)
    assert (seats(made), made.nodes) == ([1, 2, 3, 5, 6, 7], (0, 1))


class TestPagesOfGuestCells:
    """Cell 0 in pages of 1 GiB, cell 1 in pages of 2 MiB, on nodes with pools of both."""

    cells = (GuestCell(0, cpus(0, 1), 2 * GIB, GIB), GuestCell(1, cpus(2, 3), 2 * GIB, 2048))
    spec = domain(4, cells=cells)

    @pytest.mark.parametrize(
        ("large", "small", "mode", "said"),
        [
            pytest.param(2, 1024, "strict", "the node has enough", id="both pools suffice"),
            pytest.param(
                4, 1023, "preferred", "2046 MiB free in huge pages, 2048", id="the small ones do not"
            ),
            pytest.param(
                1, 2048, "preferred", "1024 MiB free in huge pages, 2048", id="the large ones do not"
            ),
        ],
    )
    def test_each_pool_counts(self, large: int, small: int, mode: str, said: str) -> None:
        pools = (HugePages(2048, small, small), HugePages(GIB, large, large))
        made = plan(host(nodes=1, hugepages=pools), self.spec, Policy(), NOBODY)
        assert made.numatune == (mode, frozenset({0}))
        assert said in why(made, "memory")

    def test_a_node_with_both_pools_is_taken(self) -> None:
        here = host(hugepages=(HugePages(2048, 1024, 1024), HugePages(GIB, 4, 4)))
        poor = evolve(here.cells[0], hugepages=(HugePages(2048, 0, 0), HugePages(GIB, 4, 4)))
        made = plan(evolve(here, cells=(poor, here.cells[1])), self.spec, Policy(), NOBODY)
        assert (made.nodes, made.numatune) == ((1,), ("strict", frozenset({1})))

    def test_what_is_held_is_held_of_each(self) -> None:
        pools = (HugePages(2048, 1024, 1024), HugePages(GIB, 4, 4))
        made = plan(host(nodes=1, hugepages=pools), self.spec, Policy(), NOBODY)
        assert made.holds.memory == {(0, GIB): 2 * GIB, (0, 2048): 2 * GIB}

    def test_cells_in_ordinary_pages_are_no_reason_to_bind_strictly(self) -> None:
        mixed = evolve(self.spec, cells=(self.cells[0], self.cells[1]._replace(hugepage_kib=None)))
        made = plan(host(nodes=1, hugepages=(HugePages(GIB, 4, 4),)), mixed, Policy(), NOBODY)
        assert made.numatune == ("preferred", frozenset({0}))

    def test_a_node_for_each_cell_counts_its_own_pool(self) -> None:
        cells = (
            GuestCell(0, frozenset(range(5)), GIB, GIB),
            GuestCell(1, frozenset(range(5, 10)), GIB, 2048),
        )
        here = host(hugepages=(HugePages(2048, 512, 512), HugePages(GIB, 1, 1)))
        made = plan(here, domain(10, 2, cells=cells), Policy(), NOBODY)
        assert {memory.mode for memory in made.memnodes.values()} == {"strict"}


def test_where_a_running_domains_memory_lies_counts_more_than_its_uplink() -> None:
    assert plan(host(), domain(), Policy(), NOBODY, running=True).nodes == (0,)
    assert plan(host(), domain(), Policy(), NOBODY, running=True, home=(1,)).nodes == (1,)


class TestAUsersPinOfADomainThatStartsLater:
    """One node of eight CPUs; a domain has CPU 7, and another starts that its user has pinned there."""

    def again(
        self,
        *others: Neighbour,
        here: HostTopology | None = None,
        policy: Policy | None = None,
        pin: Cpus = frozenset({7}),
        **changes: Any,
    ) -> Plan:
        spec = domain(1, **changes)
        before = evolve(spec, vcpupin={0: pin}, emulatorpin=cpus(1))
        here, policy = here or host(nodes=1), policy or Policy()
        return plan(here, spec, policy, others, previous=before, running=True, home=(0,), seats=pin)

    def test_the_one_that_runs_keeps_its_cpu_and_gets_another(self) -> None:
        made = self.again(Neighbour(fixed=(cpus(7),)))
        (pin,) = made.vcpupin.values()
        assert made.placement == "dedicated"
        assert cpus(7) < pin
        assert len(pin) == 2
        assert made.holds.vcpus == pin
        assert made.unknown >= PINS, "its definition keeps its pins"
        assert "CPU 7 is shared" in [each.decision for each in made.reasons]
        assert self.again(Neighbour(fixed=(cpus(7),)), pin=pin).vcpupin == {0: pin}

    def test_it_has_one_again_when_the_other_ends(self) -> None:
        (pin,) = self.again(pin=cpus(4, 7)).vcpupin.values()
        assert len(pin) == 1
        assert pin < cpus(4, 7)

    def test_a_third_is_added_when_the_second_is_pinned_too(self) -> None:
        (pin,) = self.again(Neighbour(fixed=(cpus(7), cpus(4))), pin=cpus(4, 7)).vcpupin.values()
        assert cpus(4, 7) < pin
        assert len(pin) == 3

    @pytest.mark.parametrize(
        ("here", "changes", "others"),
        [
            pytest.param(host(nodes=1, isolated=(6, 7)), {}, (), id="isolated, where nothing is balanced"),
            pytest.param(host(nodes=1), {"realtime": True}, (), id="real time, which never yields"),
            pytest.param(
                host(nodes=1),
                {"policy": Policy(placement="dedicated")},
                [Neighbour(ours=tuple(cpus(cpu) for cpu in range(7)), claimed=True)],
                id="a claim, and no CPU is left",
            ),
        ],
    )
    def test_it_keeps_its_cpu_and_gets_no_other(
        self, here: HostTopology, changes: dict[str, Any], others: Sequence[Neighbour]
    ) -> None:
        made = self.again(*others, Neighbour(fixed=(cpus(7),)), here=here, **changes)
        assert made.vcpupin == {0: cpus(7)}

    def test_a_claim_that_its_user_has_pinned_takes_none_either(self) -> None:
        (pin,) = self.again(Neighbour(fixed=(cpus(7),), claimed=True)).vcpupin.values()
        assert cpus(7) < pin

    def test_one_that_was_there_first_is_avoided(self) -> None:
        spec = domain(1)
        before = evolve(spec, vcpupin={0: cpus(7)}, emulatorpin=cpus(1))
        users = [Neighbour(fixed=(cpus(7),))]
        made = plan(host(nodes=1), spec, Policy(), users, previous=before, running=True)
        assert not made.vcpupin[0] & cpus(7)

    def test_a_cpu_planned_for_a_vcpu_that_is_plugged_in_is_not_its_own_yet(self) -> None:
        spec = domain(2)
        before = evolve(spec, vcpupin={0: cpus(6), 1: cpus(7)}, emulatorpin=cpus(1))
        users = [Neighbour(fixed=(cpus(7),))]
        given: dict[str, Any] = {"previous": before, "running": True, "home": (0,), "seats": cpus(6)}
        made = plan(host(nodes=1), spec, Policy(), users, **given)
        assert made.vcpupin[0] == cpus(6)
        assert not made.vcpupin[1] & cpus(6, 7)
