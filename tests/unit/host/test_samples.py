"""Reading one look at a host: formats of /proc, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.diagnosis.sample import Ticks
from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import samples
from libvirt_tuner.host.sysfs import Sysfs
from tests.unit.trees import put


def test_numa_maps_of_all_page_sizes() -> None:
    text = (
        "7f00 default anon=3 N0=2 N1=1 kernelpagesize_kB=4\n"
        "7f01 bind:0 file=/dev/hugepages/x huge N0=2 kernelpagesize_kB=2048\n"
        "7f02 default file=/N9=7\n"
    )
    assert samples.pages_by_node(text) == {0: 8 + 4096, 1: 4}


def test_numa_maps_as_captured() -> None:
    assert samples.pages_by_node("N0=2 N1=3 kernelpagesize_kB=4\nN1=1") == {0: 8, 1: 16}


def test_snmp_pairs_of_lines() -> None:
    assert samples.snmp("Ip: Forwarding FragCreates\nIp: 1 42\nTcp: MaxConn\nTcp: -1") == {
        "Ip.Forwarding": 1,
        "Ip.FragCreates": 42,
    }


def test_stat_leaves_out_the_sum_and_counts_guest_time_once(tmp_path: Path) -> None:
    put(tmp_path, "/proc/stat", "cpu 9 9 9 9 9 9 9 9 9 9\ncpu3 10 1 2 30 4 0 5 6 10 1\nintr 5")
    (cpu,) = samples.read_stat(Sysfs(str(tmp_path))).items()
    assert cpu == (3, Ticks(total=58, idle=34, softirq=5, steal=6))


def test_softirqs_by_the_head_so_that_offline_cpus_shift_nothing(tmp_path: Path) -> None:
    put(tmp_path, "/proc/softirqs", "        CPU0 CPU2\n HI: 1 2\n NET_RX: 30 40")
    assert samples.read_softirqs(Sysfs(str(tmp_path)))["NET_RX"] == {0: 30, 2: 40}


def test_an_interrupt_counts_by_possible_cpu(tmp_path: Path) -> None:
    put(tmp_path, "/sys/kernel/irq/9/per_cpu_count", "5,0,7")
    put(tmp_path, "/proc/irq/9/smp_affinity_list", "0-2000")
    put(tmp_path, "/proc/irq/9/effective_affinity_list", "1023")
    irq = samples.read_irq(Sysfs(str(tmp_path)), 9, [0, 2, 1023])
    assert irq.counts == {0: 5, 1023: 7}
    assert irq.effective == {1023}


def test_a_thread_name_may_hold_anything(tmp_path: Path) -> None:
    put(tmp_path, "/proc/7/stat", "7 (a) R (b) " + " ".join(map(str, range(50))))
    name, fields = samples.read_task(Sysfs(str(tmp_path)), "/proc/7")
    assert (name, fields[36]) == ("a) R (b", "36")


@pytest.mark.parametrize("text", ["", "1", "a b c"])
def test_a_schedstat_that_is_none(text: str, tmp_path: Path) -> None:
    put(tmp_path, "/proc/7/schedstat", text)
    with pytest.raises(HostError, match="/proc/7/schedstat"):
        samples.read_schedstat(Sysfs(str(tmp_path)), 7)


def test_what_cannot_be_read_is_said_and_left_out(tmp_path: Path) -> None:
    put(tmp_path, "/proc/uptime", "5.5 1")
    put(tmp_path, "/proc/stat", "cpu0 1 2 3 4 5 6 7 8")
    put(tmp_path, "/proc/softirqs", "CPU0\nNET_RX: x")
    look = samples.Sampler(Sysfs(str(tmp_path)), {"gone": 4711}).look()
    assert look.seconds == 5.5
    assert (look.net_rx, look.tasks) == ({}, {})
    assert len(look.unread) == 1


def test_a_host_without_uptime_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    with pytest.raises(MissingError, match="/proc/uptime"):
        samples.Sampler(Sysfs(str(tmp_path)), {}).look()
