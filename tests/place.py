"""Where thousands of small files are written quickly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

MEMORY = "/dev/shm"
ROOM = 4 << 30


def memory() -> str | None:
    """A file system in memory with room, where programs may be run (containers often mount it without)."""
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free >= ROOM else None


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A temporary directory, in memory where the machine has such a file system."""
    with TemporaryDirectory(dir=memory()) as name:
        yield Path(name)
