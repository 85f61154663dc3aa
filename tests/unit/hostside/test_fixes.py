"""What a finding advises, carried out and taken back: interrupts of a written host, threads of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner.diagnosis.finding import Fix
from libvirt_tuner.errors import HostError
from libvirt_tuner.host.processes import process_start
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, fixes
from libvirt_tuner.hostside.changes import ADMINISTRATOR
from libvirt_tuner.hostside.ledger import DIRECTORY, Claim, Entry, Ledger
from tests.unit.trees import put


@pytest.fixture
def host(tmp_path: Path) -> Sysfs:
    (tmp_path / "run").mkdir()
    for irq in (7, 8):
        put(tmp_path, f"/proc/irq/{irq}/smp_affinity_list", "0-1023")
        put(tmp_path, f"/proc/irq/{irq}/effective_affinity_list", "900")
    return Sysfs(str(tmp_path))


def affinity(host: Sysfs, irq: int) -> str:
    return host.read(f"/proc/irq/{irq}/smp_affinity_list")


def test_steered_by_hand_until_undo_on_1024_cpus(host: Sysfs) -> None:
    fixes.steer(host, dict.fromkeys((7, 8), frozenset({1000, 1001})))
    assert affinity(host, 7) == affinity(host, 8) == "1000-1001"
    with Ledger(host).locked() as book:
        assert book.changes["irq", "7"].holders == (ADMINISTRATOR,)
        changes.give_back(host, book, ADMINISTRATOR)
    assert affinity(host, 7) == affinity(host, 8) == "0-1023"


def test_a_change_by_hand_outlives_domains_that_are_gone(host: Sysfs) -> None:
    fixes.steer(host, {7: frozenset({3})})
    with Ledger(host).locked() as book:
        changes.give_back_stale(host, book, lambda _: False, now=0.0)
    assert affinity(host, 7) == "3"


def test_undo_all_takes_it_back(host: Sysfs) -> None:
    fixes.steer(host, {7: frozenset({3})})
    with Ledger(host).locked() as book:
        changes.give_back_all(host, book)
    assert affinity(host, 7) == "0-1023"


def test_a_domain_with_a_claim_holds_its_fix(host: Sysfs) -> None:
    with Ledger(host).locked() as book:
        book.claim(Claim("u1", "web", pid=1))
        book.save()
    fix = Fix("libvirt-tuner irqs --set 7 2", "irq", irqs={7: frozenset({2})})
    assert fixes.carry_out(host, fix, "u1") == ()
    assert Ledger(host).read().changes["irq", "7"].holders == ("u1",)


def test_an_interrupt_that_is_gone_is_said(host: Sysfs) -> None:
    (said,) = fixes.carry_out(host, Fix("", "irq", irqs={99: frozenset({2})}))
    assert "99" in said
    assert Ledger(host).read().changes == {}


def test_packet_steering_is_changed_and_given_back(host: Sysfs) -> None:
    path = "/sys/class/net/eth0/queues/rx-3/rps_cpus"
    put(Path(host.root), path, "0,00ff00ff")
    put(Path(host.root), "/sys/class/net/eth0/ifindex", "2")
    fix = Fix(f"echo f > {path}", "rps", cpus=frozenset({0, 1, 2, 3}), where="eth0/rx-3")
    assert fixes.carry_out(host, fix) == ()
    assert host.read(path) == "f"
    with Ledger(host).locked() as book:
        changes.give_back_all(host, book)
    assert host.read(path) == "ff00ff"


ETHTOOL = """\
#!/bin/sh
# Keeps the hash of one card, as ethtool -n and -N show and set it.
state=$(dirname "$0")/hash
case $1 in
-n) echo "UDP over IPV4 flows use these fields for computing Hash flow key:"; cat "$state" ;;
-N) { echo "IP SA"; echo "IP DA"
      case $5 in *fn) echo "L4 bytes 0 & 1 [TCP/UDP src port]"
                      echo "L4 bytes 2 & 3 [TCP/UDP dst port]" ;; esac
    } >"$state" ;;
esac
"""


def test_the_hash_of_a_card_is_changed_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin/ethtool"
    tool.parent.mkdir()
    tool.write_text(ETHTOOL)
    tool.chmod(0o755)
    (tool.parent / "hash").write_text("IP SA\nIP DA\n")
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    sysfs = Live(tmp_path / "ledger")
    assert fixes.carry_out(sysfs, Fix("", "flow-hash", where="lo")) == ()
    assert "src port" in (tool.parent / "hash").read_text()
    (entry,) = Ledger(sysfs).read().changes.values()
    assert (entry.target, entry.prior, entry.wanted) == ("lo/udp4", "sd", "sdfn")
    with Ledger(sysfs).locked() as book:
        (outcome,) = changes.give_back_all(sysfs, book)
    assert outcome.ok
    assert (tool.parent / "hash").read_text() == "IP SA\nIP DA\n"


def test_memory_is_moved_by_a_command_that_may_be_missing(host: Sysfs) -> None:
    with pytest.raises(HostError, match="apt install numactl"):
        fixes.carry_out(host, Fix("/nowhere/migratepages 1 1 0", "pages"))


def test_a_failed_command_says_its_last_line() -> None:
    with pytest.raises(HostError, match="no such thing"):
        fixes.run_command("echo first >&2; echo no such thing >&2; exit 3")
    fixes.run_command("true   # a remark")


@pytest.fixture
def child() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


class Live(Sysfs):
    """This machine, with a ledger elsewhere."""

    def __init__(self, run: Path) -> None:
        super().__init__("/")
        self._run = run

    def path(self, path: str) -> str:
        return str(self._run) if path == DIRECTORY else super().path(path)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_thread_is_moved_and_given_back(child: int, tmp_path: Path) -> None:
    sysfs = Live(tmp_path / "ledger")
    before = os.sched_getaffinity(child)
    target = max(before)
    assert fixes.carry_out(sysfs, Fix("", "thread", (child,), frozenset({target}))) == ()
    assert os.sched_getaffinity(child) == {target}
    with Ledger(sysfs).locked() as book:
        (outcome,) = changes.give_back_all(sysfs, book)
    assert outcome.ok
    assert os.sched_getaffinity(child) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lower a nice value again")
def test_a_nice_value_is_changed_and_given_back(child: int, tmp_path: Path) -> None:
    sysfs = Live(tmp_path / "ledger")
    before = os.getpriority(os.PRIO_PROCESS, child)
    assert fixes.carry_out(sysfs, Fix("", "nice", (child,))) == ()
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    with Ledger(sysfs).locked() as book:
        (outcome,) = changes.give_back_all(sysfs, book)
    assert outcome.ok
    assert os.getpriority(os.PRIO_PROCESS, child) == before


def test_threads_that_ended_are_left_out(child: int, tmp_path: Path) -> None:
    sysfs = Live(tmp_path / "ledger")
    cpus = frozenset(os.sched_getaffinity(child))
    assert fixes.carry_out(sysfs, Fix("", "thread", (child, 2**22 + 1), cpus)) == ()
    with pytest.raises(HostError, match="has ended"):
        fixes.carry_out(sysfs, Fix("", "thread", (2**22 + 1,), cpus))


def test_a_thread_that_ended_needs_nothing_given_back(child: int) -> None:
    start = process_start(Sysfs(), child)
    entry = Entry("thread", f"{child}@{start + 1}", "0", "0")
    assert changes.restore(Sysfs(), entry).note == "gone"
