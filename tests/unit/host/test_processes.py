"""Threads of a QEMU process, from described trees and from this very process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs
from tests.unit.trees import Counting, put


def process(root: Path, pid: int, comm: str, start: int, parent: int = 1) -> None:
    put(root, f"proc/{pid}/comm", comm)
    fields = " ".join(["0"] * 17)
    put(root, f"proc/{pid}/stat", f"{pid} ({comm}) S {parent} {fields} {start} 0 0")


def qemu(root: Path, pid: int, start: int, tasks: dict[int, str]) -> None:
    process(root, pid, "qemu-system-x86", start)
    for tid, comm in {pid: "qemu-system-x86", **tasks}.items():
        put(root, f"proc/{pid}/task/{tid}/comm", comm)


TASKS = {
    4001: "IO mon_iothread",
    4002: "CPU 1/KVM",
    4003: "CPU 0/KVM",
    4004: "IO iothread1",
    4005: "kvm-nx-lpage-re",
    4006: "worker",
    4007: "CPU x/KVM",
    4008: "vhost-40000",
    4009: "CPU 5/other",
    4010: "IO 6/KVM",
}


def test_threads_of_a_process_that_has_ended(tmp_path: Path) -> None:
    for use in (processes.threads, processes.process_start, processes.affinity):
        with pytest.raises(MissingError):
            use(Sysfs(str(tmp_path)), 4000)


def test_threads_by_name(tmp_path: Path) -> None:
    qemu(tmp_path, 4000, 500, TASKS)
    threads = processes.threads(Sysfs(str(tmp_path)), 4000)
    assert threads.vcpus == {0: 4003, 1: 4002}
    assert threads.iothreads == {1: 4004}
    assert threads.vhost == ()
    assert threads.others == (4000, 4001, 4005, 4006, 4007, 4008, 4009, 4010)


def test_threads_of_tcg(tmp_path: Path) -> None:
    qemu(tmp_path, 4000, 500, {4002: "CPU 12/TCG"})
    assert processes.threads(Sysfs(str(tmp_path)), 4000).vcpus == {12: 4002}


def test_libvirts_status_wins_over_names(tmp_path: Path) -> None:
    qemu(tmp_path, 4000, 500, TASKS)
    threads = processes.threads(Sysfs(str(tmp_path)), 4000, {5: 4006})
    assert threads.vcpus == {5: 4006}
    assert 4002 in threads.others


def test_vhost_workers_as_threads_of_qemu(tmp_path: Path) -> None:
    qemu(tmp_path, 4000, 500, {4010: "vhost-4000", 4011: "vhost-4000"})
    assert processes.threads(Sysfs(str(tmp_path)), 4000).vhost == (4010, 4011)


@pytest.mark.parametrize("children", [True, False])
def test_timers_are_found_among_kernel_threads(tmp_path: Path, children: bool) -> None:
    qemu(tmp_path, 4000, 500, {})
    made = [(10, "kvm-pit/4000", 400), (4020, "kvm-pit/4000", 501), (4021, "kvm-pit/40000", 502)]
    kernel(tmp_path, made, children=children)
    assert processes.timers(Sysfs(str(tmp_path)), 4000) == (4020,), "10 was another's"


def kernel(root: Path, made: list[tuple[int, str, int]], *, children: bool) -> None:
    process(root, 2, "kthreadd", 1, parent=0)
    for tid, comm, start in made:
        process(root, tid, comm, start, parent=2)
    if children:
        put(root, "proc/2/task/2/children", " ".join(str(tid) for tid, _, _ in made))


@pytest.mark.parametrize("children", [True, False], ids=["list-of-children", "no-list-of-children"])
def test_vhost_workers_as_kernel_threads(tmp_path: Path, children: bool) -> None:
    qemu(tmp_path, 4000, 500, TASKS)
    old = [(10 + n, "vhost-4000" if n == 7 else "kworker/0:0", 10 + n) for n in range(40)]
    young = [
        (4020, "vhost-4000", 500),
        (4021, "kworker/1:2", 501),
        (4022, "vhost-4000", 502),
        (4023, "vhost-400", 503),
    ]
    kernel(tmp_path, [*old, *young], children=children)
    process(tmp_path, 4030, "vhost-4000", 600, parent=1)
    assert processes.threads(Sysfs(str(tmp_path)), 4000).vhost == (4020, 4022)


def test_kernel_threads_whose_ids_wrapped_round_or_that_ended(tmp_path: Path) -> None:
    qemu(tmp_path, 30000, 500, {})
    made = [(20000, "a", 10), (25000, "b", 20), (300, "vhost-30000", 510), (301, "c", 511)]
    kernel(tmp_path, made, children=True)
    put(tmp_path, "proc/2/task/2/children", "20000 21000 25000 22000 300 23000 301 24000")
    assert processes.threads(Sysfs(str(tmp_path)), 30000).vhost == (300,)


def test_few_reads_among_thousands_of_kernel_threads(tmp_path: Path) -> None:
    qemu(tmp_path, 4000, 5000, {})
    kernel(
        tmp_path, [*((10 + n, "kworker", n) for n in range(1500)), (4010, "vhost-4000", 5001)], children=True
    )
    sysfs = Counting(str(tmp_path))
    assert processes.threads(sysfs, 4000).vhost == (4010,)
    assert len(sysfs.paths) < 20


def test_a_pid_namespace_has_no_kernel_threads(tmp_path: Path) -> None:
    qemu(tmp_path, 4000, 500, {})
    process(tmp_path, 2, "bash", 1)
    process(tmp_path, 4010, "vhost-4000", 600, parent=2)
    assert processes.threads(Sysfs(str(tmp_path)), 4000).vhost == ()


@pytest.mark.parametrize("comm", ["qemu", "a) S 1 (b", "x y", ")"])
def test_process_start_with_any_name(tmp_path: Path, comm: str) -> None:
    process(tmp_path, 4000, comm, 123456)
    assert processes.process_start(Sysfs(str(tmp_path)), 4000) == 123456


def test_process_files_that_are_cut_short(tmp_path: Path) -> None:
    put(tmp_path, "proc/7/stat", "7 (x) S 1")
    put(tmp_path, "proc/7/status", "Name: x")
    with pytest.raises(HostError, match="too few fields"):
        processes.process_start(Sysfs(str(tmp_path)), 7)
    with pytest.raises(HostError, match="Cpus_allowed_list"):
        processes.affinity(Sysfs(str(tmp_path)), 7)


# The running machine


def test_this_process() -> None:
    assert processes.affinity(Sysfs(), os.getpid()) == os.sched_getaffinity(0)
    assert processes.process_start(Sysfs(), os.getpid()) > 0


def test_a_thread_of_this_process_named_as_qemus_are() -> None:
    ready, done = threading.Event(), threading.Event()

    def body() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("CPU 3/KVM")
        ready.set()
        done.wait(10)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        assert ready.wait(10)
        threads = processes.threads(Sysfs(), os.getpid())
        assert threads.vcpus == {3: thread.native_id}
        assert threads.others[0] == os.getpid()
    finally:
        done.set()
        thread.join()


def test_whose_process_it_is(tmp_path: Path) -> None:
    put(tmp_path, "/proc/40/status", "Name:\tx\nUid:\t1000\t1001\t1001\t1001")
    assert processes.user(Sysfs(str(tmp_path)), 40) == 1001
