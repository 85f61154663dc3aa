"""The service beside a real libvirtd: what it must not break, and what it must survive."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections import Counter
from itertools import count

from tests.libvirtd import domains, observe
from tests.libvirtd.daemon import ENVIRONMENT, PrivateDaemon
from tests.libvirtd.tuner import NOTIFY_SOCKET, PROGRAM, running_daemon

MANY = 64
EDITS = 30


def tuned(daemon: PrivateDaemon, name: str) -> bool:
    return observe.persistent(daemon, name).rx_queue_size == "1024"


def wait_until_tuned(daemon: PrivateDaemon, name: str) -> None:
    daemon.wait_for(lambda: tuned(daemon, name), f"the completion of {name}")


def test_password_and_autostart_stay(daemon: PrivateDaemon) -> None:
    with running_daemon(daemon):
        daemon.define(domains.diskless("web", extra="<graphics type='vnc' passwd='secret'/>"))
        daemon.virsh("autostart", "web")
        wait_until_tuned(daemon, "web")
    assert "passwd='secret'" in daemon.virsh("dumpxml", "web", "--security-info")
    assert re.search(r"Autostart:\s+enable", daemon.virsh("dominfo", "web"))


def test_many_at_once(daemon: PrivateDaemon) -> None:
    names = [f"web-{number}" for number in range(MANY)]
    for name in names:
        daemon.write(f"/run/many/{name}.xml", domains.diskless(name))
    with running_daemon(daemon):
        events = daemon.spawn(["virsh", "event", "--event", "lifecycle", "--loop", "--timeout", "8"])
        daemon.run("; ".join(f"virsh -q define /run/many/{name}.xml" for name in names))
        for name in names:
            wait_until_tuned(daemon, name)
        said, _ = events.communicate(timeout=20)
    # The listener may miss the first ones; a definition that set itself off would be seen again and again.
    updates = Counter(re.findall(r"'(web-\d+)': Defined Updated", said))
    assert len(updates) > MANY / 2
    assert set(updates.values()) == {1}


def test_definition_made_meanwhile_is_not_overwritten(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web"))
    user = daemon.virsh("dumpxml", "web", "--inactive")
    daemon.virsh("undefine", "web")
    for number in range(EDITS):
        titled = user.replace("</name>", f"</name><title>edit {number}</title>")
        daemon.write(f"/run/many/{number}.xml", titled)
    with running_daemon(daemon):
        daemon.define(user)
        wait_until_tuned(daemon, "web")
        daemon.run("; ".join(f"virsh -q define /run/many/{number}.xml" for number in range(EDITS)))
        wait_until_tuned(daemon, "web")
        assert f"<title>edit {EDITS - 1}</title>" in daemon.virsh("dumpxml", "web", "--inactive")


def test_running_domain_keeps_running_as_it_is(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web"))
    daemon.virsh("start", "web")
    before = daemon.virsh("dumpxml", "web")
    definition = daemon.virsh("dumpxml", "web", "--inactive")
    with running_daemon(daemon):
        daemon.define(definition.replace("</name>", "</name><title>edited</title>"))
        wait_until_tuned(daemon, "web")
    assert daemon.virsh("dumpxml", "web") == before


def test_transient_domain_stays_transient(daemon: PrivateDaemon) -> None:
    daemon.virsh("create", "/dev/stdin", stdin=domains.diskless("passing"))
    with running_daemon(daemon):
        daemon.define(domains.diskless("web"))
        wait_until_tuned(daemon, "web")
    assert re.search(r"Persistent:\s+no", daemon.virsh("dominfo", "passing"))


def test_undefined_domain_does_not_come_back(daemon: PrivateDaemon) -> None:
    document = domains.diskless("short")
    daemon.write("/run/many/short.xml", document)
    with running_daemon(daemon):
        daemon.run(
            "for n in $(seq 20); do virsh -q define /run/many/short.xml; virsh -q undefine short; done"
        )
        daemon.define(domains.diskless("web"))
        wait_until_tuned(daemon, "web")
        assert "short" not in daemon.virsh("list", "--all", "--name").split()


def test_daemon_that_is_away_is_waited_for(daemon: PrivateDaemon) -> None:
    daemon.stop_libvirtd()
    with running_daemon(daemon):
        daemon.start_libvirtd()
        numbers = count()

        def another_is_tuned() -> bool:
            """One that is defined before the service is back counts as there before."""
            name = f"web-{next(numbers)}"
            daemon.define(domains.diskless(name))
            daemon.run(["sleep", "0.5"])
            return tuned(daemon, name)

        daemon.wait_for(another_is_tuned, "the service to be back")


def test_three_restarts_of_the_daemon(daemon: PrivateDaemon) -> None:
    with running_daemon(daemon) as service:
        for number in range(3):
            daemon.restart_libvirtd()
            daemon.define(domains.diskless(f"web-{number}"))
            wait_until_tuned(daemon, f"web-{number}")
        assert service.poll() is None


def test_ends_cleanly_when_told(daemon: PrivateDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        daemon.path(NOTIFY_SOCKET).unlink(missing_ok=True)
        manager.bind(str(daemon.path(NOTIFY_SOCKET)))
        manager.settimeout(10)
        service = daemon.spawn([PROGRAM, "daemon"], env={**ENVIRONMENT, "NOTIFY_SOCKET": NOTIFY_SOCKET})
        told = manager.recv(4096)
        while b"READY=1" not in told:
            told = manager.recv(4096)
        assert b"STATUS=watching qemu:///system" in told
        daemon.run(["kill", f"-{signal.SIGTERM.name.removeprefix('SIG')}", pid_of_daemon(daemon)])
        told = manager.recv(4096)
        while b"STOPPING=1" not in told:
            told = manager.recv(4096)
        _, said = service.communicate(timeout=10)
    assert service.returncode == 0
    assert "Traceback" not in said


def test_wrong_uri_ends_with_1(daemon: PrivateDaemon) -> None:
    done: subprocess.CompletedProcess[str] = daemon.run(
        [PROGRAM, "-c", "nonsense:///", "daemon"], check=False
    )
    assert done.returncode == 1
    assert "nonsense:///" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def pid_of_daemon(daemon: PrivateDaemon) -> str:
    """Its process id inside the namespaces."""
    listing = daemon.run(["ps", "ax", "-o", "pid=,args="]).stdout.splitlines()
    found = [line.split()[0] for line in listing if line.endswith(f"{PROGRAM} daemon")]
    assert len(found) == 1
    return found[0]
