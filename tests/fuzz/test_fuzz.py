"""Some examples of ``make fuzz`` for each reader."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.readers import READERS, attempt, inputs


@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_nothing_but_our_own(name: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=inputs(name))
    def every(text: str) -> None:
        attempt(name, text)

    every()


@pytest.mark.parametrize("name", READERS)
def test_a_seed_is_read(name: str) -> None:
    """Else all that is nearly a seed would be refused at its first word."""
    reader, seeds = READERS[name]
    assert all(reader(seed) is not None for seed in seeds)
