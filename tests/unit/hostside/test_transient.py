"""An error is not a fact: what cannot be read now is kept, said, and tried again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError, LedgerError, MissingError
from libvirt_tuner.hostside import changes, holding, libvirt_files
from libvirt_tuner.hostside.ledger import Claim, Ledger
from tests.faults.inject import AFTER, Operation, Shim, failing, shimmed
from tests.unit.replay import UUID, Domain, Replay

WEB, DB = Domain("web", 1), Domain("db", 2)
SOME = [
    pytest.param(number, id=errno.errorcode[number])
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EIO, errno.EINTR)
]
STEERED = changes.irq_affinity(220, frozenset({2}))


@pytest.fixture
def host(tmp_path: Path) -> Replay:
    return Replay.make(tmp_path)


def give(host: Replay, domain: Domain) -> holding.Given:
    host.run(domain)
    return holding.give(host.sysfs, holding.read_request(host.sysfs, domain.xml))


def steer(host: Replay) -> tuple[changes.Outcome, ...]:
    with Ledger(host.sysfs).locked() as book:
        book.claim(Claim("a", "a", pid=1))
        return changes.perform_all(host.sysfs, book, "a", [STEERED])


def give_back(host: Replay) -> tuple[changes.Outcome, ...]:
    with Ledger(host.sysfs).locked() as book:
        return changes.give_back(host.sysfs, book, "a")


class TestAlive:
    @pytest.mark.parametrize("number", SOME)
    def test_an_error_is_no_death(self, host: Replay, number: int) -> None:
        give(host, WEB)
        claim = host.book.claims[WEB.uuid]
        with failing("os.open", number, "stat"):
            assert holding.alive(host.sysfs, claim)
            assert holding.sweep(host.sysfs) == ()
        assert set(host.book.claims) == {WEB.uuid}

    @pytest.mark.parametrize("number", [errno.ENOENT, errno.ESRCH])
    def test_what_says_that_it_is_gone(self, host: Replay, number: int) -> None:
        give(host, WEB)
        with failing("os.open", number, "stat"):
            assert not holding.alive(host.sysfs, host.book.claims[WEB.uuid])

    def test_half_a_line_is_no_death(self, host: Replay) -> None:
        give(host, WEB)
        with failing("os.read", 0, "stat"):
            assert holding.alive(host.sysfs, host.book.claims[WEB.uuid])

    def test_another_process_of_the_same_id_is_another(self, host: Replay) -> None:
        give(host, WEB)
        host.write(f"/proc/{WEB.pid}/stat", f"{WEB.pid} (other) S {' '.join(['2'] * 50)}\n")
        assert not holding.alive(host.sysfs, host.book.claims[WEB.uuid])
        holding.sweep(host.sysfs)
        assert host.book.claims == {}

    @pytest.mark.parametrize("number", SOME)
    def test_a_domain_on_its_way_in(self, host: Replay, number: int) -> None:
        host.run(WEB)
        claim = Claim(WEB.uuid, WEB.name)
        with failing("os.open", number, "web.pid"):
            assert holding.alive(host.sysfs, claim)


class TestReusedProcessId:
    """QEMU and libvirtd have died; libvirt's file names a process of somebody else's by now."""

    def test_is_not_claimed(self, host: Replay) -> None:
        host.run(WEB)
        host.write(f"/proc/{WEB.pid}/cmdline", "/usr/bin/postgres\0-D\0/var/lib\0")
        request = holding.read_request(host.sysfs, WEB.xml)
        with pytest.raises(MissingError, match="another process"):
            holding.give(host.sysfs, request)
        assert dict(holding.give_all_again(host.sysfs)) == {}
        assert host.book.claims == {}

    def test_the_domains_own_is(self, host: Replay) -> None:
        host.run(WEB)
        host.write(f"/proc/{WEB.pid}/cmdline", f"/usr/bin/qemu\0-name\0guest=web\0-uuid\0{WEB.uuid}\0-smp\0")
        assert libvirt_files.process_id(host.sysfs, "web", WEB.uuid) == WEB.pid

    def test_another_domains_is_not(self, host: Replay) -> None:
        host.run(WEB)
        host.write(f"/proc/{WEB.pid}/cmdline", f"/usr/bin/qemu\0-uuid\0{UUID.format(9)}\0-smp\0")
        with pytest.raises(MissingError):
            libvirt_files.process_id(host.sysfs, "web", WEB.uuid)

    @pytest.mark.parametrize("number", SOME)
    def test_an_error_leaves_it_open(self, host: Replay, number: int) -> None:
        host.run(WEB)
        host.write(f"/proc/{WEB.pid}/cmdline", f"/usr/bin/qemu\0-uuid\0{WEB.uuid}\0")
        with failing("os.open", number, "cmdline"), pytest.raises(HostError) as caught:
            libvirt_files.process_id(host.sysfs, "web", WEB.uuid)
        assert not isinstance(caught.value, MissingError)


class TestChanges:
    @pytest.mark.parametrize("number", SOME)
    def test_a_read_that_fails_in_give_back_keeps_the_prior_value(self, host: Replay, number: int) -> None:
        before = host.irqs()
        steer(host)
        with failing("os.open", number, "smp_affinity_list"):
            (outcome,) = give_back(host)
        assert not outcome.ok
        assert host.book.changes["irq", "220"].prior == before[220]
        assert [outcome.ok for outcome in give_back(host)] == [True]
        assert host.irqs() == before

    @pytest.mark.parametrize("number", SOME)
    def test_a_read_back_that_fails_after_a_good_write_keeps_the_entry(
        self, host: Replay, number: int
    ) -> None:
        before = host.irqs()
        seen: list[Operation] = []

        def after_the_write(operation: Operation) -> bool:
            seen.append(operation)
            written = any(it.call == "os.write" and "smp_affinity_list" in it.path for it in seen)
            return written and operation.call == "os.open" and "smp_affinity_list" in operation.path

        with shimmed(Shim(after_the_write, number)):
            (outcome,) = steer(host)
        assert (outcome.ok, outcome.left) == (False, "")
        assert host.irqs()[220] == "2"
        assert host.book.changes["irq", "220"].prior == before[220]
        give_back(host)
        assert host.irqs() == before

    def test_an_error_of_a_write_that_was_made_keeps_the_entry(self, host: Replay) -> None:
        before = host.irqs()
        with shimmed(Shim(lambda it: it.call == "os.write" and "smp_affinity" in it.path, AFTER)):
            (outcome,) = steer(host)
        assert (outcome.ok, outcome.left) == (False, "2")
        give_back(host)
        assert host.irqs() == before

    @pytest.mark.parametrize("number", SOME)
    def test_an_error_is_no_device_that_is_gone(self, host: Replay, number: int) -> None:
        change = changes.mtu("bond0", 1400)
        prior = changes.current(host.sysfs, change)
        host.write("/sys/devices/virtual/net/bond0/ifindex", "7\n")
        with Ledger(host.sysfs).locked() as book:
            book.claim(Claim("a", "a", pid=1))
            assert [it.ok for it in changes.perform_all(host.sysfs, book, "a", [change])] == [True]
        with failing("os.open", number, "ifindex"):
            (outcome,) = give_back(host)
        assert (outcome.ok, outcome.note) == (False, "")
        give_back(host)
        assert changes.current(host.sysfs, change) == prior

    @pytest.mark.parametrize("number", SOME)
    def test_what_cannot_be_looked_at_after_is_only_remarked(self, host: Replay, number: int) -> None:
        with failing("os.open", number, "effective_affinity_list"):
            (outcome,) = steer(host)
        assert outcome.ok
        assert "unknown" in outcome.note


class TestArrival:
    def test_restore_of_a_running_domain_does_not_give_its_cpus_away(self, host: Replay) -> None:
        give(host, WEB)
        before = host.book.claims[WEB.uuid]
        holding.expect(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        assert host.book.claims[WEB.uuid] == before
        held = give(host, DB).plan.holds.vcpus
        assert not held & before.vcpus

    def test_a_second_try_finds_the_cpus_of_the_first(self, host: Replay) -> None:
        give(host, DB)
        first = holding.expect(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        host.end(DB)
        again = holding.expect(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        assert again.plan.vcpupin == first.plan.vcpupin

    def test_restore_of_a_stopped_one_holds_its_cpus(self, host: Replay) -> None:
        given = holding.expect(host.sysfs, holding.read_request(host.sysfs, WEB.xml))
        assert not give(host, DB).plan.holds.vcpus & given.plan.holds.vcpus


def test_a_ledger_that_cannot_be_opened_changes_nothing(host: Replay) -> None:
    give(host, WEB)
    held, claims = host.irqs(), host.book.claims
    with failing("os.open", errno.EMFILE, "ledger.json"), pytest.raises(LedgerError, match="cannot be read"):
        give(host, DB)
    assert (host.irqs(), host.book.claims) == (held, claims)
    assert host.book.damage == ()
