"""What reaches the journal or syslog, and that nobody is waited for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libvirt_tuner.host import log


@contextmanager
def listener(root: Path, address: str) -> Iterator[socket.socket]:
    path = root / address.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.settimeout(5)
        yield made


def fields(data: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in data.decode().splitlines())


def test_nobody_listens(tmp_path: Path) -> None:
    assert log.send(log.WARNING, "x", root=str(tmp_path)) is False


def test_fields_for_the_journal(tmp_path: Path) -> None:
    with listener(tmp_path, log.JOURNAL) as journal:
        assert log.send(
            log.WARNING,
            "web: started",
            event="started",
            root=str(tmp_path),
            domain="web",
            uuid="",
            operation="start",
        )
        got = fields(journal.recv(65536))
    assert got["MESSAGE"] == "web: started"
    assert (got["PRIORITY"], got["SYSLOG_IDENTIFIER"]) == ("4", "libvirt-tuner")
    assert (got["DOMAIN"], got["OPERATION"], got["MESSAGE_ID"]) == ("web", "start", log.EVENTS["started"])
    assert "UUID" not in got


def test_plain_line_for_syslog(tmp_path: Path) -> None:
    with listener(tmp_path, log.SYSLOG) as syslog:
        assert log.send(log.INFO, "web: started", root=str(tmp_path), domain="web")
        got = syslog.recv(65536).decode()
    assert got.startswith("<30>libvirt-tuner[")
    assert got.endswith("]: web: started")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a\nPRIORITY=0", id="a field of its own"),
        pytest.param("a\u2028b", id="line separator"),
        pytest.param("a\x85b\x1b[31m", id="control characters"),
        pytest.param("a\u202eb", id="direction override"),
        pytest.param("a\udcffb", id="not UTF-8"),
    ],
)
def test_a_name_forges_nothing(tmp_path: Path, name: str) -> None:
    with listener(tmp_path, log.JOURNAL) as journal:
        log.send(log.WARNING, f"{name}: x", root=str(tmp_path), domain=name)
        got = journal.recv(65536).decode()
    assert got.count("\nPRIORITY=") + got.startswith("PRIORITY=") == 1
    assert all(line.isprintable() for line in got.split("\n"))


def test_receiver_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with listener(tmp_path, log.SYSLOG):
        sent = [log.send(log.INFO, "x" * 4000, root=str(tmp_path)) for _ in range(2000)]
    assert sent[0] is True
    assert sent[-1] is False


def test_long_text_is_cut(tmp_path: Path) -> None:
    with listener(tmp_path, log.JOURNAL) as journal:
        assert log.send(log.INFO, "x" * 1_000_000, root=str(tmp_path))
        assert len(journal.recv(65536)) < 10_000


def test_ids_are_ids() -> None:
    assert len(set(log.EVENTS.values())) == len(log.EVENTS)
    assert all(len(value) == 32 and int(value, 16) for value in log.EVENTS.values())
