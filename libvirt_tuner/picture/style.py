"""Colours, ids and classes of boxes, for both SVG and HTML. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from libvirt_tuner.picture.cells import Cell
from libvirt_tuner.picture.host import FREE, MARKS, WORDS, Picture, Seat

FILLS = {
    "vcpu": "#b7e1b0",
    "vhost": "#e6bdec",
    "emulator": "#b9d3f5",
    "iothread": "#cfe3fa",
    "irq": "#ffe08a",
    "polled": "#f5b5a8",
    "housekeeping": "#dcdcdc",
    "isolated": "#d2f1f1",
    FREE: "#ffffff",
}
"""Background of a CPU by :attr:`~libvirt_tuner.picture.host.Seat.sort`."""
LEGEND: dict[str, str] = {str(sort): word for sort, word in (*WORDS.items(), *MARKS.items(), (FREE, FREE))}
"""What each of them is called."""


def sides(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """Names of the pictures: none for a single one."""
    return ("now", "planned") if len(pictures) > 1 else ("",)


def box_id(side: str, what: str, number: int) -> str:
    """``cpu-20``, ``planned-cpu-20``: unique in a document."""
    return "-".join((*((side,) if side else ()), what, str(number)))


def cpu_class(cell: Cell, thread: Sequence[Seat]) -> str:
    """Classes of a CPU's box: ``cpu vcpu changed``."""
    more = [name for name, so in (("folded", len(thread) > 1), ("changed", cell.changed)) if so]
    return " ".join(("cpu", thread[0].sort, *more))


def legend(pictures: Sequence[Picture]) -> list[str]:
    """The sorts of CPUs that there are, in the order of :data:`LEGEND`."""
    found = {seat.sort for picture in pictures for seat in picture.seats}
    return [sort for sort in LEGEND if sort in found]
