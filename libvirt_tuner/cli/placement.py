"""plan, diff, apply, revert: plan a domain and change its definition.

libvirt is imported only when it is needed: planning a file on a captured host works without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING

import click
from attrs import evolve

from libvirt_tuner.cli import render
from libvirt_tuner.cli.session import Session, complete_domain, json_option, read_document
from libvirt_tuner.domainxml import document
from libvirt_tuner.planning.request import read_request

if TYPE_CHECKING:
    from libvirt_tuner.libvirtd.connection import Domain
    from libvirt_tuner.libvirtd.definition import Completion, Neighbours
    from libvirt_tuner.planning.plan import Plan
    from libvirt_tuner.planning.request import Request


@click.command(short_help="Show what would be done for a domain, and why.")
@click.argument("domain", required=False, shell_complete=complete_domain)
@click.option(
    "--xml",
    "files",
    type=click.File("rb"),
    multiple=True,
    help="Plan this document ('-': standard input); repeatable: plan them as if started in that order.",
)
@click.option(
    "--host",
    "host_dir",
    type=click.Path(exists=True, file_okay=False),
    help="Plan on a captured host ('libvirt-tuner host capture').",
)
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    domain: str | None,
    files: tuple[IO[bytes], ...],
    host_dir: str | None,
    as_json: bool,
) -> None:
    """Show what would be done for DOMAIN, and why.

    Exit status 1 if the policy has a mistake, or if one of your own pins names a CPU or node that does not
    exist. While the policy has a mistake, nothing is changed. The plan then ignores the part with the
    mistake.
    """
    if (domain is None) == (not files):
        raise click.UsageError("give either a DOMAIN or --xml FILE")
    session: Session = ctx.obj
    if host_dir:
        session = ctx.with_resource(Session(session.uri, host_dir))
    requests = [session.request(read_document(file)) for file in files]
    if len(requests) > 1:
        plans = zip(session.plan_all(requests), requests, strict=True)
        _show_all([_segmented(session, made, request) for made, request in plans], as_json=as_json)
    elif requests:
        _show(_segmented(session, session.plan(requests[0]), requests[0]), as_json=as_json)
    else:
        found = proposal(session, session.connection.lookup(str(domain)))
        request = read_request(found.before, session.config)
        _show(_segmented(session, found.plan, request), as_json=as_json)
    sys.exit(session.failed)


def _segmented(session: Session, made: Plan, request: Request) -> Plan:
    """The plan, and where the host cuts the domain's large packets: not the hook's to ask."""
    from libvirt_tuner.hostcheck import survey

    host = session.survey(request.devices, request.own.partition)
    found = survey.segmentation(session.sysfs, request.own, host, request.policy.uplink or "")
    return evolve(made, reasons=(*made.reasons, *found))


def _show(made: Plan, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(render.plan_data(made), indent=2))
    else:
        render.print_plan(made)


def _show_all(made: Sequence[Plan], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([render.plan_data(plan) for plan in made], indent=2))
        return
    for plan in made:
        render.print_plan(plan)


@click.command(short_help="Show how a domain's definition would change.")
@click.argument("domain", shell_complete=complete_domain)
@json_option
@click.pass_obj
def diff(session: Session, domain: str, as_json: bool) -> None:
    """Show how DOMAIN's definition would change; exit status 1 if it would."""
    found = proposal(session, session.connection.lookup(domain))
    text = render.diff(found)
    click.echo(json.dumps(_change(found), indent=2) if as_json else text, nl=as_json)
    sys.exit(bool(text) or session.failed)


