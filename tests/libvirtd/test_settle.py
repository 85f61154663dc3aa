"""settle by itself: the hook leaves it behind, here it is started by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Plan
from tests.libvirtd import domains, observe
from tests.libvirtd.daemon import PrivateDaemon

REPOSITORY = Path(__file__).resolve().parents[2]
SETTLE = (
    f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
    "from libvirt_tuner.settle import main\n"
    "sys.exit(main(sys.argv[1], patience=20))"
)


def settle(daemon: PrivateDaemon, uuid: str) -> list[str]:
    return [sys.executable, "-c", SETTLE, uuid]


@pytest.fixture
def running(daemon: PrivateDaemon) -> str:
    """The UUID of a domain that runs, for which the ledger has a plan: vCPU 0 on CPU 0."""
    daemon.define(domains.diskless("web", tune="<iothreads>1</iothreads>"))
    daemon.virsh("start", "web")
    uuid = daemon.virsh("domuuid", "web")
    plan = Plan(
        "web",
        uuid,
        placement="dedicated",
        vcpupin={0: frozenset({0})},
        emulatorpin=frozenset({0}),
        iothreadpin={1: frozenset({0})},
    )
    claim = {
        "name": "web",
        "pid": int(daemon.read("/run/libvirt/qemu/web.pid")),
        "start_time": 0,
        "vcpus": "0",
        "emulators": "0",
        "since": 0.0,
        "plan": stored.to_dict(plan),
    }
    ledger = {"version": 1, "claims": {uuid: claim}, "changes": [], "bans": {}}
    daemon.write("/run/libvirt-tuner/ledger.json", json.dumps(ledger))
    return uuid


def test_pins_live_what_the_ledger_says(daemon: PrivateDaemon, running: str) -> None:
    daemon.run(settle(daemon, running))
    found = observe.running(daemon, "web")
    assert found.settings.vcpupin == {0: "0"}
    assert found.settings.emulatorpin == "0"
    assert (found.vcpus, found.emulator) == ({0: "0"}, "0")
    assert daemon.virsh("iothreadinfo", "web").split() == ["1", "0"]


def test_completes_the_definition(daemon: PrivateDaemon, running: str) -> None:
    daemon.run(settle(daemon, running))
    defined = observe.persistent(daemon, "web")
    assert defined.rx_queue_size == "1024"
    assert list(defined.vcpupin) == [0]


def test_second_time_changes_nothing(daemon: PrivateDaemon, running: str) -> None:
    daemon.run(settle(daemon, running))
    before = [daemon.virsh("dumpxml", "web", *flags) for flags in ([], ["--inactive"])]
    daemon.run(settle(daemon, running))
    assert [daemon.virsh("dumpxml", "web", *flags) for flags in ([], ["--inactive"])] == before


def test_waits_for_a_daemon_that_is_away(daemon: PrivateDaemon, running: str) -> None:
    daemon.stop_libvirtd()
    waiting = daemon.spawn(settle(daemon, running))
    daemon.start_libvirtd()
    assert waiting.communicate(timeout=30) == ("", "")
    assert observe.running(daemon, "web").settings.vcpupin == {0: "0"}


def test_domain_that_has_ended_is_no_failure(daemon: PrivateDaemon, running: str) -> None:
    daemon.forget("web")
    daemon.run(settle(daemon, running))
    assert [line for line in daemon.syslog() if "settle" in line] == []


def test_refused_pin_does_not_stop_the_rest(daemon: PrivateDaemon, running: str) -> None:
    ledger = json.loads(daemon.read("/run/libvirt-tuner/ledger.json"))
    ledger["claims"][running]["plan"]["vcpupin"] = {"7": "0"}
    daemon.write("/run/libvirt-tuner/ledger.json", json.dumps(ledger))
    daemon.run(settle(daemon, running))
    assert observe.running(daemon, "web").settings.emulatorpin == "0"
    assert observe.persistent(daemon, "web").rx_queue_size == "1024"
    [said] = [line for line in daemon.syslog() if "cannot pin vCPU 7" in line]
    assert "libvirt-tuner status web" in said
