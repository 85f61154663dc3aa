"""The command line as a whole: where its commands are, and how it ends."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from libvirt_tuner.cli import MODULES, main

COMMANDS = sorted(name for names in MODULES.values() for name in names)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_it_is_said_to_be(name: str) -> None:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    assert found.name == name
    assert found.get_short_help_str()


def test_no_such_command() -> None:
    assert main.get_command(click.Context(main), "nothing") is None


def test_help_has_the_exit_statuses() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert "1 findings or failure; 2 usage error" in " ".join(done.stdout.split())
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
