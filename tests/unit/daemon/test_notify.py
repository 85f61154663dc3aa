from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner.daemon.notify import notify, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = f"@libvirt-tuner-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_assignments_arrive_a_line_each(manager: socket.socket) -> None:
    assert notify("READY=1", "STATUS=watching\nqemu:///system")
    assert manager.recv(4096) == b"READY=1\nSTATUS=watching qemu:///system"


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(None, id="no service manager"),
        pytest.param("", id="empty"),
        pytest.param("relative", id="neither path nor abstract"),
        pytest.param("/nonexistent/notify", id="nobody listens"),
    ],
)
def test_nobody_to_tell(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        pytest.param(None, None, None, id="not asked for"),
        pytest.param("0", None, None, id="off"),
        pytest.param("180000000", None, 180.0, id="asked for"),
        pytest.param("180000000", "1", None, id="asked of another process"),
        pytest.param("soon", None, None, id="no number"),
    ],
)
def test_watchdog(
    usec: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    while notify("WATCHDOG=1"):
        pass
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert notify("STOPPING=1")
