"""Telling irqbalance: the real one, where it is installed, and a socket that misbehaves.

The real one runs in a mount namespace of its own in which /proc/irq is read-only, so that it moves none of
this machine's interrupts.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError, RejectedError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, irqbalance
from libvirt_tuner.hostside.ledger import Claim, Ledger
from libvirt_tuner.topology import Cpus

ALONE = """
mount --bind /proc/irq /proc/irq && mount -o remount,bind,ro /proc/irq &&
mount -t tmpfs none /run && mkdir /run/irqbalance && mount --bind "$0" /run/irqbalance &&
exec "$1" --foreground --interval="$2" --banirq=3
"""
#: The system's, or the one that tests/setup-system has unpacked.
PROGRAM = shutil.which("irqbalance", path=f"{os.environ['PATH']}:/usr/sbin:{sys.prefix}/irqbalance/usr/sbin")
IRQS = (45, 46, 47)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "run/irqbalance").mkdir(parents=True)
    for irq in IRQS:
        (tmp_path / f"proc/irq/{irq}").mkdir(parents=True)
        (tmp_path / f"proc/irq/{irq}/smp_affinity_list").write_text("0-7\n")
    return tmp_path


@contextmanager
def running(host: Path, interval: int = 3600) -> Iterator[str]:
    """A real irqbalance that was given ``--banirq=3``; its socket's name."""
    if os.geteuid() != 0 or PROGRAM is None:
        pytest.skip("needs root and irqbalance")
    command = ["unshare", "--mount", "sh", "-c", ALONE, str(host / "run/irqbalance"), PROGRAM, str(interval)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        name = f"irqbalance{process.pid}.sock"
        try:
            deadline = time.monotonic() + 10
            while name not in irqbalance.sockets(Sysfs(str(host))):
                if process.poll() == 0:
                    pytest.skip("irqbalance has nothing to do on a machine with one core")
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield name
        finally:
            process.terminate()


def start(sysfs: Sysfs, uuid: str, *irqs: int) -> None:
    with Ledger(sysfs).locked() as book:
        book.claim(Claim(uuid, uuid, pid=1))
        moves = [changes.irq_affinity(irq, frozenset({5})) for irq in irqs]
        assert all(outcome.ok for outcome in changes.perform_all(sysfs, book, uuid, moves))


def stop(sysfs: Sysfs, uuid: str) -> None:
    with Ledger(sysfs).locked() as book:
        changes.give_back(sysfs, book, uuid)


def tell(sysfs: Sysfs, timeout: float = 1.0) -> tuple[irqbalance.Told, ...]:
    return irqbalance.tell(sysfs, Ledger(sysfs), timeout=timeout)


def test_no_irqbalance(tmp_path: Path) -> None:
    assert tell(Sysfs(str(tmp_path))) == ()


def test_only_its_sockets_are_looked_at(host: Path) -> None:
    for name in ("irqbalance12.sock", "irqbalance.sock", "irqbalanceX.sock", "irqbalance12.pid", "other"):
        (host / "run/irqbalance" / name).touch()
    assert irqbalance.sockets(Sysfs(str(host))) == ("irqbalance12.sock",)


def test_nothing_steered_nothing_said(host: Path) -> None:
    (host / "run/irqbalance/irqbalance12.sock").touch()
    assert tell(Sysfs(str(host))) == ()


def test_merged_with_what_is_banned_and_taken_out_again(host: Path) -> None:
    sysfs = Sysfs(str(host))
    with running(host) as name:
        assert irqbalance.setup(sysfs, name) == {3}
        start(sysfs, "a", 45, 46)
        start(sysfs, "b", 46, 47)
        assert tell(sysfs) == (irqbalance.Told(name, frozenset({45, 46, 47})),)
        assert irqbalance.setup(sysfs, name) == {3, 45, 46, 47}
        stop(sysfs, "a")
        tell(sysfs)
        assert irqbalance.setup(sysfs, name) == {3, 46, 47}
        stop(sysfs, "b")
        tell(sysfs)
        assert irqbalance.setup(sysfs, name) == {3}
    assert Ledger(sysfs).read().bans == {}


def test_a_ban_of_the_users_own_stays(host: Path) -> None:
    sysfs = Sysfs(str(host))
    with running(host) as name:
        irqbalance.ban(sysfs, name, frozenset({3, 45}))
        start(sysfs, "a", 45, 46)
        assert tell(sysfs)[0].banned == {46}
        stop(sysfs, "a")
        tell(sysfs)
        assert irqbalance.setup(sysfs, name) == {3, 45}


def test_told_again_after_a_restart(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", 45)
    with running(host) as first:
        tell(sysfs)
        leftover = host / "run/irqbalance" / first
        leftover.rename(leftover.with_suffix(".kept"))
    leftover.with_suffix(".kept").rename(leftover)
    with running(host) as second:
        assert irqbalance.sockets(sysfs) == tuple(sorted((first, second)))
        assert tell(sysfs) == (irqbalance.Told(second, frozenset({45})),)
        assert irqbalance.setup(sysfs, second) == {3, 45}
        assert Ledger(sysfs).read().bans == {second: frozenset({45})}
        stop(sysfs, "a")
        tell(sysfs)
        assert irqbalance.setup(sysfs, second) == {3}


def test_killed_between_telling_and_remembering(host: Path) -> None:
    sysfs = Sysfs(str(host))
    with running(host) as name:
        start(sysfs, "a", 45)
        tell(sysfs)
        with Ledger(sysfs).locked() as book:
            # As saved before the request went out: one more than irqbalance was told.
            book.bans = {name: frozenset({45, 46})}
            book.save()
        stop(sysfs, "a")
        tell(sysfs)
        assert irqbalance.setup(sysfs, name) == {3}


@pytest.mark.parametrize(
    "irqs",
    [
        pytest.param(frozenset[int](), id="none"),
        pytest.param(frozenset({0, 4}), id="zero-first"),
        # "settings ban irqs" and 96 numbers of four digits: 18 + 96 * 5 - 1 = 497 bytes.
        pytest.param(frozenset(range(1000, 1096)), id="497-bytes"),
        # One of them with three digits more fills the 500 bytes.
        pytest.param(frozenset({*range(1000, 1095), 1234567}), id="500-bytes"),
    ],
)
def test_what_one_request_holds(host: Path, irqs: frozenset[int]) -> None:
    sysfs = Sysfs(str(host))
    with running(host) as name:
        irqbalance.ban(sysfs, name, irqs)
        assert irqbalance.setup(sysfs, name) == irqs


def test_more_than_one_request_holds_is_left_out_and_said(host: Path) -> None:
    sysfs = Sysfs(str(host))
    irqs = range(1000, 1200)
    for irq in irqs:
        (host / f"proc/irq/{irq}").mkdir()
        (host / f"proc/irq/{irq}/smp_affinity_list").write_text("0-7\n")
    with running(host) as name:
        with pytest.raises(RejectedError, match="too many"):
            irqbalance.ban(sysfs, name, frozenset(irqs))
        start(sysfs, "a", *irqs)
        (told,) = tell(sysfs)
        assert told.error is None
        assert irqbalance.setup(sysfs, name) == {3} | told.banned
        assert told.banned | told.left_out == set(irqs)
        assert len(told.banned) == 96
        assert "accepts only 96" in told.problem


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        pytest.param(irqbalance.Told("s", banned=frozenset({5})), "", id="all is well"),
        pytest.param(
            irqbalance.Told("s", error=HostError("no answer")), "no answer; irqbalance may", id="error"
        ),
        pytest.param(irqbalance.Told("s", left_out=frozenset({5, 6})), "it may move 5-6 back", id="too many"),
    ],
)
def test_what_is_to_be_said(told: irqbalance.Told, problem: str) -> None:
    assert problem in told.problem
    assert bool(told.problem) == bool(problem)


