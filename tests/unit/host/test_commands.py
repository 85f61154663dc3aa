"""Programs with a time limit, and their replay."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host.commands import run, slug
from libvirt_tuner.host.sysfs import Sysfs

LIVE = Sysfs("/")


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    (tmp_path / "commands").mkdir()
    return tmp_path


def test_output_comes_back_stripped() -> None:
    assert run(LIVE, ["printf", "%s\\n", "one", "two"]) == "one\ntwo"


def test_no_shell_reads_the_arguments() -> None:
    assert run(LIVE, ["echo", "$HOME; true"]) == "$HOME; true"


def test_locale_is_c_and_standard_input_empty() -> None:
    assert run(LIVE, ["sh", "-c", "cat; echo $LC_ALL"]) == "C"


def test_output_larger_than_a_pipe_is_whole() -> None:
    assert len(run(LIVE, ["head", "-c", "300000", "/dev/zero"])) == 300000


def test_absent_program_is_missing() -> None:
    with pytest.raises(MissingError, match="no-such-program"):
        run(LIVE, ["no-such-program"])


def test_status_and_first_line_of_its_complaint_are_told() -> None:
    with pytest.raises(HostError, match=r"first: got 3") as caught:
        run(LIVE, ["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert caught.value.problem == "first"


def test_program_killed_by_a_signal_is_a_failure() -> None:
    with pytest.raises(HostError, match="got 137"):
        run(LIVE, ["sh", "-c", "kill -9 $$"])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("sleep 30", id="hangs"),
        pytest.param("sleep 30 & sleep 30", id="hangs with a child"),
        pytest.param("exec >&- 2>&-; sleep 30", id="hangs with its output closed"),
        pytest.param("while :; do echo x; sleep 0.05; done", id="never stops talking"),
    ],
)
def test_time_limit_holds(script: str) -> None:
    began = time.monotonic()
    with pytest.raises(HostError, match=r"no answer within 0\.3 s"):
        run(LIVE, ["sh", "-c", script], timeout=0.3)
    assert time.monotonic() - began < 2


def test_a_program_that_never_stops_talking_is_ended_by_the_size_of_what_it_says() -> None:
    with pytest.raises(HostError, match="got 153"):
        run(LIVE, ["cat", "/dev/zero"], timeout=60)


def test_a_program_that_leaves_another_behind_is_not_waited_for_any_longer() -> None:
    began = time.monotonic()
    assert run(LIVE, ["sh", "-c", "sleep 3 & echo said"], timeout=2) == "said"
    assert time.monotonic() - began < 2


def test_complaints_larger_than_a_pipe_do_not_hold_it_up() -> None:
    assert run(LIVE, ["sh", "-c", "head -c 300000 /dev/zero >&2; echo said"]) == "said"


def test_time_limit_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(HostError):
        run(LIVE, ["sh", "-c", f"sleep 30 & echo $! > {pid}; wait"], timeout=0.3)
    stat = Path(f"/proc/{int(pid.read_text())}/stat")
    for _ in range(100):
        if not stat.exists() or ") Z" in stat.read_text():
            return
        time.sleep(0.02)
    pytest.fail("the child is still there")


def test_captured_host_runs_nothing(captured: Path) -> None:
    (captured / "commands" / slug(["false", "x"])).write_text("said\n")
    assert run(Sysfs(str(captured)), ["false", "x"]) == "said"


def test_captured_failure_is_replayed(captured: Path) -> None:
    (captured / "commands" / (slug(["ovs-vsctl", "show"]) + ".failed")).write_text("no answer within 2 s\n")
    with pytest.raises(HostError, match="ovs-vsctl show: no answer within 2 s"):
        run(Sysfs(str(captured)), ["ovs-vsctl", "show"])


def test_captured_host_without_the_command_is_missing(captured: Path) -> None:
    with pytest.raises(MissingError, match="/commands/true"):
        run(Sysfs(str(captured)), ["true"])


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        pytest.param(["ip", "-json", "link"], "ip_-json_link", id="words"),
        pytest.param(["ip", "route", "get", "fd00::2"], "ip_route_get_fd00::2", id="IPv6"),
        pytest.param(["cat", "../../etc/passwd"], "cat_.._.._etc_passwd", id="no slash gets through"),
    ],
)
def test_slug(argv: list[str], name: str) -> None:
    assert slug(argv) == name


def test_slug_fits_a_file_name() -> None:
    assert len(slug(["x" * 1000])) <= 247


def test_import_brings_no_subprocess() -> None:
    # Without site: whatever a .pth file imports is none of ours.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import libvirt_tuner.host.commands\n"
        "print({'subprocess', 'json'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
