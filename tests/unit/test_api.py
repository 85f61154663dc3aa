"""The API page names every public name, and nothing else; each has a docstring."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import libvirt_tuner
from libvirt_tuner import errors, transforms

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
MODULES = (libvirt_tuner, transforms, errors)
IN_TABLES = {
    name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_on_the_page_and_documented(module: ModuleType) -> None:
    assert set(module.__all__) - IN_TABLES == set()
    values = {name: getattr(module, name) for name in module.__all__}
    assert [name for name, value in values.items() if callable(value) and not value.__doc__] == []


def test_the_page_names_nothing_that_is_not_public() -> None:
    assert IN_TABLES - {name for module in MODULES for name in module.__all__} == set()


def test_every_public_class_and_function_of_the_errors_is_listed() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == set(errors.__all__)
