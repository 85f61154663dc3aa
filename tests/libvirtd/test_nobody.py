"""What a user who is not root sees of domains: what can be read, and in one line what cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.libvirtd import domains
from tests.libvirtd.daemon import REPOSITORY, PrivateDaemon
from tests.libvirtd.tuner import install

NOBODY = "65534"
#: The interpreter, its packages and the tree where everybody may read them: homes are closed to others.
PLACES = {"/run/of-python": sys.base_prefix, "/run/of-venv": sys.prefix, "/run/of-tree": str(REPOSITORY)}
PYTHON = f"/run/of-python/bin/python3.{sys.version_info.minor}"
PACKAGES = f"lib/python3.{sys.version_info.minor}/site-packages"
MAIN = "from libvirt_tuner.cli import main; main(prog_name='libvirt-tuner')"
HIDDEN = "the placement of running domains is not shown: /run/libvirt-tuner: cannot open: Permission denied"


@pytest.fixture
def running(daemon: PrivateDaemon) -> PrivateDaemon:
    """A domain that was started under the hook and settled, and one that does not run."""
    install(daemon)
    daemon.define(domains.diskless("web", domains.direct()))
    daemon.define(domains.diskless("idle", domains.bridge("br1")))
    daemon.virsh("start", "web")
    daemon.wait_for(lambda: "vcpupin" in daemon.virsh("dumpxml", "web"), "live pins")
    daemon.wait_for(
        lambda: ":record" in daemon.virsh("dumpxml", "--inactive", "web"), "the record in the definition"
    )
    for place, source in PLACES.items():
        daemon.run(f"mkdir -p {place}; mountpoint -q {place} || mount --bind {source} {place}")
    return daemon


def nobody(daemon: PrivateDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``libvirt-tuner`` as the user nobody."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    found = f"PYTHONPATH=/run/of-tree:/run/of-venv/{PACKAGES}"
    return daemon.run([*drop, "env", found, PYTHON, "-c", MAIN, *arguments], check=False)


def test_status_shows_pins_against_threads(running: PrivateDaemon) -> None:
    done = nobody(running, "status", "--json", "web")
    rows = {row["subject"]: row for row in json.loads(done.stdout)["web"]}
    pin = running.virsh("vcpupin", "web").splitlines()[0].split()[-1]
    assert (rows["vcpu 0"]["planned"], rows["vcpu 0"]["real"], rows["vcpu 0"]["ok"]) == (pin, pin, True)
    assert not [subject for subject in rows if subject.startswith("irq ")]
    assert [line for line in done.stderr.splitlines() if HIDDEN in line] == done.stderr.splitlines()[-1:]


def test_list_shows_every_domain(running: PrivateDaemon) -> None:
    done = nobody(running, "list", "--json")
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["state"] for name, row in found.items()} == {"web": "running", "idle": "shut off"}
    assert done.returncode == 0
    assert HIDDEN in done.stderr


@pytest.mark.parametrize("domain", ["web", "idle"])
def test_plan(running: PrivateDaemon, domain: str) -> None:
    done = nobody(running, "plan", domain, "--json")
    assert json.loads(done.stdout)["domain"] == domain
    assert done.returncode == 0
    assert HIDDEN in done.stderr


def test_host_check(running: PrivateDaemon) -> None:
    done = nobody(running, "host", "check", "--json")
    notes = [found["what"] for found in json.loads(done.stdout) if found["check"] == "unread"]
    assert any("/run/libvirt-tuner: cannot open: Permission denied" in note for note in notes)
    assert done.returncode in (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("apply", "web"), id="apply"),
        pytest.param(("revert", "web"), id="revert"),
        pytest.param(("undo", "web"), id="undo"),
        pytest.param(("uninstall", "--yes"), id="uninstall"),
    ],
)
def test_what_changes_something_is_refused(running: PrivateDaemon, arguments: tuple[str, ...]) -> None:
    before = running.virsh("dumpxml", "--inactive", "web"), running.read("/run/libvirt-tuner/ledger.json")
    done = nobody(running, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    after = running.virsh("dumpxml", "--inactive", "web"), running.read("/run/libvirt-tuner/ledger.json")
    assert after == before
    assert running.exists("/etc/libvirt/hooks/qemu")


def test_quiet_says_nothing_of_it(running: PrivateDaemon) -> None:
    assert nobody(running, "--quiet", "list").stderr == ""
