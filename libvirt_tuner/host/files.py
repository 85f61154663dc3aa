"""Writes files of the host as a whole."""

from __future__ import annotations

from pathlib import Path

from libvirt_tuner.host import sysfs


def replace(target: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old or the new one, never a part. Parent directories are made.

    Raises:
        HostError: It cannot be written; ``where`` is its path.
    """
    new = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
        new.replace(target)
    except OSError as err:
        raise sysfs.error(err, str(target)) from None
