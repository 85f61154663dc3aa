"""list: every domain, and whether it is tuned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from attrs import asdict, frozen

from libvirt_tuner.cli.session import Session, json_option, no_header_option
from libvirt_tuner.errors import printable

if TYPE_CHECKING:
    from libvirt_tuner.hostside.ledger import Book
    from libvirt_tuner.hostside.listing import Row
    from libvirt_tuner.libvirtd.connection import Domain

_HEAD = ("Id", "Name", "State", "Placement", "Node", "Tuned", "Why not")


@frozen
class Entry:
    """A domain as the list shows it.

    Attributes:
        id: libvirt's number of a running domain, None of another.
        uuid: The domain's.
        row: What is known of it (:mod:`libvirt_tuner.hostside.listing`).
    """

    id: int | None
    uuid: str
    row: Row

    def data(self) -> dict[str, object]:
        """The entry for JSON."""
        return {"id": self.id, "uuid": self.uuid, **asdict(self.row)}

    def cells(self) -> tuple[str, ...]:
        """The entry's columns as text."""
        row = self.row
        nodes = ",".join(map(str, row.nodes)) or "-"
        number = "-" if self.id is None else str(self.id)
        return (
            number,
            row.name,
            row.state,
            row.placement or "-",
            nodes,
            "yes" if row.tuned else "no",
            row.why,
        )


@click.command(name="list", short_help="List every domain, and why it is not tuned.")
@click.option("--name", "names_only", is_flag=True, help="Print only names, one per line.")
@click.option("--tuned", is_flag=True, help="List only tuned domains.")
@no_header_option
@json_option
@click.pass_obj
def list_domains(session: Session, names_only: bool, tuned: bool, no_header: bool, as_json: bool) -> None:
    """List every domain with its placement, its nodes, and why it is not tuned."""
    found = [entry for entry in entries(session) if entry.row.tuned or not tuned]
    if as_json:
        click.echo(json.dumps([*(entry.data() for entry in found), *session.failures()], indent=2))
    elif names_only:
        for entry in found:
            click.echo(entry.row.name)
    else:
        heading = [] if no_header or session.quiet else [_HEAD]
        _print([*heading, *(entry.cells() for entry in found)])
    click.get_current_context().exit(session.failed)


def entries(session: Session, *, active: bool | None = None) -> Iterator[Entry]:
    """Every domain, or those that run (``active``); what is wrong with one is complained of."""
    book = session.book()
    for domain in session.connection.domains(active=active):
        with session.going_on(domain.name):
            yield _entry(session, book, domain)


def _entry(session: Session, book: Book | None, domain: Domain) -> Entry:
    from libvirt_tuner.hostside import listing

    definition = session.connection.definition(domain) or session.connection.xml(domain)
    request = session.request(definition)
    return Entry(
        domain.id, domain.uuid, listing.row(session.sysfs, book, request, domain.name, runs=domain.active)
    )


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(f" {printable(line)}".rstrip())


COMMANDS = (list_domains,)
