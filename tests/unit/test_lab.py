"""The laboratory's own doings, without one: an emulator that is a stub, and a cache with nothing in it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define

from tests.lab import conftest, emulator, image, progress, state
from tests.lab.channel import ChannelError
from tests.lab.image import Image
from tests.lab.machine import TRIES, BootError, Setup
from tests.lab.network import Network
from tests.unit import stubemulator

#: Seconds of a silent console until a boot is given up; a stub that talks does so at once.
SILENCE = 0.5


class Nowhere(Network):
    """No namespace: what would run inside runs here."""

    def __init__(self) -> None:
        pass

    def enter(self, *command: str) -> tuple[str, ...]:
        return command


@define
class Stub:
    """A machine of which each start goes as planned."""

    setup: Setup
    starts: Path
    runs: Path
    plan: Callable[[str], None]

    def started(self) -> str:
        return " ".join(self.starts.read_text().split())


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Put a shell script before the machine's own program of a name."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    emulator.command.cache_clear()
    yield put
    emulator.command.cache_clear()


@pytest.fixture
def stub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], None]
) -> Iterator[Stub]:
    program(emulator.PROGRAM, f'exec {sys.executable} {stubemulator.__file__} "$@"')
    program("qemu-img", 'for last; do :; done; echo empty > "$last"')
    monkeypatch.setenv("STUB_STARTS", str(tmp_path / "starts"))
    cached = Image(tmp_path / "a cache" / "image", "bookworm", "key")
    cached.directory.mkdir(parents=True)
    # A socket's path has to be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as runs:
        monkeypatch.setattr(tempfile, "tempdir", runs)
        yield Stub(
            setup=Setup(image=cached, number=1, nics=()),
            starts=tmp_path / "starts",
            runs=Path(runs),
            plan=lambda words: monkeypatch.setenv("STUB_PLAN", words),
        )
        assert not list(Path(runs).iterdir()), "a machine has not been taken away"


def test_kept_state_is_not_made_again(stub: Stub) -> None:
    stub.plan("good")
    first = state.ready(stub.setup, Nowhere())
    assert state.ready(stub.setup, Nowhere()) == first
    assert stub.started() == "good"


@pytest.mark.parametrize(
    ("how", "silence"),
    [
        pytest.param("mute", SILENCE, id="hangs with a silent console"),
        pytest.param("stuck", 60, id="hangs and says so"),
        pytest.param("ends", SILENCE, id="ends before its sockets are there"),
        pytest.param("broken", SILENCE, id="comes up, and is not ready"),
    ],
)
def test_boot_is_done_again_on_a_new_disk(stub: Stub, how: str, silence: float) -> None:
    stub.plan(f"{how} good")
    made = state.ready(stub.setup, Nowhere(), silence=silence)
    assert stub.started() == f"{how} good"
    assert made.memory.read_text() == "memory"
    assert made.disk.read_text() == "empty\nbooted\n"


def test_boot_that_always_hangs_is_given_up(stub: Stub) -> None:
    stub.plan("mute " * TRIES)
    with pytest.raises(BootError, match="nothing on the console"):
        state.ready(stub.setup, Nowhere(), silence=SILENCE)
    assert stub.started().split() == ["mute"] * TRIES


def test_what_the_emulator_said_is_told(stub: Stub) -> None:
    stub.plan("ends " * TRIES)
    with pytest.raises(ChannelError, match="stub: no such machine"):
        state.ready(stub.setup, Nowhere())


def test_kept_state_that_does_not_go_on_is_made_anew(stub: Stub) -> None:
    stub.plan("good ends good good")
    state.fresh(stub.setup, Nowhere()).close()
    assert stub.started() == "good ends good good"


def test_derived_state_survives_a_kept_one_that_does_not_go_on(stub: Stub, tmp_path: Path) -> None:
    stub.plan("good ends good good")
    changed = state.derive(stub.setup, Nowhere(), tmp_path / "derived", lambda hypervisor: None)
    assert changed.memory.read_text() == "memory"
    assert stub.started() == "good ends good good"


def test_image_that_is_there_is_taken_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="make lab-image") as refused:
        image.ensure("bookworm")
    assert str(tmp_path) in str(refused.value)
    (directory,) = _directories(tmp_path, "image", "bookworm")
    directory.mkdir()
    (directory / "root.ext4").touch()
    assert image.ensure("bookworm").directory == directory
    assert list(tmp_path.iterdir()) == [directory]


def test_old_emulator_is_no_way_out_where_root_would_build_the_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], None]
) -> None:
    program(emulator.PROGRAM, "echo QEMU emulator version 7.2.0")
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="make lab-image"):
        emulator.command()


def test_old_recipes_are_forgotten_and_these_ones_trees_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    kept = [*_directories(tmp_path, "base", *image.RELEASES), tmp_path / "image-bookworm-used"]
    old = [tmp_path / name for name in ("base-bookworm-old", "image-trixie-old", "packages-trixie")]
    for directory in (*kept, *old):
        directory.mkdir()
    for directory in (*kept[:-1], *old):
        os.utime(directory, times=(0, time.time() - image.KEPT - 1))
    image.forget_old(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_table_has_a_row_for_each_scenario() -> None:
    def report(name: str, when: str, outcome: str, seconds: float) -> pytest.TestReport:
        return pytest.TestReport(
            nodeid=f"tests/lab/{name}",
            location=("", None, ""),
            keywords={},
            outcome=outcome,  # type: ignore[arg-type]
            longrepr=None,
            when=when,  # type: ignore[arg-type]
            duration=seconds,
        )

    assert conftest.scenarios(
        [
            report("test_b.py::test_it[trixie-bond, IPv4]", "setup", "passed", 2),
            report("test_a.py::test_it[bookworm]", "setup", "failed", 1),
            report("test_b.py::test_it[trixie-bond, IPv4]", "call", "failed", 3),
            report("test_b.py::test_it[trixie-bond, IPv4]", "teardown", "passed", 4),
            report("test_c.py::test_it[trixie]", "setup", "skipped", 0),
        ]
    ) == [
        ("test_a.py::test_it", "bookworm", "failed", 1),
        ("test_b.py::test_it[bond, IPv4]", "trixie", "failed", 9),
        ("test_c.py::test_it", "trixie", "skipped", 0),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_second_signal_does_not_end_the_unwinding(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, signal.SIG_DFL)  # 'nohup make test' has SIGHUP ignored
        progress.unwind_when_stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _directories(cache: Path, kind: str, *releases: str) -> list[Path]:
    """The names that these recipes' trees or images have."""
    index = ("base", "image").index(kind)
    return [cache / f"{kind}-{release}-{image._keys(release)[index]}" for release in releases]
