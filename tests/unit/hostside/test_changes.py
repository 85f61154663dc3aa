"""Changes of the host: journalled before, verified after, and always given back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libvirt_tuner.errors import (
    DeniedError,
    HostError,
    LedgerError,
    MissingError,
    RejectedError,
    UnsupportedError,
)
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes as apply
from libvirt_tuner.hostside.ledger import Book, Claim, Entry, Ledger
from tests.unit.hostside.kernel import (
    SMALLER,
    STEERED,
    TO_6,
    TO_7,
    Kernel,
    assert_as_before,
    changes,
    make_host,
    start,
    stop,
    value,
)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(TO_6, "/proc/irq/45/smp_affinity_list = 6", id="irq"),
        pytest.param(SMALLER, "/sys/class/net/vnet0/mtu = 1416", id="mtu"),
        pytest.param(STEERED, "/sys/class/net/eth0/queues/rx-0/rps_cpus = 2-3", id="rps"),
        pytest.param(
            apply.xps("eth0", 0, frozenset()), "/sys/class/net/eth0/queues/tx-0/xps_cpus = none", id="xps-off"
        ),
    ],
)
def test_describe(change: apply.Change, line: str) -> None:
    assert change.describe() == line


@pytest.mark.parametrize(
    ("change", "now"),
    [
        pytest.param(TO_6, "0-7", id="irq"),
        pytest.param(SMALLER, "1500", id="mtu"),
        pytest.param(STEERED, "4-7", id="rps"),
        pytest.param(apply.xps("eth0", 0, frozenset()), "", id="xps-off"),
    ],
)
def test_current_is_canonical(host: Path, change: apply.Change, now: str) -> None:
    assert value(host, change) == now


@pytest.mark.parametrize(
    ("change", "written"),
    [
        pytest.param(TO_6, "6", id="irq"),
        pytest.param(SMALLER, "1416", id="mtu"),
        pytest.param(STEERED, "c", id="rps-as-mask"),
        pytest.param(apply.rps("eth0", 0, frozenset()), "0", id="rps-off"),
        pytest.param(apply.xps("eth0", 0, frozenset({40})), "100,00000000", id="xps-two-words"),
    ],
)
def test_perform_writes(host: Path, change: apply.Change, written: str) -> None:
    sysfs = Sysfs(str(host))
    assert apply.perform(sysfs, change) == apply.Outcome(change)
    assert sysfs.read(apply.KINDS[change.kind].path(change.target)) == written


@pytest.mark.parametrize(
    ("change", "answer", "kind"),
    [
        pytest.param(TO_6, errno.EIO, UnsupportedError, id="managed-6.1"),
        pytest.param(TO_6, errno.EPERM, UnsupportedError, id="managed-6.12"),
        pytest.param(TO_6, errno.EINVAL, RejectedError, id="no-cpu-online"),
        pytest.param(TO_6, errno.ENOSPC, RejectedError, id="no-vector"),
        pytest.param(SMALLER, errno.EPERM, DeniedError, id="not-root"),
        pytest.param(SMALLER, errno.EINVAL, RejectedError, id="mtu-too-large"),
        pytest.param(SMALLER, errno.ENODEV, MissingError, id="tap-gone"),
    ],
)
def test_refusals_leave_no_trace(
    host: Path, change: apply.Change, answer: int, kind: type[HostError]
) -> None:
    kernel = Kernel(str(host), {(apply.KINDS[change.kind].path(change.target), change.wanted): answer})
    prior = value(host, change)
    (outcome,) = start(kernel, "a", change)
    assert type(outcome.error) is kind
    assert (outcome.ok, outcome.error.errno) == (False, answer)
    assert apply.KINDS[change.kind].path(change.target) in str(outcome)
    assert value(host, change) == prior
    assert changes(kernel) == {}


def test_a_refused_move_keeps_the_other_domains_change(host: Path) -> None:
    kernel = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "7"): errno.ENOSPC})
    start(kernel, "a", TO_6)
    before = changes(kernel)
    (outcome,) = start(kernel, "b", TO_7)
    assert not outcome.ok
    assert changes(kernel) == before
    stop(kernel, "b")
    assert value(host, TO_6) == "6"
    stop(kernel, "a")
    assert value(host, TO_6) == "0-7"


def test_one_refusal_does_not_stop_the_others(host: Path) -> None:
    kernel = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "6"): errno.EIO})
    gone = apply.irq_affinity(99, frozenset({1}))
    outcomes = {it.change: it for it in start(kernel, "a", gone, TO_6, SMALLER)}
    assert {change: it.ok for change, it in outcomes.items()} == {gone: False, TO_6: False, SMALLER: True}
    assert isinstance(outcomes[gone].error, MissingError)
    assert list(changes(kernel)) == [("mtu", "vnet0")]


def test_a_cpu_without_vectors_falls_back(host: Path) -> None:
    kernel = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "6"): errno.ENOSPC})
    wide = apply.irq_affinity(45, frozenset({6}), fallback=frozenset({4, 5, 6}))
    (outcome,) = start(kernel, "a", wide)
    assert (outcome.ok, outcome.change.wanted) == (True, "4-6")
    assert value(host, TO_6) == "4-6"
    stop(kernel, "a")
    assert value(host, TO_6) == "0-7"


def test_a_value_taken_otherwise_is_put_back(host: Path) -> None:
    kernel = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "6"): "5"})
    (outcome,) = start(kernel, "a", TO_6)
    assert isinstance(outcome.error, RejectedError)
    assert outcome.error.value == "5"
    assert value(host, TO_6) == "0-7"
    assert changes(kernel) == {}


@pytest.mark.parametrize(
    ("effective", "note"),
    [
        pytest.param("6", "", id="there"),
        pytest.param("", "", id="not-in-use"),
        pytest.param("3", "still goes to CPU 3 until the next interrupt", id="pending"),
        pytest.param("?", "effective affinity unknown", id="odd"),
        pytest.param(None, "", id="no-such-file"),
    ],
)
def test_effective_affinity_is_looked_at(host: Path, effective: str | None, note: str) -> None:
    file = host / "proc/irq/45/effective_affinity_list"
    file.unlink()
    if effective is not None:
        file.write_text(effective)
    (outcome,) = start(Sysfs(str(host)), "a", TO_6)
    assert outcome.ok
    assert outcome.note.startswith(note)
    assert bool(outcome.note) == bool(note)


def test_what_is_so_already_is_held_and_not_written(host: Path) -> None:
    there = apply.irq_affinity(46, frozenset({2}))
    kernel = Kernel(str(host), {("/proc/irq/46/smp_affinity_list", "2"): errno.EIO})
    assert start(kernel, "a", there) == (apply.Outcome(there),)
    assert changes(kernel)["irq", "46"].holders == ("a",)
    start(kernel, "b", apply.irq_affinity(46, frozenset({5})))
    stop(Sysfs(str(host)), "b", "a")
    assert value(host, there) == "2"


@pytest.mark.parametrize(
    "order", [pytest.param(("a", "b"), id="first-first"), pytest.param(("b", "a"), id="last-first")]
)
def test_two_domains_one_irq(host: Path, order: tuple[str, str]) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", TO_6)
    start(sysfs, "b", TO_7)
    assert changes(sysfs)["irq", "45"] == Entry("irq", "45", "0-7", "7", ("a", "b"))
    assert stop(sysfs, order[0]) == ()
    assert value(host, TO_6) == "7"
    assert [outcome.ok for outcome in stop(sysfs, order[1])] == [True]
    assert value(host, TO_6) == "0-7"
    assert changes(sysfs) == {}


def test_of_two_changes_of_one_file_the_later_is_made(host: Path) -> None:
    kernel = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "6"): errno.EIO})
    assert start(kernel, "a", TO_6, TO_7) == (apply.Outcome(TO_7),)
    stop(kernel, "a")
    assert value(host, TO_6) == "0-7"


def test_no_change_without_a_claim(host: Path) -> None:
    sysfs = Sysfs(str(host))
    with Ledger(sysfs).locked() as book, pytest.raises(LedgerError, match="claim"):
        apply.perform_all(sysfs, book, "nobody", [TO_6])
    assert value(host, TO_6) == "0-7"


def test_nothing_is_written_when_the_journal_cannot_be(host: Path) -> None:
    book = Book()
    book.claim(Claim("a", "a"))
    with pytest.raises(LedgerError):
        apply.perform_all(Sysfs(str(host)), book, "a", [TO_6])
    assert value(host, TO_6) == "0-7"


def test_giving_back_nothing_writes_nothing(host: Path) -> None:
    assert stop(Sysfs(str(host)), "never-seen") == ()
    assert sorted(it.name for it in (host / "run/libvirt-tuner").iterdir()) == ["lock"]


def test_somebody_elses_later_value_stays(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", TO_6, SMALLER)
    sysfs.write("/proc/irq/45/smp_affinity_list", "1")
    outcomes = {it.change.kind: it for it in stop(sysfs, "a")}
    assert outcomes["irq"].note == "not undone: another program wrote 1"
    assert (value(host, TO_6), value(host, SMALLER)) == ("1", "1500")


def test_a_value_the_driver_reset_is_the_new_prior(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", TO_6)
    sysfs.write("/proc/irq/45/smp_affinity_list", "1")
    start(sysfs, "a", TO_6)
    assert value(host, TO_6) == "6"
    stop(sysfs, "a")
    assert value(host, TO_6) == "1"


def test_a_tap_that_is_gone_needs_nothing(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", SMALLER)
    for name in ("mtu", "ifindex"):
        (host / "sys/class/net/vnet0" / name).unlink()
    (outcome,) = stop(sysfs, "a")
    assert (outcome.ok, outcome.note) == (True, "gone")
    assert changes(sysfs) == {}


def test_another_tap_of_the_same_name_is_left_alone(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", SMALLER)
    (host / "sys/class/net/vnet0/ifindex").write_text("13\n")
    stop(sysfs, "a")
    assert value(host, SMALLER) == "1416"


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        pytest.param(errno.ENOSPC, True, id="no-vector-now"),
        pytest.param(errno.EINVAL, True, id="cpus-offline-now"),
        pytest.param(errno.EIO, True, id="managed-now"),
        pytest.param(errno.ENODEV, True, id="on-its-way-out"),
    ],
)
def test_what_cannot_be_restored_now_is_tried_again(host: Path, answer: int, kept: bool) -> None:
    start(Sysfs(str(host)), "a", TO_6)
    kernel = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "0-7"): answer})
    (outcome,) = stop(kernel, "a")
    assert not outcome.ok
    assert (("irq", "45") in changes(kernel)) is kept
    stop(Sysfs(str(host)))
    assert value(host, TO_6) == ("0-7" if kept else "6")


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(Entry("turbo", "0", "1", "0"), id="unknown-kind"),
        pytest.param(Entry("irq", "../../etc/passwd", "1", "0"), id="path-in-target"),
        pytest.param(Entry("mtu", "a/b", "1", "0"), id="slash-in-device"),
        pytest.param(Entry("irq", "46", "junk", "2"), id="junk-prior"),
    ],
)
def test_a_strange_entry_changes_nothing(host: Path, entry: Entry) -> None:
    outcome = apply.restore(Sysfs(str(host)), entry)
    assert entry.target in str(outcome)
    assert (host / "proc/irq/46/smp_affinity_list").read_text() == "2\n"


def test_what_cannot_be_read_now_is_not_given_back(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", TO_6)
    path = host / "proc/irq/45/smp_affinity_list"
    path.unlink()
    path.mkdir()
    (outcome,) = stop(sysfs, "a")
    assert not outcome.ok
    assert outcome.error is not None


def test_stale_domains_are_given_back(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", TO_6)
    start(sysfs, "b", SMALLER)
    with Ledger(sysfs).locked() as book:
        apply.give_back_stale(sysfs, book, lambda claim: claim.uuid == "b", now=0.0)
    assert (value(host, TO_6), value(host, SMALLER)) == ("0-7", "1416")
    assert list(Ledger(sysfs).read().claims) == ["b"]


def test_everything_back(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", TO_6, STEERED)
    start(sysfs, "b", TO_7, SMALLER)
    with Ledger(sysfs).locked() as book:
        apply.give_back_all(sysfs, book)
    assert_as_before(host)


ON_A_KERNEL = """
from libvirt_tuner.hostside import changes as apply
from libvirt_tuner.hostside.ledger import Claim, Ledger
from libvirt_tuner.host.sysfs import Sysfs

