"""measure: compares a running VM tuned and untuned."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from libvirt_tuner.cli.session import Session, complete_domain, json_option
from libvirt_tuner.errors import HostError, MissingError

if TYPE_CHECKING:
    from libvirt_tuner.diagnosis.comparison import Series
    from libvirt_tuner.libvirtd.agent import Agent
    from libvirt_tuner.libvirtd.connection import Domain
    from libvirt_tuner.measuring import Switch

PATIENCE = 60.0
"""Seconds that a benchmark may take in addition to --seconds."""
AGENT_SECONDS = 10
"""How long a guest agent may take to answer."""


@click.command(short_help="Compare a VM tuned and untuned, with your own benchmark.")
@click.argument("domain", shell_complete=complete_domain)
@click.option("--to", "address", metavar="ADDRESS", help="Run 'iperf3 --json --client ADDRESS' on this host.")
@click.option("--agent", is_flag=True, help="With --to: run it in DOMAIN, by the QEMU guest agent.")
@click.option(
    "--peer",
    metavar="VM",
    shell_complete=complete_domain,
    help="Run the client in DOMAIN and the server in VM, by their guest agents. --to: VM's address.",
)
@click.option("--reverse", is_flag=True, help="With --to or --peer: the other end sends.")
@click.option(
    "--command",
    metavar="LINE",
    help="Run this command instead. It prints iperf3's JSON, or a number in its last line.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Number of rounds."
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),
    default=10,
    show_default=True,
    help="Duration of one iperf3 run. A --command may take a minute longer.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every round to this file, as JSON.  [default: DOMAIN-measured.json]",
)
@json_option
@click.pass_obj
def measure(
    session: Session,
    domain: str,
    address: str | None,
    peer: str | None,
    command: str | None,
    rounds: int,
    seconds: int,
    output: Path | None,
    *,
    agent: bool,
    reverse: bool,
    as_json: bool,
) -> None:
    """Measure DOMAIN while it runs, untuned and tuned in turn, and compare.

    Only settings that can change while it runs are compared: pins, vhost workers, interrupts, and the MTU of
    host devices. Afterwards the VM is as it was before, also after Ctrl-C or a failed benchmark.
    """
    if (address is None and peer is None) == (command is None):
        raise click.UsageError("give either --to ADDRESS, --peer VM or --command LINE")
    if reverse and command is not None:
        raise click.UsageError("--reverse needs --to or --peer")
    if agent and address is None:
        raise click.UsageError("--agent needs --to")
    from libvirt_tuner import measuring
    from libvirt_tuner.host import files
    from libvirt_tuner.measuring import Ended, Switch, ending

    found = session.connection.lookup(domain)
    patience = seconds + PATIENCE
    server = None if peer is None else _agent(session, peer)
    line = command or iperf3(address or (server.address() if server else ""), seconds, reverse=reverse)
    if agent or server is not None:
        client = _agent(session, domain)
        bench = partial(measuring.in_guest, client, shlex.split(line), patience, server)
        line = f"{line}   # in {found.name}"
    else:
        bench = partial(measuring.run, line, patience)
    try:
        with ending(), Switch(session.connection, session.sysfs, found) as switch:
            series = _measured(session, found, switch, bench, rounds)
    except Ended as signal:
        raise HostError(f"ended by {signal}; {found.name} is as it was before", where="measure") from None
    told = data(found.name, line, series)
    kept = output or Path(f"{found.name}-measured.json")
    files.replace(kept, json.dumps(told, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        print_comparison(series)
        session.remark(f"all rounds are in {kept}")
    sys.exit(session.failed)


def _agent(session: Session, name: str) -> Agent:
    """The guest agent of a domain."""
    from libvirt_tuner.libvirtd.agent import Agent

    domain = session.connection.lookup(name)
    return Agent(domain.name, lambda call: session.connection.ask_agent(domain, call, AGENT_SECONDS))


def iperf3(address: str, seconds: int, *, reverse: bool) -> str:
    """The client's command; the first second, in which TCP finds its speed, does not count."""
    way = " --reverse" if reverse else ""
    return f"iperf3 --json --omit 1 --time {seconds} --client {shlex.quote(address)}{way}"


def _measured(
    session: Session, domain: Domain, switch: Switch, bench: Callable[[], str], rounds: int
) -> Mapping[str, Series]:
    """Both variants, round by round."""
    from libvirt_tuner.diagnosis.comparison import alternate, figures, read_result
    from libvirt_tuner.diagnosis.sample import Interval
    from libvirt_tuner.hostside.scene import read_scene, sampler

    scene, troubles = read_scene(session.sysfs)
    for trouble in troubles:
        session.complain(trouble)
    if domain.name not in scene.vms:
        raise MissingError("cannot read its QEMU process", where=domain.name)
    eyes = sampler(session.sysfs, scene)

    def once() -> dict[str, float]:
        before = eyes.look()
        name, value = read_result(bench())
        return {name: value, **figures(Interval(scene, before, eyes.look()), domain.name)}

    def untuned() -> dict[str, float]:
        switch.untune()
        return once()

    def tuned() -> dict[str, float]:
        switch.tune()
        return once()

    def said(number: int, variant: str, found: Mapping[str, float]) -> None:
        name, value = next(iter(found.items()))
        session.remark(f"round {number} of {rounds}, {variant}: {value:.4g} {name}")

    return alternate(rounds, {"untuned": untuned, "tuned": tuned}, said)


def data(domain: str, line: str, series: Mapping[str, Series]) -> dict[str, object]:
    """What was measured, for JSON (docs/json.md)."""
    from libvirt_tuner.diagnosis.comparison import rows

    ratios = {row.figure: row.ratio for row in rows(series)}
    return {"domain": domain, "command": line, "rounds": series, "ratios": ratios}


def print_comparison(series: Mapping[str, Series]) -> None:
    """Each figure's median and spread, untuned and tuned, and their ratio."""
    from libvirt_tuner.cli.render import print_table
    from libvirt_tuner.diagnosis.comparison import rows

    head = ("median (least to greatest)", "untuned", "tuned", "ratio", "rounds")
    print_table(head, [row.cells() for row in rows(series)])


COMMANDS = (measure,)
