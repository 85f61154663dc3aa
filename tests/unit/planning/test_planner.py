from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import DomainSpec, GuestCell, Numatune, Vnic
from libvirt_tuner.planning.plan import Plan, Taken
from libvirt_tuner.planning.planner import plan
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, HugePages, Link, Nic, Route, Tunnel
from tests.unit.builders import GIB, cpus, domain, host, nic

NOBODY = Taken()


def seats(made: Plan) -> list[int]:
    """The CPU of each vCPU, by vCPU."""
    return [next(iter(pin)) for _, pin in sorted(made.vcpupin.items())]


def decision(made: Plan, subject: str) -> str:
    return next(reason.decision for reason in made.reasons if reason.subject == subject)


def why(made: Plan, subject: str) -> str:
    return "; ".join(reason.why for reason in made.reasons if reason.subject == subject)


# Left alone


def test_a_domain_the_policy_does_not_select_gets_nothing_but_the_reason() -> None:
    made = plan(host(), domain(), Policy(select=False), NOBODY)
    assert made == Plan("vm", domain().uuid, reasons=made.reasons)
    assert len(made.reasons) == 1


@pytest.mark.parametrize(
    ("policy", "spec"),
    [
        pytest.param(Policy(placement="keep"), domain(), id="policy keep"),
        pytest.param(Policy(), domain(placement="auto"), id="numad places the vcpus"),
        pytest.param(Policy(), domain(numatune=Numatune(placement="auto")), id="numad places the memory"),
    ],
)
def test_keep_pins_nothing_and_steers_all_the_same(policy: Policy, spec: DomainSpec) -> None:
    made = plan(host(), spec, policy, NOBODY)
    assert (made.placement, made.vcpupin, made.emulatorpin, made.numatune) == ("keep", {}, None, None)
    assert made.rx_queue_size == 1024
    assert made.irqs


# Dedicated


def test_vcpus_take_isolated_cpus_and_the_emulator_the_first_of_them() -> None:
    made = plan(host(isolated=range(2, 8)), domain(4), Policy(), NOBODY)
    assert made.emulatorpin == cpus(2, 3)
    assert seats(made) == [4, 5, 6, 7]


def test_housekeeping_and_interrupts_keep_a_cpu_on_a_small_node() -> None:
    made = plan(host(cores=4), domain(2), Policy(), NOBODY)
    assert made.emulatorpin == cpus(1)
    assert seats(made) == [2, 3]
    assert {cpu for move in made.irqs for cpu in move.cpus} == set()
    assert "CPUs of node 0 that no VM uses" in why(made, "irq p0")


def test_too_few_isolated_cpus_leave_the_emulator_among_the_others() -> None:
    made = plan(host(isolated=(6, 7)), domain(4), Policy(), NOBODY)
    assert seats(made)[:2] == [6, 7]
    assert made.emulatorpin
    assert made.emulatorpin.isdisjoint({6, 7})


def test_siblings_stay_idle_while_there_is_room() -> None:
    made = plan(host(threads=2), domain(4), Policy(), NOBODY)
    assert len({cpu % 16 for cpu in seats(made)}) == 4
    assert made.holds.vcpus == frozenset(seats(made))


def test_siblings_are_used_when_cores_run_short() -> None:
    made = plan(host(nodes=1, cores=4, threads=2), domain(6), Policy(), NOBODY)
    assert made.placement == "dedicated"
    assert len({cpu % 4 for cpu in seats(made)}) == 3
    assert "siblings in use" in why(made, "vcpus")


def test_guest_siblings_sit_on_host_siblings() -> None:
    made = plan(host(threads=2), domain(4, threads=2), Policy(), NOBODY)
    first, second, third, fourth = seats(made)
    assert (second, fourth) == (first + 16, third + 16)


def test_guest_siblings_stay_together_beside_a_pin_of_the_users() -> None:
    made = plan(host(threads=2), domain(4, threads=2, vcpupin={0: cpus(15)}), Policy(), NOBODY)
    (second,), (third,) = made.vcpupin[2], made.vcpupin[3]
    assert third == second + 16
    assert made.vcpupin[1].isdisjoint(host(threads=2).siblings(made.vcpupin[2]))