sysfs = Sysfs()
good = [apply.mtu("tap0", 1416), apply.rps("tap0", 0, frozenset({0})), apply.xps("tap0", 0, frozenset({0}))]
prior = [apply.current(sysfs, change) for change in good]
with Ledger(sysfs).locked() as book:
    book.claim(Claim("a", "a", pid=1))
    outcomes = apply.perform_all(sysfs, book, "a", [*good, apply.mtu("tap1", 70000), apply.mtu("tap9", 1416)])
for outcome in outcomes:
    print(outcome.change.target, outcome.ok, type(outcome.error).__name__)
print([apply.current(sysfs, change) for change in good])
with Ledger(sysfs).locked() as book:
    print(all(outcome.ok for outcome in apply.give_back(sysfs, book, "a")))
print(prior == [apply.current(sysfs, change) for change in good], Ledger(sysfs).read().changes)
"""


def test_on_this_kernel() -> None:
    """In a network namespace of its own, with its own /sys and /run."""
    setup = (
        "mount -t sysfs none /sys && mount -t tmpfs none /run"
        ' && ip link add tap0 type veth peer name tap1 && exec "$0" -c "$1"'
    )
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        pytest.skip("needs root, unshare and ip")
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", setup, sys.executable, ON_A_KERNEL],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "tap9 False MissingError",
        "tap0 True NoneType",
        "tap0/rx-0 True NoneType",
        "tap0/tx-0 True NoneType",
        "tap1 False RejectedError",
        "['1416', '0', '0']",
        "True",
        "True {}",
    ]


def test_thread_affinity_binds_one_thread() -> None:
    before = os.sched_getaffinity(0)
    try:
        assert apply.thread_affinity(0, frozenset({min(before)})) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("tid", "cpus", "kind", "number"),
    [
        pytest.param(2**22 + 1, frozenset({0}), MissingError, errno.ESRCH, id="no-such-thread"),
        pytest.param(0, frozenset({1023}), RejectedError, errno.EINVAL, id="cpu-not-there"),
        pytest.param(0, frozenset[int](), RejectedError, errno.EINVAL, id="no-cpu"),
    ],
)
def test_thread_affinity_refusals(tid: int, cpus: frozenset[int], kind: type[HostError], number: int) -> None:
    with pytest.raises(kind) as caught:
        apply.thread_affinity(tid, cpus)
    assert caught.value.errno == number
    assert caught.value.where == f"thread {tid}"


class TestKeepOnly:
    """A running domain's plan has changed."""

    def keep(self, host: Path, uuid: str, *wanted: apply.Change) -> tuple[apply.Outcome, ...]:
        sysfs = Sysfs(str(host))
        with Ledger(sysfs).locked() as book:
            return apply.keep_only(sysfs, book, uuid, wanted, kinds={"irq"})

    def test_all_are_wanted(self, host: Path) -> None:
        start(Sysfs(str(host)), "a", TO_6, SMALLER)
        before = changes(Sysfs(str(host)))
        assert self.keep(host, "a", TO_7, SMALLER) == ()
        assert changes(Sysfs(str(host))) == before

    def test_what_nobody_wants_is_restored(self, host: Path) -> None:
        start(Sysfs(str(host)), "a", TO_6, SMALLER, STEERED)
        assert [outcome.ok for outcome in self.keep(host, "a")] == [True]
        assert value(host, TO_6) == "0-7"
        assert set(changes(Sysfs(str(host)))) == {("mtu", "vnet0"), ("rps", "eth0/rx-0")}
        assert set(Ledger(Sysfs(str(host))).read().claims) == {"a"}

    def test_what_another_wants_stays(self, host: Path) -> None:
        start(Sysfs(str(host)), "a", TO_6)
        start(Sysfs(str(host)), "b", TO_6)
        assert self.keep(host, "a") == ()
        assert value(host, TO_6) == "6"
        assert changes(Sysfs(str(host)))["irq", "45"].holders == ("b",)
        stop(Sysfs(str(host)), "b")
        assert value(host, TO_6) == "0-7"

    def test_others_are_left_alone(self, host: Path) -> None:
        start(Sysfs(str(host)), "a", TO_6)
        assert self.keep(host, "b") == ()
        assert value(host, TO_6) == "6"

    def test_what_cannot_be_restored_now_is_tried_again(self, host: Path) -> None:
        start(Sysfs(str(host)), "a", TO_6)
        full = Kernel(str(host), {("/proc/irq/45/smp_affinity_list", "0-7"): errno.ENOSPC})
        with Ledger(full).locked() as book:
            (outcome,) = apply.keep_only(full, book, "a", (), kinds={"irq"})
        assert not outcome.ok
        assert changes(full)["irq", "45"].holders == ()
        stop(Sysfs(str(host)))
        assert value(host, TO_6) == "0-7"
        assert changes(Sysfs(str(host))) == {}
