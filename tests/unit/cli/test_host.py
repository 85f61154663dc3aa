"""host capture and undo, on replayed hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import host as commands
from libvirt_tuner.cli.session import SYSTEM, Session
from libvirt_tuner.hostside import holding
from tests.unit.replay import Domain, Replay

WEB, DB = Domain("web", 1), Domain("db", 2)


@pytest.fixture
def host(tmp_path: Path) -> Replay:
    """Where both domains run and have their interrupts moved."""
    replay = Replay.make(tmp_path / "host")
    for domain in (WEB, DB):
        replay.run(domain)
        holding.give(replay.sysfs, holding.read_request(replay.sysfs, domain.xml))
    return replay


def undo(host: Replay, *words: str) -> Result:
    with Session(SYSTEM, str(host.root)) as session:
        return CliRunner().invoke(commands.undo, words, obj=session)


@pytest.mark.parametrize("words", [pytest.param((), id="none"), pytest.param(("--all", "web"), id="both")])
def test_undo_wants_a_domain_or_all(host: Replay, words: tuple[str, ...]) -> None:
    done = undo(host, *words)
    assert done.exit_code == 2
    assert set(host.book.claims) == {WEB.uuid, DB.uuid}


@pytest.mark.parametrize("name", [pytest.param("web", id="name"), pytest.param(WEB.uuid, id="UUID")])
def test_undo_of_one_domain_leaves_the_other(host: Replay, name: str) -> None:
    done = undo(host, name)
    assert (done.exit_code, done.stderr) == (0, "")
    assert set(host.book.claims) == {DB.uuid}
    assert host.on_vcpus(range(214, 230)) == []


def test_undo_of_all_gives_every_interrupt_back(host: Replay) -> None:
    assert undo(host, "--all").exit_code == 0
    assert (host.book.claims, host.book.changes) == ({}, {})
    assert set(host.irqs().values()) == {"0-31"}


def test_undo_of_a_domain_that_has_nothing_is_said(host: Replay) -> None:
    done = undo(host, "other")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: other: ")
    assert set(host.book.claims) == {WEB.uuid, DB.uuid}


def test_undo_as_json_names_each_change(host: Replay) -> None:
    changed = len(host.book.changes)
    told = json.loads(undo(host, "--all", "--json").stdout)
    assert len(told) == changed > 0
    assert all(entry["ok"] for entry in told)


class TestUndoWithADamagedLedger:
    @staticmethod
    def damage(host: Replay, name: str, *, keep: float) -> None:
        """Only the first part of the file is left."""
        place = host.root / "run/libvirt-tuner" / name
        data = place.read_bytes()
        place.write_bytes(data[: int(len(data) * keep)])

    @pytest.mark.parametrize(
        "words", [pytest.param(("--all",), id="all"), pytest.param(("web", "db"), id="names")]
    )
    def test_from_the_copy_all_is_restored_and_it_is_said(self, host: Replay, words: tuple[str, ...]) -> None:
        self.damage(host, "ledger.json", keep=0.5)
        done = undo(host, *words)
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: /run/libvirt-tuner/ledger.json: damaged")
        assert set(host.irqs().values()) == {"0-31"}
        assert (undo(host, "--all").exit_code, host.book.damage) == (0, ())

    def test_what_is_lost_is_said_until_all_is_undone(self, host: Replay) -> None:
        for name in ("ledger.json", "ledger.json.copy"):
            self.damage(host, name, keep=0.9)
        assert host.book.changes
        for words in (("web",), ("db",), ("--all",)):
            done = undo(host, *words)
            assert done.exit_code == 1
            assert "so these stay changed until the host restarts" in done.stderr
        assert undo(host, "--all").exit_code == 0

    def test_with_nothing_left_of_it(self, host: Replay) -> None:
        for name in ("ledger.json", "ledger.json.copy"):
            self.damage(host, name, keep=0)
        done = undo(host, "--all", "--json")
        assert done.exit_code == 1
        assert "damaged" in done.stderr
        assert json.loads(done.stdout) == []
        assert (host.root / "run/libvirt-tuner/ledger.json.damaged").exists()

    @pytest.mark.parametrize("words", [pytest.param(("--all",), id="all"), pytest.param(("web",), id="name")])
    def test_one_of_a_newer_version_is_left(self, host: Replay, words: tuple[str, ...]) -> None:
        place, before = host.root / "run/libvirt-tuner/ledger.json", host.irqs()
        text = place.read_text().replace('"version":1', '"version":2')
        place.write_text(text)
        assert undo(host, *words).exit_code == 1
        assert (place.read_text(), host.irqs()) == (text, before)


def test_capture_says_how_many_files(host: Replay, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with Session(SYSTEM, str(host.root)) as session:
        done = CliRunner().invoke(commands.capture, [str(copy)], obj=session)
    count = sum(path.is_file() or path.is_symlink() for path in copy.rglob("*"))
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{copy}: ")
    assert 0 < int(done.stdout.split()[1]) <= count
