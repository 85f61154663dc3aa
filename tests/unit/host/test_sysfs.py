"""The reader and writer of /sys, /proc and /run."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from libvirt_tuner.errors import (
    DeniedError,
    HostError,
    MissingError,
    RejectedError,
    UnsupportedError,
)
from libvirt_tuner.host import sysfs
from libvirt_tuner.host.sysfs import Sysfs, component

IRQ = "/proc/irq/229/smp_affinity_list"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A captured host of a few files, in a directory with a neighbour outside."""
    root = tmp_path / "host"
    device = root / "sys/devices/pci0000:17/0000:17:00.0/net/eth0"
    device.mkdir(parents=True)
    (device / "mtu").write_text("1500\n")
    (device / "device").symlink_to("../../../0000:17:00.0")
    (root / "sys/class/net").mkdir(parents=True)
    (root / "sys/class/net/eth0").symlink_to("../../devices/pci0000:17/0000:17:00.0/net/eth0")
    (root / "sys/class/net/gone").symlink_to("../../devices/virtual/net/gone")
    (root / "proc/irq/229").mkdir(parents=True)
    (root / "proc/irq/229/smp_affinity_list").write_text("0-31\n")
    (tmp_path / "secret").write_text("not yours\n")
    return root


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="dot"),
        pytest.param("..", id="dot-dot"),
        pytest.param("a/b", id="slash"),
        pytest.param("/etc", id="absolute"),
        pytest.param("eth0\0", id="nul"),
    ],
)
def test_component_refuses(name: str) -> None:
    with pytest.raises(RejectedError) as caught:
        component(name)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.value == name


@pytest.mark.parametrize("name", ["eth0", "0000:17:00.0", "bond0.100", "...", "mlx5_comp3@pci:0000:17:00.0"])
def test_component_passes(name: str) -> None:
    assert component(name) == name


@pytest.mark.parametrize("path", ["sys/class/net", "", "eth0", "/sys/\0"])
def test_only_absolute_paths(tree: Path, path: str) -> None:
    for host in (Sysfs(), Sysfs(str(tree))):
        with pytest.raises(RejectedError):
            host.read(path)


def test_reads_through_relative_links(tree: Path) -> None:
    host = Sysfs(str(tree))
    assert host.read("/sys/class/net/eth0/mtu") == "1500"
    assert host.listdir("/sys/class/net/eth0/") == ["device", "mtu"]
    assert host.exists("/sys/class/net/eth0/device/net")
    assert host.realpath("/sys/class/net/eth0") == "/sys/devices/pci0000:17/0000:17:00.0/net/eth0"
    assert host.readlink("/sys/class/net/eth0/device") == "../../../0000:17:00.0"
    assert host.link_name("/sys/class/net/eth0/device") == "0000:17:00.0"
    assert host.realpath("/") == "/"


def test_a_root_that_is_itself_a_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    assert Sysfs(str(tmp_path / "alias")).read("/sys/class/net/eth0/mtu") == "1500"


def test_live_and_path(tree: Path) -> None:
    assert Sysfs().live
    assert Sysfs().path("/run/x") == "/run/x"
    assert not Sysfs(str(tree)).live
    assert Sysfs(str(tree)).path("/sys/class/net/eth0/mtu").endswith("0000:17:00.0/net/eth0/mtu")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/etc/hostname", id="absolute"),
        pytest.param("../../../../secret", id="too-many-parents"),
    ],
)
def test_links_that_lead_out_are_refused(tree: Path, target: str) -> None:
    (tree / "sys/class/net/evil").symlink_to(target)
    host = Sysfs(str(tree))
    for use in (host.read, host.exists, host.realpath, lambda p: host.write(p, "1")):
        with pytest.raises(DeniedError) as caught:
            use("/sys/class/net/evil")
        assert caught.value.errno == errno.EXDEV
    assert (tree.parent / "secret").read_text() == "not yours\n"


def test_directories_that_lead_out_are_refused(tree: Path) -> None:
    (tree / "sys/class/net/evil").symlink_to("/etc")
    host = Sysfs(str(tree))
    with pytest.raises(DeniedError):
        host.read("/sys/class/net/evil/hostname")
    with pytest.raises(DeniedError):
        host.listdir("/sys/class/net/evil")
    with pytest.raises(DeniedError):
        host.read("/sys/../../secret")


def test_a_name_that_only_begins_like_the_root_is_outside(tree: Path) -> None:
    (tree.parent / "host2").mkdir()
    (tree.parent / "host2/file").write_text("x")
    with pytest.raises(DeniedError):
        Sysfs(str(tree)).read("/../host2/file")


def test_missing(tree: Path) -> None:
    host = Sysfs(str(tree))
    for path in ("/sys/nothing", "/nothing/at/all", "/sys/class/net/gone", "/sys/class/net/eth0/mtu/x"):
        with pytest.raises(MissingError) as caught:
            host.read(path)
        assert caught.value.where == path
        assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR)
        assert host.read_or(path, "default") == "default"
        assert not host.exists(path)
        assert host.listdir_or_empty(path) == []
        assert host.link_name(path + "/device") == ""
    with pytest.raises(MissingError):
        host.readlink("/sys/class/net/eth0/mtu")
    with pytest.raises(MissingError):
        host.realpath("/sys/nothing")


