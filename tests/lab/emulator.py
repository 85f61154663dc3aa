"""The QEMU that emulates the hypervisors: this machine's own, or Debian 13's where that is too old.

Before 8.1 QEMU reads the code that it translates before it watches the page for writes ("accel/tcg: Always
lock pages before translation" is the change). A kernel that patches a jump of its own while another CPU
comes by (static keys: the scheduler's changes with the first and the last virtual machine) may leave that
CPU for ever with the breakpoint that stood there meanwhile: "int3: 0000", and it panics. With 7.2 one start
of a domain in fifteen took its hypervisor along.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache

from . import image
from .progress import say

PROGRAM = "qemu-system-x86_64"
FIRST = (8, 1)
NEWER = "trixie"


@cache
def command() -> tuple[str, ...]:
    """Return the program with the arguments that it cannot do without.

    The machine's own where the newer one cannot be built: better a hypervisor that may panic than none.

    Raises:
        PermissionError: The newer one has to be built, and we are not root.
    """
    if _number(version((PROGRAM,))) >= FIRST:
        return (PROGRAM,)
    try:
        tree = image.tree(NEWER)
    except RuntimeError as error:
        say(f"no QEMU of {NEWER}, this machine's own has to do: {error}")
        return (PROGRAM,)
    loader = str(tree / "lib64/ld-linux-x86-64.so.2")
    firmware = [word for name in ("qemu", "seabios") for word in ("-L", str(tree / "usr/share" / name))]
    libraries = ("--library-path", str(tree / "usr/lib/x86_64-linux-gnu"))
    return (loader, *libraries, str(tree / "usr/bin" / PROGRAM), *firmware)


def version(program: tuple[str, ...]) -> str:
    """Return what it says of itself."""
    return subprocess.run((*program, "--version"), capture_output=True, text=True, check=True).stdout


def release() -> str:
    """Return its version, as ``10.0``."""
    return ".".join(map(str, _number(version(command()))))


def _number(said: str) -> tuple[int, ...]:
    found = re.search(r"version (\d+)\.(\d+)", said)
    assert found, said
    return tuple(map(int, found.groups()))
