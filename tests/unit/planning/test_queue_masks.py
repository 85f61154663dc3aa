"""RPS and XPS masks that name CPUs of vCPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.host import nics
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes as apply
from libvirt_tuner.hostside import status
from libvirt_tuner.hostside.ledger import Book, Claim, Ledger
from libvirt_tuner.planning import planner, queue_masks, stored
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import Held, Plan
from libvirt_tuner.topology import QueueMask
from tests import hosts
from tests.unit import builders
from tests.unit.builders import beside, cpus

VCPUS = cpus(4, 5)


def mask(queue: str, text: str) -> QueueMask:
    return QueueMask("p0", queue, cpuset.parse(text))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(("rx-0", ""), None, id="RPS off stays off"),
        pytest.param(("rx-0", "0-3"), None, id="RPS elsewhere stays"),
        pytest.param(("rx-0", "2-5"), "2-3", id="RPS: vCPUs taken out"),
        pytest.param(("rx-0", "4-5"), "0-1", id="RPS: to the interrupts' CPUs when nothing is left"),
        pytest.param(("tx-0", ""), None, id="XPS off"),
        pytest.param(("tx-0", "2,4"), "2", id="XPS: vCPUs taken out"),
        pytest.param(("tx-0", "4"), None, id="XPS: a queue of vCPUs alone is left"),
    ],
)
def test_mended(before: tuple[str, str], after: str | None) -> None:
    wanted = queue_masks.without_vcpus([mask(*before)], VCPUS, cpus(0, 1, 4))
    assert [cpuset.format(each.cpus) for each in wanted] == ([] if after is None else [after])
    assert queue_masks.without_vcpus(wanted, VCPUS, cpus(0, 1)) == ()


def test_without_a_cpu_for_interrupts_rps_goes_off() -> None:
    assert queue_masks.without_vcpus([mask("rx-0", "4")], VCPUS, VCPUS) == (mask("rx-0", ""),)


def plan(policy: Policy, masks: tuple[QueueMask, ...], others: tuple[Neighbour, ...] = ()) -> Plan:
    host = builders.host(isolated=(4, 5))
    return planner.plan(evolve(host, queues=masks), builders.domain(2), policy, others)


MASKS = (mask("rx-0", "0-7"), mask("rx-1", "0"), mask("tx-0", "0"), mask("tx-1", "4"))


def lines(made: Plan) -> list[tuple[str, str]]:
    return [(why.subject, why.decision) for why in made.reasons if why.subject[:3] in ("rps", "xps")]


def test_by_default_masks_are_shown_and_left() -> None:
    made = plan(Policy(), MASKS)
    assert made.masks == ()
    assert lines(made) == [("rps p0", "not changed"), ("xps p0", "not changed")]
    assert any('rps = "steer"' in reason.why for reason in made.reasons)


def test_the_policy_has_vcpus_taken_out() -> None:
    made = plan(Policy(rps="steer"), MASKS)
    assert made.holds.vcpus == cpus(4, 5)
    assert made.masks == (mask("rx-0", "0-3,6-7"),)
    assert lines(made) == [("rps p0", "rx 0 to change"), ("xps p0", "not changed")]


def test_other_domains_vcpus_are_taken_out_too() -> None:
    made = plan(Policy(rps="steer"), (mask("rx-0", "0,7"),), beside(cpus(7)))
    assert made.masks == (mask("rx-0", "0"),)


@pytest.mark.parametrize(
    "masks",
    [pytest.param((), id="not read"), pytest.param((mask("rx-0", "0-1"),), id="nothing aims at a vCPU")],
)
def test_nothing_to_say(masks: tuple[QueueMask, ...]) -> None:
    made = plan(Policy(rps="steer"), masks)
    assert made.masks == ()
    assert lines(made) == []


def test_masks_are_written_and_given_back(tmp_path: Path) -> None:
    hosts.make("misfit", tmp_path)
    sysfs = Sysfs(str(tmp_path))
    found = nics.queue_masks(sysfs, "ens1f0np0")
    wanted = queue_masks.without_vcpus(found, cpus(2), cpus(0, 1))
    changes = [apply.queue_mask(each) for each in wanted]
    assert [change.target for change in changes] == ["ens1f0np0/rx-1", "ens1f0np0/rx-2"]
    with Ledger(sysfs).locked() as book:
        book.claim(Claim("u", "vm", 1, 1))
        assert all(outcome.ok for outcome in apply.perform_all(sysfs, book, "u", changes))
        assert queue_masks.aimed(nics.queue_masks(sysfs, "ens1f0np0"), cpus(2)) == found[6:7]
        apply.give_back(sysfs, book, "u")
    assert nics.queue_masks(sysfs, "ens1f0np0") == found


def test_status_shows_masks_that_send_packets_to_the_domains_vcpus(tmp_path: Path) -> None:
    hosts.make("misfit", tmp_path)
    book = Book()
    made = Plan("vm", "u", "dedicated", holds=Held(cpus(3)))
    book.claim(Claim("u", "vm", 99999, 1, plan=stored.to_dict(made)))
    rows = status.rows(Sysfs(str(tmp_path)), book, "u", builders.domain(1), None)
    (row,) = [row for row in rows if row.subject == "rps ens1f0np0"]
    assert (row.real, row.ok) == ("3", True)
    assert row.note.startswith("packets of rx 1 go to these vCPUs")
    assert not [row for row in rows if row.subject == "rps ens1f1np1"]
