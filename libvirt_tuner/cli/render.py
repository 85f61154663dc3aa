"""Prints plans and findings as text and as JSON.

rich formats output for a terminal, and is imported only then. Output to a pipe is never wrapped.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from libvirt_tuner import cpuset
from libvirt_tuner.errors import printable
from libvirt_tuner.hostcheck.facts import WARNING, Finding
from libvirt_tuner.hostside.status import Row
from libvirt_tuner.planning import driver, stored
from libvirt_tuner.planning.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.padding import Padding

    from libvirt_tuner.hostside.changes import Outcome
    from libvirt_tuner.libvirtd.definition import Completion

Cell = Sequence[tuple[str, str]]
"""Pieces of text, each with rich's name of its style."""

# The only thing VIR_DOMAIN_XML_SECURE adds to a QEMU domain: passwords of <graphics>.
_PASSWORD = re.compile(r"""(\bpasswd=)('[^']*'|"[^"]*")""")


def plan_data(plan: Plan) -> dict[str, object]:
    """The plan for JSON (docs/json.md): sets of CPUs and nodes are cpulists, as in libvirt's XML."""
    return stored.to_dict(plan) | {
        **{name: plan.driver[name][0] if name in plan.driver else None for name in driver.ATTRIBUTES},
        "poll_us": plan.poll_us,
        "mtus": [
            {"vnic": choice.index, "mac": choice.mac, "size": choice.size, "how": choice.how}
            for choice in plan.mtus
        ],
        "irqs": [
            {"irq": move.irq, "nic": move.nic, "action": move.action, "cpus": cpuset.format(move.cpus)}
            for move in plan.irqs
        ],
        "masks": [
            {"nic": mask.nic, "queue": mask.queue, "cpus": cpuset.format(mask.cpus)} for mask in plan.masks
        ],
        "reasons": [
            {"subject": reason.subject, "decision": reason.decision, "why": reason.why}
            for reason in plan.reasons
        ],
    }


def print_plan(plan: Plan) -> None:
    """Print the decisions with their reasons, then where each network card's interrupts go."""
    decisions = [
        (
            [(reason.subject, "")],
            [(reason.decision, "bold"), (f" - {reason.why}" if reason.why else "", "")],
        )
        for reason in plan.reasons
    ]
    _print_title(plan.domain, plan.placement)
    _print_rows([*decisions, *_seats(plan)])


def _seats(plan: Plan) -> Iterator[tuple[Cell, Cell]]:
    """Yield a row per network card: each CPU with the interrupts that go to it."""
    seats: dict[str, dict[tuple[int, ...], set[int]]] = {}
    for move in plan.irqs:
        seats.setdefault(move.nic, {}).setdefault(tuple(sorted(move.cpus)), set()).add(move.irq)
    for nic, cpus in seats.items():
        places = (f"CPU {cpuset.format(at)}: {cpuset.format(irqs)}" for at, irqs in sorted(cpus.items()))
        yield [(f"IRQs of {nic}", "")], [("; ".join(places), "")]


def diff(found: Completion) -> str:
    """Return the change of a definition as a unified diff without passwords; "" if there is none."""
    before, after = (_PASSWORD.sub(r"\1'***'", text).splitlines(True) for text in (found.before, found.text))
    name = f"{found.plan.domain}.xml"
    return "".join(difflib.unified_diff(before, after, name, f"{name} (tuned)"))


def status_data(found: Mapping[str, Iterable[Row]]) -> dict[str, object]:
    """Rows by domain, for JSON (docs/json.md)."""
    return {
        domain: [
            {"subject": row.subject, "planned": row.planned, "real": row.real, "ok": row.ok, "note": row.note}
            for row in rows
        ]
        for domain, rows in found.items()
    }


def print_status(found: Mapping[str, Iterable[Row]], *, heading: bool = True, every: bool = False) -> None:
    """Print a table per domain: planned against real.

    Args:
        found: Rows by domain.
        heading: With names of columns.
        every: Print each interrupt that is in place, instead of one line for all.
    """
    for domain, rows in found.items():
        _print_title(domain)
        _print_rows(_status_rows(rows, heading=heading, every=every))


def _status_rows(rows: Iterable[Row], *, heading: bool, every: bool) -> list[Sequence[Cell]]:
    head: list[Cell] = [[(text, "dim")] for text in ("what", "planned", "real", "")]
    shown = rows if every else _folded(list(rows))
    return [*([head] if heading else []), *(_status_row(row) for row in shown)]


