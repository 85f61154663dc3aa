"""Finds the line of a key in a TOML file, because tomllib does not report it. Only used for errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

Path = tuple[str | int, ...]

#: Each line of a statement costs a parse of the lines before it. The search stops at this limit.
_LONGEST_STATEMENT = 500


def line_of(text: str, path: Path) -> int:
    """Return the line, from 1, on which the statement that gives ``path`` its value begins.

    Args:
        text: A document that tomllib reads without error.
        path: Keys and array indices. If the path does not occur (a missing key, a table that only exists
            through its sub-tables), the line of the nearest enclosing element is returned.
    """
    lines = _lines(text)
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


@lru_cache(maxsize=1)
def _lines(text: str) -> dict[Path, int]:
    """Map every path to its line; kept for the next mistake in the same file."""
    lines: dict[Path, int] = {}
    for number, path in _paths(text):
        lines.setdefault(path, number)
    return lines


def _paths(text: str) -> Iterator[tuple[int, Path]]:
    """Yield the path of each table and of each key, with the line of the statement that makes it."""
    table: Path = ()
    elements: dict[Path, int] = {}
    for number, is_header, statement in _statements(text):
        if is_header:
            table = _path(statement, elements)
            yield number, table
        else:
            path = (*table, *_path(statement, {}))
            yield from ((number, path[:end]) for end in range(len(table) + 1, len(path) + 1))


def _statements(text: str) -> Iterator[tuple[int, bool, dict[str, object]]]:
    """Yield line, whether it is a table's header, and the statement's own value, one by one.

    A statement is complete once tomllib accepts it alone. So tomllib handles strings and arrays over several
    lines.
    """
    import tomllib

    start, pending = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        pending += line + "\n"
        try:
            statement = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            if number - start >= _LONGEST_STATEMENT:
                return
            continue
        if statement:
            yield start, pending.lstrip().startswith("["), statement
        start, pending = number + 1, ""


def _path(statement: dict[str, object], elements: dict[Path, int]) -> Path:
    """The keys of a statement, the first of each table; counts the elements of arrays of tables."""
    path: Path = ()
    node: object = statement
    while isinstance(node, dict) and node:
        key, node = next(iter(node.items()))
        path = (*path, key)
        if isinstance(node, list):
            elements[path] = elements.get(path, -1) + 1
        if path in elements:
            path = (*path, elements[path])
    return path