def test_only_vcpus_online_at_boot_are_pinned() -> None:
    made = plan(host(), domain(8, current=2), Policy(), NOBODY)
    assert sorted(made.vcpupin) == [0, 1]


def test_vcpus_enabled_one_by_one_are_pinned_and_no_others() -> None:
    made = plan(host(), domain(8, current=3, enabled=cpus(0, 2, 5)), Policy(), NOBODY)
    assert sorted(made.vcpupin) == [0, 2, 5]


def test_each_vhost_worker_gets_a_cpu_where_there_are_enough() -> None:
    four = domain(4, vnics=(Vnic(0, type="bridge", source="br0", model="virtio", queues=3),))
    made = plan(host(), four, Policy(), NOBODY)
    assert len(set(made.vhost)) == 3
    assert set(made.vhost) <= (made.emulatorpin or set())


@pytest.mark.parametrize(
    "vnic",
    [
        pytest.param(Vnic(0, type="bridge", source="br0", model="e1000e"), id="emulated model"),
        pytest.param(Vnic(0, type="bridge", source="br0", model="virtio", driver="qemu"), id="driver qemu"),
        pytest.param(Vnic(0, type="vhostuser", model="virtio"), id="vhost-user"),
    ],
)
def test_a_nic_without_vhost_has_no_workers(vnic: Vnic) -> None:
    assert plan(host(), domain(vnics=(vnic,)), Policy(poll_us=200), NOBODY).vhost == ()
    assert plan(host(), domain(vnics=(vnic,)), Policy(poll_us=200), NOBODY).poll_us is None


# The node


def test_the_uplinks_node_is_taken() -> None:
    made = plan(host(nics=(nic(node=1),)), domain(), Policy(), NOBODY)
    assert made.nodes == (1,)
    assert made.numatune == ("strict", frozenset({1}))


def test_without_an_uplink_the_emptiest_node_is_taken() -> None:
    made = plan(host(), domain(vnics=()), Policy(), Taken(vcpus=cpus(2, 3, 4)))
    assert made.nodes == (1,)
    assert made.irqs == ()


def test_a_full_node_sends_the_domain_to_the_nearest_other() -> None:
    made = plan(
        host(nodes=4, nics=(nic(node=2),)), domain(6), Policy(), Taken(vcpus=frozenset(range(18, 24)))
    )
    assert made.nodes == (1,)
    assert "2 whole free cores" not in why(made, "node")
    assert "1 whole free cores there, 6 vCPUs to place" in why(made, "node")


