"""What the scenarios measured: a table on the terminal, docs/results.json and docs/results.md."""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import asdict, define, evolve, field, frozen

from . import emulator
from .measure import medians

INTRODUCTION = """\
# What tuning gains, measured

`make lab` measures on emulated hypervisors. QEMU's TCG emulates a machine with two NUMA nodes and 8 CPUs. The
real KVM, vhost-net, libvirtd and /proc/irq of the named release run in it (bookworm: Linux 6.1, libvirt 9.0,
QEMU 7.2; trixie: Linux 6.12, libvirt 11.3, QEMU 10.0). Only the ratios mean something. Emulation makes all
absolute figures small, and the CPUs of a hypervisor share those of the machine that emulates them. The
emulator has no CPU caches, no slower remote memory and no NIC offloads, so their effect is not shown.

Each value is the median of the rounds. The first table also has the least and the greatest value. The two
variants alternate within one run. *vCPU waits* is the time that the vCPU's thread waited in the run queue
(/proc/TID/schedstat). *NET_RX* counts softirqs (/proc/softirqs), first on the CPU of the tuned vCPU, then on
the other CPUs that had any. *IPIs* are the interrupts that CPUs sent each other (RES and CAL of
/proc/interrupts). *Cores in use outside* are cores of the machine that emulates. Rates cover the time from
before the flow is set up until after its end. Every kernel runs with mitigations=off. All rounds are in
[results.json](results.json).

Network namespaces count how many large packets stay uncut with each MTU, so that a card can cut them:
[tunnels.md](tunnels.md#what-headroom-leaves-in-one-piece).

The ratios depend on the speed of an emulated CPU. docs/decisions.md says how its share of a core was chosen.
They show what is possible, not what you will get on real hardware.

`make lab ARGS=--write-results` writes this file.
"""


