"""A picture as SVG: a box for each node, L3, core and CPU, with ids, classes and tooltips. Pure.

This module computes the position of each box, so that every viewer shows the same. Text is in a monospaced
font, because its width is known. Ids and coordinates follow SVG 1.1, "Basic Data Types".
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen
from lxml import etree

from libvirt_tuner import cpuset
from libvirt_tuner.picture import style
from libvirt_tuner.picture.cells import Cache, Cell, Node, nodes
from libvirt_tuner.picture.host import (
    Picture,
    Seat,
    floating_lines,
    labels,
    nic_names,
    node_name,
    summary,
    title,
)

SVG = "http://www.w3.org/2000/svg"
FONT, LETTER, LINE = 10, 6.1, 13
"""Size of the font, and the width and height that a letter takes, in pixels."""
WIDTH = {1: 1000, 2: 1600}
"""Of a picture, and of two."""
_PAD, _GAP = 6, 5
_CELL = 152
_MOST = 8
"""Lines of text in a CPU's box."""

_STYLE = (
    f"text{{font:{FONT}px 'DejaVu Sans Mono','Liberation Mono',monospace;fill:#111}}"
    "rect{stroke:#555;stroke-width:1}.side{fill:#fff;stroke:none}.node{fill:#f4f4f0}.l3{fill:#fafafa;stroke:#999}"
    ".core{fill:#ececec;stroke:#888}.changed{stroke:#c00000;stroke-width:2}.folded{stroke-dasharray:4 2}"
    + "".join(f".{sort}{{fill:{fill}}}" for sort, fill in style.FILLS.items())
)


@frozen
class Box:
    """A rectangle, in pixels, with its lines of text from the top on."""

    id: str
    classes: str
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...] = ()
    title: str = ""

    def down(self, by: float) -> Box:
        """The same further down."""
        return evolve(self, y=self.y + by)


def draw(pictures: Sequence[Picture], *, fold: bool) -> bytes:
    """An SVG document of one picture, or of two of the same host side by side."""
    boxes, height = layout(pictures, fold=fold)
    width = WIDTH[len(pictures)]
    notes = list(_notes(pictures, width))
    top = height + _PAD
    whole = top + LINE * len(notes) + LINE + 2 * _PAD
    namespaces: dict[str | None, str] = {None: SVG}
    root = etree.Element(f"{{{SVG}}}svg", nsmap=namespaces)  # type: ignore[arg-type]
    root.set("viewBox", f"0 0 {width} {_number(whole)}")
    root.set("width", str(width))
    root.set("height", _number(whole))
    etree.SubElement(root, f"{{{SVG}}}title").text = summary(pictures[-1])
    etree.SubElement(root, f"{{{SVG}}}style").text = _STYLE
    _rect(root, "background", "", (0, 0, width, whole)).set("fill", "#ffffff")
    for box in boxes:
        _add(root, box)
    for number, note in enumerate(notes):
        _text(root, _PAD, top + LINE * (number + 1), note)
    _legend(root, pictures, top + LINE * len(notes) + _PAD)
    etree.indent(root, " ")
    document: bytes = etree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def layout(pictures: Sequence[Picture], *, fold: bool) -> tuple[list[Box], float]:
    """The boxes, each after the one that it is in, and the height of them all."""
    names = style.sides(pictures)
    width = (WIDTH[len(pictures)] - _PAD * (len(pictures) + 1)) / len(pictures)
    lefts = [_PAD + side * (width + _PAD) for side in range(len(pictures))]
    boxes = []
    top: float = _PAD
    if len(pictures) > 1:
        for left, name in zip(lefts, names, strict=True):
            boxes.append(Box(name, "side", left, top, width, LINE + _PAD, (name,)))
        top += LINE + _PAD + _GAP
    for node in nodes(pictures, fold=fold):
        inside, height = _node(node, names, lefts, width)
        boxes += [box.down(top) for box in inside]
        top += height + _GAP
    return boxes, top


def _node(node: Node, names: Sequence[str], lefts: Sequence[float], width: float) -> tuple[list[Box], float]:
    box = node.sides[0]
    head = _cut([node_name(box), ", ".join(nic_names(box))], width - 2 * _PAD, 20)
    top: float = _PAD + LINE * len(head) + _GAP
    inside = []
    for cache in node.caches:
        found, height = _cache(cache, names, [left + _PAD for left in lefts], width - 2 * _PAD)
        inside += [box.down(top) for box in found]
        top += height + _GAP
    height = top - _GAP + _PAD
    frames = [
        Box(style.box_id(name, "node", box.cell.id), "node", left, 0, width, height, tuple(head), head[0])
        for name, left in zip(names, lefts, strict=True)
    ]
    return [*frames, *inside], height


