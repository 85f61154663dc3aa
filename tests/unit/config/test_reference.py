"""The files that come from the table of settings, and that other programs' checks agree with ours."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner.config import policy, reference
from libvirt_tuner.config.limits import LIMITS, Limits
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.config.settings import LISTABLE, SETTINGS, Setting
from libvirt_tuner.domainxml.metadata import POLICY_NS
from libvirt_tuner.errors import PolicyError

TOP = Path(__file__).parents[3]
SCHEMA: dict[str, Any] = json.loads(reference.config_schema())
GRAMMAR = etree.RelaxNG(etree.fromstring(reference.policy_grammar().encode()))
EACH = pytest.mark.parametrize("one", [pytest.param(one, id=name) for name, one in SETTINGS.items()])
LISTED = pytest.mark.parametrize("one", [pytest.param(SETTINGS[name], id=name) for name in LISTABLE])

SCALARS = (
    st.sampled_from(
        ["dedicated", "keep", "auto", "strict", "steer", "0-3", "2", "2-2", "^1", "eth0\n", "vcpus"]
    )
    | st.sampled_from([0, 1, 67, 68, 256, 512.0, 1024, 1024.5, 65535, 65536, 1_000_000, 1_000_001, -1])
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.none()
    | st.from_regex(r"\A[0-9^,-]{0,9}\Z")
    | st.text(max_size=17)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=3)


@pytest.mark.parametrize("file", reference.FILES)
def test_the_file_is_what_the_table_gives(file: str, request: pytest.FixtureRequest) -> None:
    text = reference.FILES[file]()
    if request.config.getoption("--rewrite-golden"):
        (TOP / file).write_text(text)
    assert (TOP / file).read_text() == text, "'make settings' writes it"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@EACH
@given(raw=VALUES)
@settings(max_examples=60)
def test_the_json_schema_accepts_what_the_file_may_say(one: Setting, raw: object) -> None:
    valid = jsonschema.Draft202012Validator(SCHEMA["$defs"][one.name]).is_valid(raw)
    assert accepted(one.read, raw) <= valid
    assert accepted(one.read, raw) == valid or is_cpulist(raw)


@LISTED
@given(
    text=st.from_regex(r"\A[ ]?[a-z0-9^,-]{0,9}[ ]?\Z")
    | st.sampled_from(["auto", "keep", "0256", "+5", "1.0"])
)
@settings(max_examples=60)
def test_the_grammar_accepts_what_the_metadata_may_say(one: Setting, text: str) -> None:
    element = etree.Element(f"{{{POLICY_NS}}}policy", {one.attribute: text})
    assert accepted(one.read_text, text) <= GRAMMAR.validate(element)
    assert accepted(one.read_text, text) == GRAMMAR.validate(element) or is_cpulist(text)


def accepted(read: Any, raw: object) -> bool:
    try:
        read(raw, "here", *(("key",) if read.__name__ == "read" else ()))
    except PolicyError:
        return False
    return True


def is_cpulist(raw: object) -> bool:
    """Text that only looks like a cpulist (``3-1``): no schema can tell."""
    return isinstance(raw, str) and re.fullmatch(r"[0-9^,-]+", raw) is not None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[policy]\nmtu = 'jumbo'\n[[domain]]\nmatch = 'a*'\n", id="both tables"),
        pytest.param("[limits]\nmetadata = ['irq']\nmtu = 9000\n", id="limits"),
        pytest.param("", id="nothing"),
        pytest.param("[limits]\nmetadata = ['housekeeping']\n", id="never for metadata"),
        pytest.param("[[domain]]\nmtu = 1400\n", id="no match"),
        pytest.param("[[domain]]\nmatch = ''\n", id="an empty match"),
        pytest.param("policy = 1\n", id="no table"),
        pytest.param("[domain]\nmatch = 'a'\n", id="no array of tables"),
        pytest.param("domain = [1]\n", id="an array of numbers"),
        pytest.param("limits = []\n", id="limits are no table"),
        pytest.param("[oops]\n", id="unknown table"),
    ],
)
def test_the_json_schema_accepts_the_files_we_accept(text: str) -> None:
    _, errors = policy.check(text)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(tomllib.loads(text)) == (not errors)


def test_the_grammar_takes_no_content_and_no_other_attribute() -> None:
    for text in ("<policy strict='true'/>", "<policy>x</policy>", "<policy><irq/></policy>"):
        assert not GRAMMAR.validate(
            etree.fromstring(text.replace("<policy", f"<policy xmlns='{POLICY_NS}'", 1))
        )


def test_the_example_shows_every_setting_and_is_the_built_in_policy() -> None:
    text = reference.example()
    assert policy.for_domain("a", policy.load(text)) == Policy()
    lines = [line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")]
    shown = policy.load("\n".join(lines))
    assert (policy.for_domain("a", shown), shown.limits) == (Policy(), Limits())
    assert list(shown.layers[0].values) == list(SETTINGS)
    assert [line.split(" = ")[0] for line in lines[lines.index("[limits]") :] if " = " in line] == list(
        LIMITS
    )


@EACH
def test_the_page_has_a_section_for_each_setting(one: Setting) -> None:
    section = reference.page().split(f"### `{one.name}`\n")[1].split("\n#")[0]
    assert one.expected() in section
    assert one.help.split()[0] in section
