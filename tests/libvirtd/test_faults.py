"""Faults of the real hook under a real libvirtd: system calls that fail, by ``strace -e inject=``.

libvirt ends a domain whose hook ends with another status than 0, also one that has run for long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.libvirtd import domains, nic_replay
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import install

HOOK = "/etc/libvirt/hooks/qemu"
PYTHON = "/run/python-with-a-fault"
CALLED = "/run/hook-called"
NOTE = f'echo "$*" >>{CALLED}'
#: Of the shell. The dynamic linker and the shell itself make some calls before a line of ours is read.
OF_THE_SHELL = {
    "the shell can start no process": "clone,clone3,fork,vfork:error=EAGAIN:when=1+",
    "the shell has no descriptor left": "fcntl,dup2,dup3:error=EMFILE:when=4+",
}
#: Of Python, which makes hundreds.
OF_PYTHON = {
    "no descriptor from some point on": "openat:error=EMFILE:when=30+",
    "no descriptor later": "openat:error=EMFILE:when=150+",
    "denied now and then": "openat:error=EACCES:when=40+25",
    "I/O errors of reads": "read:error=EIO:when=40+9",
    "no memory for reads": "read:error=ENOMEM:when=60+",
    "I/O errors of writes": "write:error=EIO:when=1+",
    "no process": "clone,clone3,fork,vfork:error=EAGAIN:when=1+",
    "no lock": "flock:error=ENOLCK:when=1+",
    "no room": "rename,renameat,renameat2:error=ENOSPC:when=1+",
    "killed while it reads": "read:signal=SIGKILL:when=80",
    "killed while it renames": "rename,renameat,renameat2:signal=SIGKILL:when=1",
    "nothing can be said": "sendto:error=EAGAIN:when=1+",
    "the disk is slow": "write:delay_enter=3000000:when=1",
}


@pytest.fixture
def real(daemon: PrivateDaemon) -> PrivateDaemon:
    install(daemon)
    daemon.run(["cp", HOOK, f"{HOOK}.real"])
    return daemon


def traced(fault: str, what: str) -> str:
    """A script that runs a program under strace, and ends as that does.

    What the program starts is let go: strace would hold libvirtd's pipes for as long as ``settle`` runs, and
    that waits for libvirtd.
    """
    calls = fault.partition(":")[0]
    strace = f"strace -f -b execve -qq -o /dev/null -e trace={calls} -e inject={fault}"
    return f'#!/bin/sh\n{NOTE}\nexec {strace} {what} "$@"\n'


def spoil_shell(daemon: PrivateDaemon, fault: str) -> None:
    daemon.write(HOOK, traced(fault, f"{HOOK}.real"), mode=0o755)


def spoil_python(daemon: PrivateDaemon, fault: str) -> None:
    text = daemon.path(f"{HOOK}.real").read_text()
    python = re.search("^python=(.*)$", text, re.MULTILINE)
    assert python
    daemon.write(PYTHON, traced(fault, python[1]), mode=0o755)
    daemon.write(HOOK, text.replace(python[0], f"python={PYTHON}"), mode=0o755)


def all_as_before(daemon: PrivateDaemon) -> bool:
    return {daemon.irq(irq) for irq in nic_replay.IRQS} == {daemon.online}


CASES = [
    *(pytest.param(spoil_shell, fault, id=name) for name, fault in OF_THE_SHELL.items()),
    *(pytest.param(spoil_python, fault, id=name) for name, fault in OF_PYTHON.items()),
]


@pytest.mark.parametrize(("spoil", "fault"), CASES)
def test_a_start_and_a_reconnect_with_a_fault(
    real: PrivateDaemon, spoil: Callable[[PrivateDaemon, str], None], fault: str
) -> None:
    daemon = real
    daemon.define(domains.diskless("web", domains.bridge("br1")))
    daemon.write(CALLED, "")
    spoil(daemon, fault)
    daemon.virsh("start", "web")
    assert daemon.state("web") == "running"
    daemon.restart_libvirtd()
    daemon.wait_for(lambda: " reconnect " in daemon.read(CALLED), "the hook to be called")
    # As a whole, like install: libvirtd may be about to run it.
    daemon.run(f"cp {HOOK}.real {HOOK}.new && mv {HOOK}.new {HOOK}")
    # It waits for the hook, and fails where that has ended the domain.
    daemon.virsh("destroy", "web")
    daemon.define(domains.diskless("db", domains.bridge("br1")))
    daemon.virsh("start", "db")
    daemon.virsh("destroy", "db")
    # A settle of an earlier step may be on its way; then the last release has given all back.
    daemon.wait_for(lambda: all_as_before(daemon), "every interrupt to be given back")


def test_a_restore_that_libvirt_refuses_gives_no_cpu_away(real: PrivateDaemon) -> None:
    """The hook is called for it before libvirt says that the domain is active already."""
    daemon = real
    daemon.define(domains.diskless("web", domains.bridge("br1")))
    daemon.virsh("start", "web")
    daemon.virsh("save", "web", "/run/web.save")
    daemon.virsh("start", "web")
    daemon.wait_for(lambda: claims(daemon), "the claim of the start")
    before = claims(daemon)
    assert "already active" in daemon.virsh("restore", "/run/web.save", check=False)
    assert claims(daemon) == before
    assert all(pid for pid, _ in before.values())


def claims(daemon: PrivateDaemon) -> dict[str, tuple[int, str]]:
    """By name: the process and the vCPUs' CPUs."""
    found = json.loads(daemon.read("/run/libvirt-tuner/ledger.json"))["claims"]
    return {claim["name"]: (claim["pid"], claim["vcpus"]) for claim in found.values()}
