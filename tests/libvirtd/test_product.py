"""The whole way, on a real libvirtd: what a user does with virsh, and what is in force then."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libvirt_tuner import cpuset
from tests.libvirtd import domains, nic_replay, observe
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import INSTALL, PROGRAM, install, running_daemon, tuner

PACKAGE = Path(__file__).resolve().parents[2] / "libvirt_tuner"
TUNNEL_NIC = nic_replay.FUNCTIONS[1]
ON_TUNNEL = domains.bridge("br1")


@pytest.fixture
def installed(daemon: PrivateDaemon) -> PrivateDaemon:
    """The private libvirtd with libvirt-tuner's hook."""
    install(daemon)
    return daemon


@pytest.fixture
def watched(installed: PrivateDaemon) -> Iterator[PrivateDaemon]:
    """The same with the service running."""
    with running_daemon(installed):
        yield installed


def is_tuned(found: observe.Settings) -> bool:
    return bool(found.vcpupin and found.emulatorpin and found.numatune) and found.rx_queue_size == "1024"


def assert_placed(running: observe.Running) -> None:
    """The vCPU has a CPU of its own, in the document and in the scheduler."""
    assert running.settings.vcpupin == running.vcpus
    assert running.settings.emulatorpin == running.emulator
    assert len(cpuset.parse(running.vcpus[0])) == 1
    assert not cpuset.parse(running.vcpus[0]) & cpuset.parse(running.emulator)


def assert_steered(daemon: PrivateDaemon, running: observe.Running) -> None:
    """No queue of the NIC interrupts the vCPU's CPU; what carries no packets is left alone."""
    vcpu = cpuset.parse(running.vcpus[0])
    assert [irq for irq in TUNNEL_NIC.queues if cpuset.parse(daemon.irq(irq)) & vcpu] == []
    assert daemon.irq(TUNNEL_NIC.control) == daemon.online


def assert_given_back(daemon: PrivateDaemon) -> None:
    """Every interrupt is where it was before any domain ran."""
    assert {irq: daemon.irq(irq) for irq in nic_replay.IRQS} == dict.fromkeys(nic_replay.IRQS, daemon.online)


def define_and_wait(daemon: PrivateDaemon, name: str = "web") -> observe.Settings:
    daemon.define(domains.diskless(name, ON_TUNNEL))
    daemon.wait_for(lambda: is_tuned(observe.persistent(daemon, name)), f"the daemon to tune {name}")
    return observe.persistent(daemon, name)


def start_and_wait(daemon: PrivateDaemon, name: str = "web") -> observe.Running:
    """Starts a domain and waits for ``settle``: until its definition is complete."""
    daemon.virsh("start", name)
    daemon.wait_for(lambda: is_tuned(observe.persistent(daemon, name)), f"settle to complete {name}")
    daemon.wait_for(lambda: observe.running(daemon, name).settings.vcpupin, f"live pins of {name}")
    return observe.running(daemon, name)


def warnings(daemon: PrivateDaemon) -> list[str]:
    """Lines of the tool in the system log of warning priority or worse (daemon.warning is <28>)."""
    lines = [
        line
        for line in daemon.syslog()
        if re.match(r"<\d+>[^:]*(:\d\d:\d\d )?libvirt-tuner(\[\d+\])?: ", line)
    ]
    return [line for line in lines if int(re.match(r"<(\d+)>", line)[1]) % 8 <= 4]  # type: ignore[index]


