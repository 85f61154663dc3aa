"""status, daemon: running domains against their plans, and the service."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from libvirt_tuner.cli.session import Session, complete_domain, json_option, no_header_option

if TYPE_CHECKING:
    from libvirt_tuner.hostside.ledger import Book
    from libvirt_tuner.hostside.status import Row
    from libvirt_tuner.libvirtd.connection import Domain


@click.command(short_help="Running domains: planned against real.")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, shell_complete=complete_domain)
@no_header_option
@json_option
@click.pass_obj
def status(session: Session, domains: tuple[str, ...], no_header: bool, as_json: bool) -> None:
    """Show planned against real, for each running DOMAIN or all; exit status 1 where they differ.

    To users other than root, libvirt's pins against real: what was planned beyond them is root's to read.
    """
    from libvirt_tuner.cli import render

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
    if as_json:
        failed = {name: {"error": why} for name, why in session.errors.items()}
        click.echo(json.dumps(render.status_data(found) | failed, indent=2))
    elif found:
        render.print_status(found, heading=not (no_header or session.quiet), every=session.verbose)
    elif not domains:
        session.remark("no domain is running")
    sys.exit(session.failed or any(not row.ok for table in found.values() for row in table))


def _rows(session: Session, book: Book | None, domain: Domain) -> list[Row]:
    from libvirt_tuner.domainxml.document import parse
    from libvirt_tuner.domainxml.spec import read_spec
    from libvirt_tuner.hostside.status import LEFT_ALONE, readable_rows, rows

    live = session.request(session.connection.xml(domain))
    if not live.policy.select:
        return [LEFT_ALONE]
    inactive = session.connection.xml(domain, inactive=True) if domain.persistent else None
    defined = None if inactive is None else read_spec(parse(inactive))
    if book is None:
        return readable_rows(session.sysfs, domain.uuid, live.spec, defined)
    return rows(session.sysfs, book, domain.uuid, live.spec, defined)


@click.command(short_help="The service: completes definitions as they are made.")
@click.pass_obj
def daemon(session: Session) -> None:
    """Complete every definition as soon as it is defined or changed; runs until it is stopped."""
    from libvirt_tuner.daemon import service

    sys.exit(service.main(session.uri))


COMMANDS = (status, daemon)