@click.command(short_help="Write the plan into definitions.")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, shell_complete=complete_domain)
@click.option("--all", "every", is_flag=True, help="Every domain with a definition.")
@click.option("--live", is_flag=True, help="Also pin running domains.")
@click.option("--dry-run", is_flag=True, help="Show the change of the definition, and change nothing.")
@json_option
@click.pass_obj
def apply(
    session: Session, domains: tuple[str, ...], every: bool, live: bool, dry_run: bool, as_json: bool
) -> None:
    """Write the plan into the definition of each DOMAIN. Running domains change only with --live."""
    if live and dry_run:
        raise click.UsageError("--live and --dry-run cannot be used together")
    chosen = session.domains(domains, every=every, persistent=True)
    neighbours = other_definitions(session)
    told = []
    for domain in chosen:
        with session.going_on(domain.name):
            if dry_run:
                found = proposal(session, domain, neighbours)
                told.append(_change(found))
                text = render.diff(found)
            else:
                outcome, later = put_in(session, domain, neighbours, live=live)
                told.append(
                    {
                        "domain": domain.name,
                        "outcome": outcome,
                        "live": later is not None,
                        "at_next_start": list(later or ()),
                    }
                )
                text = said(domain, outcome, later)
            if not as_json:
                click.echo(text, nl=False)
    if as_json:
        click.echo(json.dumps([*told, *session.failures()], indent=2))
    sys.exit(session.failed)


def _change(found: Completion) -> dict[str, object]:
    return {"domain": found.plan.domain, "outcome": found.outcome, "diff": render.diff(found)}


def put_in(
    session: Session, domain: Domain, neighbours: Neighbours, *, live: bool
) -> tuple[str, tuple[str, ...] | None]:
    """Tune a definition, and with ``live`` the running domain.

    Return the outcome for the definition (:class:`~libvirt_tuner.libvirtd.definition.Completion`).

    It is ``transient`` if there is no definition. If the domain was pinned live, also return what takes
    effect only at its next start."""
    from libvirt_tuner.hostside import reverted
    from libvirt_tuner.libvirtd import definition

    versions = session.connection.versions()
    avoid = neighbours.but(domain.uuid)
    reverted.forget(session.sysfs, domain.uuid)
    done = definition.complete(
        session.connection, session.sysfs, domain, versions, avoid, asked=True, live=live
    )
    if done is None:
        session.complain(f"{domain.name}: the domain is transient and has no definition to change")
        return "transient", None
    neighbours.note(domain.uuid, done.text)
    _complain(session, done)
    if done.outcome == "held back":
        return "held back", None
    if done.outcome == "overtaken":
        session.complain(f"{domain.name}: {_OVERTAKEN}")
        return "overtaken", None
    return done.outcome, _pin_live(session, domain, done.plan) if live and domain.active else None


_OVERTAKEN = (
    "another program changed the definition at the same time; nothing was written, run the command again"
)


def said(domain: Domain, outcome: str, later: tuple[str, ...] | None) -> str:
    """Return the lines that say what was done and what takes effect at the next start."""
    if outcome not in ("changed", "complete"):
        return ""
    when = ", takes effect at its next start" if domain.active else ""
    lines = [f"definition changed{when}" if outcome == "changed" else "nothing to change"]
    if later is not None:
        lines += ["pinned live", *later]
    return "".join(f"{domain.name}: {line}\n" for line in lines)


def _pin_live(session: Session, domain: Domain, plan: Plan) -> tuple[str, ...] | None:
    """Return what takes effect only at the domain's next start; None if it could not be pinned."""
    from libvirt_tuner.hostside import holding
    from libvirt_tuner.libvirtd import live

    with session.going_on(domain.name):
        live.pin(session.connection, domain, plan)
        short = live.bind_memory(session.connection, domain, plan)
        given = holding.adopt(session.sysfs, plan)
        for trouble in (*given.troubles, *holding.tell_irqbalance(session.sysfs)):
            session.complain(f"{domain.name}: {trouble}")
        return (short,) if short else ()
    return None


