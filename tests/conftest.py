"""What holds for the whole suite: one option, and no time limits for generated cases."""

from __future__ import annotations

import hypothesis
import pytest

# How long a case takes says more about the machine than about the code; tests/bench measures, as ratios.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write fixtures/domains/*-out.xml anew")
