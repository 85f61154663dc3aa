from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from libvirt_tuner.planning.interrupts import (
    choose_cpus,
    kept,
    least_cpus,
    queue_irqs,
    spread,
    staying,
    threads,
)
from libvirt_tuner.topology import NO_CPUS, Cpus, Irq, Nic
from tests.unit.builders import cpus, host, nic


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        pytest.param("mlx5_comp3@pci:0000:17:00.0", True, id="mlx5 completion"),
        pytest.param("mlx5_async0@pci:0000:17:00.0", False, id="mlx5 events"),
        pytest.param("virtio0-input.0", True, id="virtio queue"),
        pytest.param("virtio0-config", False, id="virtio config"),
        pytest.param("i40e-enp1s0f0-TxRx-3", True, id="i40e queue"),
        pytest.param("i40e-0000:01:00.0:misc", False, id="i40e misc"),
        pytest.param("eth0", True, id="a single vector for all"),
        pytest.param("", False, id="not requested"),
    ],
)
def test_queue_vectors_are_told_from_others(action: str, expected: bool) -> None:
    assert bool(queue_irqs(Nic("eth0", irqs=(Irq(1, action),)))) is expected


@pytest.mark.parametrize(
    ("name", "control", "queue"),
    [
        pytest.param("eth0", "eth0", "eth0-TxRx-0", id="igb, ixgbe"),
        pytest.param("eth0", "eth0", "eth0-rx-0", id="e1000e"),
        pytest.param("eth0", "ena-mgmnt@pci:0000:00:05.0", "eth0-Tx-Rx-0", id="ena"),
        pytest.param("eth0", "idpf-Mailbox-0", "idpf-eth0-TxRx-0", id="idpf"),
        pytest.param("eth0", "eth0-sp-0", "eth0-fp-0", id="bnx2x"),
        pytest.param("eth0", "0000:01:00.0-nfp-lsc", "nfp-eth0-rxtx-0", id="nfp"),
        pytest.param("eth0", "ice-0000:81:00.0:ll_ts", "ice-eth0-TxRx-0", id="ice time stamps"),
        pytest.param("eth0", "ice-0000:81:00.0:misc", "ice-eth0-TxRx-0", id="ice"),
        pytest.param("eth0", "irdma-0000:81:00.0-CEQ-1", "ice-eth0-TxRx-0", id="ice with RDMA"),
        pytest.param("eth0", "i40e-0000:01:00.0:fdir-TxRx-0", "i40e-eth0-TxRx-0", id="i40e flow director"),
        pytest.param("eth0", "bnxt_re-nq-0@pci:0000:01:00.0", "eth0-TxRx-0", id="bnxt with RDMA"),
        pytest.param("eth0", "gve-mgmnt@pci:0000:00:04.0", "gve-ntfy-blk0@pci:0000:00:04.0", id="gve"),
        pytest.param("eth0", "mana_hwc@pci:7870:00:00.0", "mana_q0@pci:7870:00:00.0", id="mana"),
        pytest.param("eth0", "mana_hwc@pci:7870:00:00.0", "mana_msi1@pci:7870:00:00.0", id="mana, newer"),
        pytest.param("eth0", "sp-0-81:00.00", "eth0-fp-0", id="qede"),
        pytest.param("eth0", "virtio0-control", "virtio0-input.0", id="virtio"),
        pytest.param("eth0", "mlx5_async0@pci:0000:17:00.0", "mlx5_comp0@pci:0000:17:00.0", id="mlx5"),
        pytest.param("mgmt0", "mgmt0", "mgmt0-TxRx-1", id="an interface with the name of another word"),
        pytest.param("ctrl0", "ctrl0", "ctrl0-rx-1", id="the same"),
    ],
)
def test_vectors_of_one_function(name: str, control: str, queue: str) -> None:
    assert [irq.action for irq in queue_irqs(Nic(name, irqs=(Irq(1, control), Irq(2, queue))))] == [queue]


def test_threads_that_poll_are_said() -> None:
    assert threads(Nic("eth0")) == ""
    assert "napi/eth0-*" in threads(Nic("eth0", threaded=True))


def test_nothing_moves_when_all_sit_well() -> None:
    assert spread(nic(at=(0, 2, 4)), cpus(0, 2, 4)) == ()


def test_nothing_moves_without_cpus() -> None:
    assert spread(nic(), cpus()) == ()


def test_only_the_surplus_of_a_crowded_cpu_moves() -> None:
    moves = spread(nic(at=(0, 0, 0, 2)), cpus(0, 2))
    assert [(move.irq, move.cpus) for move in moves] == [(103, cpus(2))]


def test_an_interrupt_that_may_leave_is_confined_where_it_is() -> None:
    wide = Nic("p0", irqs=(Irq(7, "virtio0-input.0", cpus(0, 1, 2, 3), cpus(1)),))
    assert [(move.irq, move.cpus) for move in spread(wide, cpus(1, 2))] == [(7, cpus(1))]


