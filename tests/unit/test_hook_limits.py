"""The hook where the machine has nothing left: no process, no file descriptor, no reader of the log, no time.

A hook that ends with another status than 0 has libvirt end the domain, also one that has run for months
(``reconnect``, docs/hooks.rst).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner import hook
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.install import hook_script
from tests.unit.replay import Domain, Replay

WEB = Domain("web", 1)
OPERATIONS = ("prepare", "start", "started", "reconnect", "stopped", "release", "migrate", "restore", "")
STRICT = "[policy]\nstrict = true\n"
NOBODY = 65534
LIMITED = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "prlimit", "--nproc=1")


@pytest.fixture
def host(tmp_path: Path) -> Replay:
    host = Replay.make(tmp_path / "host")
    host.write("/etc/libvirt-tuner.toml", STRICT)
    host.run(WEB)
    return host


@pytest.fixture
def script(host: Replay) -> Iterator[str]:
    """The hook where everybody can run it, as the limit of processes does not hold for root."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = Path(directory) / "qemu"
        path.write_text(hook_script(root=str(host.root)))
        path.chmod(0o755)
        yield str(path)


def run(*argv: str, limit: float = 20) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, input=WEB.xml, capture_output=True, timeout=limit, cwd="/", check=False)


def assert_harmless(done: subprocess.CompletedProcess[bytes]) -> None:
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_process_can_be_started(script: str, operation: str) -> None:
    assert run(*LIMITED, "sh", "-c", "(true)").returncode == 2, "the limit does not hold here"
    done = run(*LIMITED, script, "web", operation, "begin", "-")
    assert_harmless(done)
    assert done.stderr == b""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_no_process_and_no_python(script: str, host: Replay) -> None:
    Path(script).write_text(hook_script(python="/nonexistent/python", root=str(host.root)))
    assert_harmless(run(*LIMITED, script, "web", "reconnect", "begin", "-"))


@pytest.mark.parametrize("most", [12, 13, 14, 16])
@pytest.mark.parametrize("operation", ["prepare", "start", "reconnect"])
def test_few_file_descriptors(script: str, operation: str, most: int) -> None:
    """Below 12 dash cannot open a script at all, whatever is in it."""
    assert_harmless(
        run("sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", script, "web", operation, "begin", "-")
    )


@pytest.mark.parametrize("operation", ["start", "stopped", "attach", "prepare", ""])
def test_nothing_to_do_needs_no_process(script: str, host: Replay, operation: str) -> None:
    (host.root / "etc/libvirt-tuner.toml").unlink()
    if not shutil.which("strace"):
        pytest.fail("needs strace")
    done = run("strace", "-f", "-qq", "-e", "trace=process", "-o", f"{script}.log", script, "web", operation)
    assert_harmless(done)
    calls = Path(f"{script}.log").read_text()
    assert "execve" in calls
    assert not any(call in calls for call in ("fork(", "clone(", "clone3("))


@pytest.mark.parametrize("ending", ["os.abort()", "raise SystemExit(1)", "os.kill(os.getpid(), 9)"])
@pytest.mark.parametrize("operation", ["started", "reconnect", "prepare"])
def test_a_python_that_fails_stops_no_domain(
    host: Replay, tmp_path: Path, operation: str, ending: str
) -> None:
    broken = tmp_path / "path/libvirt_tuner"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("")
    (broken / "hook.py").write_text(f"import os\n{ending}\n")
    path = tmp_path / "qemu"
    path.write_text(hook_script(paths=[str(broken.parent)], root=str(host.root)))
    path.chmod(0o755)
    assert_harmless(run(str(path), "web", operation, "begin", "-"))


