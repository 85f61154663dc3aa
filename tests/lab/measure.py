"""Figures: throughput, run-queue wait, softirqs and the kernel's counters, in rounds that alternate."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from libvirt_tuner.diagnosis import comparison
from libvirt_tuner.diagnosis.comparison import medians

from .hypervisor import Hypervisor
from .network import Network
from .progress import say

__all__ = ["Sample", "alternate", "cores_in_use", "iperf3", "iperf3_report", "medians", "outside", "sample"]

SAMPLE = """\
for t in {tids}; do
    echo "schedstat $t $(cat /proc/$t/schedstat)"
    echo "voluntary $t $(sed -n 's/^voluntary_ctxt_switches://p' /proc/$t/status)"
    echo "migrations $t $(sed -n 's/^se.nr_migrations *://p' /proc/$t/sched)"
done
grep -E '^ *NET_(RX|TX):' /proc/softirqs
sed 's/^/stat /' /proc/stat | grep '^stat cpu[0-9]'
grep -h '^Ip:' /proc/net/snmp
grep -E '^ *(RES|CAL):' /proc/interrupts
"""


@frozen
class Sample:
    """Counters of a hypervisor at one moment, or what they grew by between two.

    Attributes:
        seconds: When, on the hypervisor's own clock; of a difference, how long.
        wait: Seconds each thread stood in the run queue (/proc/TID/schedstat, second field).
        ran: Seconds each thread ran (the first).
        switches: How often each thread went to sleep (voluntary_ctxt_switches of /proc/TID/status).
        migrations: How often each thread changed its CPU (se.nr_migrations of /proc/TID/sched).
        net_rx: NET_RX softirqs of each CPU (/proc/softirqs).
        softirq: Seconds each CPU spent in softirqs (/proc/stat).
        ip: The IPv4 counters of /proc/net/snmp (``FragCreates``, ``OutRequests``, ...).
        ipis: Interrupts that CPUs sent each other, to wake a thread or call a function there (RES and CAL of
            /proc/interrupts).
    """

    seconds: float
    wait: Mapping[int, float]
    ran: Mapping[int, float]
    switches: Mapping[int, int]
    migrations: Mapping[int, int]
    net_rx: Mapping[int, int]
    softirq: Mapping[int, float]
    ip: Mapping[str, int]
    ipis: int

    def __sub__(self, earlier: Sample) -> Sample:
        """Return what grew since an earlier sample of the same threads."""
        return Sample(
            self.seconds - earlier.seconds,
            {tid: value - earlier.wait[tid] for tid, value in self.wait.items()},
            {tid: value - earlier.ran[tid] for tid, value in self.ran.items()},
            {tid: value - earlier.switches[tid] for tid, value in self.switches.items()},
            {tid: value - earlier.migrations[tid] for tid, value in self.migrations.items()},
            {cpu: value - earlier.net_rx[cpu] for cpu, value in self.net_rx.items()},
            {cpu: value - earlier.softirq[cpu] for cpu, value in self.softirq.items()},
            {name: value - earlier.ip[name] for name, value in self.ip.items()},
            self.ipis - earlier.ipis,
        )


def sample(hypervisor: Hypervisor, threads: Sequence[int] = ()) -> Sample:
    """Read the counters, with those of some threads."""
    script = "cat /proc/uptime\n" + SAMPLE.format(tids=" ".join(map(str, threads)))
    return parse(hypervisor.output(script))


def parse(text: str) -> Sample:
    """Parse what :data:`SAMPLE` prints after the content of /proc/uptime."""
    lines = [line.split() for line in text.splitlines()]
    threads = [words for words in lines if words[0] == "schedstat"]
    net_rx = next(words for words in lines if words[0] == "NET_RX:")[1:]
    names, values = (words[1:] for words in lines if words[0] == "Ip:")
    return Sample(
        seconds=float(lines[0][0]),
        wait={int(words[1]): int(words[3]) / 1e9 for words in threads},
        ran={int(words[1]): int(words[2]) / 1e9 for words in threads},
        switches={int(words[1]): int(words[2]) for words in lines if words[0] == "voluntary"},
        migrations={int(words[1]): int(words[2]) for words in lines if words[0] == "migrations"},
        net_rx=dict(enumerate(map(int, net_rx))),
        softirq={int(words[1][3:]): int(words[8]) / 100 for words in lines if words[0] == "stat"},
        ip=dict(zip(names, map(int, values), strict=True)),
        ipis=sum(
            int(word) for words in lines if words[0] in ("RES:", "CAL:") for word in words if word.isdigit()
        ),
    )


def iperf3(
    run: Callable[[str], str],
    server: str,
    *,
    reverse: bool = False,
    seconds: float = 5,
    parallel: int = 1,
    options: str = "",
) -> float:
    """Return the TCP throughput to an iperf3 server, in Mbit/s as received.

    Args:
        run: Runs a shell command where the client is: :meth:`Guest.run`, or :func:`outside`.
        server: The server's address; inner guests always run one.
        reverse: The server sends.
        seconds: How long, after one second that does not count.
        parallel: Flows.
        options: More options of iperf3.
    """
    way = "-R" if reverse else ""
    report = iperf3_report(run, f"-c {server} -O 1 -t {seconds} -P {parallel} {way} {options}")
    return float(report["sum_received"]["bits_per_second"]) / 1e6


def iperf3_report(run: Callable[[str], str], options: str) -> dict[str, Any]:
    """Run an iperf3 client and return what its JSON has under ``end``."""
    for _ in range(10):
        answer = json.loads(run(f"iperf3 -J {options} || true"))
        if "error" not in answer:
            end: dict[str, Any] = answer["end"]
            return end
        # The server takes a moment to listen again after a test.
        time.sleep(1)
    raise AssertionError(f"iperf3 {options}: {answer['error']}")


def cores_in_use(call: Callable[[], float]) -> tuple[float, float]:
    """Call something, and return its result with how many cores of the emulating machine were busy meanwhile.

    Where all of them are, more emulated CPUs at work do not make anything faster.
    """
    began, before = time.monotonic(), _busy()
    result = call()
    return result, (_busy() - before) / (time.monotonic() - began)


def _busy() -> float:
    """Seconds of CPU this machine has spent (/proc/stat: all but idle and iowait; guests count as user)."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def outside(network: Network) -> Callable[[str], str]:
    """Return what runs a shell command in the laboratory's namespace, outside the hypervisors."""
    return lambda command: network.run("sh", "-c", command, timeout=300)


def alternate(
    rounds: int, variants: Mapping[str, Callable[[], Mapping[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    """:func:`libvirt_tuner.diagnosis.comparison.alternate`, telling of each measurement."""

    def said(number: int, name: str, figures: Mapping[str, float]) -> None:
        told = ", ".join(f"{k} {v:.4g}" for k, v in figures.items() if v)
        say(f"round {number}/{rounds}, {name}: {told}")

    return comparison.alternate(rounds, variants, said)
