"""install, uninstall: show the changes, ask, and make them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from attrs import asdict, frozen

from libvirt_tuner import install as files
from libvirt_tuner.cli import completion, manual
from libvirt_tuner.cli.session import Session, json_option, one_line
from libvirt_tuner.errors import ConnectionFailed, HostError, LedgerError, TunerError
from libvirt_tuner.install import Done
from libvirt_tuner.install.confinement import Obstacle

NAME = "libvirt-tuner"
ROOT = Path("/")

prefix_option = click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    help="Work below this directory; does not ask, start, stop or undo anything.",
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")


@frozen
class Domains:
    """What libvirt has: names of the domains with a definition, and of those that run."""

    defined: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    unknown: str = ""


@click.command(short_help="Install hook, service, manual pages and completion.")
@click.option(
    "--no-service",
    is_flag=True,
    help="Do not install the service. A VM is then pinned at its first start, and tuned fully at its second.",
)
@click.option("--no-verify", is_flag=True, help="Do not start the probe domain that verifies the hook.")
@click.option(
    "--allow-writable",
    is_flag=True,
    help="Install even if users other than root can change the program. They can then become root.",
)
@yes_option
@dry_run_option
@prefix_option
@json_option
@click.pass_obj
def install(
    session: Session,
    no_service: bool,
    no_verify: bool,
    allow_writable: bool,
    yes: bool,
    dry_run: bool,
    prefix: Path,
    as_json: bool,
) -> None:
    """Install the hook, the service, completion and the manual pages.

    Shows what is there and what will change, and asks first. Your own hook stays: this one goes to qemu.d,
    which libvirt 6.5 and later also read.

    Nothing is written if a file in the way is not ours, if users other than root can change what root would
    run, or if SELinux keeps libvirt from running hooks.

    If libvirt runs, a paused domain without devices is started and destroyed. If the hook keeps it from
    starting, everything that was installed is removed again. The service is started last.
    """
    _askable(as_json=as_json, answered=yes or dry_run or prefix != ROOT)
    say = _speaker(as_json)
    texts = _texts(prefix, service=not no_service)
    meant = files.intent(prefix, texts, trusted=allow_writable)
    domains = _domains(session) if prefix == ROOT else Domains(unknown="another directory")
    if prefix == ROOT and not (session.quiet and yes):
        _say_intent(say, meant, domains, service=not no_service)
    _warn(session, meant.warnings)
    told = _intent_data(meant, domains, service=not no_service)
    if dry_run:
        if prefix != ROOT and meant.beside:
            say(f"your hook: {meant.beside} is not changed")
        for path in told["write"]:
            say(f"would write {path}")
        for path in told["remove"]:
            say(f"would remove {path}")
        _end(session, {**told, "done": [], "verified": None, "why": "dry run"}, as_json=as_json)
    _ask("Install?", yes=yes or prefix != ROOT)
    done = files.install(prefix, texts, trusted=allow_writable)
    _tell(say, done)
    verified, why = _verified(session) if prefix == ROOT and not no_verify else (None, "not asked for")
    if prefix == ROOT and not no_verify:
        say("verified: libvirt runs the hook" if verified else f"hook not verified: {why}")
    if not no_service and (prefix == ROOT or not files.packaged(prefix)):
        done.append(files.start(prefix))
        _tell(say, done[-1:])
    steps = [asdict(step) for step in done]
    _end(session, {**told, "done": steps, "verified": verified, "why": why}, as_json=as_json)


Say = Callable[[str], None]


def _speaker(as_json: bool) -> Say:
    """What prints a line for people; nothing where JSON is printed."""
    return (lambda _line: None) if as_json else click.echo


def _askable(*, as_json: bool, answered: bool) -> None:
    """Refuse to ask in the middle of JSON.

    Raises:
        click.UsageError: A question would have to be asked.
    """
    if as_json and not answered:
        raise click.UsageError("--json cannot ask: give --yes or --dry-run")


def _end(session: Session, data: dict[str, object], *, as_json: bool) -> NoReturn:
    """Print the JSON, if it was asked for, and end."""
    if as_json:
        click.echo(json.dumps({**data, "failures": session.failures()}, indent=2))
    sys.exit(session.failed)


def _intent_data(meant: files.Intent, domains: Domains, *, service: bool) -> dict[str, Any]:
    """What is there, and what is meant, for JSON."""
    known = not domains.unknown
    return {
        "definitions": list(domains.defined) if known else None,
        "running": list(domains.running) if known else None,
        "your_hook": meant.beside,
        "service": service,
        "warnings": [asdict(warning) for warning in meant.warnings],
        "write": [str(meant.hook), *(str(meant.prefix / name) for name in meant.texts)],
        "remove": [str(meant.prefix / name) for name in meant.leftovers],
    }


def _warn(session: Session, warnings: Iterable[Obstacle]) -> None:
    for warning in warnings:
        click.echo("\n    ".join((f"Warning: {warning.what}", *warning.remedy)), err=True)


def _texts(prefix: Path, *, service: bool) -> dict[str, str]:
    """Return the files to write. A package of the distribution has all except the hook."""
    if files.packaged(prefix):
        return {}
    root = click.get_current_context().find_root()
    texts = {files.manual(name): text for name, text in manual.pages(root).items()}
    texts |= {path: _completion(shell) for shell, path in files.COMPLETIONS.items()}
    if service:
        texts[files.UNIT] = files.unit(_program())
    return texts


def _completion(shell: str) -> str:
    # zsh looks at the first line.
    first, _, rest = completion.script(shell).partition("\n")
    return f"{first}\n# {files.MARK}\n{rest}"


def _domains(session: Session) -> Domains:
    try:
        known = session.connection.domains()
    except TunerError as err:
        return Domains(unknown=str(err))
    return Domains(
        tuple(domain.name for domain in known if domain.persistent),
        tuple(domain.name for domain in known if domain.active),
    )


def _say_intent(say: Say, meant: files.Intent, domains: Domains, *, service: bool) -> None:
    """Print what is there, and what will change when."""
    if domains.unknown:
        say(f"libvirt: cannot connect ({domains.unknown})")
    else:
        say(f"definitions: {_listed(domains.defined)}")
        say(f"running: {_listed(domains.running)}")
    if meant.beside:
        say(f"your hook: {meant.beside} is not changed")
    say(f"hook: {meant.hook}, for every domain that starts from now on")
    if service:
        say(
            "service: tunes definitions; running domains change at their next start,"
            " or by 'libvirt-tuner apply --live DOMAIN'"
        )
        say("to see the changes first: libvirt-tuner install --no-service; libvirt-tuner diff DOMAIN")
    say("to exclude a domain: [[domain]] with match and select = false in /etc/libvirt-tuner.toml")
    say("to undo everything: libvirt-tuner uninstall")


def _listed(names: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})" if names else "none"


def _ask(question: str, *, yes: bool) -> None:
    """Continue only if the user agrees.

    Raises:
        click.UsageError: There is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Cannot ask, because standard input is not a terminal; give --yes")
    click.confirm(question, abort=True)


