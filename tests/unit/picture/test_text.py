"""The picture in a terminal: every width, with and without colours."""

from __future__ import annotations

import pytest

from libvirt_tuner.picture import text
from libvirt_tuner.picture.host import Picture, arrange
from tests.unit.picture import scenes


def plain(lines: object) -> list[str]:
    """Lines without colours."""
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]  # type: ignore[attr-defined]


def small() -> Picture:
    return arrange(
        scenes.host(8, nodes=2), scenes.vm(vcpus=(2, 3), emulator=(1,)), housekeeping=frozenset({0})
    )


def test_eight_cpus_in_80_columns() -> None:
    assert plain(text.lines(small(), 80, fold=False)) == [
        "node 0: 4 CPUs, 64 GiB, 48 GiB free",
        "  0  housekeeping                1  vhost 0 web, emulator web",
        "  2  vCPU 0 web                  3  vCPU 1 web",
        "node 1: 4 CPUs, 64 GiB, 48 GiB free",
        "  4  free   5  free   6  free   7  free",
        "8 CPUs: 2 with vCPUs, 1 with vhost workers, 1 housekeeping, 4 free",
    ]


def test_a_wider_terminal_has_more_columns() -> None:
    wide = plain(text.lines(small(), 200, fold=False))
    assert wide[1].split("   ")[0] == "  0  housekeeping"
    assert "3  vCPU 1 web" in wide[1]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", ["seed", "small-8", "smt-2x32", "sparse-4node", "laptop"])
def test_no_line_is_longer_than_the_terminal(name: str, width: int, fold: bool) -> None:
    picture = scenes.of(name, *scenes.vm("a-name-of-" + "x" * 70, (2, 4), (0, 6)))
    found = plain(text.lines(picture, width, fold=fold))
    assert max(map(len, found)) <= width
    assert max(map(len, plain(text.pair(picture, picture, width, fold=fold)))) <= max(width, 40)


@pytest.mark.parametrize("width", [80, 200])
def test_a_host_of_1024_cpus_fits_on_some_screens(width: int, large: Picture) -> None:
    found = plain(text.lines(large, width, fold=True))
    assert max(map(len, found)) <= width
    assert len(found) < 150
    assert found[-1].startswith("1024 CPUs: ")
    # Every CPU is in one of the ranges.
    assert "IRQ 100-108 ens1np0" in " ".join(" ".join(found).split())


def test_colours_say_nothing_that_words_do_not() -> None:
    pieces = [piece for line in text.lines(small(), 80, fold=False) for piece in line]
    colours = {words.strip(): colour for words, colour in pieces if words.strip()}
    assert colours["vCPU 0 web"] == "green"
    assert colours["vhost 0 web, emulator web"] == "magenta"
    assert colours["free"] == ""
    assert {text.COLOURS.get(colour) for colour in ("vcpu", "irq")} == {"green", "yellow"}


def test_two_pictures_side_by_side() -> None:
    host = scenes.host(4)
    now = arrange(host, scenes.vm(vcpus=(1,), emulator=(1,)))
    planned = arrange(host, scenes.vm(vcpus=(2,), emulator=(1,)))
    assert plain(text.pair(now, planned, 80, fold=False)) == [
        "CPU     now                                  planned",
        "node 0: 4 CPUs, 64 GiB, 48 GiB free",
        "    0   free                                 free",
        "*   1   vCPU 0 web, vhost 0 web, emulator    vhost 0 web, emulator web",
        "        web",
        "*   2   free                                 vCPU 0 web",
        "    3   free                                 free",
        "now: 4 CPUs: 1 with vCPUs, 3 free",
        "planned: 4 CPUs: 1 with vCPUs, 1 with vhost workers, 2 free",
    ]
