"""The interpreter of our JSON Schema subset, against the jsonschema library."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libvirt_tuner import resources
from libvirt_tuner.config import schema

CONFIG: dict[str, Any] = json.loads(resources.read("schemas/config.schema.json"))
REFERENCE = jsonschema.Draft202012Validator(CONFIG)
KEYS = [*CONFIG["properties"]["domain"]["items"]["properties"], "mtus", ""]

SCALARS = (
    st.sampled_from(
        ["dedicated", "shared", "keep", "auto", "strict", "steer", "0-3", "2", "2-2", "^1", "eth0\n"]
    )
    | st.sampled_from([0, 1, 67, 68, 256, 512.0, 1024, 1024.5, 65535, 65536, 2**31 - 1, 2**31, -1])
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.none()
    | st.from_regex(r"\A[0-9^,-]{0,9}\Z")
    | st.text(max_size=17)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
TABLES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
FILES = st.fixed_dictionaries(
    {}, optional={"policy": TABLES | VALUES, "domain": st.lists(TABLES | VALUES, max_size=2), "x": VALUES}
)


def problems(value: object) -> list[schema.Problem]:
    return list(schema.problems(value, CONFIG, CONFIG))


def subschemas(node: Any) -> Iterator[dict[str, Any]]:
    yield node
    for name, child in node.items():
        if name in ("properties", "$defs"):
            for part in child.values():
                yield from subschemas(part)
        elif name == "items":
            yield from subschemas(child)
        elif name == "anyOf":
            for part in child:
                yield from subschemas(part)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(CONFIG)


def test_the_schema_uses_only_the_keywords_that_are_enforced() -> None:
    used = {keyword for part in subschemas(CONFIG) for keyword in part}
    assert used <= schema.KEYWORDS | schema.ANNOTATIONS


def test_keywords_stand_together_only_where_all_of_them_are_enforced() -> None:
    """``$ref``, ``anyOf``, ``enum`` and ``const`` decide alone: beside them nothing else is looked at."""
    for part in subschemas(CONFIG):
        keywords = set(part) - schema.ANNOTATIONS
        assert len(keywords) == 1 or not keywords & {"$ref", "anyOf", "enum", "const"}, part
        assert part.get("type") == "object" or "properties" not in part, part
        assert part.get("type") == "array" or "items" not in part, part


@given(FILES)
@settings(max_examples=500)
def test_it_agrees_with_jsonschema_on_files(value: object) -> None:
    assert (not problems(value)) == REFERENCE.is_valid(value)


@pytest.mark.parametrize("name", list(CONFIG["$defs"]))
@given(data=st.data())
def test_it_agrees_with_jsonschema_on_each_setting(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES)
    part = CONFIG["$defs"][name]
    reference = jsonschema.Draft202012Validator({**copy.copy(part), "$defs": CONFIG["$defs"]})
    assert (not list(schema.problems(value, part, CONFIG))) == reference.is_valid(value)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        pytest.param(1, False, id="1 is not true"),
        pytest.param(1.0, False, id="1.0 is not true"),
        pytest.param(True, True, id="true is"),
    ],
)
def test_numbers_and_booleans_are_told_apart(value: object, valid: bool) -> None:
    assert (not list(schema.problems(value, {"const": True}, {}))) == valid


def test_a_problem_has_its_path_and_value() -> None:
    found = problems({"domain": [{"match": "a"}, {"match": "b", "mtu": 3}]})
    assert [(problem.path, problem.value) for problem in found] == [(("domain", 1, "mtu"), 3)]


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
    assert schema.joined(words) == text
