"""Hold each emulated CPU to a fixed share of a core, so that two of them do twice the work of one.

A hypervisor has more CPUs than the machine that emulates it has cores. Left alone, one emulated CPU at work
is as fast as a core, and a third one at work makes the first two slower: nothing is gained by spreading work.
The share is a CPU quota of cgroup v1 or v2 (Documentation/scheduler/sched-bwc.rst and
Documentation/admin-guide/cgroup-v2.rst of the kernel); setting it needs root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .machine import Machine

ROOT = Path("/sys/fs/cgroup")
VERSION_1 = ROOT / "cpu"

PERIOD = 10_000
"""Microseconds; short, so that a CPU is not away for longer than a time slice."""

BUSY = 4
"""As many CPUs one VM with one queue keeps at work: vCPU, vhost worker, interrupts, QEMU's main loop."""

SHARE = min(1.0, (os.cpu_count() or 1) / BUSY)
"""The part of a core each emulated CPU can have when so many of them are."""


@contextmanager
def held(machine: Machine) -> Iterator[float]:
    """Hold a machine's CPUs for a while; yields the share of a core they have, 1.0 without root."""
    assert machine.process is not None
    threads = [int(cpu["thread-id"]) for cpu in machine.monitor.execute("query-cpus-fast")]
    if os.geteuid() != 0:
        yield 1.0
        return
    hold = _hold_1 if VERSION_1.exists() else _hold_2
    with hold(machine.process.pid, threads):
        yield SHARE


@contextmanager
def _hold_1(_pid: int, threads: Sequence[int]) -> Iterator[None]:
    groups = {thread: VERSION_1 / f"lab-{thread}" for thread in threads}
    try:
        for thread, group in groups.items():
            group.mkdir(exist_ok=True)
            (group / "cpu.cfs_period_us").write_text(f"{PERIOD}")
            (group / "cpu.cfs_quota_us").write_text(f"{PERIOD * SHARE:.0f}")
            (group / "tasks").write_text(f"{thread}")
        yield
    finally:
        for thread, group in groups.items():
            with suppress(ProcessLookupError):
                (VERSION_1 / "tasks").write_text(f"{thread}")
            group.rmdir()


@contextmanager
def _hold_2(pid: int, threads: Sequence[int]) -> Iterator[None]:
    """A threaded group for each; the process is in the one above them meanwhile."""
    home = ROOT / Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::/")[2]
    above = ROOT / f"lab-{pid}"
    groups = {thread: above / f"{thread}" for thread in threads}
    above.mkdir()
    try:
        for group in groups.values():
            group.mkdir(exist_ok=True)
            (group / "cgroup.type").write_text("threaded")
        (above / "cgroup.subtree_control").write_text("+cpu")
        (above / "cgroup.procs").write_text(f"{pid}")
        for thread, group in groups.items():
            (group / "cpu.max").write_text(f"{PERIOD * SHARE:.0f} {PERIOD}")
            (group / "cgroup.threads").write_text(f"{thread}")
        yield
    finally:
        with suppress(ProcessLookupError):
            (home / "cgroup.procs").write_text(f"{pid}")
        for group in (*groups.values(), above):
            group.rmdir()
