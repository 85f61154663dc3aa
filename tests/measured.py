"""The interpreter of hooks that the tests install: under ``make coverage`` one that counts what runs.

The hook starts Python without site-packages' .pth files, and libvirtd gives it an environment of its own, so
that coverage cannot find its way in as it does into other processes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SETTINGS = "COVERAGE_PROCESS_CONFIG"
"""Where coverage.py has its configuration for processes that it starts."""

_STAND_IN = """\
#!{python}
import os, sys
os.environ[{name!r}] = {settings!r}
import coverage
coverage.process_startup()
# The hook gives its interpreter to the process that it leaves behind.
sys.executable = {own!r}
flags, option, code = sys.argv[1:4]
assert (flags, option) == ("-IS", "-c"), sys.argv
sys.argv = ["-c", *sys.argv[4:]]
exec(compile(code, "<hook>", "exec"), {{"__name__": "__main__"}})
"""


def interpreter(directory: Path, seen_as: str = "") -> str:
    """The Python for a hook's script; the stand-in for it is written to ``directory``.

    Args:
        directory: Of the test.
        seen_as: The same directory as the hook will see it, where that differs.
    """
    settings = os.environ.get(SETTINGS)
    if not settings:
        return sys.executable
    file = directory / "measured-python"
    own = f"{seen_as or directory}/{file.name}"
    file.write_text(_STAND_IN.format(python=sys.executable, name=SETTINGS, settings=settings, own=own))
    file.chmod(0o755)
    return own
