"""A picture as one self-contained HTML file. The boxes adapt to the width of the window. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lxml import etree

from libvirt_tuner import cpuset
from libvirt_tuner.picture import style
from libvirt_tuner.picture.cells import Cache, Cell, Node, nodes
from libvirt_tuner.picture.host import (
    NodeBox,
    Picture,
    floating_lines,
    labels,
    nic_names,
    node_name,
    summary,
    title,
)

_STYLE = (
    "*{box-sizing:border-box}body{margin:8px;background:#fff;color:#111;"
    "font:12px/1.35 'DejaVu Sans Mono','Liberation Mono',monospace;overflow-wrap:anywhere}"
    "h1,h2{font-size:inherit;margin:0 0 4px}p{margin:2px 0}"
    ".sides{display:flex;gap:8px}.side{flex:1 1 0;min-width:0}"
    ".node,.l3,.core,.cpu{border:1px solid #555;padding:5px;margin-bottom:5px;min-width:0}"
    ".node{background:#f4f4f0}.l3{background:#fafafa;border-color:#999}"
    ".core{background:#ececec;border-color:#888;margin:0}.cpu:last-child{margin-bottom:0}"
    ".cores{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(150px,100%),1fr));gap:5px}"
    ".folded{border-style:dashed}.changed{border:2px solid #c00000}"
    ".legend span{display:inline-block;border:1px solid #555;padding:0 4px;margin:0 4px 4px 0}"
    + "".join(f".{sort}{{background:{fill}}}" for sort, fill in style.FILLS.items())
)


def draw(pictures: Sequence[Picture], *, fold: bool) -> bytes:
    """An HTML document of one picture, or of two of the same host side by side."""
    root = etree.Element("html", lang="en")
    head = etree.SubElement(root, "head")
    etree.SubElement(head, "meta", charset="utf-8")
    etree.SubElement(head, "meta", name="viewport", content="width=device-width")
    _said(head, "title", "libvirt-tuner map")
    _said(head, "style", _STYLE)
    body = etree.SubElement(root, "body")
    _said(body, "h1", summary(pictures[-1]))
    names = style.sides(pictures)
    if len(pictures) > 1:
        heads = _box(body, "sides")
        for name in names:
            _said(_box(heads, "side", name), "h2", name)
    for node in nodes(pictures, fold=fold):
        row = _box(body, "sides")
        for side, (name, place) in enumerate(zip(names, node.sides, strict=True)):
            _node(row, node, place, name, side)
    row = _box(body, "sides")
    for picture in pictures:
        notes = _box(row, "side")
        for line in (*floating_lines(picture), summary(picture)):
            _said(notes, "p", line)
    _legend(body, pictures)
    document: bytes = etree.tostring(root, method="html", encoding="utf-8", doctype="<!DOCTYPE html>")
    return document + b"\n"


def _node(parent: etree._Element, node: Node, place: NodeBox, name: str, side: int) -> None:
    frame = _box(parent, "side node", style.box_id(name, "node", place.cell.id), node_name(place))
    for line in (node_name(place), *nic_names(place)):
        _said(frame, "p", line)
    for cache in node.caches:
        _cache(frame, cache, name, side)


def _cache(parent: etree._Element, cache: Cache, name: str, side: int) -> None:
    if cache.says:
        parent = _box(parent, "l3", style.box_id(name, "l3", cache.firsts[0]), cache.says)
        _said(parent, "p", cache.says)
    cores = _box(parent, "cores")
    for cell in cache.cells:
        _cell(cores, cell, name, side)


def _cell(parent: etree._Element, cell: Cell, name: str, side: int) -> None:
    first = cell.sides[side][0].seats[0].cpu
    core = _box(parent, "core", style.box_id(name, "core", first))
    for thread in cell.threads(side):
        number = style.box_id(name, "cpu", thread[0].cpu)
        box = _box(core, style.cpu_class(cell, thread), number, title(thread))
        several = f" ({len(thread)} CPUs)" if len(thread) > 1 else ""
        _said(box, "b", f"CPU {_breakable(cpuset.format(seat.cpu for seat in thread))}{several}")
        for label in labels(thread):
            _said(box, "p", label)


def _breakable(cpulist: str) -> str:
    return cpulist.replace(",", ", ")


def _legend(parent: etree._Element, pictures: Sequence[Picture]) -> None:
    line = _said(parent, "p", "")
    line.set("class", "legend")
    for sort in style.legend(pictures):
        _said(line, "span", style.LEGEND[sort]).set("class", sort)


def _box(parent: etree._Element, classes: str, name: str = "", tooltip: str = "") -> etree._Element:
    box = etree.SubElement(parent, "div")
    box.set("class", classes)
    if name:
        box.set("id", name)
    if tooltip:
        box.set("title", tooltip)
    return box


def _said(parent: etree._Element, tag: str, text: str) -> etree._Element:
    element = etree.SubElement(parent, tag)
    element.text = text
    return element
