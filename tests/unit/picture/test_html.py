"""The page: self-contained, a box for each CPU, names as text."""

from __future__ import annotations

import re
from typing import Any

from lxml import html as reader

from libvirt_tuner.picture import html
from libvirt_tuner.picture.host import arrange
from tests.unit.picture import scenes


def test_every_cpu_has_its_box_with_class_and_tooltip() -> None:
    root: Any = reader.document_fromstring(html.draw([scenes.of("seed", *scenes.vm())], fold=False))
    assert {f"cpu-{cpu}" for cpu in range(32)} <= set(root.xpath("//*/@id"))
    box = root.get_element_by_id("cpu-20")
    assert (box.get("class"), box.get("title")) == ("cpu vcpu", "CPU 20: vCPU 0 of web, isolated")
    assert [child.text for child in box] == ["CPU 20", "vCPU 0 web", "isolated"]
    assert box.getparent().get("id") == "core-20"


def test_it_needs_no_other_file() -> None:
    page = html.draw([scenes.of("small-8")], fold=False).decode()
    assert page.startswith("<!DOCTYPE html>")
    assert re.findall(r"https?:|src=|href=|url\(|@import|<script", page) == []


def test_two_pictures_have_ids_of_their_own() -> None:
    host = scenes.host(4)
    now, planned = arrange(host, scenes.vm(vcpus=(1,), emulator=(0,))), arrange(host, [])
    root: Any = reader.document_fromstring(html.draw([now, planned], fold=False))
    ids = root.xpath("//*/@id")
    assert len(ids) == len(set(ids))
    assert root.xpath("//*[contains(@class,'changed')]/@id") == [
        *("now-cpu-0", "now-cpu-1", "planned-cpu-0", "planned-cpu-1")
    ]


def test_folded_cores_say_how_many() -> None:
    root: Any = reader.document_fromstring(html.draw([arrange(scenes.host(8, threads=2), [])], fold=True))
    assert [box.findtext("b") for box in root.find_class("cpu")] == ["CPU 0-3 (4 CPUs)", "CPU 4-7 (4 CPUs)"]


def test_names_are_text() -> None:
    picture = arrange(scenes.host(4), scenes.vm(scenes.NASTY, (2,), (1,)))
    page = html.draw([picture], fold=False)
    assert b"<script" not in page
    assert b"\x1b" not in page
    root: Any = reader.document_fromstring(page)
    assert "</title><script>alert(1)</script>" in root.get_element_by_id("cpu-2").get("title")