@contextmanager
def live() -> Iterator[Callable[..., None]]:
    """What shows the tables of :func:`print_status` in the place of those before; on a pipe, after them."""
    if not sys.stdout.isatty():

        def follow(found: Mapping[str, Iterable[Row]], **how: bool) -> None:
            print_status(found, **how)
            click.echo()

        yield follow
        return
    from rich.live import Live

    with Live(console=_console(), auto_refresh=False, vertical_overflow="crop") as shown:

        def replace(found: Mapping[str, Iterable[Row]], *, heading: bool, every: bool) -> None:
            shown.update(_status_view(found, heading=heading, every=every), refresh=True)

        yield replace


def _status_view(found: Mapping[str, Iterable[Row]], *, heading: bool, every: bool) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for domain, rows in found.items():
        parts += [
            Text(printable(domain), "bold"),
            _grid(_status_rows(rows, heading=heading, every=every)),
        ]
    return Group(*(parts or [Text("no domain is running")]))


def _folded(rows: list[Row]) -> Iterator[Row]:
    """Return the rows, with one row for all interrupts that are in place."""
    placed = [row for row in rows if row.ok and row.irq is not None]
    for row in rows:
        if row not in placed:
            yield row
        elif row is placed[0]:
            yield Row("irqs", f"{len(placed)} steered", "in place", ok=True)


def _status_row(row: Row) -> tuple[Cell, ...]:
    verdict = ("ok", "green") if row.ok else ("differs", "yellow")
    said = f" - {row.note}" if row.note else ""
    return [(row.subject, "")], [(row.planned, "")], [(row.real, "")], [verdict, (said, "")]


def _print_title(domain: str, said: str = "") -> None:
    click.echo(click.style(printable(domain), bold=True) + (f": {printable(said)}" if said else ""))


def _print_rows(rows: Sequence[Sequence[Cell]]) -> None:
    """Print aligned columns. The last one is wrapped only on a terminal.

    Names of domains and of processes are their makers': none says anything to the terminal.
    """
    rows = [[[(printable(text), style) for text, style in cell] for cell in row] for row in rows]
    if sys.stdout.isatty():
        _console().print(_grid(rows))
        return
    texts = [["".join(text for text, _ in cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(f"  {line}".rstrip())


def _grid(rows: Sequence[Sequence[Cell]]) -> Padding:
    """Aligned columns for rich."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for number in range(len(rows[0]) if rows else 0):
        grid.add_column(no_wrap=number == 0)
    for row in rows:
        grid.add_row(*(Text.assemble(*cell) for cell in row))
    return Padding(grid, (0, 0, 0, 2))


def _console(*, wrap: bool = True) -> Console:
    """The terminal, coloured as --color says."""
    from rich.console import Console

    context = click.get_current_context(silent=True)
    color = context.color if context else None
    return Console(soft_wrap=not wrap, highlight=False, force_terminal=color or None, no_color=color is False)


def findings_data(found: Iterable[Finding]) -> list[dict[str, str]]:
    """Findings for JSON."""
    return [
        {
            "check": finding.check,
            "severity": finding.severity,
            "what": finding.what,
            "why": finding.why,
            "fix": finding.fix,
        }
        for finding in found
    ]


def print_findings(found: Iterable[Finding]) -> None:
    """Print each finding: what, why, and on a separate line the command that fixes it."""
    from rich.text import Text

    console = _console(wrap=False)
    findings = list(found)
    for finding in findings:
        style = "yellow" if finding.severity == WARNING else "dim"
        console.print(
            Text.assemble(
                (f"{finding.severity}: ", style),
                (printable(finding.what), "bold"),
                f": {printable(finding.why)}",
            )
        )
        if finding.fix:
            console.print(Text(f"    {printable(finding.fix)}", "cyan"))
    if not findings:
        console.print(Text("nothing found", "green"))


def outcomes_data(outcomes: Iterable[Outcome]) -> list[dict[str, object]]:
    """Return the undone changes of the host, for JSON."""
    return [
        {
            "kind": outcome.change.kind,
            "target": outcome.change.target,
            "ok": outcome.ok,
            "note": str(outcome.error or outcome.note),
        }
        for outcome in outcomes
    ]


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, heading: bool = True) -> None:
    """Print a table, with its head unless ``heading`` is false; within a terminal its last column wraps."""
    cells: list[Sequence[Cell]] = [[[(text, "dim")] for text in head]] if heading else []
    _print_rows([*cells, *([[(text, "")] for text in row] for row in rows)])
