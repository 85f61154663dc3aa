"""diagnose, irqs: measure what slows VMs down."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from libvirt_tuner import cpuset
from libvirt_tuner.cli.session import Session, complete_domain, json_option, no_header_option
from libvirt_tuner.errors import MissingError, RejectedError, printable

if TYPE_CHECKING:
    from libvirt_tuner.cpuset import Cpus
    from libvirt_tuner.diagnosis.finding import Finding, Fix
    from libvirt_tuner.diagnosis.sample import Interval, Sample, Vm
    from libvirt_tuner.host.sysfs import Sysfs

seconds_option = click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    metavar="N",
    help="How long to sample.",
)
host_option = click.option(
    "--host",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Use the samples of 'host capture --samples 2' instead of this host.",
)


def wait(seconds: float, what: str) -> None:
    """Sleep, with a progress bar on a terminal (standard error)."""
    if not sys.stderr.isatty():
        time.sleep(seconds)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=seconds)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            progress.update(bar, completed=seconds - left)


def intervals(
    session: Session, directory: Path | None, pause: Callable[[], None], *, every: bool = False
) -> Iterator[Interval]:
    """Yield intervals between samples. Each one begins where the last one ended. A captured host has its own
    samples.

    ``every``: with all network cards, also those that no running VM uses.

    Raises:
        HostError: The host cannot be read, or the captured host has fewer than two samples.
    """
    from libvirt_tuner.diagnosis.sample import Interval
    from libvirt_tuner.host.sysfs import Sysfs
    from libvirt_tuner.hostside.scene import read_scene, sampler

    sysfs = session.sysfs if directory is None else Sysfs(str(directory))
    roots = None if directory is None else captured(directory)
    scene, troubles = read_scene(sysfs, every_card=every)
    for trouble in troubles:
        session.complain(trouble)
    eyes = sampler(sysfs, scene)

    def look(number: int) -> Sample:
        if roots is not None:
            return eyes.look(roots[number], memory=True)
        # Read the memory only once and at the end, because the kernel walks the page tables for it.
        return eyes.look(memory=number == 1)

    before, number = look(0), 1
    while roots is None or number < len(roots):
        if roots is None:
            pause()
        after = look(number)
        for trouble in after.unread:
            session.remark(f"note: cannot read {trouble}")
        yield Interval(scene, before, after)
        before, number = after, number + 1


def captured(directory: Path) -> list[Sysfs]:
    """The samples of a captured host, in order.

    Raises:
        MissingError: Fewer than two.
    """
    found = looks(directory)
    if len(found) < 2:
        raise MissingError(
            "fewer than two samples",
            where=f"{directory}/samples",
            advice="capture them with 'libvirt-tuner host capture --samples 2 DIRECTORY'",
        )
    return found


def looks(directory: Path) -> list[Sysfs]:
    """The samples of a captured host, in order; it may have none."""
    from libvirt_tuner.host.sysfs import Sysfs

    found = [path for path in (directory / "samples").glob("*") if path.name.isdecimal()]
    return [Sysfs(str(path)) for path in sorted(found, key=lambda path: int(path.name))]


@click.command(short_help="Measure what slows VMs down, and show how to fix it.")
@click.argument("domain", required=False, shell_complete=complete_domain)
@seconds_option
@click.option("--fix", is_flag=True, help="Run the commands one by one; ask before each.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@host_option
@json_option
@click.pass_obj
def diagnose(
    session: Session,
    domain: str | None,
    seconds: float,
    directory: Path | None,
    *,
    fix: bool,
    yes: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Sample the host for N seconds, and print what slows DOMAIN (name or UUID) or any VM down.

    The costliest problem comes first. 'libvirt-tuner undo DOMAIN' or 'undo --all' undoes the changes of
    --fix, except memory that was moved. Exit status 1 if a problem was found.
    """
    if (fix or watch) and directory is not None:
        raise click.UsageError("--fix and --watch cannot be used with --host")
    if fix and (watch or as_json):
        raise click.UsageError("--fix cannot be used with --watch or --json")
    if yes and not fix:
        raise click.UsageError("--yes needs --fix")
    from libvirt_tuner.diagnosis.diagnose import diagnose as judge

    found: tuple[Finding, ...] = ()
    for look in intervals(session, directory, lambda: wait(seconds, "sampling")):
        found = judge(look, _name(look, domain))
        if watch and sys.stdout.isatty():
            click.clear()
        _print(found, look, as_json=as_json)
        if not watch:
            break
    if fix:
        _fix(session, look, found, yes=yes)
    sys.exit(bool(found) or session.failed)


