"""diagnose and irqs on a real host with a real domain."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.libvirtd import domains, nic_replay
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import PROGRAM, install, tuner


@pytest.fixture
def running(daemon: PrivateDaemon) -> PrivateDaemon:
    """A domain on a NIC, started under the hook."""
    install(daemon)
    daemon.define(domains.diskless("web", domains.direct()))
    daemon.virsh("start", "web")
    return daemon


def test_a_running_domain_is_sampled(running: PrivateDaemon) -> None:
    done = tuner(running, "diagnose", "web", "--seconds", "0.5", "--json", check=False)
    data = json.loads(done.stdout)
    assert 0.5 <= data["seconds"] < 5
    assert done.returncode == bool(data["findings"])
    assert {finding["vm"] for finding in data["findings"]} <= {"web", ""}


def test_by_uuid_and_one_that_does_not_run(running: PrivateDaemon) -> None:
    uuid = running.virsh("domuuid", "web")
    assert json.loads(tuner(running, "diagnose", uuid, "--seconds", "0.1", "--json", check=False).stdout)
    done = tuner(running, "diagnose", "db", "--seconds", "0.1", check=False)
    assert (done.returncode, "db: not running" in done.stderr) == (1, True)


def test_interrupts_are_listed_moved_and_given_back(running: PrivateDaemon) -> None:
    irq = nic_replay.FUNCTIONS[0].queues[0]
    before = running.irq(irq)
    rows = json.loads(tuner(running, "irqs", "--seconds", "0.2", "--json").stdout)
    (row,) = [row for row in rows if row["irq"] == irq]
    assert (row["nic"], row["effective"]) == (nic_replay.FUNCTIONS[0].interface, before)
    tuner(running, "irqs", "--set", str(irq), "0")
    assert running.irq(irq) == "0"
    tuner(running, "undo", "administrator")
    assert running.irq(irq) == before


FIX = """\
from libvirt_tuner.cli.seeing import carry_out
from libvirt_tuner.cli.session import Session
from libvirt_tuner.diagnosis.finding import apply_live, apply_later
with Session("qemu:///system") as session:
    carry_out(session, {fix}("web"), None)
    assert not session.failed
"""


def pins(daemon: PrivateDaemon) -> str:
    return daemon.virsh("vcpupin", "web", "--live") + daemon.virsh("emulatorpin", "web", "--live")


def placed(daemon: PrivateDaemon) -> bool:
    """Whether ``settle`` has pinned it and completed its definition."""
    found = json.loads(tuner(daemon, "status", "--json", "web", check=False).stdout)["web"]
    pinned = any(row["subject"] == "vcpu 0" and row["ok"] for row in found)
    return pinned and "vcpupin" in daemon.virsh("dumpxml", "--inactive", "web")


def test_a_fix_that_pins_a_running_domain_is_undone(running: PrivateDaemon) -> None:
    running.wait_for(lambda: placed(running), "live pins")
    planned = pins(running)
    running.virsh("vcpupin", "web", "0", "0,1", "--live")
    running.virsh("emulatorpin", "web", "0,1", "--live")
    before, definition = pins(running), running.virsh("dumpxml", "--inactive", "web")
    assert before != planned
    said = running.run([sys.executable, "-c", FIX.format(fix="apply_live")]).stdout
    assert "undo: libvirt-tuner undo web" in said
    assert pins(running) == planned
    tuner(running, "undo", "web")
    assert pins(running) == before
    assert running.virsh("dumpxml", "--inactive", "web") == definition


def test_a_fix_that_changes_a_definition_is_undone(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web", domains.direct()))
    before = daemon.virsh("dumpxml", "--inactive", "web")
    daemon.run([sys.executable, "-c", FIX.format(fix="apply_later")])
    assert "vcpupin" in daemon.virsh("dumpxml", "--inactive", "web")
    said = json.loads(tuner(daemon, "undo", "web", "--json").stdout)
    assert [(row["kind"], row["ok"]) for row in said] == [("definition", True)]
    assert daemon.virsh("dumpxml", "--inactive", "web") == before


def _inner(daemon: PrivateDaemon, sign: str) -> int:
    """The process inside that has a word in its command line."""
    return int(daemon.run(["pgrep", "-f", "-n", sign]).stdout.split()[0])


def test_watch_looks_again_until_it_is_ended(running: PrivateDaemon) -> None:
    process = running.spawn([PROGRAM, "diagnose", "--watch", "--seconds", "0.2", "--json"])
    looks = 0
    assert process.stdout is not None
    for line in process.stdout:
        looks += line == "}\n"
        if looks == 3:
            break
    running.run(["kill", f"-{signal.SIGINT.value}", str(_inner(running, "diagnose --watch"))])
    process.communicate(timeout=10)
    assert looks == 3
    assert process.returncode == 1
