"""What reaches the journal or syslog, and that nobody is waited for."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
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


JOURNALD = "/usr/lib/systemd/systemd-journald"
#: A journal of its own below /run, which has neither the kernel's lines nor the machine's own.
SCRIPT = """\
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=\\n' > /run/systemd/journald.conf.d/test.conf
$0 & journald=$!
trap 'kill $journald; wait' EXIT
for _ in $(seq 300); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
"$@"
journalctl --sync
journalctl --output=json --identifier=libvirt-tuner >&3
libvirt-tuner log web-1 --json
"""
SEND = """\
from libvirt_tuner.host import log
fields = {"domain": "web-1", "uuid": "u-1", "operation": "started"}
assert log.send(log.NOTICE, "web-1: started: \\u00fc", event="started", **fields)
assert log.send(log.WARNING, "web-1: x\\nPRIORITY=0", event="problem", domain="web-1")
assert log.send(log.INFO, "web-2: started", event="started", domain="web-2")
assert log.send(log.INFO, "web-1: " + "x" * 6000, domain="web-1")
"""


@pytest.mark.skipif(os.geteuid() != 0 or not os.access(JOURNALD, os.X_OK), reason="no root, no journald")
def test_a_journald_has_the_fields_and_log_finds_them(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program = (sys.executable, "-c", SEND)
    with (tmp_path / "entries").open("w") as entries:
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", f"exec 3>&{entries.fileno()}; {SCRIPT}", JOURNALD, *program],
            env={**os.environ, "PATH": path},
            pass_fds=[entries.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    first, forged, *_ = map(json.loads, (tmp_path / "entries").read_text().splitlines())
    names = ("MESSAGE", "PRIORITY", "DOMAIN", "UUID", "OPERATION", "MESSAGE_ID", "SYSLOG_IDENTIFIER")
    assert [first[name] for name in names] == [
        "web-1: started: \u00fc", "5", "web-1", "u-1", "started", log.EVENTS["started"], "libvirt-tuner"
    ]  # fmt: skip
    assert (forged["PRIORITY"], forged["MESSAGE"]) == ("4", "web-1: x PRIORITY=0")
    lines = json.loads(done.stdout)
    assert [line["event"] for line in lines] == ["started", "problem", ""]
    assert lines[-1]["text"].endswith("x" * 6000)
