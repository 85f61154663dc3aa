"""Layers that are for some domains."""

from __future__ import annotations

import pytest

from libvirt_tuner.config.values import Layer


@pytest.mark.parametrize(
    ("match", "name", "serves"),
    [
        pytest.param("*", "", True, id="everything"),
        pytest.param("web-?", "web-1", True, id="one character"),
        pytest.param("web-?", "web-10", False, id="not two"),
        pytest.param("[ab]*", "beta", True, id="a set"),
        pytest.param("WEB*", "web-1", False, id="another case"),
        pytest.param("web", "web-1", False, id="the whole name"),
    ],
)
def test_a_layer_serves_the_domains_that_match(match: str, name: str, serves: bool) -> None:
    assert Layer("file", {}, match).serves(name) is serves
