"""install, uninstall: what is put on the host and taken off again, shown and asked for first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from attrs import frozen

from libvirt_tuner import install as files
from libvirt_tuner.cli import completion, manual
from libvirt_tuner.cli.session import Session
from libvirt_tuner.errors import ConnectionFailed, HostError, TunerError
from libvirt_tuner.install import Done

NAME = "libvirt-tuner"
ROOT = Path("/")

prefix_option = click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    help="Below this directory; nothing is asked, started, stopped or given back then.",
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
    help="Without the daemon: pins come with the first start, the rest with the second.",
)
@click.option(
    "--no-verify", is_flag=True, help="Do not start the probe domain that shows whether the hook runs."
)
@click.option(
    "--allow-writable",
    is_flag=True,
    help="Install although users other than root can change the program, and so become root.",
)
@yes_option
@dry_run_option
@prefix_option
@click.pass_obj
def install(
    session: Session,
    no_service: bool,
    no_verify: bool,
    allow_writable: bool,
    yes: bool,
    dry_run: bool,
    prefix: Path,
) -> None:
    """Install the hook, the service, completion and the manual pages.

    Shows what is there and what will change, and asks. A hook of your own stays: ours goes to qemu.d, where
    libvirt 6.5 and later look too. Nothing is written when one of the files is not ours, when users other
    than root can change what root would run, or when SELinux keeps libvirt from running hooks. Where libvirt
    runs, a paused domain without devices is started and destroyed; if the hook keeps it from starting, the
    hook is removed again.
    """
    texts = _texts(prefix, service=not no_service)
    meant = files.intent(prefix, texts, trusted=allow_writable)
    if prefix == ROOT:
        _say_intent(meant, _domains(session), service=not no_service)
    if dry_run:
        for path in (str(meant.hook), *(str(prefix / name) for name in texts)):
            click.echo(f"would write {path}")
        for name in meant.leftovers:
            click.echo(f"would remove {prefix / name}")
        return
    _ask("Install?", yes=yes or prefix != ROOT)
    _tell(files.install(prefix, texts, trusted=allow_writable))
    if prefix == ROOT:
        if files.packaged() and not no_service:
            _tell([files.start()])
        if not no_verify:
            _verify(session)


def _texts(prefix: Path, *, service: bool) -> dict[str, str]:
    """Files to write; a package of the distribution has brought all but the hook."""
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


def _say_intent(meant: files.Intent, domains: Domains, *, service: bool) -> None:
    """What is there, and what will change when."""
    if domains.unknown:
        click.echo(f"libvirt: cannot be asked now ({domains.unknown})")
    else:
        click.echo(f"definitions: {_listed(domains.defined)}")
        click.echo(f"running: {_listed(domains.running)}")
    if meant.beside:
        click.echo(f"your hook: {meant.beside} stays as it is")
    click.echo(f"hook: {meant.hook}, for every domain that starts from now on")
    if service:
        click.echo(
            "service: completes definitions; a domain that runs is changed at its next start,"
            " or by 'libvirt-tuner apply --live DOMAIN'"
        )
        click.echo("see the changes first: libvirt-tuner install --no-service; libvirt-tuner diff DOMAIN")
    click.echo("leave a domain alone: [[domain]] with match and select = false in /etc/libvirt-tuner.toml")
    click.echo("undo all of it: libvirt-tuner uninstall")
    for warning in meant.warnings:
        click.echo(f"warning: {warning}")


def _listed(names: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})" if names else "none"


def _ask(question: str, *, yes: bool) -> None:
    """Go on only when the user agrees.

    Raises:
        click.UsageError: Nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can answer: standard input is no terminal; give --yes")
    click.confirm(question, abort=True)


def _verify(session: Session) -> None:
    """Start the probe; the hook goes again when it keeps domains from starting."""
    from libvirt_tuner.install import verify

    works, why = verify.hook_works(session.uri, session.root)
    if works is False:
        taken = ", ".join(done.path for done in files.uninstall())
        raise HostError(f"the hook keeps domains from starting: {why}", advice=f"removed again: {taken}")
    click.echo(f"hook not verified: {why}" if works is None else "verified: libvirt runs the hook")


