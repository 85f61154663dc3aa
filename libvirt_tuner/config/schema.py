"""The part of JSON Schema (draft 2020-12) that ``schemas/config.schema.json`` uses, and no more.

Importing a full validator would cost the hook several times what all of its own code costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

Path = tuple[str | int, ...]
Schema = Mapping[str, object]

#: Keywords that :func:`problems` enforces; a schema that uses others is refused by a test, not by luck.
KEYWORDS = frozenset(
    {"$ref", "type", "enum", "const", "minimum", "maximum", "pattern", "minLength"}
    | {"anyOf", "properties", "required", "additionalProperties", "items"}
)
ANNOTATIONS = frozenset({"$schema", "$id", "$defs", "title", "description"})

_NAMES = {
    "boolean": "true or false",
    "string": "a string",
    "object": "a table",
    "array": "an array of tables",
}


@frozen
class Problem:
    """One thing that is wrong: ``path`` leads to ``value``, or to the table that lacks or exceeds a key."""

    path: Path
    problem: str
    value: object
    expected: str
    allowed: tuple[str, ...] = ()


def problems(value: object, schema: Schema, root: Schema, path: Path = ()) -> Iterator[Problem]:
    """Yield what is wrong with ``value``, in its own order; nothing when it is valid.

    Args:
        value: What a JSON or TOML parser returned.
        schema: A schema that uses only :data:`KEYWORDS` and :data:`ANNOTATIONS`.
        root: The document that holds the schema, for its ``$ref``.
        path: Keys and indices that lead to ``value``.
    """
    schema = _resolved(schema, root)
    if isinstance(value, dict) and "properties" in schema:
        yield from _table_problems(value, schema, root, path)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], root, (*path, index))  # type: ignore[arg-type]
    elif not _accepts(value, schema, root):
        yield Problem(path, "bad value", value, expected(schema, root))


def _table_problems(table: dict[str, object], schema: Schema, root: Schema, path: Path) -> Iterator[Problem]:
    properties: Mapping[str, Schema] = schema["properties"]  # type: ignore[assignment]
    for key, value in table.items():
        if key in properties:
            yield from problems(value, properties[key], root, (*path, key))
        elif schema.get("additionalProperties") is False:
            yield Problem((*path, key), "unknown key", key, joined(list(properties)), tuple(properties))
    for key in schema.get("required", ()):  # type: ignore[attr-defined]
        if key not in table:
            yield Problem(path, f"no {key}", None, f"{key} = {expected(properties[key], root)}")


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        target: Schema = root
        for step in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[step]  # type: ignore[assignment]
        schema = target
    return schema


def _accepts(value: object, schema: Schema, root: Schema) -> bool:
    """Whether a value that is not a table with known keys, nor an array of them, is valid."""
    schema = _resolved(schema, root)
    if "anyOf" in schema:
        return any(_accepts(value, choice, root) for choice in schema["anyOf"])  # type: ignore[attr-defined]
    if "enum" in schema:
        return any(_same(value, choice) for choice in schema["enum"])  # type: ignore[attr-defined]
    if "const" in schema:
        return _same(value, schema["const"])
    return _is(value, schema["type"]) and _within(value, schema) and _spelled(value, schema)


def _same(one: object, other: object) -> bool:
    """JSON's equality: 1 is 1.0, but true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _is(value: object, kind: object) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, {"string": str, "object": dict, "array": list}.get(str(kind), ()))


def _within(value: object, schema: Schema) -> bool:
    return all(
        sign * value >= sign * schema[bound]  # type: ignore[operator]
        for bound, sign in (("minimum", 1), ("maximum", -1))
        if bound in schema
    )


def _spelled(value: object, schema: Schema) -> bool:
    if not isinstance(value, str):
        return True
    if len(value) < schema.get("minLength", 0):  # type: ignore[operator]
        return False
    if "pattern" not in schema:
        return True
    import re

    return re.search(str(schema["pattern"]), value) is not None


def expected(schema: Schema, root: Schema) -> str:
    """What the schema accepts, in words and in TOML's spelling."""
    return joined(list(_forms(_resolved(schema, root), root)))


def _forms(schema: Schema, root: Schema) -> Iterator[str]:
    import json

    if "description" in schema:
        yield str(schema["description"])
    elif "anyOf" in schema:
        for choice in schema["anyOf"]:  # type: ignore[attr-defined]
            yield from _forms(_resolved(choice, root), root)
    elif "enum" in schema or "const" in schema:
        choices: list[object] = schema.get("enum", [schema.get("const")])  # type: ignore[assignment]
        yield from map(json.dumps, choices)
    elif schema["type"] == "integer":
        yield f"a whole number from {schema['minimum']} to {schema['maximum']}"
    else:
        yield _NAMES[str(schema["type"])]


def joined(words: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