#: In a mount namespace of its own, where /dev/log is a socket that is full and that nobody reads.
FULL_LOG = """\
import os, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
os.mkdir("/mnt/shm")
subprocess.run(["mount", "--bind", "/dev/shm", "/mnt/shm"], check=True)
subprocess.run(["mknod", "-m", "666", "/mnt/null", "c", "1", "3"], check=True)
subprocess.run(["mount", "--rbind", "/mnt", "/dev"], check=True)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
full.setblocking(False)
full.connect("/dev/log")
try:
    while True:
        full.send(b"x")
except BlockingIOError:
    pass
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")
@pytest.mark.parametrize("operation", ["started", "reconnect", "release"])
def test_a_log_that_nobody_reads_is_not_waited_for(script: str, host: Replay, operation: str) -> None:
    host.write("/etc/libvirt-tuner.toml", "[policy\n")  # something to say
    began = time.monotonic()
    argv = ["unshare", "-m", sys.executable, "-c", FULL_LOG, script, "web", operation, "begin", "-"]
    assert_harmless(run(*argv, limit=15))
    assert time.monotonic() - began < 10


class Slow:
    """A program of that name, first in PATH, that never answers."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / name).write_text("#!/bin/sh\ntrap '' TERM\nsleep 600\n")
        (directory / name).chmod(0o755)


def in_process(host: Replay, operation: str, *, limit: float) -> int:
    """The hook with that limit, the document on its standard input; nothing of it reaches the terminal."""
    kept = os.dup(0)
    with tempfile.TemporaryFile() as file:
        file.write(WEB.xml)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            return hook.main(["qemu", "web", operation, "begin", "-"], root=str(host.root), limit=limit)
        finally:
            os.dup2(kept, 0)
            os.close(kept)


class TestTime:
    def test_a_lock_that_is_held_is_waited_for_within_the_limit(self, host: Replay) -> None:
        before = host.irqs()
        with Ledger(host.sysfs).locked():
            began = time.monotonic()
            assert in_process(host, "started", limit=0.2) == 0
            assert time.monotonic() - began < 3
        assert host.irqs() == before
        assert host.book.claims == {}

    def test_what_was_begun_is_given_back(self, host: Replay) -> None:
        before = host.irqs()
        blocked = host.root / "proc/irq/220/smp_affinity_list"
        blocked.unlink()
        os.mkfifo(blocked)
        assert in_process(host, "started", limit=0.5) == 0
        blocked.unlink()
        host.scatter(220, before[220])
        assert host.book.claims == {}
        in_process(host, "release", limit=10)
        assert host.irqs() == before
        assert host.book.changes == {}

    def test_a_domain_that_runs_keeps_what_it_has(self, host: Replay) -> None:
        assert in_process(host, "started", limit=20) == 0
        held, claims = host.irqs(), host.book.claims
        with Ledger(host.sysfs).locked():
            assert in_process(host, "reconnect", limit=0.2) == 0
        assert (host.irqs(), set(host.book.claims)) == (held, set(claims))

    def test_standard_input_that_does_not_end(self, host: Replay) -> None:
        reader, writer = os.pipe()
        kept = os.dup(0)
        os.dup2(reader, 0)
        try:
            began = time.monotonic()
            assert hook.main(["qemu", "web", "started"], root=str(host.root), limit=0.2) == 0
            assert time.monotonic() - began < 3
        finally:
            os.dup2(kept, 0)
            for fd in (kept, reader, writer):
                os.close(fd)

    def test_code_that_holds_a_lock_when_time_is_up(self, tmp_path: Path) -> None:
        # As a lock that is not released when an exception comes, and is taken once more then.
        code = (
            "import sys, threading, time\n"
            "from libvirt_tuner import hook\n"
            "def stuck(call):\n"
            "    lock = threading.Lock()\n"
            "    lock.acquire()\n"
            "    try:\n"
            "        time.sleep(60)\n"
            "    finally:\n"
            "        lock.acquire()\n"
            "hook.OPERATIONS['started'] = stuck\n"
            "hook.main(['qemu', 'web', 'started'], root=sys.argv[1], limit=0.1)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=30)
        assert done.returncode == -signal.SIGALRM

    def test_no_alarm_is_left(self, host: Replay) -> None:
        in_process(host, "started", limit=20)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_document_of_any_length_takes_bounded_memory() -> None:
    reader, writer = socket.socketpair()
    size = hook.INPUT_LIMIT * 2
    child = os.fork()
    if not child:
        reader.close()
        for _ in range(size >> 20):
            writer.sendall(b"x" * (1 << 20))
        os._exit(0)
    writer.close()
    found = len(hook.read_document(reader.fileno()))
    assert os.waitpid(child, 0)[1] == 0
    reader.close()
    assert hook.INPUT_LIMIT < found <= hook.INPUT_LIMIT + (2 << 20)
