"""The project under test: its Debian package, carried into a hypervisor and installed as its users would."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .hypervisor import Hypervisor
from .progress import step

ROOT = Path(__file__).resolve().parents[2]


def build_package(version: str = "") -> Path:
    """Build the Debian package from a copy of the tree, into ``dist/``.

    Args:
        version: Instead of the tree's own.

    Raises:
        RuntimeError: It does not build, or lintian complains of it.
    """
    command = [str(ROOT / "packaging/build-deb"), *([version] if version else [])]
    with step(f"package {version}".rstrip()):
        built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise RuntimeError(f"the package does not build:\n{built.stdout}{built.stderr}")
    return ROOT / built.stdout.splitlines()[-1]


def install(hypervisor: Hypervisor, package: Path) -> str:
    """Install a package with apt; what apt and the package said."""
    with step(f"project installed in {hypervisor.machine.name}"):
        inside = f"/run/lab/{package.name}"
        hypervisor.write(inside, package.read_bytes())
        command = f"DEBIAN_FRONTEND=noninteractive apt-get install -y -o Dpkg::Use-Pty=0 {inside} 2>&1"
        return hypervisor.run(command, timeout=600).stdout
