"""status and uninstall beside a domain that runs."""

from __future__ import annotations

import json

import pytest

from tests.libvirtd import domains
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import INSTALL, install, tuner


@pytest.fixture
def running(daemon: PrivateDaemon) -> PrivateDaemon:
    """A domain on a bonded NIC, started under the hook and settled."""
    install(daemon)
    daemon.define(domains.diskless("web", domains.direct()))
    daemon.virsh("start", "web")
    daemon.wait_for(lambda: "vcpu 0" in rows(daemon) and rows(daemon)["vcpu 0"]["ok"], "live pins")
    return daemon


def rows(daemon: PrivateDaemon) -> dict[str, dict[str, object]]:
    found = json.loads(tuner(daemon, "status", "--json", "web", check=False).stdout)
    return {row["subject"]: row for row in found["web"]}


def test_planned_is_real(running: PrivateDaemon) -> None:
    table = rows(running)
    steered = [subject for subject in table if subject.startswith("irq ")]
    assert steered
    assert [subject for subject in ("vcpu 0", "emulator", *steered) if not table[subject]["ok"]] == []


def test_what_waits_for_the_next_start(running: PrivateDaemon) -> None:
    running.wait_for(lambda: "rx_queue_size of vNIC 0" in rows(running), "the definition")
    assert rows(running)["rx_queue_size of vNIC 0"]["note"] == "from the next start"
    assert tuner(running, "status", check=False).returncode == 1


def test_interrupt_moved_by_hand(running: PrivateDaemon) -> None:
    number = next(subject for subject in rows(running) if subject.startswith("irq ")).split()[1]
    running.write(f"/proc/irq/{number}/smp_affinity_list", running.online + "\n")
    moved = rows(running)[f"irq {number}"]
    assert (moved["ok"], moved["real"]) == (moved["planned"] == running.online, running.online)


def test_uninstall_gives_the_host_back_first(running: PrivateDaemon) -> None:
    steered = [subject.split()[1] for subject in rows(running) if subject.startswith("irq ")]
    meant = json.loads(tuner(running, "uninstall", "--dry-run", "--json").stdout)
    assert meant["unpin"] == ["web"]
    assert {(change["kind"], change["target"]) for change in meant["undo"]} >= {
        ("irq", irq) for irq in steered
    }
    assert running.exists("/etc/libvirt/hooks/qemu")
    refused = tuner(running, "uninstall", check=False)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    done = tuner(running, "uninstall", "--yes")
    assert f"undo {len(meant['undo'])} changes of the host" in done.stdout
    assert {running.irq(int(number)) for number in steered} == {running.online}
    assert not running.exists("/etc/libvirt/hooks/qemu")
    assert done.stderr == ""


def test_installation_and_removal_as_json(daemon: PrivateDaemon) -> None:
    made = json.loads(tuner(daemon, *INSTALL, "--json").stdout)
    assert made["done"][0]["path"] == "/etc/libvirt/hooks/qemu"
    daemon.restart_libvirtd()
    daemon.define(domains.diskless("web", domains.direct()))
    tuner(daemon, "apply", "web")
    gone = json.loads(tuner(daemon, "uninstall", "--yes", "--json").stdout)
    assert [row["domain"] for row in gone["reverted"]] == gone["revert"] == ["web"]
    assert {step["path"] for step in gone["done"]} == {step["path"] for step in made["done"][:-1]}
    assert gone["failures"] == []
    assert not daemon.exists("/etc/libvirt/hooks/qemu")
