"""A picture as text for a terminal of any width. It has the same information without colours. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from libvirt_tuner.picture.cells import Cell, Node, nodes
from libvirt_tuner.picture.host import Picture, floating_lines, nic_names, node_name, summary

Line = tuple[tuple[str, str], ...]
"""Pieces of a line: a text and the name of its colour, "" for none."""

COLOURS = {
    "vcpu": "green",
    "vhost": "magenta",
    "emulator": "blue",
    "iothread": "blue",
    "irq": "yellow",
    "polled": "red",
    "housekeeping": "bright_black",
    "isolated": "cyan",
}
_INDENT, _GAP = 2, 3
_NARROWEST = 20


def lines(picture: Picture, width: int, *, fold: bool) -> Iterator[Line]:
    """The picture of a host, no line longer than ``width`` (at least 20) columns."""
    width = max(width, _NARROWEST)
    for node in nodes([picture], fold=fold):
        yield from _head(node, width)
        for cache in node.caches:
            if cache.says:
                yield from _plain(cache.says, width, _INDENT)
            yield from _grid(cache.cells, width)
    for text in (*floating_lines(picture), summary(picture)):
        yield from _plain(text, width)


def pair(now: Picture, planned: Picture, width: int, *, fold: bool) -> Iterator[Line]:
    """Two pictures of a host next to each other; ``*`` marks CPUs that change."""
    width = max(width, 2 * _NARROWEST)
    cells = [
        (node, cell)
        for node in nodes([now, planned], fold=fold)
        for cache in node.caches
        for cell in cache.cells
    ]
    keys = min(max([len(cell.ids) for _, cell in cells] + [3]), width // 4)
    column = (width - keys - 2 * _GAP - _INDENT) // 2
    yield ((f"{'CPU'.ljust(keys + _INDENT + _GAP)}{'now'.ljust(column + _GAP)}planned", ""),)
    seen = None
    for node, cell in cells:
        if node is not seen:
            yield from _head(node, width)
            seen = node
        mark = "* " if cell.changed else "  "
        texts = [_wrapped(cell.ids, keys), *(_wrapped(cell.says(side), column) for side in (0, 1))]
        for row in range(max(map(len, texts))):
            parts = [text[row] if row < len(text) else "" for text in texts]
            yield (
                (mark if row == 0 else "  ", ""),
                (parts[0].rjust(keys) + " " * _GAP, ""),
                (parts[1].ljust(column) + " " * _GAP, _colour(cell, 0)),
                (parts[2], _colour(cell, 1)),
            )
    for name, picture in (("now", now), ("planned", planned)):
        for text in (*floating_lines(picture), summary(picture)):
            yield from _plain(f"{name}: {text}", width)


def _head(node: Node, width: int) -> Iterator[Line]:
    box = node.sides[0]
    for number, text in enumerate([node_name(box), *nic_names(box)]):
        yield from _plain(text, width, 0 if number == 0 else _INDENT)


def _plain(text: str, width: int, indent: int = 0) -> Iterator[Line]:
    for line in _wrapped(text, width - indent):
        yield ((" " * indent + line, ""),)


def _grid(cells: Sequence[Cell], width: int) -> Iterator[Line]:
    """As many columns of cells as fit, read row by row."""
    if not cells:
        return
    room = width - _INDENT
    keys = min(max(len(cell.ids) for cell in cells), max(room // 4, 8))
    widest = max(len(cell.says(0)) for cell in cells)
    body = min(widest, room - keys - 2)
    columns = max(1, (room + _GAP) // (keys + 2 + body + _GAP))
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        texts = [(_wrapped(cell.ids, keys), _wrapped(cell.says(0), body)) for cell in row]
        for number in range(max(len(side) for text in texts for side in text)):
            pieces = [(" " * _INDENT, "")]
            for cell, (left, right) in zip(row, texts, strict=True):
                key = left[number] if number < len(left) else ""
                said = right[number] if number < len(right) else ""
                last = cell is row[-1]
                pieces.append((f"{key.rjust(keys)}  ", ""))
                pieces.append((said if last else said.ljust(body + _GAP), _colour(cell, 0)))
            yield tuple(pieces)


def _colour(cell: Cell, side: int) -> str:
    return COLOURS.get(cell.sides[side][0].seats[0].sort, "")


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns; a long list of CPUs is broken after a comma."""
    spaced = text if len(text) <= width else text.replace(",", ", ").replace(",  ", ", ")
    return textwrap.wrap(spaced, max(width, 1), break_on_hyphens=False) or [""]
