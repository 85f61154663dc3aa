"""Every command and option is in the manual pages; groff has nothing to complain of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from libvirt_tuner.cli import main, manual
from libvirt_tuner.config.limits import Limits
from libvirt_tuner.config.settings import SETTINGS, table

ROOT = click.Context(main, info_name=manual.NAME)
PAGES = manual.pages(ROOT)
COMMANDS = [pytest.param(context, id=context.command_path) for context in manual.commands(ROOT)]


@pytest.mark.parametrize("context", COMMANDS)
def test_a_command_has_its_page_with_every_option(context: click.Context) -> None:
    title = "-".join(context.command_path.split())
    page = PAGES[f"{title}.8"].replace("\\-", "-")
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert all(name in page for name in (*parameter.opts, *parameter.secondary_opts))
    assert f'"{title}" (8)' in PAGES["libvirt-tuner.8"].replace("\\-", "-")


def test_every_command_is_there() -> None:
    names = {"-".join(context.command_path.split()) for context in manual.commands(ROOT)}
    assert {f"{name}.8" for name in names} | {"libvirt-tuner.8", "libvirt-tuner.toml.5"} == set(PAGES)


def test_every_setting_is_in_the_page_of_the_config_file() -> None:
    page = PAGES["libvirt-tuner.toml.5"]
    names = [*SETTINGS, *table(Limits)]
    assert [name for name in names if f'.BR "{name}"' not in page] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_groff_has_no_warnings(tmp_path: Path) -> None:
    for name, text in PAGES.items():
        (tmp_path / name).write_text(text)
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("two\n  lines", "two lines", id="lines"),
        pytest.param(".TH x", "\\&.TH x", id="a control line"),
        pytest.param("'none' is", "\\&'none' is", id="a quote first"),
        pytest.param('a-b "c" \\d', "a\\-b \\(dqc\\(dq \\ed", id="typed as it is"),
    ],
)
def test_no_text_is_markup(text: str, line: str) -> None:
    assert manual._escaped(text) == line
