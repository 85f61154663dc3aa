"""status, daemon: running domains against their plans, and the service."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from libvirt_tuner.cli.session import Session, complete_domain, json_option, no_header_option

if TYPE_CHECKING:
    from libvirt_tuner.diagnosis.metrics import Standing
    from libvirt_tuner.hostside.ledger import Book
    from libvirt_tuner.hostside.status import Row
    from libvirt_tuner.libvirtd.connection import Domain


@click.command(short_help="Compare running domains with their plans.")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, shell_complete=complete_domain)
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="N",
    help="With --watch: seconds between two outputs.",
)
@click.option(
    "--prometheus",
    "target",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write metrics for node_exporter's textfile collector instead; '-' is standard output.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="N",
    help="With --prometheus: how long to sample for findings.",
)
@no_header_option
@json_option
@click.pass_obj
def status(
    session: Session,
    domains: tuple[str, ...],
    interval: float,
    target: Path | None,
    seconds: float,
    *,
    watch: bool,
    no_header: bool,
    as_json: bool,
) -> None:
    """Compare the plan of each running DOMAIN, or of all, with its real state; exit status 1 if they differ.

    Without root, only the pins in libvirt are compared. Only root can read the rest of the plan.

    With --watch or --prometheus, differences do not change the exit status. It is 0 if everything could be
    read.
    """
    if sum((watch, target is not None, as_json)) > 1:
        raise click.UsageError("--watch, --prometheus and --json cannot be used together")
    if target is not None and domains:
        raise click.UsageError("--prometheus cannot be used with DOMAIN")
    heading = not (no_header or session.quiet)
    if watch:
        _watch(session, domains, interval, heading=heading)
        return
    found = _look(session, domains)
    if target is not None:
        _write_metrics(session, found, target, seconds)
        sys.exit(session.failed)
    from libvirt_tuner.cli import render

    if as_json:
        failed = {name: {"error": why} for name, why in session.errors.items()}
        click.echo(json.dumps(render.status_data(found) | failed, indent=2))
    elif found:
        render.print_status(found, heading=heading, every=session.verbose)
    elif not domains:
        session.remark("no domain is running")
    sys.exit(session.failed or any(not row.ok for table in found.values() for row in table))


def _look(session: Session, domains: tuple[str, ...]) -> dict[str, list[Row]]:
    """The rows of each running domain; what is wrong is complained of."""
    book = session.book()
    for problem in book.damage if book else ():
        session.complain(problem)
    found: dict[str, list[Row]] = {}
    for domain in session.domains(domains, every=not domains, active=True):
        if domain.active:
            with session.going_on(domain.name):
                found[domain.name] = _rows(session, book, domain)
        else:
            session.errors[domain.name] = "not running"
            session.complain(f"{domain.name}: not running")
    return found


def _watch(session: Session, domains: tuple[str, ...], interval: float, *, heading: bool) -> None:
    """Look again and again; Ctrl-C is the way to end it, and no failure."""
    from libvirt_tuner.cli import render

    with suppress(KeyboardInterrupt), render.live() as show:
        while True:
            show(_look(session, domains), heading=heading, every=session.verbose)
            time.sleep(interval)


def _write_metrics(session: Session, found: dict[str, list[Row]], target: Path, seconds: float) -> None:
    from libvirt_tuner.cli.seeing import intervals
    from libvirt_tuner.diagnosis import metrics
    from libvirt_tuner.diagnosis.diagnose import diagnose
    from libvirt_tuner.host import files

    look = next(intervals(session, None, lambda: time.sleep(seconds)))
    told = metrics.families(look, diagnose(look), _standings(session, found))
    text = metrics.exposition(told)
    if target == Path("-"):
        click.echo(text, nl=False)
    else:
        files.replace(target, text)


def _standings(session: Session, found: dict[str, list[Row]]) -> Iterator[Standing]:
    from libvirt_tuner.cli.listing import entries
    from libvirt_tuner.diagnosis.metrics import Standing

    for entry in entries(session, active=True):
        row = entry.row
        differences = sum(not one.ok for one in found.get(row.name, ()))
        yield Standing(row.name, entry.uuid, row.placement, row.nodes, row.tuned, differences)


def _rows(session: Session, book: Book | None, domain: Domain) -> list[Row]:
    from libvirt_tuner.domainxml.document import parse
    from libvirt_tuner.domainxml.spec import read_spec
    from libvirt_tuner.hostside.status import NOT_SELECTED, readable_rows, rows

    live = session.request(session.connection.xml(domain))
    if not live.policy.select:
        return [NOT_SELECTED]
    inactive = session.connection.xml(domain, inactive=True) if domain.persistent else None
    defined = None if inactive is None else read_spec(parse(inactive))
    if book is None:
        return readable_rows(session.sysfs, domain.uuid, live.spec, defined)
    return rows(session.sysfs, book, domain.uuid, live.spec, defined)


@click.command(short_help="Run the service that tunes definitions.")
@click.pass_obj
def daemon(session: Session) -> None:
    """Tune every definition after it is defined or changed. Runs until it is stopped."""
    from libvirt_tuner.daemon import service

    sys.exit(service.main(session.uri))


COMMANDS = (status, daemon)
