"""measure: tuned and untuned in turn, and as before in any case."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.libvirtd import domains
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import PROGRAM, install, tuner

IPERF3 = """\
#!/bin/sh
# Prints what iperf3 prints: more where the vCPU is pinned to one CPU.
case $(virsh -q vcpupin web --live) in *[-,]*) bits=1e9;; *) bits=3e9;; esac
echo '{"end": {"sum_received": {"bits_per_second": '$bits'}}}'
"""


@pytest.fixture
def running(daemon: PrivateDaemon) -> PrivateDaemon:
    """A domain on a NIC, started under the hook and pinned."""
    install(daemon)
    daemon.write("/run/iperf3", IPERF3, mode=0o755)
    daemon.define(domains.diskless("web", domains.direct()))
    daemon.virsh("start", "web")
    daemon.wait_for(lambda: placed(daemon), "live pins")
    return daemon


def placed(daemon: PrivateDaemon) -> bool:
    """Whether vCPU and interrupts are where they are planned."""
    found = json.loads(tuner(daemon, "status", "--json", "web", check=False).stdout)["web"]
    rows = {row["subject"]: row["ok"] for row in found}
    return bool(rows.get("vcpu 0")) and all(ok for subject, ok in rows.items() if subject.startswith("irq "))


def pins(daemon: PrivateDaemon) -> str:
    return daemon.virsh("vcpupin", "web", "--live") + daemon.virsh("emulatorpin", "web", "--live")


def changes(daemon: PrivateDaemon) -> object:
    noted = json.loads(daemon.read("/run/libvirt-tuner/ledger.json"))
    return [(entry["kind"], entry["target"], entry["wanted"]) for entry in noted["changes"]]


def test_both_are_measured_in_turn_and_it_stays_tuned(running: PrivateDaemon) -> None:
    before = pins(running), changes(running)
    done = tuner(
        running,
        *("measure", "web", "--command", "/run/iperf3", "--rounds", "2", "--output", "/run/kept.json"),
    )
    kept = json.loads(running.read("/run/kept.json"))
    assert kept["rounds"]["untuned"]["Mbit/s"] == [1000, 1000]
    assert kept["rounds"]["tuned"]["Mbit/s"] == [3000, 3000]
    assert kept["ratios"]["Mbit/s"] == 3
    assert set(kept["rounds"]["tuned"]) == {
        "Mbit/s", "vCPUs wait, ms/s", "vhost waits, ms/s", "NET_RX on vCPUs, 1/s", "fragments, 1/s",
    }  # fmt: skip
    assert "Mbit/s 1000 (1000 to 1000) 3000 (3000 to 3000) x3.00" in " ".join(done.stdout.split())
    assert (pins(running), changes(running)) == before
    assert placed(running)


def test_a_benchmark_that_fails_leaves_it_tuned(running: PrivateDaemon) -> None:
    before = pins(running), changes(running)
    line = """echo '{"error": "unable to connect"}'; exit 1"""
    done = tuner(running, "measure", "web", "--command", line, check=False)
    assert done.returncode == 1
    assert "unable to connect" in done.stderr
    assert (pins(running), changes(running)) == before
    assert placed(running)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_it_tuned(running: PrivateDaemon, number: signal.Signals) -> None:
    before = pins(running), changes(running)
    line = "touch /run/measuring; exec sleep 30"
    running.path("/run/measuring").unlink(missing_ok=True)
    process = running.spawn([PROGRAM, "measure", "web", "--command", line])
    running.wait_for(lambda: running.exists("/run/measuring"), "the benchmark")
    assert pins(running) != before[0]
    pid = int(running.run(["pgrep", "-f", "-o", f"{PROGRAM} measure"]).stdout.split()[0])
    began = time.monotonic()
    running.run(["kill", f"-{number.value}", str(pid)])
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 20
    assert process.returncode == 1
    assert f"ended by {number.name}; web is as it was before" in said
    assert (pins(running), changes(running)) == before
    assert placed(running)


def test_a_domain_that_is_left_alone_is_not_measured(running: PrivateDaemon) -> None:
    tuner(running, "revert", "--live", "web")
    done = tuner(running, "measure", "web", "--command", "echo 1", check=False)
    assert done.returncode == 1
    assert "libvirt-tuner apply web" in done.stderr


def test_one_that_was_not_tuned_is_not_tuned_afterwards(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web", domains.direct()))
    daemon.virsh("start", "web")
    before = pins(daemon)
    done = tuner(
        daemon, "measure", "web", "--command", "echo 5", "--rounds", "1", "--output", "/run/kept.json"
    )
    assert "x1.00" in done.stdout
    assert pins(daemon) == before
    assert changes(daemon) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param((), "--to ADDRESS", id="nothing to run"),
        pytest.param(("--to", "::1", "--command", "x"), "give either", id="two things"),
        pytest.param(("--command", "x", "--reverse"), "--reverse needs --to", id="reverse"),
    ],
)
def test_a_wrong_call(daemon: PrivateDaemon, words: tuple[str, ...], said: str) -> None:
    done = tuner(daemon, "measure", "web", *words, check=False)
    assert done.returncode == 2
    assert said in done.stderr
