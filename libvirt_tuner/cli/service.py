"""status, daemon, install, uninstall: what keeps running, and what is put on the host."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from libvirt_tuner import install as files
from libvirt_tuner.cli.session import Session, complete_domain, json_option

if TYPE_CHECKING:
    from libvirt_tuner.hostside.ledger import Book
    from libvirt_tuner.hostside.status import Row
    from libvirt_tuner.install import Done
    from libvirt_tuner.libvirtd.connection import Domain

NAME = "libvirt-tuner"

prefix_option = click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    help="Below this directory; nothing is started, stopped or given back then.",
)


@click.command(short_help="Running domains: planned against real.")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, shell_complete=complete_domain)
@json_option
@click.pass_obj
def status(session: Session, domains: tuple[str, ...], as_json: bool) -> None:
    """Show planned against real, for each running DOMAIN or all; exit status 1 where they differ."""
    from libvirt_tuner.cli import render
    from libvirt_tuner.hostside.ledger import Ledger

    book = Ledger(session.sysfs).read()
    found: dict[str, list[Row]] = {}
    for domain in session.domains(domains, every=not domains, active=True):
        if domain.active:
            with session.going_on(domain.name):
                found[domain.name] = _rows(session, book, domain)
        else:
            session.complain(f"{domain.name}: not running")
    if as_json:
        click.echo(json.dumps(render.status_data(found), indent=2))
    elif found:
        render.print_status(found)
    elif not domains:
        click.echo("no domain is running", err=True)
    sys.exit(session.failed or any(not row.ok for table in found.values() for row in table))


def _rows(session: Session, book: Book, domain: Domain) -> list[Row]:
    from libvirt_tuner.domainxml.document import parse
    from libvirt_tuner.domainxml.spec import read_spec
    from libvirt_tuner.hostside.status import LEFT_ALONE, rows

    live = session.request(session.connection.xml(domain))
    if not live.policy.select:
        return [LEFT_ALONE]
    inactive = session.connection.xml(domain, inactive=True) if domain.persistent else None
    defined = None if inactive is None else read_spec(parse(inactive))
    return rows(session.sysfs, book, domain.uuid, live.spec, defined)


@click.command(short_help="The service: completes definitions as they are made.")
@click.pass_obj
def daemon(session: Session) -> None:
    """Complete every definition as soon as it is defined or changed; runs until it is stopped."""
    from libvirt_tuner.daemon import service

    sys.exit(service.main(session.uri))


@click.command(short_help="Install hook, service, manual page and completion.")
@click.option(
    "--no-service",
    is_flag=True,
    help="Without the daemon: pins come with the first start, the rest with the second.",
)
@prefix_option
@click.pass_context
def install(ctx: click.Context, no_service: bool, prefix: Path) -> None:
    """Install the hook, the service, bash completion and the manual page.

    A hook of somebody else's stays: ours goes beside it, into qemu.d, which libvirt looks into from 6.5 on.
    Nothing is written when any of the files is somebody else's.
    """
    from libvirt_tuner.cli import manual

    root = ctx.find_root()
    texts = {files.COMPLETION: _completion(root), files.MANUAL: manual.page(root)}
    if not no_service:
        texts[files.UNIT] = files.unit(_program())
    _tell(files.install(prefix, texts))


@click.command(short_help="Give the host back, and remove what 'install' put there.")
@prefix_option
@click.pass_context
def uninstall(ctx: click.Context, prefix: Path) -> None:
    """Give back every change of the host, and remove what install put there; definitions stay as they are.

    Run 'libvirt-tuner revert --all' before, to have them as they were, too.
    """
    session: Session = ctx.obj
    if prefix == Path("/"):
        _give_back(ctx, session)
    _tell(files.uninstall(prefix))
    sys.exit(session.failed)


def _give_back(ctx: click.Context, session: Session) -> None:
    """``undo --all``, where there is something to undo; what fails is said, and the files go all the same."""
    from libvirt_tuner.cli.host import undo
    from libvirt_tuner.hostside.ledger import DIRECTORY

    with session.going_on("undo"):
        if session.sysfs.exists(DIRECTORY):
            try:
                ctx.invoke(undo, domains=(), every=True, as_json=False)
            except SystemExit as ended:
                session.failed = session.failed or bool(ended.code)


def _tell(steps: list[Done]) -> None:
    for step in steps:
        click.echo(f"{step.what} {step.path}" + (f"; {step.advice}" if step.advice else ""))


def _program() -> str:
    """This program's path: the one that was called, else the one beside the interpreter."""
    called = Path(sys.argv[0])
    return str(called.resolve() if called.name == NAME else Path(sys.executable).with_name(NAME))


def _completion(root: click.Context) -> str:
    from click.shell_completion import BashComplete

    script = BashComplete(root.command, {}, NAME, "_LIBVIRT_TUNER_COMPLETE").source()
    return f"# {files.MARK}\n{script}"


COMMANDS = (status, daemon, install, uninstall)