def test_an_interrupt_without_an_effective_cpu_goes_to_the_least_loaded() -> None:
    idle = Nic("p0", irqs=(Irq(7, "eth0-TxRx-0", cpus(4, 5)), Irq(8, "eth0-TxRx-1", cpus(0), cpus(0))))
    assert [(move.irq, move.cpus) for move in spread(idle, cpus(0, 1))] == [(7, cpus(1))]


def test_what_does_not_move_is_kept_where_it_is() -> None:
    card = nic(at=(0, 0, 0, 2))
    stays = kept(card, cpus(0, 2), spread(card, cpus(0, 2)))
    assert [(move.irq, move.cpus) for move in stays] == [(101, cpus(0)), (102, cpus(0)), (104, cpus(2))]


def test_nothing_is_kept_that_may_go_elsewhere() -> None:
    wide = Nic("p0", irqs=(Irq(7, "virtio0-input.0", cpus(0, 1, 2, 3), cpus(1)),))
    assert kept(wide, cpus(1, 2), ()) == ()


def test_one_that_conflicts_with_nobody_stays() -> None:
    card = nic(at=(0, 2, 6, 6))
    moves = spread(card, cpus(0, 2), cpus(4, 6))
    assert moves == (), "6 is an emulator's"
    assert {move.irq for move in kept(card, cpus(0, 2, 4, 6), moves)} == {101, 102, 103, 104}


def test_those_on_other_cpus_move() -> None:
    moves = spread(nic(at=(0, 1, 6)), cpus(0, 2), cpus(4, 6))
    assert [(move.irq, move.cpus) for move in moves] == [(102, cpus(2))]


HOST = host(nodes=2, cores=4)


@pytest.mark.parametrize(
    ("changes", "vcpus", "found"),
    [
        pytest.param({}, cpus(0, 1), cpus(2, 3), id="a node's CPUs that no VM uses"),
        pytest.param({"irq_default": cpus(0, 1, 2)}, cpus(0, 1), cpus(2), id="default_smp_affinity"),
        pytest.param({"irq_default": cpus(0, 5)}, cpus(0, 1), cpus(5), id="which leaves nothing on the node"),
        pytest.param({"irq_default": cpus(0, 1)}, cpus(0, 1), cpus(), id="which leaves nothing at all"),
        pytest.param({"isolated": cpus(3)}, cpus(0, 1), cpus(2), id="isolated"),
        pytest.param({"nohz_full": cpus(2, 3)}, cpus(0, 1), cpus(4, 5, 6, 7), id="no tick: the next node"),
        pytest.param(
            {"isolated": frozenset(range(2, 8))}, cpus(0, 1), cpus(), id="only isolated ones are left"
        ),
    ],
)
def test_where_interrupts_go(changes: dict[str, Cpus], vcpus: Cpus, found: Cpus) -> None:
    assert choose_cpus(evolve(HOST, **changes), 0, vcpus, NO_CPUS)[0] == found  # type: ignore[arg-type]


def test_where_interrupts_may_stay() -> None:
    quiet = evolve(HOST, isolated=cpus(3))
    assert staying(quiet, 0, cpus(0), crowded=cpus(2)) == cpus(1)


@given(st.lists(st.integers(0, 31), max_size=64), st.frozensets(st.integers(0, 31), min_size=1))
def test_after_the_moves_the_load_is_even_and_nothing_is_left_to_do(
    at: list[int], allowed: frozenset[int]
) -> None:
    card = nic(at=at, queues=0)
    where = {irq.number: irq.effective for irq in card.irqs[1:]}
    where |= {move.irq: move.cpus for move in spread(card, allowed)}
    loads = [sum(cpu in seat for seat in where.values()) for cpu in allowed]
    assert all(seat <= allowed for seat in where.values())
    assert max(loads) <= -(-len(at) // len(allowed))
    after = nic(at=[min(where[irq.number]) for irq in card.irqs[1:]], queues=0)
    assert spread(after, allowed) == ()


@pytest.mark.parametrize(
    ("driver", "queues", "least"),
    [
        ("virtio-pci", 2, 1),
        ("virtio-pci", 3, 1),
        ("virtio-pci", 4, 2),
        ("mlx5_core", 1, 1),
        ("mlx5_core", 2, 2),
    ],
)
def test_a_single_pair_of_queues_needs_one_cpu(
    monkeypatch: pytest.MonkeyPatch, driver: str, queues: int, least: int
) -> None:
    monkeypatch.setattr("libvirt_tuner.planning.interrupts.queue_irqs", lambda nic: tuple(range(queues)))
    assert least_cpus(Nic("eth0", driver=driver)) == least
