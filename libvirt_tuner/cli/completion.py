"""Completion for bash, zsh and fish, as click makes it."""

from __future__ import annotations

import re
import sys

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

NAME = "libvirt-tuner"
VARIABLE = "_LIBVIRT_TUNER_COMPLETE"
_KINDS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
SHELLS = tuple(_KINDS)


def script(shell: str) -> str:
    """Return the script for the shell. click's ``source`` would run bash to get its version, which is not
    needed."""
    made = _KINDS[shell](click.Group(NAME), {}, NAME, VARIABLE)
    text = made.source_template % made.source_vars()
    # "#compdef" has to be zsh's first line.
    return re.sub(r"\A\n+", "", text)


if __name__ == "__main__":
    sys.stdout.write(script(sys.argv[1]))
