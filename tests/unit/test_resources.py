"""Where the package's own files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libvirt_tuner import resources
from libvirt_tuner.errors import TunerError


@pytest.mark.parametrize("name", ["schemas/policy.rng", "schemas/config.schema.json"])
def test_a_resource_is_a_file(name: str) -> None:
    assert os.path.isabs(resources.path(name))
    assert resources.read(name) == Path(resources.path(name)).read_bytes()


@pytest.mark.parametrize(
    "name", ["", "schemas", "schemas/", "policy.py", "/etc/passwd", "schemas/../policy.py"]
)
def test_what_is_no_resource_is_an_error(name: str) -> None:
    with pytest.raises(TunerError, match="no such resource"):
        resources.path(name)
