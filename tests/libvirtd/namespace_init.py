"""Process 1 of the private daemon's namespaces: lays out the mounts, then keeps house until stdin closes.

Started by :class:`tests.libvirtd.daemon.PrivateDaemon` under ``unshare -mnpf --mount-proc``.
When its standard input reaches end of file (the harness closed it, or died) it
exits, the kernel ends every process of the PID namespace, and with the last of them go the mounts and
the network devices.

What the namespaces have of their own: /run, /dev, /etc (a copy), /usr/local/share/{man,zsh},
/var/{lib,log,cache}/libvirt, a sysfs that shows this network namespace, and, with ``replay``, two functions
of a ConnectX (see :mod:`tests.libvirtd.nic_replay`).
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from tests.libvirtd import nic_replay

PRIVATE_DIRECTORIES = ("/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")
SYSLOG_SOCKET = "/run/systemd/journal/dev-log"
SYSLOG_FILE = Path("/run/syslog")
STAGE = Path("/run/stage")
NETLINK_KOBJECT_UEVENT = 15

QEMU_CONF = """\
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
security_driver = "none"
"""
LIBVIRTD_CONF = """\
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def command(*argv: str) -> None:
    """Runs a program, and ends process 1 when it fails."""
    subprocess.run(argv, check=True)


def tmpfs(target: str | Path, mode: str = "755") -> None:
    """An empty tmpfs over ``target``."""
    command("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", str(target))


def private_sys() -> None:
    """A sysfs of this network namespace, without cgroups.

    A cgroup mount left visible would have libvirt make its groups among the machine's own.
    """
    command("umount", "--recursive", "--lazy", "/sys")
    command("mount", "-t", "sysfs", "sysfs", "/sys")


def private_etc() -> None:
    """A copy of /etc in memory, with a libvirt directory that holds only what is needed here."""
    staged = STAGE / "etc"
    staged.mkdir()
    tmpfs(staged)
    command("cp", "-a", "/etc/.", str(staged))
    command("rm", "-rf", str(staged / "libvirt"), str(staged / "libvirt-tuner.toml"))
    (staged / "libvirt" / "hooks").mkdir(parents=True)
    (staged / "libvirt" / "qemu.conf").write_text(QEMU_CONF)
    (staged / "libvirt" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
    command("mount", "--move", str(staged), "/etc")


def private_manual() -> None:
    """Empty man and zsh in /usr/local/share; what else is there is reached through symbolic links."""
    share, staged, machines = Path("/usr/local/share"), STAGE / "share", STAGE / "machines-share"
    staged.mkdir()
    machines.mkdir()
    command("mount", "--rbind", str(share), str(machines))
    tmpfs(staged)
    for name in os.listdir(share):
        (staged / name).symlink_to(machines / name)
    for name in ("man", "zsh"):
        (staged / name).unlink(missing_ok=True)
        (staged / name).mkdir()
    command("mount", "--move", str(staged), str(share))


def private_dev() -> None:
    """The machine's device nodes in a tmpfs, and /dev/log as systemd has it.

    Nodes are copied, not bound, so that /dev/tapN of a macvtap made here cannot collide with one of
    the machine's own: devtmpfs is one instance for all namespaces, and interface indices are not unique.
    """
    staged = STAGE / "dev"
    staged.mkdir()
    tmpfs(staged)
    for node in ["net/tun", *os.listdir("/dev")]:
        copy_node(Path("/dev") / node, staged / node)
    for directory in ("pts", "shm"):
        (staged / directory).mkdir()
        command("mount", "--rbind", f"/dev/{directory}", str(staged / directory))
    (staged / "log").unlink(missing_ok=True)
    (staged / "log").symlink_to(SYSLOG_SOCKET)
    command("mount", "--move", str(staged), "/dev")


def copy_node(source: Path, target: Path) -> None:
    """Copies a character device or a symbolic link; leaves disks, directories and the rest alone."""
    try:
        status = source.lstat()
    except FileNotFoundError:
        return
    target.parent.mkdir(exist_ok=True)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(os.readlink(source))
    elif stat.S_ISCHR(status.st_mode):
        os.mknod(target, status.st_mode, status.st_rdev)
        os.chmod(target, stat.S_IMODE(status.st_mode))


def uevents() -> socket.socket:
    """The kernel's device events of this network namespace (no udev runs here)."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)
    events.bind((0, 1))
    return events


def on_uevent(event: bytes) -> None:
    """Makes and removes the character device of a macvtap, as devtmpfs would."""
    fields = dict(line.split("=", 1) for line in event.decode().split("\0") if "=" in line)
    if fields.get("SUBSYSTEM") != "macvtap" or "DEVNAME" not in fields:
        return
    node = Path("/dev") / fields["DEVNAME"]
    node.unlink(missing_ok=True)
    if fields["ACTION"] == "add":
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(int(fields["MAJOR"]), int(fields["MINOR"])))


def syslog_sink() -> socket.socket:
    """The socket behind /dev/log."""
    Path(SYSLOG_SOCKET).parent.mkdir(parents=True)
    sink = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink.bind(SYSLOG_SOCKET)
    SYSLOG_FILE.touch()
    return sink


def on_syslog(message: bytes) -> None:
    """Appends one message to the file that the harness reads."""
    with SYSLOG_FILE.open("ab") as file:
        file.write(message.rstrip(b"\n\0") + b"\n")


def private_programs() -> None:
    """The daemons by paths of their own: AppArmor attaches its profile to ``/usr/sbin/libvirtd`` by path.

    Debian's and Ubuntu's profile lets hooks run nothing outside the system's directories for programs, which
    the Python of a virtual environment is.
    """
    for name in ("libvirtd", "virtlogd"):
        target = Path("/run/sbin") / name
        target.parent.mkdir(exist_ok=True)
        target.touch()
        command("mount", "--bind", str(shutil.which(name)), str(target))


def lay_out(settings: dict[str, object]) -> None:
    """All mounts and network devices."""
    private_sys()
    tmpfs("/run")
    STAGE.mkdir()
    for directory in PRIVATE_DIRECTORIES:
        tmpfs(directory)
    private_etc()
    private_manual()
    private_dev()
    private_programs()
    command("ip", "link", "set", "lo", "up")
    if settings["replay"]:
        nic_replay.build(Path("/run/replay"))


def keep_house(sink: socket.socket, events: socket.socket) -> None:
    """Serves the two sockets until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then reaps every orphan of the namespace
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    selector.register(sink, selectors.EVENT_READ, on_syslog)
    selector.register(events, selectors.EVENT_READ, on_uevent)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            key.data(key.fileobj.recv(65536))  # type: ignore[union-attr]


def main() -> None:
    """Lays out, says so, keeps house."""
    lay_out(json.loads(sys.argv[1]))
    sink, events = syslog_sink(), uevents()
    print("ready", flush=True)
    keep_house(sink, events)


if __name__ == "__main__":
    main()
