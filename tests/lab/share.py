"""Hold each emulated CPU to a fixed share of a core, so that two of them do twice the work of one.

A hypervisor has more CPUs than the machine that emulates it has cores. Left alone, one emulated CPU at work
is as fast as a core, and a third one at work makes the first two slower: nothing is gained by spreading work.
The share is a CPU quota of cgroup v1 or v2 (Documentation/scheduler/sched-bwc.rst and
Documentation/admin-guide/cgroup-v2.rst of the kernel); setting it needs root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .machine import Machine
from .progress import say

ROOT = Path("/sys/fs/cgroup")
VERSION_1 = ROOT / "cpu"

PERIOD = 10_000
"""Microseconds; short, so that a CPU is not away for longer than a time slice."""

BUSY = 4
"""As many CPUs one VM with one queue keeps at work: vCPU, vhost worker, interrupts, QEMU's main loop."""


@contextmanager
def held(machine: Machine, busy: int = BUSY) -> Iterator[bool]:
    """Hold a machine's CPUs for a while.

    Args:
        machine: The emulated machine.
        busy: How many of its CPUs work at once: each is held to its part of the cores there are.

    Yields:
        Whether they do not get into each other's way: they are held, or there are cores enough.
    """
    assert machine.process is not None
    threads = [int(cpu["thread-id"]) for cpu in machine.monitor.execute("query-cpus-fast")]
    part = (os.cpu_count() or 1) / busy
    if part >= 1:
        yield True
        return
    hold = _hold_1 if VERSION_1.exists() else _hold_2
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(machine.process.pid, threads, part))
        except OSError as error:
            say(f"emulated CPUs are not held to a share of a core: {error}")
            done = False
        else:
            done = True
        yield done


@contextmanager
def _hold_1(_pid: int, threads: Sequence[int], part: float) -> Iterator[None]:
    """A group for each thread, beside the one it is in."""
    with ExitStack() as stack:
        for thread in threads:
            home = VERSION_1 / _group(f"/proc/{thread}/cgroup", "cpu").lstrip("/")
            group = home / f"lab-{thread}"
            _make(stack, group)
            (group / "cpu.cfs_period_us").write_text(f"{PERIOD}")
            (group / "cpu.cfs_quota_us").write_text(f"{PERIOD * part:.0f}")
            (group / "tasks").write_text(f"{thread}")
            stack.callback(_move, thread, home / "tasks")
        yield


@contextmanager
def _hold_2(pid: int, threads: Sequence[int], part: float) -> Iterator[None]:
    """A threaded group for each; the process is in the one above them meanwhile."""
    home = ROOT / _group(f"/proc/{pid}/cgroup", "").lstrip("/")
    above = ROOT / f"lab-{pid}"
    with ExitStack() as stack:
        (ROOT / "cgroup.subtree_control").write_text("+cpu")
        _make(stack, above)
        groups = {thread: above / f"{thread}" for thread in threads}
        for group in groups.values():
            _make(stack, group)
            (group / "cgroup.type").write_text("threaded")
        (above / "cgroup.subtree_control").write_text("+cpu")
        (above / "cgroup.procs").write_text(f"{pid}")
        stack.callback(_move, pid, home / "cgroup.procs")
        for thread, group in groups.items():
            (group / "cpu.max").write_text(f"{PERIOD * part:.0f} {PERIOD}")
            (group / "cgroup.threads").write_text(f"{thread}")
        yield


def _group(file: str, controller: str) -> str:
    """The group a task is in; version 2 has one hierarchy, and no name of a controller."""
    for line in Path(file).read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controller in controllers.split(","):
            return group
    raise OSError(f"{file} names no group of the controller {controller!r}")


def _make(stack: ExitStack, group: Path) -> None:
    group.mkdir()
    stack.callback(group.rmdir)


def _move(task: int, file: Path) -> None:
    with suppress(ProcessLookupError):
        file.write_text(f"{task}")
