"""The pictures of the documentation are what the commands shown there draw."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from libvirt_tuner.cli import main
from tests import hosts, samples

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/seeing.md").read_text()
CALLS = re.findall(r"^libvirt-tuner (map .* --svg (docs/pictures/\S+))$", PAGE, re.M)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first two commands of the page write."""
    directory = tmp_path_factory.mktemp("build")
    samples.write(samples.CASES["seed-vhost-on-vcpu"], directory / "samples/seed-vhost-on-vcpu")
    hosts.make_large(directory / "large")
    return directory


@pytest.mark.parametrize(("call", "picture"), [pytest.param(*each, id=Path(each[1]).stem) for each in CALLS])
def test_a_picture_is_what_its_command_draws(
    call: str, picture: str, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(call.replace("build/", f"{build}/").replace(picture, "-"))
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (ROOT / picture).read_text()


def test_every_picture_is_small_shown_and_has_its_command() -> None:
    pictures = sorted((ROOT / "docs/pictures").iterdir())
    assert [f"docs/pictures/{file.name}" for file in pictures] == sorted(name for _, name in CALLS)
    assert all(f"(../pictures/{file.name})" in PAGE for file in pictures)
    assert max(file.stat().st_size for file in pictures) < 64 * 1024
