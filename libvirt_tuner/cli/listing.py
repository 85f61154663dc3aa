"""list: every domain, and whether it is tuned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from attrs import asdict, frozen

from libvirt_tuner.cli.session import Session, json_option

if TYPE_CHECKING:
    from libvirt_tuner.hostside.ledger import Book
    from libvirt_tuner.libvirtd.connection import Domain

_HEAD = ("Id", "Name", "State", "Placement", "Node", "Tuned", "Why not")


@frozen
class Entry:
    """A domain as the list shows it.

    Attributes:
        id: libvirt's number of a running domain, None of another.
        name, uuid: The domain's.
        state: ``running`` or ``shut off``.
        placement: As planned for the running domain; "" where there is no record of that.
        nodes: Of the host, where it was placed.
        tuned: Whether its definition has settings of this tool's.
        why: Why it is not tuned, or not placed; "" else.
    """

    id: int | None
    name: str
    uuid: str
    state: str
    placement: str
    nodes: tuple[int, ...]
    tuned: bool
    why: str


@click.command(name="list", short_help="Every domain: placed, tuned, and if not, why.")
@click.option("--name", "names_only", is_flag=True, help="Names only, one a line.")
@click.option("--tuned", is_flag=True, help="Only domains whose definition has settings of this tool's.")
@click.option("--no-header", is_flag=True, help="Without the heading, for scripts.")
@json_option
@click.pass_obj
def list_domains(session: Session, names_only: bool, tuned: bool, no_header: bool, as_json: bool) -> None:
    """List every domain: its placement, nodes, whether its definition is tuned, and why not."""
    found = [entry for entry in _entries(session) if entry.tuned or not tuned]
    if as_json:
        click.echo(json.dumps([*map(asdict, found), *session.failures()], indent=2))
    elif names_only:
        for entry in found:
            click.echo(entry.name)
    else:
        heading = [] if no_header or session.quiet else [_HEAD]
        _print([*heading, *map(_cells, found)])
    click.get_current_context().exit(session.failed)


def _entries(session: Session) -> Iterator[Entry]:
    book = session.book()
    for domain in session.connection.domains():
        with session.going_on(domain.name):
            yield _entry(session, book, domain)


def _entry(session: Session, book: Book | None, domain: Domain) -> Entry:
    from libvirt_tuner.domainxml.document import parse
    from libvirt_tuner.planning import stored
    from libvirt_tuner.transforms import record

    definition = session.connection.definition(domain)
    request = session.request(definition or session.connection.xml(domain))
    tuned = definition is not None and bool(record.revert(parse(definition)))
    claim = book.claims.get(domain.uuid) if book else None
    placement = stored.from_dict(claim.plan) if claim and claim.plan and domain.active else None
    return Entry(
        id=domain.id,
        name=domain.name,
        uuid=domain.uuid,
        state="running" if domain.active else "shut off",
        placement=placement.placement if placement else "",
        nodes=placement.nodes if placement else (),
        tuned=tuned,
        why=_why(
            domain, selected=request.policy.select, tuned=tuned, placed=placement is not None or not book
        ),
    )


def _why(domain: Domain, *, selected: bool, tuned: bool, placed: bool) -> str:
    if not selected:
        return "policy: select = false"
    if domain.active and not placed:
        return "no record of its start: started before the installation, or undone"
    if tuned:
        return ""
    return "not completed yet, or reverted" if domain.persistent else "transient"


def _cells(entry: Entry) -> tuple[str, ...]:
    number = "-" if entry.id is None else str(entry.id)
    nodes = ",".join(map(str, entry.nodes)) or "-"
    tuned = "yes" if entry.tuned else "no"
    return (number, entry.name, entry.state, entry.placement or "-", nodes, tuned, entry.why)


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(f" {line}".rstrip())


COMMANDS = (list_domains,)
