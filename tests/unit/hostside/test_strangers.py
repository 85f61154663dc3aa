"""Containers and sessions' domains, in described trees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.hostside.strangers import strangers
from libvirt_tuner.planning.neighbours import neighbour
from tests.unit.builders import cpus
from tests.unit.trees import put

UUID = "5b1d0a52-0000-4000-8000-00000000000{}"


def status(kind: str, number: int, pid: int, more: str = "") -> str:
    return (
        f"<domstatus state='running' pid='{pid}'><domain type='{kind}'><name>box</name>"
        f"<uuid>{UUID.format(number)}</uuid><memory>1024</memory><vcpu>2</vcpu>{more}</domain></domstatus>"
    )


def process(root: Path, pid: int, user: int, tasks: dict[int, tuple[str, str]]) -> None:
    fields = " ".join(["0"] * 17)
    put(root, f"/proc/{pid}/stat", f"{pid} (x) S 1 {fields} 77 0 0")
    put(root, f"/proc/{pid}/status", f"Name: x\nUid:\t{user}\t{user}\t{user}\t{user}")
    for tid, (name, allowed) in tasks.items():
        put(root, f"/proc/{pid}/task/{tid}/comm", name)
        put(root, f"/proc/{tid}/status", f"Name: {name}\nCpus_allowed_list:\t{allowed}")


SESSION = "/run/user/1000/libvirt/qemu/run/box.xml"
TEXT = status("kvm", 2, 60)
PINS = "<cputune><vcpupin vcpu='0' cpuset='5'/></cputune>"


def test_nobody(tmp_path: Path) -> None:
    put(tmp_path, "/run/user/gdm/libvirt/qemu/run/box.xml", status("kvm", 1, 50))
    assert list(strangers(Sysfs(str(tmp_path)))) == []


def test_a_container_by_its_document(tmp_path: Path) -> None:
    put(tmp_path, "/run/libvirt/lxc/box.xml", status("lxc", 1, 50, PINS))
    process(tmp_path, 50, 0, {})
    ((claim, found),) = strangers(Sysfs(str(tmp_path)))
    assert (claim.name, claim.pid, claim.start_time) == ("box (lxc)", 50, 77)
    assert neighbour(found).fixed == (cpus(5), cpus())


def test_a_sessions_domain_by_its_threads(tmp_path: Path) -> None:
    put(tmp_path, SESSION, status("kvm", 2, 60, PINS))
    process(tmp_path, 60, 1000, {61: ("CPU 0/KVM", "0-7"), 62: ("CPU 1/KVM", "3")})
    ((claim, found),) = strangers(Sysfs(str(tmp_path)))
    assert claim.name == "box (session)"
    assert neighbour(found).fixed == (frozenset(range(8)), cpus(3))
    assert found.holds.vcpus == cpus(3)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(status("kvm", 2, 60), id="another user's process"),
        pytest.param(status("kvm", 2, 61), id="no process"),
        pytest.param("<domstatus", id="no document"),
        pytest.param("<domstatus pid='x'/>", id="no domain"),
    ],
)
def test_a_users_file_may_say_anything(tmp_path: Path, text: str) -> None:
    put(tmp_path, SESSION, text)
    process(tmp_path, 60, 1001, {60: ("CPU 0/KVM", "0-7")})
    assert list(strangers(Sysfs(str(tmp_path)))) == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkfifo, id="FIFO, which nobody writes to"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="device without end"),
        pytest.param(lambda path: path.symlink_to("../../../../../../box.xml"), id="link to another's file"),
        pytest.param(lambda path: path.mkdir(), id="directory"),
        pytest.param(lambda path: path.write_text(TEXT + " " * (1 << 18)), id="too long"),
    ],
)
def test_what_is_no_file_of_the_users_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    put(tmp_path, "/box.xml", TEXT)
    process(tmp_path, 60, 1000, {61: ("CPU 0/KVM", "3")})
    path = tmp_path / SESSION[1:]
    path.parent.mkdir(parents=True)
    make(path)
    # In a process of its own, which can be ended where it waits.
    code = (
        "import sys\n"
        "from libvirt_tuner.host.sysfs import Sysfs\n"
        "from libvirt_tuner.hostside.strangers import strangers\n"
        "assert list(strangers(Sysfs(sys.argv[1]))) == []"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_of_very_many_only_the_first_are_read(tmp_path: Path) -> None:
    for number in range(150):
        put(tmp_path, f"{SESSION[:-7]}{number}.xml", TEXT.replace("0002", f"{number:04}"))
    process(tmp_path, 60, 1000, {61: ("CPU 0/KVM", "3")})
    assert len(list(strangers(Sysfs(str(tmp_path))))) == 100


def test_they_are_noted_down_and_forgotten(tmp_path: Path) -> None:
    put(tmp_path, "/run/libvirt/lxc/box.xml", status("lxc", 1, 50, PINS))
    process(tmp_path, 50, 0, {})
    sysfs = Sysfs(str(tmp_path))
    assert list(holding.give_all_again(sysfs)) == []
    (claim,) = Ledger(sysfs).read().claims.values()
    assert claim.vcpus == cpus(5)
    (tmp_path / "run/libvirt/lxc/box.xml").unlink()
    (tmp_path / "proc/50/stat").unlink()
    holding.sweep(sysfs)
    assert Ledger(sysfs).read().claims == {}