class TestWithWatch:
    def test_first_start_has_everything(self, watched: PrivateDaemon) -> None:
        before = define_and_wait(watched)
        watched.virsh("start", "web")
        running = observe.running(watched, "web")
        assert running.settings == before
        assert before.mtu == str(nic_replay.VXLAN_MTU)
        assert_placed(running)
        assert_steered(watched, running)
        assert running.tap_mtu == str(nic_replay.VXLAN_MTU)
        assert warnings(watched) == []

    def test_domains_that_ran_before_are_left_alone(self, daemon: PrivateDaemon) -> None:
        names = [f"before-{number}" for number in range(5)]
        for name in names:
            daemon.define(domains.diskless(name, ON_TUNNEL))
            daemon.virsh("start", name)

        def documents() -> list[str]:
            both = ([name] if live else [name, "--inactive"] for name in names for live in (True, False))
            return [daemon.virsh("dumpxml", *arguments) for arguments in both]

        before = documents()
        install(daemon)
        daemon.restart_libvirtd()
        with running_daemon(daemon):
            daemon.define(domains.diskless("web", ON_TUNNEL))
            daemon.wait_for(lambda: observe.persistent(daemon, "web").rx_queue_size == "1024", "the daemon")
            daemon.virsh("start", "web")
            settle_down(daemon)
            assert documents() == before

    def test_revert_live_takes_live_pins_back(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        start_and_wait(installed)
        tuner(installed, "revert", "--live", "web")
        (cpus,) = set(observe.running(installed, "web").settings.vcpupin.values())
        assert cpus == installed.online

    def test_reverted_stays_reverted(self, watched: PrivateDaemon) -> None:
        define_and_wait(watched)
        tuner(watched, "revert", "web")
        before = watched.virsh("dumpxml", "web", "--inactive")
        watched.virsh("start", "web")
        settle_down(watched)
        assert watched.virsh("dumpxml", "web", "--inactive") == before
        assert not observe.running(watched, "web").settings.vcpupin

    def test_edit_by_hand_is_respected(self, watched: PrivateDaemon) -> None:
        before = define_and_wait(watched)
        edit(watched, f"s/<vcpupin vcpu='0' cpuset='[^']*'/<vcpupin vcpu='0' cpuset='{watched.online}'/")
        watched.wait_for(lambda: observe.persistent(watched, "web") != before, "the edit")
        watched.virsh("start", "web")
        running = observe.running(watched, "web")
        assert running.settings.vcpupin == {0: watched.online}
        assert running.settings.rx_queue_size == "1024"
        assert running.vcpus == {0: watched.online}

    def test_removed_by_hand_stays_removed(self, watched: PrivateDaemon) -> None:
        define_and_wait(watched)
        edit(watched, "s/ rx_queue_size='1024'//")
        settle_down(watched)
        assert observe.persistent(watched, "web").rx_queue_size == observe.DEFAULT_RING

    def test_own_definition_does_not_set_it_off_again(self, watched: PrivateDaemon) -> None:
        with events(watched) as heard:
            define_and_wait(watched)
            settle_down(watched)
            assert [event for event in heard() if "'web': Defined" in event] == [
                "event 'lifecycle' for domain 'web': Defined Added",
                "event 'lifecycle' for domain 'web': Defined Updated",
            ]

    def test_restart_of_libvirtd_is_survived(self, watched: PrivateDaemon) -> None:
        watched.restart_libvirtd()
        define_and_wait(watched)

    def test_metadata_changes_the_plan(self, watched: PrivateDaemon) -> None:
        define_and_wait(watched)
        policy = "<policy rx-queue-size='512'/>"
        uri = "https://libvirt-tuner.org/policy/1"
        watched.virsh("metadata", "web", "--config", "--uri", uri, "--key", "tuner", "--set", policy)
        watched.wait_for(
            lambda: observe.persistent(watched, "web").rx_queue_size == "512", "the new ring size"
        )


class TestWithoutWatch:
    def test_first_start_has_live_pins_second_has_the_rest(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        first = start_and_wait(installed)
        assert_placed(first)
        assert_steered(installed, first)
        assert first.settings.rx_queue_size == observe.DEFAULT_RING
        installed.virsh("destroy", "web")
        assert_given_back(installed)
        installed.virsh("start", "web")
        second = observe.running(installed, "web")
        assert is_tuned(second.settings)
        assert second.settings.mtu == str(nic_replay.VXLAN_MTU)
        assert_placed(second)
        assert warnings(installed) == []

    def test_queues_of_the_metadata_hold_from_the_second_start(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL, vcpus=2))
        policy, uri = "<policy queues='vcpus' housekeeping='0-7'/>", "https://libvirt-tuner.org/policy/1"
        installed.virsh("metadata", "web", "--config", "--uri", uri, "--key", "tuner", "--set", policy)
        start_and_wait(installed)
        installed.virsh("destroy", "web")
        assert_given_back(installed)
        installed.virsh("start", "web")
        assert "queues='2'" in installed.virsh("dumpxml", "web")
        assert any(
            "housekeeping can only be set in /etc/libvirt-tuner.toml" in line for line in warnings(installed)
        )

    def test_transient_domain_gets_live_pins(self, installed: PrivateDaemon) -> None:
        installed.virsh("create", "/dev/stdin", stdin=domains.diskless("web", ON_TUNNEL))
        installed.wait_for(lambda: observe.running(installed, "web").settings.vcpupin, "live pins")
        installed.wait_for(lambda: observe.running(installed, "web").settings.emulatorpin, "live pins")
        assert_placed(observe.running(installed, "web"))

    def test_restart_of_libvirtd_keeps_everything(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        before = start_and_wait(installed)
        lost = TUNNEL_NIC.queues[3]
        installed.write(f"/proc/irq/{lost}/smp_affinity_list", f"{installed.online}\n")
        installed.restart_libvirtd()
        installed.wait_for(lambda: installed.irq(lost) != installed.online, "steering on reconnect")
        after = observe.running(installed, "web")
        assert after == before
        assert_steered(installed, after)
        installed.virsh("destroy", "web")
        assert_given_back(installed)

    def test_domain_that_ended_while_libvirtd_was_down(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        start_and_wait(installed)
        installed.stop_libvirtd()
        installed.run(["kill", "-9", installed.read("/run/libvirt/qemu/web.pid")])
        installed.start_libvirtd()
        installed.wait_for(lambda: installed.state("web") == "shut off", "libvirt to notice")
        assert_given_back(installed)

    def test_managedsave_and_start_pins_anew(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        start_and_wait(installed)
        installed.virsh("managedsave", "web")
        assert_given_back(installed)
        installed.virsh("start", "web")
        running = observe.running(installed, "web")
        assert_placed(running)
        assert_steered(installed, running)

    def test_save_image_from_before_installation_is_pinned(self, daemon: PrivateDaemon) -> None:
        daemon.define(domains.diskless("web", ON_TUNNEL))
        daemon.virsh("start", "web")
        daemon.virsh("managedsave", "web")
        install(daemon)
        daemon.virsh("start", "web")
        running = observe.running(daemon, "web")
        assert_placed(running)
        assert running.settings.rx_queue_size == observe.DEFAULT_RING

    def test_macvtap_is_followed_to_its_nic(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", domains.direct()))
        running = start_and_wait(installed)
        assert_placed(running)
        assert_steered(installed, running)


class TestBesideOthers:
    def test_own_hook_of_the_user_stays_and_runs(self, daemon: PrivateDaemon, recorder: str) -> None:
        install(daemon)
        assert daemon.path("/etc/libvirt/hooks/qemu").read_text() == recorder
        daemon.define(domains.diskless("web", ON_TUNNEL))
        running = start_and_wait(daemon)
        assert_placed(running)
        assert "web started begin -" in daemon.read("/run/recorder/calls")
        tuner(daemon, "uninstall", "--yes")
        assert daemon.path("/etc/libvirt/hooks/qemu").read_text() == recorder

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            pytest.param("planning/planner.py", "raise RuntimeError('on purpose')", id="fails on import"),
            pytest.param("hook.py", "this is not Python", id="not Python"),
            pytest.param("hook.py", "def main(argv): raise RuntimeError('on purpose')", id="raises"),
            pytest.param("hook.py", "import os\ndef main(argv): os._exit(1)", id="exits 1"),
        ],
    )
    def test_crashing_hook_stops_no_domain(self, installed: PrivateDaemon, module: str, text: str) -> None:
        with broken(installed, module, text):
            installed.define(domains.diskless("web", ON_TUNNEL))
            installed.virsh("start", "web")
            assert installed.state("web") == "running"
            installed.restart_libvirtd()
            assert installed.state("web") == "running"
            assert warnings(installed) != []
            installed.virsh("managedsave", "web")
            installed.virsh("start", "web")
            assert installed.state("web") == "running"

    @pytest.mark.parametrize("policy", ["", "select = false\n", "placement = 'dedicated'\n"])
    def test_nothing_is_tuned_while_the_config_has_a_mistake(
        self, installed: PrivateDaemon, policy: str
    ) -> None:
        installed.write(
            "/etc/libvirt-tuner.toml", f"[policy]\n{policy}settle_seconds = 0\nplacment = 'keep'\n"
        )
        with running_daemon(installed):
            installed.define(domains.diskless("web", ON_TUNNEL))
            before = installed.virsh("dumpxml", "--inactive", "web")
            installed.virsh("start", "web")
            settle_down(installed)
        assert any("placment" in line for line in warnings(installed))
        assert installed.virsh("dumpxml", "--inactive", "web") == before
        assert not observe.running(installed, "web").settings.vcpupin
        assert observe.running(installed, "web").vcpus == {0: installed.online}

    def test_installation_needs_no_restart(self, daemon: PrivateDaemon) -> None:
        tuner(daemon, *INSTALL)
        daemon.define(domains.diskless("web", ON_TUNNEL))

        def hook_was_called() -> bool:
            daemon.virsh("destroy", "web", check=False)
            daemon.virsh("start", "web")
            return any("web: started:" in line for line in daemon.syslog())

        daemon.wait_for(hook_was_called, "libvirtd to have reloaded its hooks", seconds=5)

    def test_installed_files_are_seen_inside_only(self, daemon: PrivateDaemon) -> None:
        paths = re.findall(r"^installed ([^\s;]+)", install(daemon), re.MULTILINE)
        assert "/etc/libvirt/hooks/qemu" in paths
        assert [path for path in paths if daemon.path(path).stat().st_dev == os.stat("/usr").st_dev] == []

    def test_install_shows_that_libvirt_runs_the_hook(self, daemon: PrivateDaemon) -> None:
        said = tuner(daemon, "install", "--yes", "--allow-writable").stdout
        assert "verified: libvirt runs the hook" in said
        assert daemon.virsh("list", "--all", "--name").split() == []

    def test_install_takes_a_hook_out_again_that_keeps_domains_from_starting(
        self, daemon: PrivateDaemon
    ) -> None:
        daemon.install_hook("#!/bin/sh\nexit 1\n")
        daemon.restart_libvirtd()
        done = tuner(daemon, "install", "--yes", "--allow-writable", check=False)
        assert done.returncode == 1
        assert "the hook keeps domains from starting" in done.stderr
        assert not daemon.exists("/etc/libvirt/hooks/qemu.d/libvirt-tuner")
        assert daemon.exists("/etc/libvirt/hooks/qemu")

    @pytest.mark.parametrize(
        ("arguments", "reverted"),
        [
            pytest.param(("--yes",), True, id="reverts"),
            pytest.param(("--yes", "--keep-definitions"), False, id="keeps"),
            pytest.param(("--dry-run",), False, id="dry run"),
        ],
    )
    def test_uninstall_and_definitions(
        self, installed: PrivateDaemon, arguments: tuple[str, ...], reverted: bool
    ) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        before = installed.virsh("dumpxml", "web", "--inactive")
        tuner(installed, "apply", "web")
        tuned = installed.virsh("dumpxml", "web", "--inactive")
        assert tuned != before
        said = tuner(installed, "uninstall", *arguments).stdout
        assert installed.virsh("dumpxml", "web", "--inactive") == (before if reverted else tuned)
        assert ("definitions: 1 (web)" in said) is ("--keep-definitions" not in arguments)
        assert installed.exists("/etc/libvirt/hooks/qemu") is ("--dry-run" in arguments)

    def test_uninstall_unpins_what_runs(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        assert_placed(start_and_wait(installed))
        tuner(installed, "uninstall", "--yes")
        assert installed.virsh("vcpupin", "web", "--live").split()[-1] == installed.online
        assert installed.virsh("emulatorpin", "web", "--live").split()[-1] == installed.online
        assert installed.state("web") == "running"

    def test_uninstall_takes_the_hook_out(self, installed: PrivateDaemon) -> None:
        tuner(installed, "uninstall", "--yes")
        installed.restart_libvirtd()
        installed.define(domains.diskless("web", ON_TUNNEL))
        installed.virsh("start", "web")
        assert installed.virsh("vcpupin", "web", "--live").split()[-1] == installed.online
        assert_given_back(installed)


class TestCommandLine:
    def test_transform_in_a_pipe(self, daemon: PrivateDaemon) -> None:
        daemon.define(domains.diskless("web"))
        daemon.run(
            "set -e; virsh dumpxml web"
            f" | {PROGRAM} transform --rx-queue-size 1024 --poll-us 200"
            " | virsh define /dev/stdin; virsh start web"
        )
        assert observe.running(daemon, "web").settings.rx_queue_size == "1024"
        pid = daemon.read("/run/libvirt/qemu/web.pid")
        assert "netdev.hostnet0.poll-us=200" in daemon.read(f"/proc/{pid}/cmdline").split("\0")

    def test_apply_live_pins_what_runs(self, daemon: PrivateDaemon) -> None:
        daemon.define(domains.diskless("web", ON_TUNNEL))
        daemon.virsh("start", "web")
        assert not observe.running(daemon, "web").settings.vcpupin
        told = json.loads(tuner(daemon, "apply", "--live", "--json", "web").stdout)
        assert told == [
            {"domain": "web", "outcome": "changed", "live": True, "at_next_start": told[0]["at_next_start"]}
        ]
        assert observe.running(daemon, "web").settings.vcpupin

    def test_revert_gives_the_users_document_back(self, daemon: PrivateDaemon) -> None:
        daemon.define(domains.diskless("web", ON_TUNNEL))
        before = daemon.virsh("dumpxml", "--inactive", "web")
        tuner(daemon, "apply", "web")
        assert is_tuned(observe.persistent(daemon, "web"))
        tuner(daemon, "revert", "web")
        assert daemon.virsh("dumpxml", "--inactive", "web") == before

    def test_undo_gives_the_host_back(self, installed: PrivateDaemon) -> None:
        installed.define(domains.diskless("web", ON_TUNNEL))
        start_and_wait(installed)
        told = json.loads(tuner(installed, "undo", "--all", "--json").stdout)
        assert {change["kind"] for change in told} >= {"irq"}
        assert all(change["ok"] for change in told)
        assert_given_back(installed)

    @pytest.mark.parametrize(
        ("command", "status"),
        [
            pytest.param(["plan", "web"], 0, id="plan"),
            pytest.param(["diff", "web"], 1, id="diff, which ends as diff does"),
            pytest.param(["apply", "--dry-run", "web"], 0, id="apply --dry-run"),
        ],
    )
    def test_looking_changes_nothing(self, daemon: PrivateDaemon, command: list[str], status: int) -> None:
        daemon.define(domains.diskless("web", ON_TUNNEL))
        before = daemon.virsh("dumpxml", "--inactive", "web")
        result = tuner(daemon, *command, check=False)
        assert result.stdout
        assert result.returncode == status
        assert daemon.virsh("dumpxml", "--inactive", "web") == before


def edit(daemon: PrivateDaemon, expression: str) -> None:
    """``virsh edit`` with sed for an editor."""
    daemon.write("/run/editor", f'#!/bin/sh\nsed -i "{expression}" "$1"\n', mode=0o755)
    daemon.run(["virsh", "edit", "web"], env={"EDITOR": "/run/editor"})


@contextmanager
def events(daemon: PrivateDaemon) -> Iterator[Callable[[], list[str]]]:
    """Lifecycle events as ``virsh event`` prints them, from when it is known to listen."""
    daemon.write("/run/events", "")
    # Line by line: into a file it would print when it ends.
    listen = "exec stdbuf -oL virsh event --event lifecycle --loop >>/run/events"
    listener = daemon.spawn(["sh", "-c", listen])

    def heard() -> list[str]:
        return daemon.read("/run/events").splitlines()

    def listens() -> bool:
        daemon.define(domains.diskless("probe"))
        daemon.forget("probe")
        return heard() != []

    try:
        daemon.wait_for(listens, "virsh event to listen")
        yield heard
    finally:
        os.killpg(listener.pid, signal.SIGTERM)
        listener.communicate(timeout=10)
        daemon.path("/run/events").unlink()


def settle_down(daemon: PrivateDaemon) -> None:
    """Waits until the definition has not changed for half a second."""
    seen: list[str] = []

    def quiet() -> bool:
        seen.append(daemon.virsh("dumpxml", "--inactive", "web"))
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    daemon.wait_for(quiet, "a definition that stays")


@contextmanager
def broken(daemon: PrivateDaemon, module: str, text: str) -> Iterator[None]:
    """One of the package's modules replaced inside the namespaces."""
    daemon.write("/run/broken.py", text + "\n")
    daemon.run(["mount", "--bind", "/run/broken.py", str(PACKAGE / module)])
    try:
        yield
    finally:
        daemon.run(["umount", str(PACKAGE / module)])
