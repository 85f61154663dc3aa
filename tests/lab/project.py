"""The project under test: a wheel, carried into a hypervisor and installed as its users would."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .hypervisor import Hypervisor
from .progress import step

ROOT = Path(__file__).resolve().parents[2]

#: What a wheel is built from. No git is asked: a release archive has none, and root may not ask another's.
SOURCES = (
    *("libvirt_tuner", "schemas", "hooks"),
    *("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"),
)
COMPILED = shutil.ignore_patterns("__pycache__")

LAUNCHER = """\
#!/usr/bin/python3
import sys

from libvirt_tuner.cli import main

sys.exit(main())
"""


def build_wheel(directory: Path) -> Path:
    """Build the project's wheel from a copy of the tree, which stays as it is.

    Raises:
        RuntimeError: It does not build.
    """
    with step("wheel"), tempfile.TemporaryDirectory() as scratch:
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(scratch) / name, symlinks=True, ignore=COMPILED)
            else:
                shutil.copy(ROOT / name, scratch)
        command = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
        built = subprocess.run(
            (*command, "--wheel-dir", str(directory), scratch), capture_output=True, text=True
        )
    if built.returncode:
        raise RuntimeError(f"the wheel does not build:\n{built.stdout}{built.stderr}")
    return next(directory.glob("*.whl"))


def install(hypervisor: Hypervisor, wheel: Path) -> None:
    """Install a wheel where Debian's Python looks for it, and let the tool install its hook and service."""
    with step(f"project installed in {hypervisor.machine.name}"):
        inside = f"/run/lab/{wheel.name}"
        hypervisor.write(inside, wheel.read_bytes())
        hypervisor.write("/usr/local/bin/libvirt-tuner", LAUNCHER, mode=0o755)
        hypervisor.run(
            'site=$(python3 -c \'import sys; print("/usr/local/lib/python%d.%d/dist-packages"'
            " % sys.version_info[:2])')\n"
            f'mkdir -p "$site" && python3 -m zipfile -e {inside} "$site" && python3 -m compileall -q "$site"'
        )
        hypervisor.run("libvirt-tuner install --yes")