@frozen
class Measurement:
    """A measured scenario.

    Attributes:
        scenario: Its name.
        release: Debian's code name of the hypervisor.
        setup: What was measured, and what each variant is.
        series: For each variant, the one without the tool first, each figure's values round by round.
        figure: The one that is compared.
        better: "higher" or "lower".
        target: The least ratio of the last variant's median to the first's (inverted if lower is better).
        seat: The CPU of the tuned vCPU.
        note: What explains the outcome.
        emulator: Version of the QEMU that emulated the hypervisor.
    """

    scenario: str
    release: str
    setup: str
    series: Mapping[str, Mapping[str, Sequence[float]]]
    figure: str
    better: str = "higher"
    target: float | None = None
    seat: int | None = None
    note: str = ""
    emulator: str = ""

    @property
    def ratio(self) -> float:
        """How many times better the last variant is than the first."""
        first, *_, last = (figures[self.figure] for figures in medians(self.series).values())
        above, below = (last, first) if self.better == "higher" else (first, last)
        return above / below if below else float("inf")

    @property
    def rounds(self) -> int:
        """How often each variant was measured."""
        return min(len(figures[self.figure]) for figures in self.series.values())

    @property
    def reached(self) -> bool:
        """Whether the ratio is what it should be; without a target it is."""
        return self.target is None or self.ratio >= self.target

    def shown(self) -> dict[str, dict[str, str]]:
        """Return the medians of each variant as text."""
        return {variant: self._merged(figures) for variant, figures in medians(self.series).items()}

    def _merged(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Figures as text, those that are one of each CPU in one."""
        shown = {name: f"{value:.4g}" for name, value in figures.items() if not _of_a_cpu(name)}
        cpus = {cpu: value for name, value in figures.items() if (cpu := _of_a_cpu(name))}
        if cpus:
            order = sorted(cpus, key=lambda cpu: (int(cpu) != self.seat, -cpus[cpu]))
            busy = [cpu for cpu in order if int(cpu) == self.seat or cpus[cpu] >= 1]
            shown["NET_RX, 1/s"] = ", ".join(f"CPU {cpu}: {cpus[cpu]:.0f}" for cpu in busy)
        return shown


def _of_a_cpu(figure: str) -> str:
    """The CPU's number in the name of a figure that is taken for each of them; "" for others."""
    match = re.fullmatch(r"NET_RX of CPU (\d+), 1/s", figure)
    return match[1] if match else ""


@define
class Results:
    """The measurements of a session."""

    measurements: list[Measurement] = field(factory=list)

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, with what emulated it."""
        self.measurements.append(evolve(measurement, emulator=emulator.release()))

    def lines(self) -> list[str]:
        """Return a Markdown table: a line for each scenario and release."""
        rows = [("scenario", "release", "emulated by", "figure", "variants", "median", "ratio", "target")]
        for entry in self.measurements:
            target = "" if entry.target is None else f"{entry.target:g}"
            ratio = f"{entry.ratio:.2f}" + ("" if entry.reached else " (short)")
            names = (entry.scenario, entry.release, f"QEMU {entry.emulator}", entry.figure)
            values = (_spread(figures[entry.figure]) for figures in entry.series.values())
            rows.append((*names, " / ".join(entry.series), " / ".join(values), ratio, target))
        return table(rows)

    def write(self, directory: Path) -> None:
        """Write results.json and results.md; measurements of other scenarios and releases are kept."""
        file = directory / "results.json"
        kept = json.loads(file.read_text()) if file.exists() else []
        new = {(entry.scenario, entry.release) for entry in self.measurements}
        old = [Measurement(**entry) for entry in kept if (entry["scenario"], entry["release"]) not in new]
        everything = Results(
            sorted([*old, *self.measurements], key=lambda entry: (entry.scenario, entry.release))
        )
        file.write_text(json.dumps([_plain(entry) for entry in everything.measurements], indent=1) + "\n")
        (directory / "results.md").write_text(everything.document())

    def document(self) -> str:
        """Return results.md: the summary, then each scenario with its setup, figures and notes."""
        scenarios: dict[str, list[Measurement]] = {}
        for entry in self.measurements:
            scenarios.setdefault(entry.scenario, []).append(entry)
        sections = [_section(name, entries) for name, entries in scenarios.items()]
        return "\n".join([INTRODUCTION, *self.lines(), "", *sections])


def _section(name: str, entries: Sequence[Measurement]) -> str:
    """One scenario, on all releases."""
    shown = [
        (entry.release, variant, figures) for entry in entries for variant, figures in entry.shown().items()
    ]
    columns = list(dict.fromkeys(figure for _, _, figures in shown for figure in figures))
    rows = [
        (release, variant, *(figures.get(column, "") for column in columns))
        for release, variant, figures in shown
    ]
    lines = table([("release", "variant", *columns), *rows])
    rounds = ", ".join(f"{entry.rounds} rounds on {entry.release}" for entry in entries)
    notes = [f"{entry.release}: {entry.note}" for entry in entries if entry.note]
    said = (_wrapped(text) for text in (*_setups(entries), f"{rounds}.".capitalize()))
    return "\n\n".join([f"## {name}", *said, "\n".join(lines), *map(_wrapped, notes)]) + "\n"


def _setups(entries: Sequence[Measurement]) -> list[str]:
    """What was measured; once where it was the same on all releases."""
    setups: dict[str, list[str]] = {}
    for entry in entries:
        setups.setdefault(entry.setup, []).append(entry.release)
    if len(setups) == 1:
        return list(setups)
    return [f"{' and '.join(releases)}: {setup}" for setup, releases in setups.items()]


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False)


def _spread(values: Sequence[float]) -> str:
    """The median, and between what it lies."""
    if min(values) == max(values):
        return f"{values[0]:.4g}"
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, its first row the heading."""
    heading, *rest = rows
    return ["| " + " | ".join(row) + " |" for row in (heading, ["---"] * len(heading), *rest)]


def _plain(entry: Measurement) -> dict[str, object]:
    """A measurement as JSON has it, its values rounded to what they are worth."""
    series = {
        variant: {name: [float(f"{value:.5g}") for value in values] for name, values in figures.items()}
        for variant, figures in entry.series.items()
    }
    return {**asdict(entry, recurse=False), "series": series}
