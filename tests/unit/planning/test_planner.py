from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.spec import DomainSpec, Numatune, Vnic
from libvirt_tuner.planning.neighbours import Neighbour, Population, neighbour
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.planner import plan
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, Link, Nic, Route, Tunnel
from tests.unit.builders import beside, cpus, domain, host, nic
from tests.unit.planning.reading import NOBODY, seats, standing, why

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
    assert made.driver["rx_queue_size"][0] == 1024
    assert made.irqs


# Dedicated


def test_vcpus_take_isolated_cpus_and_the_emulator_the_first_of_them() -> None:
    made = plan(host(isolated=range(2, 8)), domain(4), Policy(), NOBODY)
    assert made.emulatorpin == cpus(2, 3)
    assert seats(made) == [4, 5, 6, 7]


def test_housekeeping_and_interrupts_keep_a_cpu_on_a_small_node() -> None:
    made = plan(host(cores=4), domain(2), Policy(), NOBODY)
    assert seats(made) == [1, 2]
    assert made.emulatorpin == cpus(0, 3)
    assert made.vhost == (3,)
    assert [sorted(move.cpus) for move in made.irqs] == [[7], [7]], "not all four on CPU 0"
    assert "uses CPUs of the emulators, and 7 of the nearest other node" in why(made, "irq p0")


def test_a_single_queue_stays_on_the_node() -> None:
    made = plan(host(cores=4, nics=(nic(queues=1),)), domain(2), Policy(), NOBODY)
    assert made.irqs == ()


def test_workers_of_one_nic_are_not_all_on_one_cpu() -> None:
    spec = domain(3, vnics=(evolve(domain().vnics[0], queues=2),))
    other = Neighbour(ours=(cpus(2),), service=cpus(0, 1), workers=(1,), reach=frozenset(range(6)))
    made = plan(host(1, 6), spec, Policy(), (other,))
    assert (made.emulatorpin, made.vhost) == (cpus(0, 1), (0, 1))


def test_workers_that_shared_a_cpu_are_spread_when_there_is_room() -> None:
    spec, here = domain(3, vnics=(evolve(domain().vnics[0], queues=2),)), host(1, 5)
    other = Neighbour(ours=(cpus(4),), reach=frozenset(range(5)))
    first = plan(here, spec, Policy(), (other,), running=True)
    assert first.vhost == (0, 0)
    again = plan(here, spec, Policy(), NOBODY, previous=standing(spec, first), running=True, home=(0,))
    assert (again.vcpupin, again.vhost) == (first.vcpupin, (0, 4))


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
    assert "SMT siblings used" in why(made, "vcpus")


def test_guest_siblings_sit_on_host_siblings() -> None:
    made = plan(host(threads=2), domain(4, threads=2), Policy(), NOBODY)
    first, second, third, fourth = seats(made)
    assert (second, fourth) == (first + 16, third + 16)


def test_guest_siblings_stay_together_beside_a_pin_of_the_users() -> None:
    made = plan(host(threads=2), domain(4, threads=2, vcpupin={0: cpus(15)}), Policy(), NOBODY)
    (second,), (third,) = made.vcpupin[2], made.vcpupin[3]
    assert third == second + 16
    assert made.vcpupin[1].isdisjoint(host(threads=2).siblings(made.vcpupin[2]))


class TestVcpusThatMayBePluggedIn:
    def test_have_pins_for_which_no_cpu_is_held(self) -> None:
        made = plan(host(), domain(4, current=2), Policy(), NOBODY)
        assert sorted(made.vcpupin) == [0, 1, 2, 3]
        assert len(set(seats(made))) == 4
        assert made.holds.vcpus == frozenset(seats(made)[:2])
        assert sorted(made.vcpus) == [0, 1]

    def test_those_enabled_one_by_one(self) -> None:
        made = plan(host(), domain(8, current=3, enabled=cpus(0, 2, 5)), Policy(), NOBODY)
        assert sorted(made.vcpus) == [0, 2, 5]
        assert made.holds.vcpus == frozenset().union(*(made.vcpupin[vcpu] for vcpu in (0, 2, 5)))

    def test_run_with_the_emulator_where_no_cpu_is_free(self) -> None:
        made = plan(host(cores=4), domain(8, current=2), Policy(), NOBODY)
        assert {made.vcpupin[vcpu] for vcpu in range(2, 8)} == {made.emulatorpin}

    def test_share_where_the_others_do(self) -> None:
        made = plan(host(), domain(4, current=2), Policy(placement="shared"), NOBODY)
        assert len(set(made.vcpupin.values())) == 1
        assert len(made.vcpupin) == 4

    def test_never_float_over_isolated_cpus(self) -> None:
        made = plan(host(1, 6, isolated=range(2, 6)), domain(12, current=2), Policy(), NOBODY)
        assert {len(pin) for pin in made.vcpupin.values()} == {1}

    def test_stay_where_they_were_planned_when_they_come(self) -> None:
        spec = domain(4, current=2)
        first = plan(host(), spec, Policy(), NOBODY)
        more = plan(
            host(), evolve(spec, current=3), Policy(), NOBODY, previous=standing(spec, first), running=True
        )
        assert more.vcpupin == first.vcpupin
        assert more.holds.vcpus == frozenset(seats(first)[:3])

    def test_make_room_for_another_domain(self) -> None:
        first = plan(host(nodes=1), domain(4, current=2), Policy(), NOBODY)
        second = plan(host(nodes=1), domain(2, uuid="b"), Policy(), (neighbour(first),))
        assert second.placement == "dedicated"
        assert not set(seats(second)) & first.holds.vcpus


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


