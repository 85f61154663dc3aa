"""What a running domain has on the host's side, on a replayed host: a bond of two ConnectX ports."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.errors import DomainXmlError, LedgerError, MissingError, RejectedError, TunerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding, libvirt_files
from libvirt_tuner.hostside.holding import Given
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Plan
from tests.unit.replay import Domain, Replay

FIRST, SECOND = range(214, 230), range(231, 247)
"""The queue interrupts of the two ports; 213 and 230 carry no packets."""


PORT = "sys/devices/pci0000:17/0000:17:00.1/net/enp23s0f1np1"
WEB, DB = Domain("web", 1), Domain("db", 2)


@pytest.fixture
def host(tmp_path: Path) -> Replay:
    return Replay.make(tmp_path)


def give(host: Replay, domain: Domain) -> Given:
    host.run(domain)
    return holding.give(host.sysfs, holding.read_request(host.sysfs, domain.xml))


def give_again(host: Replay) -> dict[str, Given | TunerError]:
    return dict(holding.give_all_again(host.sysfs))


def take_port_out_of_bond(host: Replay) -> None:
    """As ``ip link set enp23s0f1np1 nomaster``."""
    host.write("/sys/class/net/bond0/bonding/slaves", "enp23s0f0np0\n")
    (host.root / "sys/devices/virtual/net/bond0/lower_enp23s0f1np1").unlink()


class TestGive:
    def test_claims_and_steers_both_ports_of_the_bond(self, host: Replay) -> None:
        before = host.irqs()
        given = give(host, WEB)
        assert all(outcome.ok for outcome in given.outcomes)
        assert host.book.claims[WEB.uuid].vcpus == given.plan.holds.vcpus
        assert len(given.plan.holds.vcpus) == WEB.vcpus
        assert host.on_vcpus(FIRST) == host.on_vcpus(SECOND) == []
        assert {irq: host.irqs()[irq] for irq in (213, 230)} == {irq: before[irq] for irq in (213, 230)}

    def test_twice_gives_the_same(self, host: Replay) -> None:
        first = give(host, WEB)
        state = host.irqs(), host.book.changes
        second = give(host, WEB)
        assert (host.irqs(), host.book.changes) == state
        assert second.plan.irqs == ()
        assert second.plan.vcpupin == first.plan.vcpupin
        assert not second.moved

    def test_the_host_is_read_before_the_lock_is_taken(self, host: Replay) -> None:
        (host.root / "sys/devices/system/node/node0/meminfo").unlink()
        with Ledger(host.sysfs).locked(), pytest.raises(MissingError, match="meminfo"):
            give(host, WEB)

    def test_all_comes_back_with_the_last_domain(self, host: Replay) -> None:
        before = host.irqs()
        give(host, WEB)
        give(host, DB)
        holding.take_back(host.sysfs, "web")
        assert host.on_vcpus(FIRST) == host.on_vcpus(SECOND) == []
        holding.take_back(host.sysfs, "db")
        assert host.irqs() == before
        assert host.book.changes == {}

    def test_tidies_up_after_a_domain_that_is_gone(self, host: Replay) -> None:
        give(host, WEB)
        host.end(WEB)
        give(host, DB)
        assert set(host.book.claims) == {DB.uuid}
        assert {holder for entry in host.book.changes.values() for holder in entry.holders} == {DB.uuid}

    def test_without_a_process_nothing_is_changed(self, host: Replay) -> None:
        before = host.irqs()
        with pytest.raises(MissingError, match=r"web\.pid"):
            holding.give(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        assert host.irqs() == before
        assert host.book.claims == {}

    def test_a_name_that_leads_elsewhere_is_refused(self, host: Replay) -> None:
        with pytest.raises(RejectedError, match="not a name"):
            libvirt_files.process_id(host.sysfs, "../../etc/passwd")

    def test_damaged_ledger_is_said_and_replaced(self, host: Replay) -> None:
        give(host, WEB)
        host.write("/run/libvirt-tuner/ledger.json", "{")
        assert "damaged" in host.book.trouble
        assert give(host, WEB).troubles == ()
        assert host.book.damage == ()
        assert (host.root / "run/libvirt-tuner/ledger.json.damaged").read_text() == "{"

    def test_other_pins_than_before_are_told(self, host: Replay) -> None:
        given = give(host, WEB)
        host.write("/sys/devices/system/node/node0/cpulist", "0,2,4,6,8,10,12,14\n")
        again = give(host, WEB)
        assert again.plan.vcpupin != given.plan.vcpupin
        assert again.moved


def test_a_domain_left_alone_is_noted_anew_when_its_process_id_comes_again(host: Replay) -> None:
    pinned = {number: evolve(WEB, vcpupin=(str(number), str(number + 2))) for number in (2, 10)}
    for ticks, domain in ((1, pinned[2]), (2, pinned[10])):
        host.run(domain)
        stat = f"{domain.pid} (qemu) S {' '.join([str(ticks)] * 50)}\n"
        host.write(f"/proc/{domain.pid}/stat", stat)
        holding.note(host.sysfs, holding.read_request(host.sysfs, domain.xml).spec)
    (claim,) = host.book.claims.values()
    assert (claim.start_time, claim.vcpus) == (2, frozenset({10, 12}))


class TestGiveAllAgain:
    def test_nothing_without_a_ledger(self, host: Replay) -> None:
        assert give_again(host) == {}
        assert not (host.root / "run/libvirt-tuner").exists()

    def test_interrupts_a_driver_has_scattered_are_steered_again(self, host: Replay) -> None:
        give(host, WEB)
        give(host, DB)
        held = host.irqs()
        for irq in FIRST:
            host.scatter(irq, "0-31")
        assert host.irqs() != held
        assert set(give_again(host)) == {"web", "db"}
        assert host.on_vcpus(FIRST) == []
        holding.take_back(host.sysfs, "web")
        holding.take_back(host.sysfs, "db")
        assert set(host.irqs().values()) == {"0-31"}

    def test_domains_with_and_without_cpus_of_their_own_agree(self, host: Replay) -> None:
        floating = "<policy xmlns='https://libvirt-tuner.org/policy/1' placement='shared'/>"
        for number in range(1, 5):
            give(host, Domain(f"web-{number}", number, metadata=floating if number % 2 else ""))
        give_again(host)
        placements = {claim.plan["placement"] for claim in host.book.claims.values()}
        assert placements == {"dedicated", "shared"}
        again = give_again(host).values()
        assert [given.plan.irqs for given in again if isinstance(given, Given)] == [()] * 4

    def test_interrupts_of_a_port_that_left_the_bond_are_given_back(self, host: Replay) -> None:
        before = host.irqs()
        give(host, WEB)
        take_port_out_of_bond(host)
        given = give_again(host)["web"]
        assert isinstance(given, Given)
        now = host.irqs()
        assert {irq: now[irq] for irq in SECOND} == {irq: before[irq] for irq in SECOND}
        assert host.on_vcpus(FIRST) == []
        assert {entry.target for entry in host.book.changes.values()} == set(map(str, FIRST))

    def test_interrupts_another_domain_needs_are_not_given_back(self, host: Replay) -> None:
        host.write("/etc/libvirt-tuner.toml", "[[domain]]\nmatch = 'db'\nuplink = 'enp23s0f1np1'\n")
        give(host, WEB)
        give(host, DB)
        take_port_out_of_bond(host)
        give_again(host)
        assert host.on_vcpus(SECOND) == []
        assert {entry.holders for entry in host.book.changes.values() if int(entry.target) in SECOND} == {
            (DB.uuid,)
        }

    def test_nothing_is_given_back_while_the_uplink_is_not_known(self, host: Replay) -> None:
        give(host, WEB)
        held = host.irqs()
        route = next(host.root.glob("commands/*route_get*"))
        route.rename(route.with_name(route.name + ".failed"))
        given = give_again(host)["web"]
        assert isinstance(given, Given)
        assert "irq" in given.plan.unknown
        assert host.irqs() == held

    def test_domain_that_has_ended_is_left_out(self, host: Replay) -> None:
        give(host, WEB)
        give(host, DB)
        host.end(WEB)
        assert set(give_again(host)) == {"db"}

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            pytest.param("<domstatus>", "", id="cut off"),
            pytest.param("<domain/>", "domstatus", id="no status"),
            pytest.param("<domstatus/>", "no domain", id="no domain"),
            pytest.param("<!DOCTYPE x><domstatus/>", "", id="DTD"),
            pytest.param(
                f"<domstatus><domain><uuid>{DB.uuid}</uuid></domain></domstatus>", "another", id="other"
            ),
        ],
    )
    def test_file_that_cannot_be_used_is_said(self, host: Replay, document: str, expected: str) -> None:
        give(host, WEB)
        give(host, DB)
        host.write("/run/libvirt/qemu/web.xml", document)
        became = give_again(host)
        assert isinstance(became["web"], DomainXmlError)
        assert expected in str(became["web"])
        assert isinstance(became["db"], Given)

    def test_busy_ledger_is_said(self, host: Replay) -> None:
        give(host, WEB)
        with Ledger(host.sysfs).locked():
            assert isinstance(give_again(host)["web"], LedgerError)


class TestSweep:
    def test_nothing_without_a_ledger(self, host: Replay) -> None:
        assert holding.sweep(host.sysfs) == ()
        assert not (host.root / "run/libvirt-tuner").exists()

    def test_gives_back_what_ended_unnoticed(self, host: Replay) -> None:
        before = host.irqs()
        give(host, WEB)
        assert holding.sweep(host.sysfs) == ()
        host.end(WEB)
        holding.sweep(host.sysfs)
        assert host.irqs() == before
        assert host.book.claims == {}


def test_domain_that_ends_while_the_ledger_is_held_gets_nothing(host: Replay) -> None:
    host.run(WEB)
    request = holding.read_request(host.sysfs, WEB.xml)
    before = host.irqs()

    def late() -> None:
        with suppress(MissingError):
            holding.give(host.sysfs, request)

    with Ledger(host.sysfs).locked():
        thread = threading.Thread(target=late)
        thread.start()
        time.sleep(0.5)
        host.end(WEB)
    thread.join()
    assert host.book.claims == {}
    assert host.irqs() == before


RECORD = """<tuner:record xmlns:tuner='https://libvirt-tuner.org/record/1'>
<tuner:setting transform='rx_queue_size' key='mac=52:54:00:aa:bb:01' value='1024'/></tuner:record>"""


def test_a_domain_whose_definition_was_tuned_is_adopted(host: Replay) -> None:
    domain = evolve(WEB, metadata=RECORD)
    host.run(domain)
    became = give_again(host)["web"]
    assert isinstance(became, Given)
    assert became.moved, "libvirt has to be told of its pins"
    assert domain.uuid in Ledger(host.sysfs).read().claims


class TestDomainThatRanBefore:
    def test_it_is_noted_and_left_alone(self, host: Replay) -> None:
        before = host.irqs()
        host.run(WEB)
        assert give_again(host) == {}
        assert give_again(host) == {}
        assert host.irqs() == before
        (claim,) = host.book.claims.values()
        noted = stored.from_dict(claim.plan)
        assert (noted.tuned, noted.placement, noted.vcpupin) == (False, "keep", {})
        assert noted.vcpus == {0: frozenset(), 1: frozenset()}

    def test_others_keep_off_its_cpus(self, host: Replay) -> None:
        host.run(evolve(WEB, vcpupin=("20", "22")))
        give_again(host)
        assert not give(host, DB).plan.holds.vcpus & {20, 22}

    def test_its_claim_ends_with_it(self, host: Replay) -> None:
        host.run(WEB)
        give_again(host)
        holding.take_back(host.sysfs, WEB.name)
        assert host.book.claims == {}


class TestArrival:
    def test_a_running_domain_keeps_its_claim(self, host: Replay) -> None:
        """libvirt calls the hook before it says that the domain is already active."""
        give(host, WEB)
        before = host.book.claims
        holding.expect(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        assert host.book.claims == before

    def test_a_claim_lasts_as_long_as_the_restore(self, host: Replay) -> None:
        holding.expect(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        with Ledger(host.sysfs).locked() as book:
            book.claim(evolve(book.claims[WEB.uuid], since=time.monotonic() - 3600))
            book.save()
        host.run(WEB)
        holding.sweep(host.sysfs)
        assert set(host.book.claims) == {WEB.uuid}
        host.end(WEB)
        holding.sweep(host.sysfs)
        assert host.book.claims == {}


class TestLetGo:
    def test_the_host_is_as_it_was_and_the_domain_noted(self, host: Replay) -> None:
        before = host.irqs()
        given = give(host, WEB)
        holding.let_go(host.sysfs, holding.read_request(host.sysfs, WEB.xml).spec)
        assert host.irqs() == before
        (claim,) = host.book.claims.values()
        assert not stored.from_dict(claim.plan).tuned
        assert give(host, DB).plan.vcpupin[0] == given.plan.vcpupin[0]


class TestAnotherManager:
    NOVA = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>"

    @pytest.mark.parametrize(
        ("metadata", "config", "left"),
        [
            pytest.param(NOVA, "", True, id="Nova"),
            pytest.param("<vm xmlns='http://ovirt.org/vm/1.0'/>", "", True, id="oVirt"),
            pytest.param("<kubevirt xmlns='http://kubevirt.io'/>", "", True, id="KubeVirt"),
            pytest.param("<app xmlns='http://example.org/app'/>", "", False, id="something else"),
            pytest.param(NOVA, "[policy]\nselect = true\n", True, id="selected with all others"),
            pytest.param(NOVA, "[[domain]]\nmatch = 'web'\nselect = true\n", False, id="selected by name"),
        ],
    )
    def test_its_domains_are_left_alone(self, host: Replay, metadata: str, config: str, left: bool) -> None:
        host.write("/etc/libvirt-tuner.toml", config)
        request = holding.read_request(host.sysfs, evolve(WEB, metadata=metadata).xml)
        assert holding.leaves_alone(host.sysfs, request) is left


class TestVcpuPluggedIn:
    def test_it_gets_a_cpu_and_the_others_keep_theirs(self, host: Replay) -> None:
        first = give(host, WEB)
        more = evolve(WEB, vcpus=4)
        host.run(more)
        assert libvirt_files.shapes(host.sysfs)["web"][0].endswith("of 4")
        again = give_again(host)["web"]
        assert isinstance(again, Given)
        assert again.moved
        assert {vcpu: again.plan.vcpupin[vcpu] for vcpu in (0, 1)} == dict(first.plan.vcpupin)
        assert set(again.plan.vcpupin) == {0, 1, 2, 3}
        assert len(again.plan.holds.vcpus) == 4

    def test_a_cpu_that_went_offline_is_replaced_alone(self, host: Replay) -> None:
        first = give(host, WEB)
        (gone,) = first.plan.vcpupin[0]
        node = host.root / "sys/devices/system/node/node0/cpulist"
        left = cpuset.parse(node.read_text()) - {gone}
        node.write_text(cpuset.format(left) + "\n")
        again = give_again(host)["web"]
        assert isinstance(again, Given)
        assert again.plan.vcpupin[1] == first.plan.vcpupin[1]
        assert again.plan.vcpupin[0] != first.plan.vcpupin[0]
        assert again.plan.placement == "dedicated"


class TestPinsOfAUserOnCpusOfAnother:
    @pytest.mark.parametrize("config", ["", "[[domain]]\nmatch = 'db'\nselect = false\n"])
    def test_the_one_that_runs_stays_and_both_are_told(self, host: Replay, config: str) -> None:
        host.write("/etc/libvirt-tuner.toml", config)
        first = give(host, WEB)
        (cpu,) = first.plan.vcpupin[0]
        late = evolve(DB, vcpus=1, vcpupin=(str(cpu),))
        host.run(late)
        given = holding.begin(host.sysfs, holding.read_request(host.sysfs, late.xml), started=True)
        said = f"vcpupin of db names CPU {cpu}, which web has"
        assert bool(given) is not bool(config)
        assert not given or (given.disturbs and given.troubles[0].startswith(said))
        again = give_again(host)["web"]
        assert isinstance(again, Given)
        assert first.plan.vcpupin[0] <= again.plan.vcpupin[0]
        for uuid in (WEB.uuid, DB.uuid):
            (told,) = holding.overlapping(host.book, uuid)
            assert told.startswith(said)

    def test_nothing_is_said_of_others(self, host: Replay) -> None:
        assert give(host, WEB).troubles == give(host, DB).troubles == ()
        assert holding.overlapping(host.book, WEB.uuid) == holding.overlapping(host.book, "none") == ()


class TestDisturbance:
    """The seed's host has 32 CPUs, 8 of them isolated."""

    def test_a_domain_that_finds_room_disturbs_nobody(self, host: Replay) -> None:
        give(host, WEB)
        assert not give(host, DB).disturbs
        assert not holding.left_over(host.sysfs)[0]

    def test_a_domain_too_many_disturbs_those_that_run(self, host: Replay) -> None:
        first = give(host, evolve(WEB, vcpus=20))
        second = give(host, evolve(DB, vcpus=20))
        assert (first.plan.placement, second.plan.placement) == ("dedicated", "shared")
        assert second.disturbs
        assert holding.left_over(host.sysfs)[0]
        again = give_again(host)["web"]
        assert isinstance(again, Given)
        assert again.moved

    def test_room_comes_back(self, host: Replay) -> None:
        give(host, evolve(WEB, vcpus=20))
        give(host, evolve(DB, vcpus=20))
        give_again(host)
        host.end(WEB)
        holding.take_back(host.sysfs, WEB.name)
        again = give_again(host)["db"]
        assert isinstance(again, Given)
        assert (again.plan.placement, again.moved) == ("dedicated", True)


