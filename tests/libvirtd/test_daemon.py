"""The harness itself, and what libvirt does with a hook (docs/hooks.rst)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.libvirtd import domains, nic_replay
from tests.libvirtd.daemon import DaemonError, PrivateDaemon

REPOSITORY = Path(__file__).resolve().parents[2]
FAILS = "#!/bin/sh\necho refused on purpose >&2\nexit 1\n"


def calls(daemon: PrivateDaemon) -> list[str]:
    """Operation and sub-operation of each call the recorder got, in order.

    The extra argument is left out: ``-`` up to libvirt 9.0, the reason of ``release`` in later ones.
    """
    return [" ".join(line.split()[1:3]) for line in daemon.read("/run/recorder/calls").splitlines()]


def test_start_and_stop_make_five_calls(daemon: PrivateDaemon, recorder: str) -> None:
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    assert calls(daemon) == ["prepare begin", "start begin", "started begin"]
    daemon.virsh("destroy", "web")
    assert calls(daemon)[3:] == ["stopped end", "release end"]


def test_hook_sees_the_replayed_nic(daemon: PrivateDaemon, recorder: str) -> None:
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    function, node, action, affinity, *irqs = daemon.read("/run/recorder/started.host").splitlines()
    assert function.endswith("/0000:17:00.0")
    assert (node, action) == (nic_replay.first_node(), "mlx5_async0@pci:0000:17:00.0")
    assert affinity == daemon.online
    assert irqs == [str(irq) for irq in nic_replay.FUNCTIONS[0].irqs]


def test_tap_device_is_known_from_start_on(daemon: PrivateDaemon, recorder: str) -> None:
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    documents = {name: daemon.read(f"/run/recorder/{name}.xml") for name in ("prepare", "start", "started")}
    seen = {name for name, document in documents.items() if "<target dev=" in document}
    assert seen == {"start", "started"}


def test_restart_of_libvirtd_calls_reconnect(daemon: PrivateDaemon, recorder: str) -> None:
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    daemon.restart_libvirtd()
    daemon.wait_for(lambda: "reconnect begin" in calls(daemon), "the reconnect call")
    assert daemon.state("web") == "running"


def test_managedsave_and_start_call_restore(daemon: PrivateDaemon, recorder: str) -> None:
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    daemon.virsh("managedsave", "web")
    assert calls(daemon)[-1] == "release end"
    daemon.virsh("start", "web")
    assert "restore begin" in calls(daemon)
    assert daemon.state("web") == "running"


@pytest.mark.parametrize("operation", ["prepare", "start", "started"])
def test_failing_hook_refuses_the_start(daemon: PrivateDaemon, operation: str) -> None:
    daemon.install_hook(f'#!/bin/sh\n[ "$2" != {operation} ] || {{ echo refused on purpose >&2; exit 1; }}\n')
    daemon.restart_libvirtd()
    daemon.define(domains.diskless("web"))
    assert "refused on purpose" in daemon.virsh("start", "web", check=False)
    assert daemon.state("web") == "shut off"


def test_hook_directory_runs_after_the_hook_in_order(daemon: PrivateDaemon, recorder: str) -> None:
    for name in ("qemu.d/20-second", "qemu.d/10-first"):
        daemon.install_hook(f'#!/bin/sh\necho "{name} $2" >>/run/recorder/order\n', name=name)
    daemon.restart_libvirtd()
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    order = daemon.read("/run/recorder/order").splitlines()
    assert order[:2] == ["qemu.d/10-first prepare", "qemu.d/20-second prepare"]


def test_failing_hook_in_the_directory_refuses_the_start_too(daemon: PrivateDaemon, recorder: str) -> None:
    daemon.install_hook(FAILS, name="qemu.d/10-fails")
    daemon.restart_libvirtd()
    daemon.define(domains.diskless("web"))
    assert "refused on purpose" in daemon.virsh("start", "web", check=False)
    assert calls(daemon) == ["prepare begin", "stopped end", "release end"]


@pytest.mark.parametrize(
    "vnic",
    [
        pytest.param(domains.bridge("br0"), id="bridge on a NIC"),
        pytest.param(domains.bridge("br1"), id="bridge on a tunnel"),
        pytest.param(domains.direct(), id="macvtap"),
    ],
)
def test_domain_starts_with_vnic(daemon: PrivateDaemon, vnic: str) -> None:
    daemon.define(domains.diskless("web", vnic, vcpus=2))
    daemon.virsh("start", "web")
    daemon.virsh("vcpupin", "web", "1", "0", "--live")
    assert daemon.virsh("vcpupin", "web", "1").split()[-1] == "0"


def test_syslog_is_collected(daemon: PrivateDaemon) -> None:
    daemon.run(["logger", "--tag", "someone", "a message"])
    daemon.wait_for(lambda: any("someone: a message" in line for line in daemon.syslog()), "the message")


def test_failing_command_says_what_it_said(daemon: PrivateDaemon) -> None:
    with pytest.raises(DaemonError, match="no such thing"):
        daemon.run("echo no such thing >&2; exit 3")


def test_command_past_its_time_is_ended(daemon: PrivateDaemon) -> None:
    with pytest.raises(DaemonError, match="did not end"):
        daemon.run("sleep 61 & wait", timeout=0.2)
    assert "sleep 61" not in daemon.run(["ps", "ax", "-o", "args"]).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_killed_harness_leaves_nothing(number: signal.Signals, shared_daemon: PrivateDaemon) -> None:
    script = (
        "from tests.libvirtd.daemon import PrivateDaemon\n"
        "import time\n"
        "with PrivateDaemon() as daemon:\n"
        "    print(daemon.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert harness.stdout is not None
    pid = int(harness.stdout.readline())
    namespace = os.readlink(f"/proc/{pid}/ns/pid_for_children")
    harness.send_signal(number)
    harness.wait(timeout=20)
    harness.stdout.close()
    shared_daemon.wait_for(lambda: namespace not in namespaces_in_use(), "the end of the other namespaces")


def namespaces_in_use() -> set[str]:
    """The PID namespace of every process of the machine."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.add(os.readlink(process / "ns" / "pid"))
            except OSError:
                continue
    return found


def test_nothing_of_it_is_seen_outside(daemon: PrivateDaemon) -> None:
    daemon.write("/etc/libvirt-tuner.toml", "")
    assert not os.path.exists(f"/sys/class/net/{nic_replay.FUNCTIONS[0].interface}")
    assert not os.path.exists("/run/stage")
    assert os.stat("/etc").st_dev != os.stat(daemon.path("/etc")).st_dev