def test_memory_decides_between_nodes_with_the_cores() -> None:
    here = host()
    tight = evolve(here, cells=(evolve(here.cells[0], free_kib=GIB), here.cells[1]))
    made = plan(tight, domain(), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((1,), ("strict", frozenset({1})))


def test_memory_that_fits_nowhere_is_preferred_on_the_uplinks_node() -> None:
    made = plan(host(free_gib=1), domain(), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((0,), ("preferred", frozenset({0})))
    assert "1024 MiB free, 4096 MiB wanted" in why(made, "memory")


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
    assert (made.nodes, made.numatune) == ((0,), ("strict", frozenset({1})))


def test_a_large_guest_with_cells_gets_a_node_for_each() -> None:
    parts = (GuestCell(0, cpus(0, 1, 2, 3, 4), 20 * GIB), GuestCell(1, cpus(5, 6, 7, 8, 9), 20 * GIB))
    made = plan(host(), domain(10, 40, cells=parts), Policy(), NOBODY)
    assert made.nodes == (0, 1)
    assert max(seats(made)[:5]) < 8 <= min(seats(made)[5:])
    assert made.memnodes == {0: ("strict", frozenset({0})), 1: ("strict", frozenset({1}))}
    assert made.numatune == ("strict", frozenset({0, 1}))


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
    second = plan(here, asked, Policy(), NOBODY, Taken(memory={(0, page): 48 * GIB}))
    third = plan(here, asked, Policy(), NOBODY, Taken(memory={(0, page): 48 * GIB, (1, page): 48 * GIB}))
    assert (first.numatune, second.numatune) == (("strict", cpus(0)), ("strict", cpus(1)))
    assert third.numatune == ("preferred", cpus(0))


def test_a_running_domain_keeps_the_mode_of_its_memory() -> None:
    first = plan(host(free_gib=1), domain(), Policy(), NOBODY)
    again = plan(host(), domain(), Policy(), NOBODY, previous=standing(domain(), first), running=True)
    assert first.numatune == again.numatune == ("preferred", cpus(0))


# What the user wrote


def test_the_users_pins_stand_and_the_rest_is_planned_round_them() -> None:
    made = plan(host(), domain(3, vcpupin={1: cpus(12)}), Policy(), NOBODY)
    assert sorted(made.vcpupin) == [0, 2]
    assert made.nodes == (1,)
    assert 12 not in {cpu for pin in made.vcpupin.values() for cpu in pin} | (made.emulatorpin or set())
    assert 12 in made.holds.vcpus


def test_the_users_emulatorpin_stands_and_no_vcpu_goes_there() -> None:
    made = plan(host(), domain(2, emulatorpin=cpus(2, 3)), Policy(), NOBODY)
    assert made.emulatorpin is None
    assert made.holds.emulators == cpus(2, 3)
    assert not set(seats(made)) & {2, 3}


@pytest.mark.parametrize(
    "wide",
    [
        pytest.param(domain(4, vcpupin=dict.fromkeys((0, 1), frozenset(range(8)))), id="vcpupin"),
        pytest.param(domain(4, emulatorpin=frozenset(range(16))), id="emulatorpin"),
    ],
)
def test_a_pin_that_lets_a_thread_float_keeps_nobody_off(wide: DomainSpec) -> None:
    made = plan(host(), wide, Policy(), NOBODY)
    assert made.placement == "dedicated"
    assert made.holds.vcpus == frozenset(seats(made))
    after = plan(host(), domain(2), Policy(), made.holds)
    assert after.placement == "dedicated"
    assert after.nodes == (0,)


def test_a_vcpupin_of_both_siblings_is_held() -> None:
    made = plan(host(threads=2), domain(1, vcpupin={0: cpus(3, 19)}), Policy(), NOBODY)
    assert made.holds.vcpus == cpus(3, 19)


def test_memory_is_left_where_the_users_vcpupin_spans_nodes() -> None:
    made = plan(host(), domain(2, vcpupin={0: cpus(2), 1: cpus(10)}), Policy(), NOBODY)
    assert made.numatune is None
    assert why(made, "memory") == "your vcpupin spans nodes 0-1"


def test_the_users_numatune_binds_the_node() -> None:
    made = plan(host(), domain(numatune=Numatune("preferred", frozenset({1}))), Policy(), NOBODY)
    assert (made.nodes, made.numatune) == ((1,), None)


def test_the_users_cpuset_bounds_the_choice() -> None:
    made = plan(host(), domain(2, cpuset=cpus(9, 10, 11, 12)), Policy(), NOBODY)
    assert set(seats(made)) <= {9, 10, 11, 12}


def test_the_users_ring_size_stands() -> None:
    vnic = Vnic(0, type="bridge", source="br0", model="virtio", rx_queue_size=512)
    made = plan(host(), domain(vnics=(vnic,)), Policy(), NOBODY)
    assert (made.rx_queue_size, made.ring_vnics) == (None, ())


# Others


def test_not_enough_cores_means_floating_off_isolation_and_off_other_vms() -> None:
    made = plan(host(nodes=1, isolated=(6, 7)), domain(7), Policy(), Taken(vcpus=cpus(2, 3)))
    assert made.placement == "shared"
    assert set(made.vcpupin.values()) == {cpus(0, 1, 4, 5)}
    assert made.holds == Taken()
    assert made.vhost == ()


@pytest.mark.parametrize(
    ("floating", "expected"),
    [
        pytest.param(0, cpus(0, 1, 2), id="its node's, with the emulator's CPUs of the one that came first"),
        pytest.param(1, cpus(0, 4), id="the host's CPUs, while there are more than one for two threads"),
        pytest.param(3, cpus(0, 1, 2, 4, 5, 6), id="both nodes', when more of them float"),
    ],
)
def test_a_late_vm_does_not_float_over_one_cpu_with_its_vhost_worker(floating: int, expected: Cpus) -> None:
    taken = Taken(vcpus=cpus(3, 7), emulators=cpus(1, 2, 5, 6), floating=floating)
    made = plan(host(cores=4), domain(1), Policy(), taken)
    assert (made.placement, set(made.vcpupin.values())) == ("shared", {expected})


def test_a_late_vm_that_floats_stays_when_an_emulator_comes_beside_it() -> None:
    spec, shared, beside = domain(2), Policy(placement="shared"), Taken(emulators=cpus(1, 2))
    first = plan(host(), spec, shared, NOBODY)
    again = plan(host(), spec, shared, beside, previous=standing(spec, first), running=True)
    assert again.vcpupin == first.vcpupin


def test_a_crowd_on_the_last_cpus_is_left_to_the_scheduler() -> None:
    taken = Taken(vcpus=frozenset(range(2, 8)), floating=5)
    assert plan(host(nodes=1), domain(3), Policy(), taken).placement == "shared"
    made = plan(host(nodes=1), domain(4), Policy(), taken)
    assert made.placement == "keep"
    assert "9 vCPUs would float over the 2 CPUs" in why(made, "vcpus")


def test_those_who_float_spread_over_the_nodes_with_their_number() -> None:
    few = plan(host(), domain(2), Policy(placement="shared"), NOBODY)
    many = plan(host(), domain(2), Policy(placement="shared"), Taken(floats=few.vcpupin[0], floating=10))
    assert few.nodes == (0,)
    assert many.nodes == (0, 1)


def test_who_floats_already_is_not_moved_for_each_that_comes() -> None:
    spec = domain(2)
    first = plan(host(), spec, Policy(placement="shared"), NOBODY)
    busy = Taken(floats=first.vcpupin[0], floating=10)
    again = plan(host(), spec, Policy(placement="shared"), busy, previous=standing(spec, first), running=True)
    assert again.vcpupin == first.vcpupin


def test_nothing_left_at_all_means_keep() -> None:
    made = plan(host(nodes=1), domain(), Policy(), Taken(vcpus=frozenset(range(8))))
    assert (made.placement, made.vcpupin, made.irqs) == ("keep", {}, ())


def test_other_definitions_are_avoided_until_nothing_else_is_left() -> None:
    one = host(nodes=1)
    apart = plan(one, domain(2), Policy(), NOBODY, Taken(vcpus=cpus(3, 4)))
    together = plan(one, domain(5), Policy(), NOBODY, Taken(vcpus=cpus(3, 4)))
    assert not set(seats(apart)) & {3, 4}
    assert together.placement == "dedicated"


def standing(spec: DomainSpec, made: Plan) -> DomainSpec:
    mode, nodeset = made.numatune or (None, None)
    return evolve(
        spec,
        vcpupin=made.vcpupin,
        emulatorpin=made.emulatorpin or NO_CPUS,
        numatune=Numatune(mode, nodeset),
    )


def test_a_plan_made_before_is_kept_while_it_is_good() -> None:
    spec = domain()
    first = plan(host(), spec, Policy(), Taken(vcpus=cpus(1, 2, 3)))
    again = plan(host(), spec, Policy(), NOBODY, previous=standing(spec, first))
    assert (again.vcpupin, again.emulatorpin) == (first.vcpupin, first.emulatorpin)
    assert again.vcpupin != plan(host(), spec, Policy(), NOBODY).vcpupin


def test_a_plan_made_before_is_dropped_when_another_vm_took_its_cpu() -> None:
    spec = domain()
    first = plan(host(), spec, Policy(), NOBODY)
    again = plan(host(), spec, Policy(), Taken(vcpus=cpus(seats(first)[0])), previous=standing(spec, first))
    assert again.placement == "dedicated"
    assert seats(first)[0] not in seats(again)


@pytest.mark.parametrize(
    ("taken", "avoid"),
    [
        pytest.param(Taken(floats=cpus(0, 1, 2), floating=1), NOBODY, id="who floats over its emulator's"),
        pytest.param(NOBODY, Taken(vcpus=cpus(3)), id="a definition that found no other"),
    ],
)
def test_a_running_domain_stays_though_others_come_near(taken: Taken, avoid: Taken) -> None:
    spec, here = domain(1), host(cores=4)
    first = plan(here, spec, Policy(), NOBODY)
    assert (seats(first), first.emulatorpin) == ([3], cpus(1, 2))
    before = standing(spec, first)
    again = plan(here, spec, Policy(), taken, avoid, previous=before, running=True)
    assert (again.vcpupin, again.emulatorpin) == (first.vcpupin, first.emulatorpin)
    stopped = plan(here, spec, Policy(), taken, avoid, previous=before)
    assert (stopped.vcpupin, stopped.emulatorpin) != (first.vcpupin, first.emulatorpin)


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


# MTU


def tunnelled(mtu: int = 1500) -> HostTopology:
    """br0 is over a VXLAN tunnel over p0, whose MTU is ``mtu``; the domain's tap is vnet0."""
    links = {
        "p0": Link("p0", mtu=mtu),
        "vx0": Link("vx0", "vxlan", mtu - 50, tunnel=Tunnel(("192.0.2.1",), vni=1)),
        "br0": Link("br0", "bridge", mtu - 50, lower=("vx0",)),
        "vnet0": Link("vnet0", "tun", mtu - 50, lower=("br0",)),
    }
    return evolve(host(), links=links, routes={"192.0.2.1": Route("192.0.2.1", "p0", "192.0.2.2")})


def on_tunnel(mtu: int | None = None) -> DomainSpec:
    return domain(vnics=(Vnic(0, type="bridge", source="br0", target="vnet0", model="virtio", mtu=mtu),))


@pytest.mark.parametrize(
    ("own", "size"),
    [
        pytest.param(None, 1450, id="what crosses whole"),
        pytest.param(1400, None, id="a smaller one of the user's stays"),
        pytest.param(9000, 1450, id="a larger one is lowered"),
    ],
)
def test_mtu(own: int | None, size: int | None) -> None:
    made = plan(tunnelled(), on_tunnel(mtu=own), Policy(), NOBODY)
    assert [choice.size for choice in made.mtus] == ([size] if size else [])


def test_mtu_keep_sets_none() -> None:
    assert plan(tunnelled(), on_tunnel(), Policy(mtu="keep"), NOBODY).mtus == ()


def test_nothing_on_the_way_leaves_the_mtu_alone() -> None:
    assert plan(host(), domain(), Policy(), NOBODY).mtus == ()


def test_a_way_that_is_not_whole_leaves_an_earlier_mtu_in_place() -> None:
    cut = evolve(tunnelled(), routes={})
    assert plan(cut, on_tunnel(), Policy(), NOBODY).unknown >= {"mtu", "host_mtu"}
    assert plan(tunnelled(), on_tunnel(), Policy(), NOBODY).unknown == frozenset()


def test_a_tap_that_was_made_small_gets_its_bridges_mtu_back() -> None:
    # The tunnel was left at 1500; libvirt made the tap as small as the guest, and the bridge followed.
    here = tunnelled()
    links = dict(here.links)
    links["vx0"] = evolve(links["vx0"], mtu=1500)
    pulled = evolve(here, links=links)
    spec = on_tunnel()
    running = on_tunnel(mtu=1450)
    made = plan(pulled, spec, Policy(), NOBODY, previous=running, running=True)
    assert [(link.device, link.size) for link in made.link_mtus] == [("vnet0", 1500)]
    before_its_next_start = plan(pulled, spec, Policy(), NOBODY, previous=spec, running=True)
    assert before_its_next_start.link_mtus == ()


# Interrupts


def test_interrupts_leave_the_vcpus_and_control_vectors_stay() -> None:
    card = nic(at=(2, 3, 4, 5))
    made = plan(host(nics=(card,)), domain(4), Policy(), NOBODY)
    targets = {cpu for move in made.irqs for cpu in move.cpus}
    assert card.irqs[0].number not in {move.irq for move in made.irqs}
    assert not targets & host().siblings(made.holds.vcpus)


def test_interrupts_go_beside_the_emulators_before_they_leave_the_node() -> None:
    made = plan(host(nodes=1, cores=3, nics=(nic(at=(2,)),)), domain(2), Policy(emulator_cpus=1), NOBODY)
    assert {cpu for move in made.irqs for cpu in move.cpus} == {0}
    assert "beside the emulators" in why(made, "irq p0")


def test_interrupts_leave_a_node_full_of_vcpus() -> None:
    taken = Taken(vcpus=frozenset(range(8)))
    made = plan(host(nics=(nic(at=(3, 4)),)), domain(), Policy(), taken)
    assert {cpu for move in made.irqs for cpu in move.cpus} <= host().cells[1].cpus
    assert "node 1 is the nearest other" in why(made, "irq p0")


def test_irq_keep_moves_nothing() -> None:
    assert plan(host(), domain(), Policy(irq="keep"), NOBODY).irqs == ()


# Properties


def cards(nodes: int, every: range) -> st.SearchStrategy[Nic]:
    node = st.one_of(st.none(), st.integers(0, nodes))
    return st.builds(nic, node=node, at=st.lists(st.sampled_from(every), max_size=8))


@st.composite
def cases(draw: st.DrawFn) -> tuple[HostTopology, DomainSpec, Policy, Taken]:
    nodes, cores, threads = draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.sampled_from([1, 2, 4]))
    every = range(nodes * cores * threads)
    some = st.frozensets(st.sampled_from(every), max_size=len(every) // 2)
    any_of_them = st.frozensets(st.sampled_from(every), min_size=1)
    here = host(
        nodes,
        cores,
        threads,
        isolated=draw(some),
        free_gib=draw(st.sampled_from([0, 1, 64])),
        nics=(draw(cards(nodes, every)),),
    )
    count = draw(st.integers(1, 24))
    pinned = draw(st.dictionaries(st.integers(0, count - 1), any_of_them, max_size=3))
    spec = domain(count, threads=draw(st.sampled_from([1, 2])), vcpupin=pinned, iothreads=(1,))
    policy = Policy(
        placement=draw(st.sampled_from(["dedicated", "shared", "keep"])),
        housekeeping=draw(st.one_of(st.none(), some)),
        emulator_cpus=draw(st.one_of(st.none(), st.integers(1, 4), any_of_them)),
    )
    return here, spec, policy, Taken(draw(some), draw(some))


def _all(pins: Mapping[int, Cpus]) -> Cpus:
    return frozenset().union(*pins.values())


@given(cases())
def test_any_case_keeps_the_promises(case: tuple[HostTopology, DomainSpec, Policy, Taken]) -> None:
    here, spec, policy, taken = case
    made = plan(here, spec, policy, taken)
    assert made == plan(here, spec, policy, taken)
    ours = _all(made.vcpupin)
    assert ours <= here.online
    assert not ours & taken.vcpus
    assert not set(made.vcpupin) & set(spec.vcpupin)
    if made.placement == "dedicated":
        assert all(len(pin) == 1 for pin in made.vcpupin.values())
        assert len(ours) == len(made.vcpupin)
        assert not ours & (made.emulatorpin or NO_CPUS)
        assert not ours & (policy.housekeeping or NO_CPUS)
        own = {vcpu: pin for vcpu, pin in spec.vcpupin.items() if pin <= here.siblings(cpus(min(pin)))}
        assert not here.siblings(ours) & (taken.all | _all(own))
    else:
        assert not ours & here.isolated
    guarded = here.siblings(taken.vcpus | made.holds.vcpus)
    assert all(not move.cpus & guarded and move.cpus <= here.online for move in made.irqs)


@given(cases())
def test_a_plan_survives_being_planned_again(case: tuple[HostTopology, DomainSpec, Policy, Taken]) -> None:
    here, spec, policy, taken = case
    first = plan(here, spec, policy, taken)
    if first.placement == "dedicated" and not spec.vcpupin and not spec.emulatorpin:
        again = plan(here, spec, policy, taken, previous=standing(spec, first), running=True)
        assert (again.vcpupin, again.emulatorpin) == (first.vcpupin, first.emulatorpin)
