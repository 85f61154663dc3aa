"""The text of ``/etc/libvirt-tuner.toml``, to layers of settings. Imported only where there is one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping

from libvirt_tuner import resources
from libvirt_tuner.config import schema, toml_lines
from libvirt_tuner.config.values import Layer, did_you_mean, value
from libvirt_tuner.errors import PolicyError


def read(text: str, file: str) -> tuple[tuple[Layer, ...], tuple[PolicyError, ...]]:
    """Read the file as far as it is good: a table with a mistake in it is left out as a whole.

    Args:
        text: The file's content.
        file: Its name, for errors.

    Returns:
        ``[policy]``, then each ``[[domain]]``, those without a mistake; and the mistakes, each with its line,
        the value and the allowed values.
    """
    try:
        document = _parsed(text, file)
    except PolicyError as error:
        return (), (error,)
    rules = json.loads(resources.read("schemas/config.schema.json"))
    found = [
        (problem.path, _error(problem, text, file)) for problem in schema.problems(document, rules, rules)
    ]
    layers = []
    for path, table in _tables(document):
        if any(bad[: len(path)] == path for bad, _ in found):
            continue
        try:
            layers.append(_layer(path, table, text, file))
        except PolicyError as error:
            found.append((path, error))
    return tuple(layers), tuple(error for _, error in found)


def _parsed(text: str, file: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).partition(" (at ")
        line = place.removeprefix("line ").partition(",")[0]
        where = f"{file}:{line if line.isdecimal() else text.count(chr(10)) + 1}"
        raise PolicyError(f"not TOML: {problem}", where=where) from error
    except RecursionError as error:
        raise PolicyError("not TOML: nested too deeply", where=file) from error


def _tables(document: dict[str, object]) -> Iterator[tuple[schema.Path, Mapping[str, object]]]:
    """Yield ``[policy]`` and each ``[[domain]]``, where they are tables at all."""
    domains = document.get("domain")
    candidates: list[tuple[schema.Path, object]] = [(("policy",), document.get("policy"))]
    candidates += [
        (("domain", i), table) for i, table in enumerate(domains if isinstance(domains, list) else ())
    ]
    for path, table in candidates:
        if isinstance(table, dict):
            yield path, table


def _layer(path: schema.Path, table: Mapping[str, object], text: str, file: str) -> Layer:
    values = {}
    for key, raw in table.items():
        if key == "match":
            continue
        try:
            values[key] = value(key, raw, file)
        except PolicyError as error:
            error.where = _where(text, (*path, key), file)
            raise
    return Layer(".".join(map(str, path)), values, str(table.get("match", "*")))


def _where(text: str, path: schema.Path, file: str) -> str:
    return f"{file}:{toml_lines.line_of(text, path)}"


def _error(problem: schema.Problem, text: str, file: str) -> PolicyError:
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem.path]
    name = "".join(steps).removeprefix(".")
    return PolicyError(
        f"{problem.problem} of {name}" if problem.problem == "bad value" else problem.problem,
        where=_where(text, problem.path, file),
        value=problem.value,
        expected=problem.expected,
        advice=did_you_mean(str(problem.value), problem.allowed) if problem.allowed else "",
    )