def _name(look: Interval, domain: str | None) -> str:
    """Return the VM's name for a name or UUID; "" for all."""
    if domain is None:
        return ""
    for vm in look.scene.vms.values():
        if domain in (vm.name, vm.uuid):
            return vm.name
    raise MissingError("not running", where=domain, advice="see 'virsh list'")


def finding_data(finding: Finding) -> dict[str, object]:
    """A finding for JSON (docs/json.md)."""
    return {
        "kind": finding.kind,
        "cost": round(finding.cost, 4),
        "vm": finding.vm,
        "thread": finding.thread,
        "cpus": cpuset.format(finding.cpus),
        "culprit": finding.culprit,
        "what": finding.what,
        "evidence": list(finding.evidence),
        "rests_on": list(finding.basis),
        "fix": finding.fix.command,
    }


def _print(found: tuple[Finding, ...], look: Interval, *, as_json: bool) -> None:
    from libvirt_tuner.diagnosis.finding import BASES

    if as_json:
        data = {"seconds": round(look.seconds, 3), "findings": [finding_data(each) for each in found]}
        click.echo(json.dumps(data, indent=2))
        return
    if not found:
        vms = len(look.scene.vms)
        click.echo(f"no problem found: {vms} VM{'s' * (vms != 1)}, {look.seconds:.1f} s sampled")
    for number, finding in enumerate(found, 1):
        click.echo(f"{number}. " + click.style(printable(finding.what), bold=True))
        for label, text in (
            ("kind", finding.kind),
            ("cost", f"{finding.cost:.2f} CPUs"),
            ("culprit", finding.culprit),
            ("evidence", "; ".join(finding.evidence)),
            ("based on", "; ".join(BASES[basis] for basis in finding.basis)),
        ):
            click.echo(f"     {label + ':':<10}{printable(text)}")
        click.echo("     " + click.style(printable(finding.fix.command), fg="cyan"))


def _fix(session: Session, look: Interval, found: tuple[Finding, ...], *, yes: bool) -> None:
    done: set[str] = set()
    for finding in found:
        command = finding.fix.command
        if command in done:
            continue
        if not finding.fix.alone:
            click.echo(f"run yourself: {command}")
            continue
        if not (yes or click.confirm(f"{finding.what}\nRun '{command}'?", err=True)):
            continue
        done.add(command)
        vm = look.scene.vms.get(finding.vm)
        with session.going_on(command):
            carry_out(session, finding.fix, vm)


def carry_out(session: Session, fix: Fix, vm: Vm | None) -> None:
    """Run one fix, and say how to undo it."""
    from libvirt_tuner.diagnosis.finding import argument
    from libvirt_tuner.host import log
    from libvirt_tuner.hostside import fixes
    from libvirt_tuner.hostside.changes import ADMINISTRATOR
    from libvirt_tuner.hostside.ledger import Ledger

    holder = ADMINISTRATOR
    if fix.kind in ("apply", "apply --live"):
        problems, holder = _apply(session, fix), fix.where
    else:
        problems = fixes.carry_out(session.sysfs, fix, *([vm.uuid] if vm else []))
        if vm is not None and vm.uuid in Ledger(session.sysfs).read().claims:
            holder = vm.name
    for problem in problems:
        session.complain(problem)
    done = "partly done" if problems else "done"
    way = f"undo: libvirt-tuner undo {argument(holder)}"
    if fix.kind == "pages":
        way = "'undo' does not move the memory back: the kernel does not record which pages were where"
    click.echo(f"{done}: {fix.command}\n      {way}")
    about = {"domain": vm.name, "uuid": vm.uuid} if vm else {}
    log.send(log.NOTICE, f"diagnose --fix ran: {fix.command}", event="fixed", root=session.root, **about)


