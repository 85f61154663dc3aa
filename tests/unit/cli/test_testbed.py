"""testbed up, down, show where nothing is up; the rest is in tests/netns."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import testbed
from libvirt_tuner.cli.session import SYSTEM, Session
from tests import hosts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    hosts.make("small-8", tmp_path)
    return tmp_path


def run(root: Path, *words: str) -> Result:
    with Session(SYSTEM, str(root)) as session:
        return CliRunner().invoke(testbed.testbed, words, obj=session)


def test_nothing_to_show_is_a_finding(root: Path) -> None:
    assert run(root, "show").exit_code == 1


def test_nothing_to_take_down_is_none(root: Path) -> None:
    done = run(root, "down")
    assert (done.exit_code, done.stdout) == (0, "nothing to do: no testbed is up\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("--role", "judge"), "'judge'", id="no such role"),
        pytest.param(("--role", "server", "--vni", "many"), "'many'", id="no number"),
    ],
)
def test_options_are_checked(root: Path, words: tuple[str, ...], said: str) -> None:
    done = run(root, "up", *words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        pytest.param("", (), "role", id="no role"),
        pytest.param("[testbed]\nrole = 'server'\nvni = -1\n", (), "vni", id="a mistake in the file"),
        pytest.param("[testbed]\nrole = 'server'\n", ("--mtu", "10"), "--mtu", id="a mistake in an option"),
    ],
)
def test_settings_are_checked(root: Path, config: str, words: tuple[str, ...], said: str) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/testbed.toml").write_text(config)
    done = run(root, "up", "--dry-run", "--config", "/etc/testbed.toml", *words)
    assert said in str(done.exception)


def test_a_file_that_was_named_has_to_be_there(root: Path) -> None:
    assert "/etc/none.toml" in str(run(root, "up", "--config", "/etc/none.toml").exception)
