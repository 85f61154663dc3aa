"""The finished product inside the private daemon: ``libvirt-tuner`` as a user has it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.libvirtd.daemon import ENVIRONMENT, DaemonError, PrivateDaemon
from tests.measured import SETTINGS, interpreter

PROGRAM = str(Path(sys.executable).with_name("libvirt-tuner"))
NOTIFY_SOCKET = "/run/notify-of-daemon"


def tuner(
    daemon: PrivateDaemon, *arguments: str, check: bool = True, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs ``libvirt-tuner`` with the arguments."""
    return daemon.run([PROGRAM, *arguments], check=check, stdin=stdin)


INSTALL = ("install", "--yes", "--allow-writable", "--no-verify")
"""The checkout that is tested may be a user's."""


def install(daemon: PrivateDaemon) -> str:
    """``libvirt-tuner install``, and the restart that has libvirtd look for hooks; what was printed."""
    said = tuner(daemon, *INSTALL).stdout
    hook = daemon.path("/etc/libvirt/hooks/qemu")
    if SETTINGS in os.environ and hook.is_file():
        measured = interpreter(daemon.path("/run"), "/run")
        hook.write_text(hook.read_text().replace(f"python={sys.executable}\n", f"python={measured}\n"))
    daemon.restart_libvirtd()
    return said


@contextmanager
def running_daemon(daemon: PrivateDaemon) -> Iterator[subprocess.Popen[str]]:
    """``libvirt-tuner daemon``, from when it says that it is ready (sd_notify(3)) until it is told to end.

    Raises:
        DaemonError: It ended before it was ready, or is not ready within ten seconds.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        address = daemon.path(NOTIFY_SOCKET)
        address.unlink(missing_ok=True)
        notify.bind(str(address))
        notify.settimeout(10)
        if not daemon.path("/etc/libvirt-tuner.toml").exists():
            daemon.write("/etc/libvirt-tuner.toml", "[policy]\nsettle_seconds = 0\n")
        service = daemon.spawn([PROGRAM, "daemon"], env={**ENVIRONMENT, "NOTIFY_SOCKET": NOTIFY_SOCKET})
        try:
            _wait_until_ready(notify, service)
            yield service
        finally:
            os.killpg(service.pid, signal.SIGTERM)
            _ended(service)


def _wait_until_ready(notify: socket.socket, service: subprocess.Popen[str]) -> None:
    try:
        while b"READY=1" not in notify.recv(4096):
            pass
    except TimeoutError:
        state = service.poll()
        raise DaemonError(f"libvirt-tuner daemon is not ready (exit status {state})") from None


def _ended(service: subprocess.Popen[str]) -> None:
    try:
        service.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(service.pid, signal.SIGKILL)
        service.communicate()
        raise DaemonError("libvirt-tuner daemon did not end within 10 s of SIGTERM") from None