@click.command(short_help="Give the host back, and remove what 'install' put there.")
@click.option(
    "--revert/--keep-definitions",
    default=None,
    help="Take out of definitions and running domains what this tool put in. [default: ask, or revert]",
)
@click.option("--no-service", is_flag=True, help="Leave the service as it is.")
@yes_option
@dry_run_option
@prefix_option
@click.pass_obj
def uninstall(
    session: Session, revert: bool | None, no_service: bool, yes: bool, dry_run: bool, prefix: Path
) -> None:
    """Give back every change of the host, and remove what install put there.

    Definitions are reverted too, and pins of running domains, if you agree; domains keep running.
    """
    found = files.installed(prefix)
    tuned = _tuned(session) if prefix == ROOT and revert is not False else ()
    if dry_run or prefix == ROOT:
        for name in found:
            click.echo(f"{'would remove' if dry_run else 'remove'} {prefix / name}")
        if tuned:
            click.echo(f"{'would revert' if dry_run else 'revert'} definitions: {_listed(tuned)}")
    if dry_run:
        return
    _ask("Uninstall?", yes=yes or prefix != ROOT)
    if prefix == ROOT:
        if revert is None and not yes:
            revert = click.confirm("Revert these definitions and live pins too?", default=True)
        if not no_service:
            files.stop()
        if revert is not False:
            with session.going_on("revert"):
                _revert(session, tuned)
        _give_back(session)
    _tell(files.uninstall(prefix))
    if files.packaged(prefix):
        click.echo("the program itself: apt remove libvirt-tuner, or dnf remove libvirt-tuner")
    sys.exit(session.failed)


def _tuned(session: Session) -> tuple[str, ...]:
    """Names of the domains with something of ours in their definition, or on the host for them."""
    from libvirt_tuner.domainxml.document import parse
    from libvirt_tuner.transforms import record

    found = []
    try:
        for domain in session.connection.domains(persistent=True):
            text = session.connection.definition(domain)
            if text is not None and record.revert(parse(text)):
                found.append(domain.name)
    except ConnectionFailed as err:
        session.complain(f"definitions stay as they are: {err}")
        return ()
    return tuple(found)


def _revert(session: Session, names: Sequence[str]) -> None:
    """``revert`` for these domains, and the live pins of those that run; what fails is said."""
    from libvirt_tuner import cpuset
    from libvirt_tuner.cli import placement
    from libvirt_tuner.hostside import reverted
    from libvirt_tuner.libvirtd import live
    from libvirt_tuner.planning import stored

    if names:
        _invoke(session, placement.revert, domains=tuple(names), every=False, as_json=False)
    for name in names:
        # Nobody asked for this domain to be left alone if the tool is installed again.
        with session.going_on(name):
            reverted.forget(session.sysfs, session.connection.lookup(name).uuid)
    book = session.book()
    if book is None or not book.claims:
        return
    online = cpuset.parse(session.sysfs.read("/sys/devices/system/cpu/online"))
    for claim in book.claims.values():
        with session.going_on(claim.name):
            domain = session.connection.lookup(claim.uuid)
            if domain.active and claim.plan:
                live.unpin(session.connection, domain, stored.from_dict(claim.plan), online)


def _invoke(session: Session, command: click.Command, **arguments: object) -> None:
    """Another command of ours; its exit status counts, and the rest goes on."""
    try:
        click.get_current_context().invoke(command, **arguments)
    except SystemExit as ended:
        session.failed = session.failed or bool(ended.code)


def _give_back(session: Session) -> None:
    """``undo --all``, where there is something to undo."""
    from libvirt_tuner.cli import host
    from libvirt_tuner.hostside.ledger import DIRECTORY

    with session.going_on("undo"):
        if session.sysfs.exists(DIRECTORY):
            _invoke(session, host.undo, domains=(), every=True, as_json=False)


def _tell(steps: list[Done]) -> None:
    for step in steps:
        click.echo(f"{step.what} {step.path}" + (f"; {step.advice}" if step.advice else ""))


def _program() -> str:
    """This program's path: the one that was called, else the one in the interpreter's directory."""
    called = Path(sys.argv[0])
    return str(called.resolve() if called.name == NAME else Path(sys.executable).with_name(NAME))


COMMANDS = (install, uninstall)
