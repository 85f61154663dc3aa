"""Files of a described host, and how many of them are read."""

from __future__ import annotations

from pathlib import Path

from libvirt_tuner.host.sysfs import Sysfs
from tests import hosts


def put(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def small_host(tmp_path: Path, **files: str) -> Sysfs:
    """The small host with files of its own; names with ``__`` for a slash."""
    hosts.make("small-8", tmp_path / "host")
    for name, text in files.items():
        path = tmp_path / "host" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sysfs(str(tmp_path / "host"))


class Counting(Sysfs):
    """Counts what is read, by path."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.paths: list[str] = []

    def read_bytes(self, path: str) -> bytes:
        self.paths.append(path)
        return super().read_bytes(path)
