"""How a step's commands run, with programs of the test's own in PATH."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from libvirt_tuner.errors import DeniedError, HostError, MissingError, RejectedError, UnsupportedError
from libvirt_tuner.testbed import commands, steps
from libvirt_tuner.testbed.keys import Keys
from libvirt_tuner.testbed.steps import WAYS, Step

SECRET = "0x" + "ab" * 20
KEYS = Keys({way.name: SECRET for way in WAYS})
STEP = Step("link", "gnv0", "geneve", ())


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH but the shell's."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def install(directory: Path, name: str, script: str) -> None:
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_commands_of_ip_go_together_in_their_order(programs: Path) -> None:
    install(programs, "ip", f'echo "ip $*" >>{programs}/log; cat >>{programs}/log')
    install(programs, "tc", f'echo "tc $*" >>{programs}/log')
    lines = ("ip link add a", "ip link add b", "tc x", "ip link delete a")
    words = [tuple(line.split()) for line in lines]
    commands.run(words, commands.NO_KEYS, STEP)
    assert (programs / "log").read_text().splitlines() == [
        "ip -batch -", "link add a", "link add b", "tc x", "ip -batch -", "link delete a",
    ]  # fmt: skip


def test_a_command_of_ip_with_options_runs_by_itself(programs: Path) -> None:
    install(programs, "ip", f'echo "ip $*" >>{programs}/log')
    commands.run([("ip", "-6", "route", "add")], commands.NO_KEYS, STEP)
    assert (programs / "log").read_text() == "ip -6 route add\n"


def test_keys_go_by_standard_input_only(programs: Path) -> None:
    install(programs, "ip", f'echo "$*" >{programs}/arguments; cat >{programs}/input')
    word = steps.placeholder(WAYS[0])
    commands.run([("ip", "xfrm", "state", "add", word)], KEYS, STEP)
    assert SECRET in (programs / "input").read_text()
    assert SECRET[2:] not in (programs / "arguments").read_text()


def test_a_failure_never_shows_a_key(programs: Path) -> None:
    install(programs, "ip", f"echo 'Error: bad key {SECRET}' >&2; echo 'and {SECRET[2:]}' >&2; exit 1")
    with pytest.raises(RejectedError, match=r"bad key \(key\)") as caught:
        commands.run([("ip", "xfrm")], KEYS, STEP)
    assert SECRET[2:] not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "problem"),
    [
        pytest.param("RTNETLINK answers: Operation not permitted", DeniedError, "not permitted", id="denied"),
        pytest.param("Error: Unknown device type.", UnsupportedError, "Unknown device type", id="no type"),
        pytest.param("RTNETLINK answers: File exists", RejectedError, "File exists", id="exists"),
        pytest.param("Command failed -:1\nError: Invalid key.", RejectedError, "Invalid key", id="batch"),
        pytest.param("", RejectedError, "failed", id="no word"),
    ],
)  # fmt: skip
def test_what_the_kernel_said(programs: Path, said: str, kind: type[HostError], problem: str) -> None:
    install(programs, "ip", f"cat >/dev/null; printf '{said}' >&2; exit 2")
    step = Step("link", "gnv0", "geneve", (), needs="CONFIG_GENEVE")
    with pytest.raises(kind, match=problem) as caught:
        commands.run([("ip", "link")], commands.NO_KEYS, step)
    assert type(caught.value) is kind
    assert caught.value.where == "link gnv0"


def test_without_the_program(programs: Path) -> None:
    with pytest.raises(MissingError, match="no such program") as caught:
        commands.run([("no-such-program-at-all",)], commands.NO_KEYS, STEP)
    assert caught.value.where == "no-such-program-at-all"


def test_modprobe_that_fails_stops_nothing(programs: Path) -> None:
    install(programs, "modprobe", "exit 1")
    install(programs, "tc", f"touch {programs}/done")
    commands.run([("modprobe", "bonding"), ("tc", "x")], commands.NO_KEYS, STEP)
    assert (programs / "done").exists()