def test_write_replaces_the_value(tree: Path) -> None:
    host = Sysfs(str(tree))
    host.write(IRQ, "4")
    assert host.read(IRQ) == "4"
    assert host.read_bytes(IRQ) == b"4\n"


def test_write_makes_no_file(tree: Path) -> None:
    with pytest.raises(MissingError):
        Sysfs(str(tree)).write("/proc/irq/229/new", "4")
    assert not (tree / "proc/irq/229/new").exists()


def test_reading_a_directory_is_an_error_of_its_own(tree: Path) -> None:
    with pytest.raises(HostError) as caught:
        Sysfs(str(tree)).read("/sys")
    assert caught.value.errno == errno.EISDIR


def test_bytes_that_are_not_utf8(tree: Path) -> None:
    (tree / "proc/irq/229/name").write_bytes(b"a\xff\n")
    assert Sysfs(str(tree)).read("/proc/irq/229/name") == "a\\xff"


def test_long_files_are_read_whole(tree: Path) -> None:
    (tree / "proc/long").write_bytes(b"x" * 200_000)
    assert len(Sysfs(str(tree)).read("/proc/long")) == 200_000


@pytest.mark.parametrize(
    ("number", "path", "writing", "kind"),
    [
        pytest.param(errno.ENOENT, IRQ, "4", MissingError, id="no-file"),
        pytest.param(errno.ENODEV, "/sys/x", None, MissingError, id="device-gone"),
        pytest.param(errno.ESRCH, "/proc/1/stat", None, MissingError, id="process-ended"),
        pytest.param(errno.EACCES, IRQ, "4", DeniedError, id="not-root"),
        pytest.param(errno.EPERM, "/sys/x", "4", DeniedError, id="not-permitted"),
        pytest.param(errno.EROFS, "/sys/x", "4", DeniedError, id="read-only-mount"),
        pytest.param(errno.EIO, IRQ, "4", UnsupportedError, id="managed-irq-linux-6.1"),
        pytest.param(errno.EPERM, IRQ, "4", UnsupportedError, id="managed-irq-linux-6.12"),
        pytest.param(errno.EOPNOTSUPP, "/sys/x", None, UnsupportedError, id="not-supported"),
        pytest.param(errno.EINVAL, "/sys/x", None, UnsupportedError, id="no-answer-on-read"),
        pytest.param(errno.EINVAL, IRQ, "999", RejectedError, id="no-online-cpu"),
        pytest.param(errno.ENOSPC, IRQ, "4", RejectedError, id="no-vector"),
        pytest.param(errno.EBUSY, "/sys/x", "4", RejectedError, id="busy"),
        pytest.param(errno.ELOOP, "/sys/x", None, HostError, id="anything-else"),
    ],
)
def test_error_kinds(number: int, path: str, writing: str | None, kind: type[HostError]) -> None:
    made = sysfs.error(OSError(number, os.strerror(number)), path, writing=writing)
    assert type(made) is kind
    assert made.errno == number
    assert made.where == path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to write below /proc")
def test_the_running_kernel_rejects_a_cpu_that_does_not_exist() -> None:
    for irq in Sysfs().listdir("/proc/irq"):
        path = f"/proc/irq/{irq}/smp_affinity_list"
        if not Sysfs().exists(path):
            continue
        before = Sysfs().read(path)
        with pytest.raises((RejectedError, UnsupportedError)) as caught:
            Sysfs().write(path, "8191")
        assert caught.value.where == path
        assert Sysfs().read(path) == before


def test_the_running_machine() -> None:
    host = Sysfs()
    assert host.exists("/sys/devices/system/cpu")
    assert host.realpath("/sys/class/net/lo") == "/sys/devices/virtual/net/lo"
    assert host.link_name("/sys/class/net/lo/subsystem") == "net"
    assert "lo" in host.listdir("/sys/class/net")
    with pytest.raises(UnsupportedError):
        host.read("/sys/class/net/lo/speed")
    assert host.read_or("/sys/class/net/lo/speed", "unknown") == "unknown"
    with pytest.raises(MissingError):
        host.readlink("/sys/class/net/lo/mtu")


def test_a_users_file_is_read_only_if_it_is_that_users(tmp_path: Path) -> None:
    place = tmp_path / "box.xml"
    place.write_text("<x/>")
    live = Sysfs()
    assert live.read_users(str(place), os.geteuid(), 4) == b"<x/>"
    for user, limit in ((os.geteuid() + 1, 4), (os.geteuid(), 3)):
        with pytest.raises(RejectedError):
            live.read_users(str(place), user, limit)
    with pytest.raises(MissingError):
        live.read_users(f"{place}.not", os.geteuid(), 4)
