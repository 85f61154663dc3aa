"""host capture, undo: the host itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import click

from libvirt_tuner import capture as captures
from libvirt_tuner.cli import checks, render
from libvirt_tuner.cli.session import Session, complete_domain, json_option
from libvirt_tuner.hostside import changes, irqbalance, slices
from libvirt_tuner.hostside.changes import Outcome
from libvirt_tuner.hostside.ledger import Ledger


@click.group()
def host() -> None:
    """Check or capture the host, or isolate CPUs."""


@host.command()
@click.argument("directory", type=click.Path())
@click.option(
    "--samples", type=click.IntRange(2, 100), metavar="N", help="Add N samples, for 'diagnose --host'."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    help="Seconds between two samples.",
)
@json_option
@click.pass_obj
def capture(session: Session, directory: str, samples: int | None, seconds: float, as_json: bool) -> None:
    """Write the data that the planner reads to DIRECTORY, for 'plan --host' on any machine."""
    from libvirt_tuner.cli.seeing import wait

    count = captures.capture(
        session.sysfs, directory, samples=samples or 0, pause=lambda: wait(seconds, "sampling")
    )
    data = {"directory": directory, "files": count}
    click.echo(json.dumps(data, indent=2) if as_json else f"{directory}: {count} files")


@click.command()
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, shell_complete=complete_domain)
@click.option("--all", "every", is_flag=True, help="Undo the changes for every domain.")
@json_option
@click.pass_obj
def undo(session: Session, domains: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Undo the changes of the host for each DOMAIN (name or UUID), and what 'diagnose --fix' changed of it.

    Otherwise its XML is not changed.
    """
    if bool(domains) == every:
        raise click.UsageError("give either DOMAIN names or --all")
    outcomes = give_back(session, None if every else domains)
    if as_json:
        click.echo(json.dumps([*render.outcomes_data(outcomes), *session.failures()], indent=2))
    tell(outcomes, as_json=as_json)
    sys.exit(session.failed or any(not outcome.ok for outcome in outcomes))


def give_back(session: Session, domains: Iterable[str] | None) -> Sequence[Outcome]:
    """Undo the changes for domains, by name or UUID; None: for every domain."""
    from libvirt_tuner.libvirtd import fixed

    names = None if domains is None else tuple(domains)
    restored: tuple[Outcome, ...] = ()
    fixed_ones: frozenset[str] = frozenset()
    # First: a fix may have moved a thread that the ledger knows.
    with session.going_on("diagnose --fix"):
        restored, fixed_ones = fixed.undo(lambda: session.connection, session.sysfs, names)
    ledger = Ledger(session.sysfs)
    with ledger.locked() as book:
        for problem in book.damage:
            session.complain(problem)
        if names is None:
            outcomes = changes.give_back_all(session.sysfs, book)
            if book.lost:
                book.lost = ""
                book.save()
        else:
            known = {claim.name: uuid for uuid, claim in book.claims.items()}
            uuids = {name: known.get(name, name) for name in names}
            held = {holder for entry in book.changes.values() for holder in entry.holders}
            for name, uuid in uuids.items():
                if uuid not in book.claims and uuid not in held and name not in fixed_ones:
                    session.errors[name] = "nothing to undo for it on this host"
                    session.complain(f"{name}: nothing to undo for it on this host")
            outcomes = changes.give_back(session.sysfs, book, *uuids.values())
    irqbalance.tell(session.sysfs, ledger)
    for trouble in slices.troubles(session.sysfs):
        session.complain(trouble)
    return (*restored, *outcomes)


def tell(outcomes: Iterable[Outcome], *, as_json: bool) -> None:
    """A line for each change: on stderr what could not be undone, else on stdout unless JSON goes there."""
    for outcome in outcomes:
        if not (as_json and outcome.ok):
            click.echo(str(outcome), err=not outcome.ok)


for command in checks.COMMANDS:
    host.add_command(command)

COMMANDS = (host, undo)