def _verified(session: Session) -> tuple[bool | None, str]:
    """Start the probe; True, or None and why it could not be tried.

    Raises:
        HostError: The hook keeps domains from starting; all that was installed is gone again.
    """
    from libvirt_tuner.install import verify

    works, why = verify.hook_works(session.uri, session.root)
    if works is False:
        taken = ", ".join(done.path for done in files.uninstall())
        raise HostError(f"the hook keeps domains from starting: {why}", advice=f"removed again: {taken}")
    return works, why


@click.command(short_help="Undo all changes, and remove hook and service.")
@click.option(
    "--revert/--keep-definitions",
    default=None,
    help="Remove the settings of this tool from definitions and running domains. [default: ask;"
    " with --yes: revert]",
)
@click.option("--no-service", is_flag=True, help="Do not stop and remove the service.")
@yes_option
@dry_run_option
@prefix_option
@json_option
@click.pass_obj
def uninstall(
    session: Session,
    revert: bool | None,
    no_service: bool,
    yes: bool,
    dry_run: bool,
    prefix: Path,
    as_json: bool,
) -> None:
    """Undo every change of the host, and remove the installed files.

    If you agree, definitions and the pins of running domains are reverted too. Domains keep running.
    """
    _askable(as_json=as_json, answered=yes or dry_run or prefix != ROOT)
    say = _speaker(as_json)
    found = files.installed(prefix)
    tuned = _tuned(session) if prefix == ROOT and revert is not False else ()
    placed, changed = _held(session) if prefix == ROOT else ((), ())
    placed = placed if revert is not False else ()
    if dry_run or prefix == ROOT:
        would = "would " if dry_run else ""
        for name in found:
            say(f"{would}remove {prefix / name}")
        if tuned:
            say(f"{would}revert definitions: {_listed(tuned)}")
        if placed:
            say(f"{would}remove live pins: {_listed(placed)}")
        if changed:
            kinds = Counter(change["kind"] for change in changed)
            counts = ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items()))
            say(f"{would}undo {len(changed)} changes of the host: {counts}")
    told: dict[str, Any] = {"remove": [str(prefix / name) for name in found], "revert": list(tuned)}
    told |= {"unpin": list(placed), "undo": list(changed), "reverted": [], "undone": [], "done": []}
    if dry_run:
        _end(session, told, as_json=as_json)
    if not (found or tuned or placed or changed or files.packaged(prefix)):
        session.remark("nothing is installed, and there is nothing to undo")
        _end(session, told, as_json=as_json)
    _ask("Uninstall?", yes=yes or prefix != ROOT)
    if prefix == ROOT:
        if revert is None and not yes and (tuned or placed):
            revert = click.confirm("Revert these definitions and live pins too?", default=True)
        if not no_service:
            files.stop()
        if revert is not False:
            with session.going_on("revert"):
                told["reverted"] = _revert(session, tuned, say)
        with session.going_on("undo"):
            told["undone"] = _give_back(session, as_json=as_json)
    done = files.uninstall(prefix)
    _tell(say, done)
    told["done"] = [asdict(step) for step in done]
    if files.packaged(prefix):
        say("to remove the program: apt remove libvirt-tuner, or dnf remove libvirt-tuner")
    _end(session, told, as_json=as_json)


