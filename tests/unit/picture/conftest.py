"""The large host is written and read once."""

from __future__ import annotations

import pytest

from libvirt_tuner.picture.host import Picture
from tests.unit.picture import scenes


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """The host of 1,024 CPUs."""
    return scenes.large(tmp_path_factory.mktemp("large") / "host")