def _cache(
    cache: Cache, names: Sequence[str], lefts: Sequence[float], width: float
) -> tuple[list[Box], float]:
    """The cores in columns; a row is as high as its highest core in any of the pictures."""
    head = _cut([cache.says], width - 2 * _PAD, 3) if cache.says else []
    pad = _PAD if head else 0
    top: float = pad + LINE * len(head) + (_GAP if head else 0)
    columns = max(1, int((width - 2 * pad + _GAP) // (_CELL + _GAP)))
    wide = (width - 2 * pad - _GAP * (columns - 1)) / columns
    inside = []
    for start in range(0, len(cache.cells), columns):
        row = [_cell(cell, names, wide) for cell in cache.cells[start : start + columns]]
        height = max(high for _, high in row)
        for column, (found, _) in enumerate(row):
            for left, boxes in zip(lefts, found, strict=True):
                at = left + pad + column * (wide + _GAP)
                inside += [evolve(box, x=box.x + at, y=box.y + top) for box in boxes]
        top += height + _GAP
    height = top - _GAP + pad
    frames = [
        Box(style.box_id(name, "l3", cache.firsts[0]), "l3", left, 0, width, height, tuple(head), cache.says)
        for name, left in zip(names, lefts, strict=True)
        if head
    ]
    return [*frames, *inside], height


def _cell(cell: Cell, names: Sequence[str], width: float) -> tuple[list[list[Box]], float]:
    """The boxes of a core in each picture, all of the same height, and that height."""
    sides, heights = [], []
    texts = [[_lines(thread, width) for thread in cell.threads(side)] for side in range(len(names))]
    lengths = [max(map(len, threads)) for threads in zip(*texts, strict=True)]
    for side, name in enumerate(names):
        top: float = _PAD
        boxes = []
        for thread, lines, length in zip(cell.threads(side), texts[side], lengths, strict=True):
            high = LINE * length + _PAD
            number = style.box_id(name, "cpu", thread[0].cpu)
            classes = style.cpu_class(cell, thread)
            boxes.append(Box(number, classes, _PAD, top, width - 2 * _PAD, high, tuple(lines), title(thread)))
            top += high + _GAP
        heights.append(top - _GAP + _PAD)
        first = cell.sides[side][0].seats[0].cpu
        frame = Box(style.box_id(name, "core", first), "core", 0, 0, width, heights[-1])
        sides.append([frame, *boxes])
    return sides, max(heights)


def _lines(thread: Sequence[Seat], width: float) -> list[str]:
    several = [f"{len(thread)} CPUs"] if len(thread) > 1 else []
    said = [f"CPU {cpuset.format(seat.cpu for seat in thread)}", *several, *labels(thread)]
    return _cut(said, width - 4 * _PAD, _MOST)


def _cut(texts: Iterable[str], width: float, most: int) -> list[str]:
    """Lines that fit into so many pixels, at most so many of them."""
    letters = max(int(width // LETTER), 4)
    lines = []
    for text in texts:
        spaced = text if len(text) <= letters else text.replace(",", ", ").replace(",  ", ", ")
        lines += textwrap.wrap(spaced, letters, break_on_hyphens=False)
    return lines if len(lines) <= most else [*lines[: most - 1], "..."]


def _notes(pictures: Sequence[Picture], width: float) -> Iterable[str]:
    for name, picture in zip(style.sides(pictures), pictures, strict=True):
        before = f"{name}: " if name else ""
        notes = [before + text for text in (*floating_lines(picture), summary(picture))]
        yield from _cut(notes, width - 2 * _PAD, 200)


def _legend(root: etree._Element, pictures: Sequence[Picture], top: float) -> None:
    left: float = _PAD
    for sort in style.legend(pictures):
        _rect(root, f"legend-{sort}", sort, (left, top, LINE - 3, LINE - 3))
        _text(root, left + LINE, top + LINE - 4, style.LEGEND[sort])
        left += LINE * 2 + LETTER * len(style.LEGEND[sort])


def _add(root: etree._Element, box: Box) -> None:
    group = etree.SubElement(root, f"{{{SVG}}}g")
    rect = _rect(group, box.id, box.classes, (box.x, box.y, box.width, box.height))
    if box.title:
        etree.SubElement(rect, f"{{{SVG}}}title").text = box.title
    for number, line in enumerate(box.lines):
        text = _text(group, box.x + _PAD, box.y + LINE * (number + 1), line)
        text.set("pointer-events", "none")


def _rect(
    parent: etree._Element, name: str, classes: str, place: tuple[float, float, float, float]
) -> etree._Element:
    rect = etree.SubElement(parent, f"{{{SVG}}}rect", id=name)
    if classes:
        rect.set("class", classes)
    for key, value in zip(("x", "y", "width", "height"), place, strict=True):
        rect.set(key, _number(value))
    return rect


def _text(parent: etree._Element, x: float, y: float, line: str) -> etree._Element:
    text = etree.SubElement(parent, f"{{{SVG}}}text", x=_number(x), y=_number(y))
    text.text = line
    return text


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