def _tuned(session: Session) -> tuple[str, ...]:
    """Return the names of the domains with settings of ours in their definition."""
    from libvirt_tuner.domainxml.document import parse
    from libvirt_tuner.transforms import record

    found = []
    try:
        for domain in session.connection.domains(persistent=True):
            text = session.connection.definition(domain)
            if text is not None and record.revert(parse(text)):
                found.append(domain.name)
    except ConnectionFailed as err:
        session.errors["revert"] = one_line(err)
        session.complain(f"definitions are not reverted: {err}")
        return ()
    return tuple(found)


def _held(session: Session) -> tuple[tuple[str, ...], tuple[dict[str, str], ...]]:
    """Return the names of running domains that were placed, and the changes of the host for all domains."""
    try:
        book = session.book()
    except LedgerError:
        return (), ()  # `undo` reports it
    if book is None:
        return (), ()
    placed = sorted(claim.name for claim in book.claims.values() if claim.plan)
    return tuple(placed), tuple({"kind": kind, "target": target} for kind, target in sorted(book.changes))


def _revert(session: Session, names: Sequence[str], say: Say) -> list[dict[str, object]]:
    """Run ``revert`` for these domains, and remove live pins of running ones. Failures are reported."""
    from libvirt_tuner import cpuset
    from libvirt_tuner.cli import placement
    from libvirt_tuner.hostside import reverted
    from libvirt_tuner.libvirtd import live
    from libvirt_tuner.planning import stored

    domains = [session.connection.lookup(name) for name in names]
    told = placement.take_out(session, domains, live=False, say=say)
    for domain in domains:
        # The user did not revert this domain, so a later installation may tune it.
        with session.going_on(domain.name):
            reverted.forget(session.sysfs, domain.uuid)
    book = session.book()
    if book is None or not book.claims:
        return told
    online = cpuset.parse(session.sysfs.read("/sys/devices/system/cpu/online"))
    for claim in book.claims.values():
        with session.going_on(claim.name):
            domain = session.connection.lookup(claim.uuid)
            if domain.active and claim.plan:
                live.unpin(session.connection, domain, stored.from_dict(claim.plan), online)
    return told


def _give_back(session: Session, *, as_json: bool) -> list[dict[str, object]]:
    """Run ``undo --all`` if there is something to undo."""
    from libvirt_tuner.cli import host, render
    from libvirt_tuner.hostside.ledger import DIRECTORY

    if not session.sysfs.exists(DIRECTORY):
        return []
    outcomes = host.give_back(session, None)
    host.tell(outcomes, as_json=as_json)
    session.failed = session.failed or any(not outcome.ok for outcome in outcomes)
    return render.outcomes_data(outcomes)


def _tell(say: Say, steps: Iterable[Done]) -> None:
    for step in steps:
        say(f"{step.what} {step.path}" + (f"; {step.advice}" if step.advice else ""))


def _program() -> str:
    """Return the path of this program: as it was called, else in the interpreter's directory."""
    called = Path(sys.argv[0])
    return str(called.resolve() if called.name == NAME else Path(sys.executable).with_name(NAME))


COMMANDS = (install, uninstall)