def _apply(session: Session, fix: Fix) -> tuple[str, ...]:
    """Run ``apply``; return its problems."""
    from libvirt_tuner.cli import placement
    from libvirt_tuner.libvirtd import fixed

    domain = session.connection.lookup(fix.where)
    with fixed.noted(session.connection, session.sysfs, domain, fix.command):
        others = placement.other_definitions(session)
        live = fix.kind == "apply --live"
        outcome, later = placement.put_in(session, domain, others, live=live)
    click.echo(placement.said(domain, outcome, later), nl=False)
    return (f"{domain.name}: {outcome}",) if outcome in ("held back", "overtaken", "transient") else ()


@click.command(short_help="Count interrupts of network cards, or move them.")
@click.option("--uplink", metavar="NIC", help="Only this network card (name or PCI address).")
@seconds_option
@click.option(
    "--set",
    "moves",
    nargs=2,
    multiple=True,
    metavar="IRQS CPUS",
    help="Move interrupts (229 or 229-231) to CPUs; can be repeated. Undo it with"
    " 'libvirt-tuner undo administrator'.",
)
@host_option
@no_header_option
@json_option
@click.pass_obj
def irqs(
    session: Session,
    uplink: str | None,
    seconds: float,
    moves: tuple[tuple[str, str], ...],
    directory: Path | None,
    *,
    no_header: bool,
    as_json: bool,
) -> None:
    """Count the interrupts of network cards for N seconds, per interrupt and per CPU."""
    if moves:
        if directory is not None:
            raise click.UsageError("--set cannot be used with --host")
        _steer(session, moves, as_json=as_json)
    from libvirt_tuner.diagnosis.interrupts import per_cpu, rows

    look = next(intervals(session, directory, lambda: wait(seconds, "counting"), every=True))
    if uplink is not None and uplink not in {
        name for nic in look.scene.host.nics.values() for name in (nic.name, nic.address)
    }:
        known = ", ".join(sorted(look.scene.host.nics)) or "none"
        raise RejectedError("no such network card here", where="--uplink", value=uplink, expected=known)
    table = rows(look, uplink or "")
    if as_json:
        click.echo(json.dumps([row.data() for row in table], indent=2))
        return
    from libvirt_tuner.cli.render import print_table

    heading = not (no_header or session.quiet)
    head = ("IRQ", "NIC", "driver's name", "count", "per s", "CPU", "node", "other threads")
    print_table(head, [row.cells(look.seconds) for row in table], heading=heading)
    click.echo()
    cpus = ("CPU", "node", "count", "NET_RX/s", "softirq", "who")
    print_table(cpus, per_cpu(look, table), heading=heading)


def _steer(session: Session, moves: Iterable[tuple[str, str]], *, as_json: bool) -> NoReturn:
    from libvirt_tuner.cli import render
    from libvirt_tuner.host.cpus import cpus_and_cells
    from libvirt_tuner.hostside.fixes import steer

    cells, _ = cpus_and_cells(session.sysfs)
    online = frozenset(cpu for cell in cells for cpu in cell.cpus)
    wanted: dict[int, Cpus] = {}
    for irqs, cpus in moves:
        numbers, targets = cpuset.parse(irqs, where="--set IRQS"), cpuset.parse(cpus, where="--set CPUS")
        if not numbers or not targets or not targets <= online:
            expected = f"CPUs of {cpuset.format(online)}"
            raise RejectedError("not an online CPU", where="--set CPUS", value=cpus, expected=expected)
        wanted |= dict.fromkeys(sorted(numbers), targets)
    outcomes = list(steer(session.sysfs, wanted))
    if as_json:
        click.echo(json.dumps(render.outcomes_data(outcomes), indent=2))
    for outcome in outcomes:
        if not outcome.ok:
            session.complain(outcome)
        elif not as_json:
            click.echo(str(outcome))
    sys.exit(session.failed)


COMMANDS = (diagnose, irqs)
