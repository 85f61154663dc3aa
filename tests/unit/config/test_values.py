"""Settings turned into what Policy holds, and layers that serve some domains."""

from __future__ import annotations

import pytest

from libvirt_tuner.config import values as settings
from libvirt_tuner.config.values import Layer
from libvirt_tuner.errors import PolicyError


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        pytest.param("placement", "keep", id="keep is a placement"),
        pytest.param("mtu", "keep", id="keep is an MTU"),
        pytest.param("mtu", "auto", id="auto is an MTU"),
        pytest.param("numa_memory", "auto", id="auto is a memory policy"),
        pytest.param("emulator_cpus", 3, id="a number of emulator CPUs"),
        pytest.param("select", False, id="false is a selection"),
        pytest.param("strict", False, id="false is a strictness"),
    ],
)
def test_what_policy_holds_already_is_left(key: str, raw: object) -> None:
    assert settings.value(key, raw, "file") == raw


@pytest.mark.parametrize(
    ("key", "raw", "expected"),
    [
        pytest.param("poll_us", 0, None, id="no microseconds"),
        pytest.param("poll_us", False, None, id="no polling"),
        pytest.param("rx_queue_size", "keep", None, id="ring kept"),
        pytest.param("rx_queue_size", False, None, id="no ring"),
        pytest.param("uplink", "auto", None, id="uplink chosen"),
        pytest.param("housekeeping", "0,2-3", frozenset({0, 2, 3}), id="cpulist"),
        pytest.param("housekeeping", "0-3,^2", frozenset({0, 1, 3}), id="cpulist with an exclusion"),
        pytest.param("emulator_cpus", "16,18", frozenset({16, 18}), id="emulator's cpulist"),
    ],
)
def test_the_rest_is_turned_into_it(key: str, raw: object, expected: object) -> None:
    assert settings.value(key, raw, "file") == expected


def test_a_bad_cpulist_names_setting_place_and_value() -> None:
    with pytest.raises(PolicyError, match="housekeeping") as caught:
        settings.value("housekeeping", "3-1", "file:7")
    assert (caught.value.where, caught.value.value) == ("file:7", "3-1")
    assert caught.value.expected


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        pytest.param("uplink", "1", "1", id="a device named like a number"),
        pytest.param("housekeeping", "1", "1", id="a CPU"),
        pytest.param("uplink", "true", "true", id="a device named like a boolean"),
        pytest.param("mtu", "1300", 1300, id="bytes"),
        pytest.param("mtu", "auto", "auto", id="a word"),
        pytest.param("emulator_cpus", "1-2", "1-2", id="a cpulist"),
        pytest.param("select", "true", True, id="true"),
        pytest.param("select", "false", False, id="false"),
    ],
)
def test_an_attribute_gets_the_type_of_its_setting(key: str, text: str, expected: object) -> None:
    found = settings.typed(key, text)
    assert (found, type(found)) == (expected, type(expected))


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


@pytest.mark.parametrize(
    ("word", "question"),
    [
        pytest.param("zzz", "", id="nothing like it"),
        pytest.param("placment", "did you mean placement?", id="a letter short"),
        pytest.param("p" * 1_000_000, "", id="a megabyte"),
    ],
)
def test_did_you_mean(word: str, question: str) -> None:
    assert settings.did_you_mean(word, ("placement", "poll_us")) == question
