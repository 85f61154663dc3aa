"""log: show what was done for a domain, when, why, and how to undo it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click
from attrs import asdict, frozen

from libvirt_tuner.cli.session import Session, complete_domain, json_option
from libvirt_tuner.errors import HostError
from libvirt_tuner.host import log as system_log

UNIT = "libvirt-tuner.service"
_UNDO = {
    "started": "libvirt-tuner undo",
    "arrived": "libvirt-tuner undo",
    "fixed": "libvirt-tuner undo",
    "defined": "libvirt-tuner revert",
    "settled": "libvirt-tuner revert",
}
_EVENTS = {number: event for event, number in system_log.EVENTS.items()}


@frozen
class Line:
    """One line of the journal: time (ISO 8601, UTC), event, priority and text."""

    time: str
    event: str
    priority: int
    text: str


@click.command(short_help="Show what was done for a domain, and how to undo it.")
@click.argument("domain", shell_complete=complete_domain)
@click.option(
    "--since", default="", metavar="TIME", help="Start time as in journalctl, such as 'today' or '-1h'."
)
@json_option
@click.pass_obj
def log(session: Session, domain: str, since: str, as_json: bool) -> None:
    """Show the journal entries of hook and service about DOMAIN (name or UUID), oldest first."""
    found = list(lines(_journal(since), domain))
    if os.geteuid() != 0:
        session.remark(
            "only root and the group systemd-journal can read the lines of the hook and the service"
        )
    if as_json:
        click.echo(json.dumps([asdict(line) for line in found], indent=2))
        return
    for line in found:
        mark = "" if line.priority > system_log.WARNING else "Warning: "
        click.echo(f"{line.time}  {mark}{line.text}")
    if not found:
        session.remark(f"{domain}: no entries in the journal")
    for command in sorted({_UNDO[line.event] for line in found if line.event in _UNDO}):
        session.remark(f"Undo: {command} {shlex.quote(domain)}")


def _journal(since: str) -> Iterable[str]:
    """Return our entries as journalctl's JSON, one per line."""
    if shutil.which("journalctl") is None:
        advice = "grep libvirt-tuner /var/log/syslog"
        raise HostError("this host has no journal", where="journalctl", advice=advice)
    ours = (f"SYSLOG_IDENTIFIER={system_log.IDENTIFIER}", "+", f"_SYSTEMD_UNIT={UNIT}")
    when = ("--since", since) if since else ()
    command = ("journalctl", "--quiet", "--no-pager", "--all", "--output=json", *when, *ours)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise HostError(done.stderr.strip() or f"status {done.returncode}", where="journalctl")
    return done.stdout.splitlines()


def lines(entries: Iterable[str], domain: str) -> Iterator[Line]:
    """The entries about a domain.

    Args:
        entries: journalctl's JSON, an object a line.
        domain: Name or UUID.
    """
    for entry in entries:
        fields = json.loads(entry)
        text = _text(fields.get("MESSAGE"))
        named = domain in (fields.get("DOMAIN"), fields.get("UUID")) or text.startswith(f"{domain}: ")
        if named:
            stamp = datetime.fromtimestamp(int(fields["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
            priority = int(fields.get("PRIORITY", system_log.INFO))
            event = _EVENTS.get(fields.get("MESSAGE_ID", ""), "")
            yield Line(stamp.isoformat(sep=" ", timespec="seconds"), event, priority, text)


def _text(message: object) -> str:
    """Return the message. In the journal it is a list of bytes if it is not UTF-8."""
    if isinstance(message, list):
        return bytes(message).decode(errors="replace")
    return system_log.printable(str(message or ""))


COMMANDS = (log,)
