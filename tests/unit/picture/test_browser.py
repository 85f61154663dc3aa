"""The page and the drawing as a browser shows them: no box overflows or overlaps, text stays in its box."""

from __future__ import annotations

import html as entities
import json
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from libvirt_tuner.picture import html, svg
from libvirt_tuner.picture.host import Picture
from tests.unit.picture import scenes

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium (Debian: apt-get install chromium)")

PROBE = """<script>addEventListener("load", () => {
  const about = (box) => {
    const r = box.getBoundingClientRect(), range = document.createRange();
    range.selectNodeContents(box);
    const t = box.textContent.trim() ? range.getBoundingClientRect() : r;
    return [box.id, r.left, r.top, r.right, r.bottom, t.left, t.top, t.right, t.bottom];
  };
  const drawn = [...document.querySelectorAll("svg g")].map((g) => {
    const r = g.querySelector("rect").getBoundingClientRect();
    const texts = [...g.querySelectorAll("text")].map((text) => text.getBoundingClientRect());
    const all = texts.length ? texts : [r];
    return [g.querySelector("rect").id, r.left, r.top, r.right, r.bottom,
            Math.min(...all.map((t) => t.left)), Math.min(...all.map((t) => t.top)),
            Math.max(...all.map((t) => t.right)), Math.max(...all.map((t) => t.bottom))];
  });
  const boxes = [...document.querySelectorAll(".node,.l3,.core,.cpu")]
    .filter((box) => box.tagName === "DIV").map(about);
  const found = {width: innerWidth, whole: document.documentElement.scrollWidth, boxes: boxes.concat(drawn)};
  const said = document.createElement("pre");
  said.id = "probe";
  said.textContent = JSON.stringify(found);
  document.body.append(said);
});</script>"""


class Shown(NamedTuple):
    """A box in pixels, and what its text takes."""

    id: str
    left: float
    top: float
    right: float
    bottom: float
    text_left: float
    text_top: float
    text_right: float
    text_bottom: float


def chromium(page: Path, width: int, *words: str) -> str:
    """Run the browser on a page without a screen, and return what it prints."""
    common = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [str(BROWSER), *common, profile, f"--window-size={width},900", *words, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def shown(document: str, tmp_path: Path, width: int) -> tuple[int, int, list[Shown]]:
    """Width of the window and of the document in it, and the boxes."""
    page = tmp_path / "page.html"
    page.write_text(document)
    dumped = chromium(page, width, "--dump-dom")
    (said,) = re.findall(r'<pre id="probe">(.*?)</pre>', dumped, re.S)
    found = json.loads(entities.unescape(said))
    return found["width"], found["whole"], [Shown(*box) for box in found["boxes"]]


def faults(boxes: list[Shown], *, slack: float = 1.0) -> Iterator[str]:
    """Boxes that overlap and are not one in the other; text outside of its box."""
    for number, one in enumerate(boxes):
        if (
            one.text_left < one.left - slack
            or one.text_right > one.right + slack
            or one.text_top < one.top - slack
            or one.text_bottom > one.bottom + slack
        ):
            yield f"text leaves {one.id}"
        for other in boxes[number + 1 :]:
            apart = (
                other.left >= one.right - slack
                or other.right <= one.left + slack
                or other.top >= one.bottom - slack
                or other.bottom <= one.top + slack
            )
            within = (
                other.left >= one.left - slack
                and other.right <= one.right + slack
                and other.top >= one.top - slack
                and other.bottom <= one.bottom + slack
            )
            if not apart and not within:
                yield f"{one.id} overlaps {other.id}"


def pictures(name: str) -> list[Picture]:
    now = scenes.of(name, *scenes.vm("a-name-of-" + "w" * 60, (2, 3), (0, 1)))
    return [now, scenes.of(name)] if name == "seed" else [now]


@pytest.mark.parametrize("width", [640, 1600])
@pytest.mark.parametrize("name", ["small-8", "smt-2x32", "seed"])
def test_boxes_of_the_page(name: str, width: int, tmp_path: Path) -> None:
    page = html.draw(pictures(name), fold=False).decode().replace("</body>", PROBE + "</body>")
    window, whole, boxes = shown(page, tmp_path, width)
    assert whole <= window
    assert len([box for box in boxes if "cpu-" in box.id]) >= 8
    assert list(faults(boxes)) == []


@pytest.mark.parametrize("name", ["small-8", "seed"])
def test_boxes_of_the_drawing(name: str, tmp_path: Path) -> None:
    drawn = svg.draw(pictures(name), fold=False).decode().partition("?>")[2]
    page = f"<!DOCTYPE html><meta charset='utf-8'><body style='margin:0'>{drawn}{PROBE}"
    _, _, boxes = shown(page, tmp_path, 1700)
    assert len([box for box in boxes if "cpu-" in box.id]) >= 8
    assert list(faults(boxes)) == []


def test_a_fault_would_be_seen(tmp_path: Path) -> None:
    style = "position:absolute;width:40px;height:20px;white-space:nowrap"
    boxes = "".join(
        f"<div class='cpu' id='{name}' style='{style};left:{left}px'>{text}</div>"
        for name, left, text in (("a", 0, "x"), ("b", 20, "a text that is too long"))
    )
    _, _, found = shown(f"<!DOCTYPE html><body>{boxes}{PROBE}", tmp_path, 640)
    assert list(faults(found)) == ["a overlaps b", "text leaves b"]


def colours(png: bytes) -> set[bytes]:
    """The pixels of an 8-bit PNG without interlacing (PNG specification, "Filtering"), each once."""
    width, _, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", png[16:29])
    assert (depth, interlaced) == (8, 0)
    size = {2: 3, 6: 4}[kind]
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    raw = zlib.decompress(data)
    stride = width * size
    above, found = bytearray(stride), set()
    for start in range(0, len(raw), stride + 1):
        filter_, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for index in range(stride):
            left = row[index - size] if index >= size else 0
            corner = above[index - size] if index >= size else 0
            row[index] = (row[index] + _predicted(filter_, left, above[index], corner)) & 255
        found |= {bytes(row[index : index + 3]) for index in range(0, stride, size)}
        above = row
    return found


def _predicted(filter_: int, left: int, up: int, corner: int) -> int:
    if filter_ == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda one: abs(guess - one))
    return (0, left, up, (left + up) // 2)[filter_]


def test_a_screenshot_shows_the_colours_of_the_cpus(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_bytes(html.draw(pictures("small-8"), fold=False))
    chromium(page, 640, f"--screenshot={picture}")
    seen = colours(picture.read_bytes())
    for wanted in ("#b7e1b0", "#e6bdec", "#ffe08a", "#f4f4f0", "#ffffff"):
        assert bytes.fromhex(wanted[1:]) in seen
