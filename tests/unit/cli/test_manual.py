"""The manual page says what the commands' help says."""

from __future__ import annotations

import click
import pytest

from libvirt_tuner.cli import main, manual
from libvirt_tuner.cli.session import SYSTEM, Session


@pytest.fixture(scope="module")
def page() -> str:
    with Session(SYSTEM) as session:
        return manual.page(click.Context(main, info_name="libvirt-tuner", obj=session))


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_has_a_section(page: str, name: str) -> None:
    assert f'.SS "libvirt\\-tuner {name} ' in page


def test_options_follow_their_command(page: str) -> None:
    section = page.partition('.SS "libvirt\\-tuner plan ')[2].partition(".SS")[0]
    assert "\\-\\-xml FILENAME" in section
    assert ".TP\n\\-\\-json" in section


def test_a_group_is_shown_by_its_commands(page: str) -> None:
    assert '.SS "libvirt\\-tuner host capture ' in page
    assert '.SS "libvirt\\-tuner host [' not in page


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
