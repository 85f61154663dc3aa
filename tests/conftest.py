"""What holds for the whole suite: one option, where files are written, no time limits for generated cases."""

from __future__ import annotations

import os

import hypothesis
import pytest

from tests.place import memory

# How long a case takes says more about the machine than about the code; tests/bench measures, as ratios.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Described hosts are thousands of files for a test. pytest keeps those of failed tests only (pyproject.toml).
if quick := memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", quick)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write fixtures/domains/*-out.xml anew")
