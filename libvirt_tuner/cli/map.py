"""map: draws the host, now and with a plan."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from libvirt_tuner.cli.session import Session, complete_domain, json_option, read_document

if TYPE_CHECKING:
    from libvirt_tuner.domainxml.spec import DomainSpec
    from libvirt_tuner.picture.host import Picture, Tenant
    from libvirt_tuner.planning.plan import Plan

_file = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@click.command(name="map", short_help="Show the host as a picture: nodes, cores, what runs where.")
@click.option("--svg", type=_file, metavar="FILE", help="Write the picture as SVG; '-' is standard output.")
@click.option(
    "--html", type=_file, metavar="FILE", help="Write the picture as one HTML file, for any window width."
)
@click.option(
    "--lstopo", is_flag=True, help="Print threads and interrupts for hwloc's 'lstopo --misc-from FILE'."
)
@click.option(
    "--plan",
    "domain",
    metavar="DOMAIN",
    shell_complete=complete_domain,
    help="Also show the host with the plan of this domain.",
)
@click.option(
    "--xml",
    "file",
    type=click.File("rb"),
    help="Also show the host with the plan of this document; '-': standard input.",
)
@click.option(
    "--host",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    help="Use a captured host ('libvirt-tuner host capture').",
)
@click.option(
    "--fold/--no-fold",
    default=None,
    help="Draw neighbouring cores that look the same as one. [default: on hosts of more than 64 CPUs]",
)
@click.option(
    "--width",
    type=click.IntRange(20, 1000),
    metavar="N",
    help="Columns of text. [default: those of the terminal]",
)
@json_option
@click.pass_context
def map_(
    ctx: click.Context,
    svg: Path | None,
    html: Path | None,
    domain: str | None,
    file: IO[bytes] | None,
    directory: str | None,
    fold: bool | None,
    width: int | None,
    *,
    lstopo: bool,
    as_json: bool,
) -> None:
    """Show nodes, L3 caches and cores, and what runs on each CPU: vCPUs, vhost workers, emulators, iothreads,
    interrupts of network cards.

    A thread that may run on a whole node is listed below the picture, not at each of its CPUs. With --plan
    or --xml, two pictures are shown: now and planned. Changes are marked.
    """
    if sum((svg is not None or html is not None, lstopo, as_json)) > 1:
        raise click.UsageError("--json, --lstopo and --svg or --html cannot be used together")
    if domain is not None and file is not None:
        raise click.UsageError("give either --plan DOMAIN or --xml FILE")
    session: Session = ctx.obj
    if directory is not None:
        if domain is not None:
            raise click.UsageError("--plan needs libvirt; with --host, give --xml FILE")
        session = ctx.with_resource(Session(session.uri, directory))
    plan = _plan(session, domain, file) if domain is not None or file is not None else None
    pictures = _pictures(session, plan)
    if lstopo:
        from libvirt_tuner.picture import data

        click.echo("\n".join(data.lstopo(pictures[-1])))
    elif as_json:
        _print_json(pictures)
    elif svg is not None or html is not None:
        _draw(pictures, svg, html, fold=fold)
    else:
        _print(pictures, width, fold=fold)
    sys.exit(session.failed)


def _plan(session: Session, domain: str | None, file: IO[bytes] | None) -> tuple[Plan, DomainSpec]:
    if file is not None:
        request = session.request(read_document(file))
        return session.plan(request), request.own
    from libvirt_tuner.cli.placement import proposal

    found = proposal(session, session.connection.lookup(str(domain)))
    return found.plan, session.request(found.before).own


def _pictures(session: Session, plan: tuple[Plan, DomainSpec] | None) -> list[Picture]:
    """The host now; and with the plan, where there is one."""
    from libvirt_tuner.cli.seeing import looks
    from libvirt_tuner.config import policy
    from libvirt_tuner.host import cpus
    from libvirt_tuner.hostside import occupants
    from libvirt_tuner.hostside.scene import read_scene
    from libvirt_tuner.picture.host import arrange, interrupts
    from libvirt_tuner.planning.cores import housekeeping

    scene, troubles = read_scene(session.sysfs, every_card=True)
    last = session.sysfs if session.sysfs.live else [session.sysfs, *looks(Path(session.root))][-1]
    threads, unread = occupants.threads(last, scene)
    for trouble in (*troubles, *unread):
        session.complain(trouble)
    host = scene.host
    kept = housekeeping(host, policy.resolve("", session.config, None)[0].housekeeping)
    offline = cpus.present(session.sysfs) - host.online

    def picture(tenants: list[Tenant]) -> Picture:
        return arrange(host, tenants, housekeeping=kept, offline=offline)

    found = [picture([*threads, *interrupts(host)])]
    if plan is not None:
        made, spec = plan
        others = occupants.without(threads, made.domain)
        moved = interrupts(host, occupants.moved(made))
        found.append(picture([*others, *occupants.planned(made, spec), *moved]))
    return found


def _print_json(pictures: list[Picture]) -> None:
    from libvirt_tuner.picture import data

    found = [data.to_dict(picture) for picture in pictures]
    one = found[0] if len(found) == 1 else dict(zip(("now", "planned"), found, strict=True))
    click.echo(json.dumps(one, indent=2))


def _draw(pictures: list[Picture], svg: Path | None, html: Path | None, *, fold: bool | None) -> None:
    from libvirt_tuner.host import files
    from libvirt_tuner.picture import cells
    from libvirt_tuner.picture import html as page
    from libvirt_tuner.picture import svg as drawing

    folded = cells.folds(pictures[0]) if fold is None else fold
    for target, draw in ((svg, drawing.draw), (html, page.draw)):
        if target is None:
            continue
        text = draw(pictures, fold=folded).decode()
        if target == Path("-"):
            click.echo(text, nl=False)
        else:
            files.replace(target, text)


def _print(pictures: list[Picture], width: int | None, *, fold: bool | None) -> None:
    from libvirt_tuner.picture import cells, text

    wide = width or shutil.get_terminal_size((80, 24)).columns
    folded = cells.folds(pictures[0]) if fold is None else fold
    if len(pictures) == 1:
        lines = text.lines(pictures[0], wide, fold=folded)
    else:
        lines = text.pair(pictures[0], pictures[1], wide, fold=folded)
    for line in lines:
        said = "".join(click.style(piece, fg=colour) if colour else piece for piece, colour in line)
        click.echo(said.rstrip())


COMMANDS = (map_,)