def test_a_device_that_libvirt_does_not_make_keeps_its_mtu() -> None:
    # libvirt takes any name in <target dev=> of a vhost-user NIC, the macvtap of another domain's too.
    links = {**tunnelled().links, "macvtap5": Link("macvtap5", "macvtap", 1500, lower=("p0",))}
    here = evolve(tunnelled(), links=links)
    sizes = {}
    for kind in ("direct", "vhostuser"):
        vnic = Vnic(0, type=kind, source="p0", target="macvtap5", model="virtio", mtu=1280)
        spec, previous = (domain(vnics=(each,)) for each in (evolve(vnic, mtu=None), vnic))
        made = plan(here, spec, Policy(mtu=1280), NOBODY, previous=previous, running=True)
        sizes[kind] = [link.size for link in made.link_mtus]
    assert sizes == {"direct": [1280], "vhostuser": []}


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
    assert "uses CPUs of the vhost workers" in why(made, "irq p0")


def test_interrupts_leave_a_node_full_of_vcpus() -> None:
    taken = beside(vcpus=frozenset(range(8)))
    made = plan(host(nics=(nic(at=(3, 4)),)), domain(), Policy(), taken)
    assert {cpu for move in made.irqs for cpu in move.cpus} <= host().cells[1].cpus
    assert "uses node 1, the nearest other" in why(made, "irq p0")


def test_irq_keep_moves_nothing() -> None:
    assert plan(host(), domain(), Policy(irq="keep"), NOBODY).irqs == ()


# Properties

Case = tuple[HostTopology, DomainSpec, Policy, tuple[Neighbour, ...]]


def cards(nodes: int, every: range) -> st.SearchStrategy[Nic]:
    node = st.one_of(st.none(), st.integers(0, nodes))
    return st.builds(nic, node=node, at=st.lists(st.sampled_from(every), max_size=8))


@st.composite
def cases(draw: st.DrawFn) -> Case:
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
        placement=draw(st.sampled_from(["auto", "dedicated", "shared", "keep"])),
        housekeeping=draw(st.one_of(st.none(), some)),
        emulator_cpus=draw(st.one_of(st.none(), st.integers(1, 4), any_of_them)),
    )
    return here, spec, policy, beside(draw(some), draw(some))


def _all(pins: Mapping[int, Cpus]) -> Cpus:
    return frozenset().union(*pins.values())


@given(cases())
def test_any_case_keeps_the_promises(case: Case) -> None:
    here, spec, policy, others = case
    made = plan(here, spec, policy, others)
    assert made == plan(here, spec, policy, others)
    ours = _all(made.vcpupin)
    taken = Population(here, others)
    assert ours <= here.online
    assert not set(made.vcpupin) & set(spec.vcpupin)
    if made.placement == "dedicated":
        assert all(len(pin) == 1 for pin in made.vcpupin.values())
        assert len(ours) == len(made.vcpupin)
        assert made.claimed or not ours & taken.held
        assert not ours & (policy.housekeeping or NO_CPUS)
        own = {vcpu: pin for vcpu, pin in spec.vcpupin.items() if pin <= here.siblings(cpus(min(pin)))}
        assert not ours & _all(own)
    else:
        assert not ours & here.isolated
    guarded = taken.held | made.holds.vcpus
    assert all(not move.cpus & guarded and move.cpus <= here.online for move in made.irqs)


@given(cases())
def test_a_plan_survives_being_planned_again(case: Case) -> None:
    here, spec, policy, others = case
    first = plan(here, spec, policy, others)
    if first.placement == "dedicated" and not spec.vcpupin and not first.claimed:
        again = plan(
            here, spec, policy, others, previous=standing(spec, first), running=True, home=first.nodes
        )
        assert again.vcpupin == first.vcpupin


class TestIsolatedCpus:
    """Nothing is balanced there: a thread that works has one CPU."""

    here = host(1, 10, isolated=range(2, 10))
    spec = domain(4, iothreads=(1, 2), vnics=(evolve(domain().vnics[0], queues=2),))

    def test_workers_and_iothreads_have_one_each(self) -> None:
        made = plan(self.here, self.spec, Policy())
        assert (made.emulatorpin or cpus()) <= self.here.isolated
        assert {len(pin) for pin in (*made.vcpupin.values(), *made.iothreadpin.values())} == {1}
        assert len(set(made.vhost)) == 2
        assert not set(made.vhost) & set().union(*made.iothreadpin.values())

    def test_balanced_ones_float_over_the_emulators(self) -> None:
        made = plan(evolve(self.here, isolated=cpus()), self.spec, Policy())
        assert set(made.iothreadpin.values()) == {made.emulatorpin}

    def test_real_time_vcpus_leave_the_last_cpu(self) -> None:
        made = plan(host(1, 4), domain(4, realtime=True), Policy())
        assert (made.placement, made.vcpupin) == ("keep", {})
        assert plan(host(1, 5), domain(4, realtime=True), Policy()).placement == "dedicated"

    def test_within_the_users_own_emulatorpin(self) -> None:
        made = plan(self.here, evolve(self.spec, emulatorpin=cpus(8, 9)), Policy())
        assert made.emulatorpin is None
        assert set(made.vhost) == {8, 9}
        assert {len(pin) for pin in made.iothreadpin.values()} == {1}

    def test_nobody_floats_there(self) -> None:
        made = plan(self.here, evolve(self.spec, vcpus=12, current=12), Policy())
        assert made.placement == "shared"
        assert not set().union(*made.vcpupin.values(), made.emulatorpin or cpus()) & self.here.isolated