@click.command(short_help="Remove the settings of this tool from definitions.")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, shell_complete=complete_domain)
@click.option("--all", "every", is_flag=True, help="Every domain with a definition.")
@click.option("--live", is_flag=True, help="Also remove the pins of running domains.")
@json_option
@click.pass_obj
def revert(session: Session, domains: tuple[str, ...], every: bool, live: bool, as_json: bool) -> None:
    """Remove the settings of this tool from each DOMAIN's definition.

    Settings that you changed by hand since then stay. The hook and the service leave the domain alone until
    'libvirt-tuner apply DOMAIN'.
    """
    chosen = session.domains(domains, every=every, persistent=True)
    told = take_out(session, chosen, live=live, say=(lambda _line: None) if as_json else click.echo)
    if as_json:
        click.echo(json.dumps([*told, *session.failures()], indent=2))
    sys.exit(session.failed)


def take_out(
    session: Session, domains: Iterable[Domain], *, live: bool, say: Callable[[str], None]
) -> list[dict[str, object]]:
    """Revert definitions, and with ``live`` the pins of running domains. Return the result of each, for JSON.

    Args:
        session: Reports failures.
        domains: The domains to revert.
        live: Whether to unpin running ones too.
        say: Prints a line.
    """
    told: list[dict[str, object]] = []
    for domain in domains:
        with session.going_on(domain.name):
            outcome = _revert(session, domain)
            taken_back = live and domain.active and _unpin(session, domain)
            told.append({"domain": domain.name, "outcome": outcome, "live": taken_back})
            if outcome != "overtaken":
                later = ", takes effect at its next start" if domain.active else ""
                line = f"reverted{later}" if outcome == "reverted" else "it has no settings of libvirt-tuner"
                say(f"{domain.name}: {line}")
            if taken_back:
                say(f"{domain.name}: live pins removed")
    return told


def _revert(session: Session, domain: Domain) -> str:
    """Return ``reverted``, ``untouched`` (it had no settings of ours) or ``overtaken``."""
    from libvirt_tuner.hostside import reverted
    from libvirt_tuner.transforms import record

    reverted.remember(session.sysfs, domain.uuid)
    before = session.connection.definition(domain)
    root = document.parse(before) if before is not None else None
    ignored = record.problems(root) if root is not None else ()
    if ignored:
        session.complain(f"{domain.name}: record: {ignored[0]} (1 of {len(ignored)} problems); ignored")
    if before is None or root is None or not record.revert(root):
        return "untouched"
    if session.connection.redefine(domain, before=before, after=document.serialize(root)):
        return "reverted"
    session.complain(f"{domain.name}: {_OVERTAKEN}")
    return "overtaken"


def _unpin(session: Session, domain: Domain) -> bool:
    """Remove our pins of the running domain and its changes of the host. Returns whether it had any."""
    from libvirt_tuner.host import cpus
    from libvirt_tuner.hostside import holding
    from libvirt_tuner.libvirtd import live

    _, given = holding.recorded(session.sysfs, domain.uuid)
    if given is None or not given.tuned:
        return False
    own = session.request(session.connection.definition(domain) or "").own
    found = cpus.cells(session.sysfs)
    balanced = frozenset().union(*(cell.cpus for cell in found)) - cpus.isolated(session.sysfs)
    live.unpin(session.connection, domain, given, balanced)
    holding.let_go(session.sysfs, own)
    return True


def other_definitions(session: Session) -> Neighbours:
    """What the definitions on this host need."""
    connection = session.connection
    from libvirt_tuner.libvirtd.definition import Neighbours

    found = Neighbours()
    found.learn(connection, connection.domains(persistent=True))
    return found


def proposal(session: Session, domain: Domain, neighbours: Neighbours | None = None) -> Completion:
    """What would be done for a domain; what is wrong with its policy is complained of."""
    from libvirt_tuner.libvirtd import definition

    known = neighbours or other_definitions(session)
    connection = session.connection
    found = definition.proposal(
        connection,
        session.sysfs,
        domain,
        connection.versions(),
        known.but(domain.uuid),
        recorded=session.recorded,
    )
    _complain(session, found)
    return found


def _complain(session: Session, found: Completion) -> None:
    """Report problems of the policy and of the user's own pins."""
    session.request(found.before)


COMMANDS = (plan, diff, apply, revert)