WORKERS = """\
import os, sys, threading
def work():
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
        comm.write(f"vhost-{os.getpid()}")
    print(threading.get_native_id(), flush=True)
    sys.stdin.read()
threading.Thread(target=work).start()
"""


@pytest.fixture
def process() -> Iterator[tuple[int, int]]:
    """A process with a thread named as a vhost worker is since Linux 6.4: their ids."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        yield started.pid, int(started.stdout.readline())
        assert started.stdin is not None
        started.stdin.close()


def test_worker_is_placed(process: tuple[int, int]) -> None:
    pid, worker = process
    last = max(os.sched_getaffinity(0))
    holding.place_workers(Sysfs(), pid, Plan("web-1", vhost=(last,)))
    assert os.sched_getaffinity(worker) == {last}
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)


def test_worker_goes_where_the_emulator_goes_that_floats(process: tuple[int, int]) -> None:
    pid, worker = process
    everywhere = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(worker, {max(everywhere)})
    holding.place_workers(Sysfs(), pid, Plan("web-1", placement="shared", emulatorpin=everywhere))
    assert os.sched_getaffinity(worker) == everywhere


def test_workers_stay_without_a_plan_for_them(process: tuple[int, int]) -> None:
    pid, worker = process
    holding.place_workers(Sysfs(), pid, Plan("web-1"))
    assert os.sched_getaffinity(worker) == os.sched_getaffinity(0)


def test_workers_of_a_domain_that_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    holding.place_workers(Sysfs(), ended.pid, Plan("web-1", vhost=(0,)))


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        pytest.param("7f0 default N0=10 N1=90 kernelpagesize_kB=4", (1,), id="most of it"),
        pytest.param("7f0 default N0=50 N1=50 kernelpagesize_kB=4", (), id="spread"),
        pytest.param("", (), id="none"),
    ],
)
def test_where_memory_lies(host: Replay, maps: str, expected: tuple[int, ...]) -> None:
    host.run(WEB)
    host.write(f"/proc/{WEB.pid}/numa_maps", maps)
    assert holding.memory_home(host.sysfs, "web", WEB.uuid) == expected


def test_adopted_with_its_host_side(host: Replay) -> None:
    plan = give(host, WEB).plan
    holding.let_go(host.sysfs, holding.read_request(host.sysfs, WEB.xml).spec)
    host.scatter(214, "0-31")
    given = holding.adopt(host.sysfs, plan)
    assert [outcome for outcome in given.outcomes if not outcome.ok] == []
    assert host.book.claims[WEB.uuid].vcpus == plan.holds.vcpus