# CPUs


def place(sysfs: Sysfs, uuid: str, vcpus: Cpus, quiet: Cpus) -> None:
    with Ledger(sysfs).locked() as book:
        book.claim(Claim(uuid, uuid, pid=1, vcpus=vcpus, quiet=quiet))
        book.save()


def in_force(sysfs: Sysfs, name: str, cpus: Cpus) -> None:
    """Wait for its next pass, from which on it heeds what it was told."""
    deadline = time.monotonic() + 20
    while irqbalance.state(sysfs, name, timeout=5).cpus != cpus:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def cpus(host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of four CPUs, of which none is banned."""
    monkeypatch.delenv("IRQBALANCE_BANNED_CPULIST", raising=False)
    (host / "sys/devices/system/cpu").mkdir(parents=True)
    (host / "sys/devices/system/cpu/online").write_text("0-3\n")
    return host


def test_cpus_of_vcpus_are_left_and_given_back(cpus: Path) -> None:
    sysfs = Sysfs(str(cpus))
    with running(cpus, interval=1) as name:
        place(sysfs, "a", frozenset({1}), frozenset({1}))
        assert tell(sysfs) == (irqbalance.Told(name, cpus=frozenset({1})),)
        tell(sysfs)  # before its next pass: what is in force is not what it was told
        in_force(sysfs, name, frozenset({1}))
        stop(sysfs, "a")
        tell(sysfs)
        in_force(sysfs, name, frozenset())
    assert Ledger(sysfs).read().spared == {}


def test_cpus_of_the_users_own_stay(cpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs = Sysfs(str(cpus))
    monkeypatch.setenv("IRQBALANCE_BANNED_CPULIST", "0")
    with running(cpus, interval=1) as name:
        place(sysfs, "a", frozenset({1}), frozenset({1}))
        tell(sysfs)
        in_force(sysfs, name, frozenset({0, 1}))
        stop(sysfs, "a")
        tell(sysfs)
        in_force(sysfs, name, frozenset({0}))


def test_cpus_that_somebody_set_meanwhile_stay(cpus: Path) -> None:
    asked: list[bytes] = []
    mask = [b"2"]

    def talk(peer: socket.socket) -> None:
        request = peer.recv(500)
        if request == b"setup":
            peer.send(b"SLEEP 10 BANNED " + mask[0])
        else:
            asked.append(request)

    sysfs = Sysfs(str(cpus))
    with listening(cpus, talk):
        place(sysfs, "a", frozenset({2}), frozenset({2}))
        tell(sysfs)
        mask[0] = b"6"  # as it was told: its own 1 and our 2
        tell(sysfs)
        mask[0] = b"9"  # somebody has said 0 and 3
        tell(sysfs)
        mask[0] = b"d"
        stop(sysfs, "a")
        tell(sysfs)
    assert asked == [b"settings cpus 1-2", b"settings cpus 0,2-3", b"settings cpus 0,3"]


@pytest.mark.parametrize(
    ("vcpus", "quiet", "left"),
    [
        pytest.param({1, 2}, {1, 2}, {1, 2}, id="vCPUs"),
        pytest.param({1}, {0, 1, 2, 3}, {1}, id="no siblings where no other CPU is left"),
        pytest.param({0, 1, 2, 3}, {0, 1, 2, 3}, set(), id="every CPU runs a vCPU"),
    ],
)
def test_interrupts_keep_a_cpu(cpus: Path, vcpus: set[int], quiet: set[int], left: set[int]) -> None:
    sysfs = Sysfs(str(cpus))
    with listening(cpus, _saying(b"SLEEP 10 BANNED 0")):
        place(sysfs, "a", frozenset(vcpus), frozenset(quiet))
        (told,) = tell(sysfs)
    assert told.cpus == left


def test_more_cpus_than_one_request_holds(cpus: Path) -> None:
    (cpus / "sys/devices/system/cpu/online").write_text("0-511\n")
    sysfs = Sysfs(str(cpus))
    odd = frozenset(range(1, 512, 2))
    with listening(cpus, _saying(b"SLEEP 10 BANNED 0")):
        place(sysfs, "a", odd, odd)
        (told,) = tell(sysfs)
    assert told.cpus | told.crowded == odd
    assert 100 < len(told.cpus) < 200
    assert "list of CPUs is too long" in told.problem


def test_a_host_with_more_cpus_than_the_answer_tells_of(cpus: Path) -> None:
    sysfs = Sysfs(str(cpus))
    with listening(cpus, _saying(b"SLEEP 10 BANNED " + b",".join([b"00000000"] * 60)[:511])):
        place(sysfs, "a", frozenset({1}), frozenset({1}))
        (told,) = tell(sysfs)
    assert (told.cpus, told.error) == (frozenset(), None)


def test_what_does_not_fit_is_there_for_the_policy_script(host: Path) -> None:
    script = Path(__file__).parents[3] / "docs/examples/irqbalance-policy"
    sysfs = Sysfs(str(host))
    ledger = Ledger(sysfs)
    ledger.write_beside(irqbalance.STEERED, "45\n146\n")
    told = script.read_text().replace("/run/libvirt-tuner", str(host / "run/libvirt-tuner"))

    def asked(irq: int) -> str:
        command = ["sh", "-c", told, "policy", "/sys/devices/x", str(irq)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert (asked(45), asked(46), asked(4), asked(146)) == ("ban=true\n", "", "", "ban=true\n")
    ledger.write_beside(irqbalance.STEERED, "")
    assert asked(45) == ""
    assert not (host / "run/libvirt-tuner/steered").exists()


Talk = Callable[[socket.socket], None]


@contextmanager
def listening(host: Path, talk: Talk) -> Iterator[str]:
    """Something on irqbalance's socket that does as ``talk`` says with each connection."""
    name = "irqbalance12.sock"
    directory = os.open(host / "run/irqbalance", os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(f"/proc/self/fd/{directory}/{name}")
        os.close(directory)
        server.listen(1)
        threading.Thread(target=_serve, args=(server, talk), daemon=True).start()
        yield name
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, talk: Talk) -> None:
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        with peer:
            talk(peer)


def _silent(peer: socket.socket) -> None:
    peer.recv(500)
    time.sleep(0.6)


def _dripping(peer: socket.socket) -> None:
    try:
        while True:
            peer.send(b"SLEEP ")
            time.sleep(0.05)
    except OSError:
        return


def _saying(answer: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        peer.recv(500)
        peer.send(answer)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(_silent, id="silent"),
        pytest.param(_dripping, id="never-done"),
        pytest.param(_saying(b""), id="refuses"),
        pytest.param(_saying(b"SLEEP 10 IRQ 5 LOAD 0 DI"), id="cut-off"),
        pytest.param(_saying(b"SLEEP 10 IRQ x LOAD 0 DIFF 0 CLASS 0 BANNED 0"), id="no-number"),
        pytest.param(_saying(b"\xff\x00"), id="noise"),
        pytest.param(_saying(b"SLEEP 10 BANNED 00000000"), id="takes-nothing"),
    ],
)
def test_a_strange_one_is_an_error_and_no_more(host: Path, talk: Talk) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", 45)
    with listening(host, talk) as name:
        began = time.monotonic()
        (told,) = tell(sysfs, timeout=0.3)
        assert time.monotonic() - began < 1.0
    assert isinstance(told.error, HostError)
    assert told.error.where == f"/run/irqbalance/{name}"


def test_the_ledger_is_free_while_it_hangs(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", 45)
    with listening(host, _silent):
        slow = threading.Thread(target=tell, args=(sysfs, 0.5))
        slow.start()
        time.sleep(0.1)
        with Ledger(sysfs).locked(timeout=0.1) as book:
            assert list(book.claims) == ["a"]
        assert slow.is_alive()
        slow.join()


def test_a_leftover_socket_is_passed_over(host: Path) -> None:
    sysfs = Sysfs(str(host))
    start(sysfs, "a", 45)
    with listening(host, _silent):
        pass
    assert irqbalance.sockets(sysfs) == ("irqbalance12.sock",)
    assert tell(sysfs) == ()
