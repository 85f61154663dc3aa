"""The drawing: boxes inside of boxes, ids, tooltips, and nothing that a name could break out of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from lxml import etree

from libvirt_tuner.picture import style, svg
from libvirt_tuner.picture.cells import folds
from libvirt_tuner.picture.host import Picture, arrange
from tests.unit.picture import scenes

NAMES = {"svg": svg.SVG}


def pictures(name: str) -> list[Picture]:
    """One picture, or two where the name ends with ``-pair``."""
    now = scenes.of(name.removesuffix("-pair"), *scenes.vm("w" * 60, (2, 3), (0, 1)))
    return [now, scenes.of(name.removesuffix("-pair"))] if name.endswith("-pair") else [now]


HOSTS = ["small-8", "seed", "seed-pair", "smt-2x32", "smt-2x32-pair", "sparse-4node", "laptop"]


def inside(box: svg.Box, outer: svg.Box) -> bool:
    return (
        outer.x <= box.x
        and outer.y <= box.y
        and box.x + box.width <= outer.x + outer.width + 0.01
        and box.y + box.height <= outer.y + outer.height + 0.01
    )


def overlap(one: svg.Box, other: svg.Box) -> bool:
    return (
        one.x < other.x + other.width - 0.01
        and other.x < one.x + one.width - 0.01
        and one.y < other.y + other.height - 0.01
        and other.y < one.y + one.height - 0.01
    )


def faults(boxes: Sequence[svg.Box]) -> Iterator[str]:
    """Boxes that overlap without one being in the other, and text that leaves its box."""
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            if overlap(one, other) and not inside(other, one):
                yield f"{one.id} overlaps {other.id}"
        widest = max(map(len, one.lines), default=0) * svg.LETTER
        if widest > one.width or len(one.lines) * svg.LINE > one.height:
            yield f"text leaves {one.id}"


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("fold", [True, False])
def test_boxes_are_inside_of_boxes(name: str, fold: bool) -> None:
    found = pictures(name)
    boxes, height = svg.layout(found, fold=fold)
    assert list(faults(boxes)) == []
    whole = svg.Box("", "", 0, 0, svg.WIDTH[len(found)], height)
    assert all(inside(box, whole) for box in boxes)
    assert len({box.id for box in boxes}) == len(boxes)


def test_a_fault_would_be_found() -> None:
    one, other = svg.Box("a", "", 0, 0, 10, 10), svg.Box("b", "", 5, 5, 10, 10, ("long text",))
    assert list(faults([one, other])) == ["a overlaps b", "text leaves b"]


def test_every_cpu_has_its_box_with_class_and_tooltip() -> None:
    found = scenes.of("seed", *scenes.vm())
    root: Any = etree.fromstring(svg.draw([found], fold=False))
    assert {f"cpu-{cpu}" for cpu in range(32)} <= set(root.xpath("//svg:rect/@id", namespaces=NAMES))
    (box,) = root.xpath("//svg:rect[@id='cpu-20']", namespaces=NAMES)
    assert box.get("class") == "cpu vcpu"
    assert box.findtext("svg:title", namespaces=NAMES) == "CPU 20: vCPU 0 of web, isolated"
    assert len(root.xpath("//svg:rect[starts-with(@class,'node')]", namespaces=NAMES)) == 2


def test_two_pictures_mark_what_changes() -> None:
    host = scenes.host(4)
    now, planned = arrange(host, scenes.vm(vcpus=(1,), emulator=(0,))), arrange(host, [])
    root: Any = etree.fromstring(svg.draw([now, planned], fold=False))
    changed = root.xpath("//svg:rect[contains(@class,'changed')]/@id", namespaces=NAMES)
    assert changed == ["now-cpu-0", "planned-cpu-0", "now-cpu-1", "planned-cpu-1"]


def test_a_host_of_1024_cpus_is_small(large: Picture) -> None:
    boxes, _ = svg.layout([large], fold=folds(large))
    assert len(boxes) < 100
    assert list(faults(boxes)) == []
    assert svg.draw([large], fold=True) == svg.draw([large], fold=True)


def test_names_are_text() -> None:
    picture = arrange(scenes.host(4), scenes.vm(scenes.NASTY, (2,), (1,)))
    drawn = svg.draw([picture], fold=False)
    root: Any = etree.fromstring(drawn)
    assert {etree.QName(element).localname for element in root.iter()} <= {
        *("svg", "title", "style", "rect", "g", "text")
    }
    assert b"<script" not in drawn
    assert "</title><script>" in root.findtext(".//svg:rect[@id='cpu-2']/svg:title", namespaces=NAMES)


def test_every_class_of_a_box_has_a_colour() -> None:
    for name in HOSTS:
        boxes, _ = svg.layout(pictures(name), fold=True)
        root: Any = etree.fromstring(svg.draw(pictures(name), fold=True))
        filled = re.findall(r"\.([\w-]+)\{fill", root.findtext("svg:style", namespaces=NAMES) or "")
        assert all(set(box.classes.split()) & set(filled) for box in boxes)


def test_every_sort_has_a_colour_and_a_name() -> None:
    assert set(style.FILLS) == set(style.LEGEND)
