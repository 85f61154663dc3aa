"""Each setting's check: what is held, and what is refused with file and line, value and what is allowed."""

from __future__ import annotations

import pytest
from lxml import etree

from libvirt_tuner.config import policy, settings
from libvirt_tuner.config.settings import LISTABLE, SETTINGS, Setting
from libvirt_tuner.domainxml.metadata import POLICY_NS
from libvirt_tuner.errors import PolicyError

FILE = "/etc/libvirt-tuner.toml"
EACH = pytest.mark.parametrize("one", [pytest.param(one, id=name) for name, one in SETTINGS.items()])

#: For each setting, TOML values just outside what is accepted.
REFUSED = {
    "select": ["1", "'true'"],
    "placement": ["'pinned'", "'Auto'", "''", "false"],
    "housekeeping": ["3", "'3-1'", "''", "'a'", "'0-99999'"],
    "emulator_cpus": ["0", "1025", "'3'", "-1", "1.5"],
    "numa_memory": ["'interleave'", "0"],
    "rx_queue_size": ["0", "255", "1000", "2048", "'512'", "true"],
    "tx_queue_size": ["0", "128", "2048", "true", "'auto'"],
    "queues": ["0", "257", "'4'", "false", "'cpus'"],
    "poll_us": ["-1", "1000001", "true", "0.5"],
    "mtu": ["67", "65536", "'1400'", "nan"],
    "uplink": ["'a/b'", "'.'", "'sixteen-letters0'", "' '", "1"],
    "irq": ["'off'", "true"],
    "rps": ["'off'", "false"],
    "isolate": ["'none'", "true", "false"],
    "settle_seconds": ["-1", "3601", "'5'"],
    "strict": ["0", "'false'"],
}
CASES = [pytest.param(key, raw, id=f"{key} = {raw}") for key, values in REFUSED.items() for raw in values]


def test_each_setting_has_values_that_are_refused() -> None:
    assert set(REFUSED) == set(SETTINGS)


@pytest.mark.parametrize("table", ["[policy]\n\n", "[[domain]]\nmatch = 'a'\n"])
@pytest.mark.parametrize(("key", "raw"), CASES)
def test_the_file_is_refused_with_line_value_and_what_is_allowed(key: str, raw: str, table: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.load(f"{table}{key} = {raw}\n", FILE)
    error = caught.value
    assert (error.where, error.layer) == (f"{FILE}:3", "file")
    assert error.problem.startswith(f"bad value of {'policy' if 'policy' in table else 'domain[0]'}.{key}")
    assert error.value is not None
    assert error.expected


#: These differ from what is accepted by their TOML type alone: as text they are accepted.
TYPED = {
    ("select", "'true'"),
    ("rx_queue_size", "'512'"),
    ("queues", "'4'"),
    ("mtu", "'1400'"),
    ("uplink", "1"),
}
TYPED |= {("emulator_cpus", "'3'")}


@pytest.mark.parametrize(
    ("key", "raw"),
    [case for case in CASES if case.values[0] in LISTABLE and tuple(case.values) not in TYPED],
)
def test_the_metadata_is_refused_with_line_value_and_what_is_allowed(key: str, raw: str) -> None:
    one, text = SETTINGS[key], raw.strip("'")
    document = etree.Element(f"{{{POLICY_NS}}}policy", {one.attribute: text})
    effective, (error,) = policy.resolve("web-1", None, document)
    assert effective == policy.Policy()
    assert (error.where, error.layer, error.value) == ("metadata of web-1, line 1", "metadata", text)
    assert error.problem.startswith(f"bad value of {one.attribute}")
    assert error.expected


@EACH
def test_the_default_is_accepted_and_held_as_the_default(one: Setting) -> None:
    assert one.read(one.default, "file", one.name) == getattr(policy.Policy(), one.name)


@EACH
def test_every_word_and_number_of_the_table_is_accepted(one: Setting) -> None:
    for form in one.accepts:
        if isinstance(form, range):
            assert one.read(form.start, "file", one.name) in (form.start, None)
            assert one.read(form.stop - 1, "file", one.name) == form.stop - 1
        elif not isinstance(form, type):
            assert one.read(form, "file", one.name) in (form, None)


@EACH
def test_help_is_a_sentence(one: Setting) -> None:
    assert one.help.endswith(".")
    assert one.unit or not any(isinstance(form, range) for form in one.accepts)


@pytest.mark.parametrize(
    ("key", "raw", "held"),
    [
        pytest.param("poll_us", 0, None, id="no microseconds"),
        pytest.param("poll_us", False, None, id="no polling"),
        pytest.param("rx_queue_size", "keep", None, id="ring kept"),
        pytest.param("rx_queue_size", False, None, id="no ring"),
        pytest.param("queues", 1, 1, id="1 is not true"),
        pytest.param("uplink", "auto", None, id="uplink chosen"),
        pytest.param("mtu", 1300.0, 1300, id="a whole float"),
        pytest.param("housekeeping", "0-3,^2", frozenset({0, 1, 3}), id="cpulist with an exclusion"),
        pytest.param("emulator_cpus", "16,18", frozenset({16, 18}), id="emulator's cpulist"),
        pytest.param("strict", False, False, id="false is a strictness"),
    ],
)
def test_what_is_held_for_a_toml_value(key: str, raw: object, held: object) -> None:
    found = SETTINGS[key].read(raw, "file", key)
    assert (found, type(found)) == (held, type(held))


@pytest.mark.parametrize(
    ("key", "text", "held"),
    [
        pytest.param("uplink", "1", "1", id="a device named like a number"),
        pytest.param("uplink", "true", "true", id="a device named like a boolean"),
        pytest.param("mtu", "1300", 1300, id="bytes"),
        pytest.param("mtu", " keep ", "keep", id="a word with blanks"),
        pytest.param("emulator_cpus", "2", 2, id="a count"),
        pytest.param("emulator_cpus", "2-2", frozenset({2}), id="a cpulist"),
        pytest.param("select", "true", True, id="true"),
        pytest.param("poll_us", "0", None, id="no microseconds"),
    ],
)
def test_what_is_held_for_an_attribute(key: str, text: str, held: object) -> None:
    found = SETTINGS[key].read_text(text, "metadata")
    assert (found, type(found)) == (held, type(held))


def test_false_for_a_word_is_for_the_file_only() -> None:
    assert "false" in SETTINGS["poll_us"].expected()
    assert "false" not in SETTINGS["poll_us"].expected(in_file=False)
    with pytest.raises(PolicyError):
        SETTINGS["poll_us"].read_text("false", "metadata")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        pytest.param([], "", id="none"),
        pytest.param(["a"], "a", id="one"),
        pytest.param(["a", "b"], "a or b", id="two"),
        pytest.param(["a", "b", "c"], "a, b or c", id="three"),
    ],
)
def test_joined(words: list[str], text: str) -> None:
    assert settings.joined(words) == text


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
