"""status of domains that are none of ours, and completion of names."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from libvirt_tuner.cli import service
from libvirt_tuner.cli.session import Session

PROGRAM = Path(sys.executable).with_name("libvirt-tuner")
DOMAIN = "<domain type='test'><name>web</name><memory>65536</memory>{}<os><type>hvm</type></os></domain>"
RUNNING = "test:///default"


def node(tmp_path: Path, *domains: str) -> str:
    """A host of libvirt's test driver; its domains run."""
    (tmp_path / "node.xml").write_text(f"<node>{''.join(domains)}</node>")
    return f"test://{tmp_path}/node.xml"


def host(tmp_path: Path) -> str:
    root = tmp_path / "host"
    cpus = root / "sys/devices/system/node/node0"
    cpus.mkdir(parents=True)
    (root / "sys/devices/system/node/online").write_text("0\n")
    (cpus / "cpulist").write_text("0-7\n")
    (cpus / "meminfo").write_text("Node 0 MemTotal: 8388608 kB\nNode 0 MemFree: 4194304 kB\n")
    (cpus / "distance").write_text("10\n")
    return str(root)


class TestStatus:
    def test_domain_the_hook_has_not_seen(self, tmp_path: Path) -> None:
        with Session(node(tmp_path, DOMAIN.format("")), host(tmp_path)) as session:
            result = CliRunner().invoke(service.status, ["--json"], obj=session)
        (row,) = json.loads(result.stdout)["web"]
        assert (result.exit_code, row["ok"]) == (1, False)
        assert "no record of its start" in row["note"]

    def test_domain_that_is_not_selected(self, tmp_path: Path) -> None:
        policy = "<policy xmlns='https://libvirt-tuner.org/policy/1' select='false'/>"
        document = DOMAIN.format(f"<metadata>{policy}</metadata>")
        with Session(node(tmp_path, document), host(tmp_path)) as session:
            result = CliRunner().invoke(service.status, obj=session)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "not tuned" in result.stdout

    def test_no_domain(self, tmp_path: Path) -> None:
        with Session(node(tmp_path), host(tmp_path)) as session:
            table = CliRunner().invoke(service.status, obj=session)
            data = CliRunner().invoke(service.status, ["--json"], obj=session)
        assert (table.exit_code, table.stdout) == (0, "")
        assert table.stderr == "no domain is running\n"
        assert json.loads(data.stdout) == {}

    def test_domain_that_does_not_run(self, tmp_path: Path) -> None:
        with Session(node(tmp_path), host(tmp_path)) as session:
            session.connection._conn.defineXML(DOMAIN.format(""))
            result = CliRunner().invoke(service.status, ["web"], obj=session)
        assert result.exit_code == 1
        assert result.stderr == "Error: web: not running\n"


WATCH = """
import signal, sys
from libvirt_tuner.cli.service import status
from libvirt_tuner.cli.session import Session

# A job in a shell's background ignores it, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
status.main(["--watch", "--interval", "0.1"], obj=Session(sys.argv[1], sys.argv[2]))
"""


class TestWatch:
    def test_ctrl_c_ends_it_with_status_0(self, tmp_path: Path) -> None:
        """On a pipe: one table after the other."""
        command = [sys.executable, "-c", WATCH, node(tmp_path, DOMAIN.format("")), host(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            seen = [process.stdout.readline() for _ in range(7)]
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
        assert seen.count("web\n") >= 2

    def test_on_a_terminal_the_tables_replace_each_other(self, tmp_path: Path) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", WATCH, node(tmp_path, DOMAIN.format("")), host(tmp_path)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as process:
            os.close(theirs)
            text = b""
            while text.count(b"web") < 3:
                text += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            while chunk := read_or_end(ours):
                text += chunk
            assert process.stderr is not None
            assert (process.wait(timeout=30), process.stderr.read()) == (0, b"")
        os.close(ours)
        assert b"\x1b[1A" in text  # up, to write over it
        assert text.rstrip().endswith(b"\x1b[?25h")  # the cursor is shown again

    def test_it_goes_with_no_other_form(self, tmp_path: Path) -> None:
        with Session(node(tmp_path), host(tmp_path)) as session:
            result = CliRunner().invoke(service.status, ["--watch", "--json"], obj=session)
        assert result.exit_code == 2
        assert "--watch, --prometheus and --json cannot" in result.stderr


def read_or_end(descriptor: int) -> bytes:
    """What the terminal has; nothing once the other side is closed (EIO)."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


class TestPrometheus:
    def test_metrics_are_written_as_a_whole(self, tmp_path: Path) -> None:
        """The samples are this machine's, for they take time; the domains are the test driver's."""
        target = tmp_path / "metrics" / "libvirt-tuner.prom"
        with Session(node(tmp_path, DOMAIN.format(""))) as session:
            words = ["--prometheus", str(target), "--seconds", "0.1"]
            result = CliRunner().invoke(service.status, words, obj=session)
        assert (result.exit_code, result.stdout) == (0, "")
        assert [path.name for path in target.parent.iterdir()] == ["libvirt-tuner.prom"]
        assert target.stat().st_mode & 0o777 == 0o644
        text = target.read_text()
        assert "# TYPE libvirt_tuner_domain_info gauge\n" in text
        assert 'libvirt_tuner_domain_info{domain="web",' in text
        assert 'libvirt_tuner_status_differences{domain="web"} 1\n' in text
        assert 'libvirt_tuner_findings{domain=""} ' in text

    def test_standard_output(self, tmp_path: Path) -> None:
        with Session(node(tmp_path)) as session:
            words = ["--prometheus", "-", "--seconds", "0.1"]
            result = CliRunner().invoke(service.status, words, obj=session)
        assert result.exit_code == 0
        assert result.stdout.startswith("# HELP libvirt_tuner_findings ")

    def test_a_domain_cannot_be_chosen(self, tmp_path: Path) -> None:
        with Session(node(tmp_path)) as session:
            result = CliRunner().invoke(service.status, ["web", "--prometheus", "-"], obj=session)
        assert result.exit_code == 2


class TestCompletion:
    def complete(self, words: str, uri: str) -> list[str]:
        # What the script that install writes asks for (Click's documentation, "Shell Completion").
        count = len(words.split(" ")) - 1
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(count), "_LIBVIRT_TUNER_COMPLETE": "bash_complete"}
        environment = {**os.environ, **asked, "LIBVIRT_DEFAULT_URI": uri}
        done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    @pytest.mark.parametrize("command", ["plan", "diff", "apply", "revert", "status"])
    def test_names_of_domains(self, command: str) -> None:
        assert self.complete(f"libvirt-tuner {command} te", RUNNING) == ["test"]

    def test_uri_on_the_line(self, tmp_path: Path) -> None:
        nothing = f"qemu+unix:///system?socket={tmp_path}/none"
        assert self.complete(f"libvirt-tuner -c {RUNNING} plan te", nothing) == ["test"]

    def test_no_daemon_no_names(self, tmp_path: Path) -> None:
        assert self.complete("libvirt-tuner plan te", f"qemu+unix:///system?socket={tmp_path}/none") == []

    def test_commands(self) -> None:
        assert self.complete("libvirt-tuner tr", RUNNING) == ["transform"]
