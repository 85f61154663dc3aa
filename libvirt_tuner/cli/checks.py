"""host check, host isolate: problems of this host, and the kernel line that isolates CPUs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import click

from libvirt_tuner import cpuset, install
from libvirt_tuner.cli import render
from libvirt_tuner.cli.session import Session, json_option
from libvirt_tuner.config import policy
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import DomainSpec, read_spec
from libvirt_tuner.errors import ConnectionFailed, HostError
from libvirt_tuner.hostcheck import check as hostcheck
from libvirt_tuner.hostcheck import kernel_line, survey
from libvirt_tuner.hostcheck.facts import WARNING, Guest
from libvirt_tuner.hostcheck.isolate import GRUB_DROPIN, choose, grub_dropin, grubby, home
from libvirt_tuner.topology import Cpus

UPDATE_GRUB = "usr/sbin/update-grub"

host_option = click.option(
    "--host",
    "host_dir",
    type=click.Path(exists=True, file_okay=False),
    help="A captured host ('libvirt-tuner host capture').",
)


@click.command()
@host_option
@click.option(
    "--xml", "files", type=click.File("rb"), multiple=True, help="Count this domain too; more than once."
)
@json_option
@click.pass_obj
def check(session: Session, host_dir: str | None, files: tuple[IO[bytes], ...], as_json: bool) -> None:
    """Report problems of this host and how to fix them; exit status 1 when there is one.

    Domains come from libvirt; with --host, from the captured ledger and --xml.
    """
    documents = [survey.guest(_spec(file.read()), running=False) for file in files]
    if host_dir:
        session = Session(session.uri, host_dir)
    else:
        documents += _guests(session)
    found = hostcheck.check(survey.facts(session.sysfs, documents))
    if as_json:
        click.echo(json.dumps(render.findings_data(found), indent=2))
    else:
        render.print_findings(found)
    sys.exit(any(finding.severity == WARNING for finding in found))


def _guests(session: Session) -> Iterable[Guest]:
    """Every domain libvirt knows; none, said on stderr, where it cannot be asked."""
    try:
        for domain in session.connection.domains():
            xml = session.connection.xml(domain)
            yield survey.guest(_spec(xml), running=domain.active)
    except ConnectionFailed as err:
        click.echo(f"Warning: {err}; only domains in the ledger are looked at", err=True)


def _spec(xml: str | bytes) -> DomainSpec:
    return read_spec(document.parse(xml))


@click.command()
@click.option("--cpus", "cpulist", metavar="CPULIST", help="Isolate exactly these CPUs.")
@click.option("--vcpus", "count", type=click.IntRange(1), help="Isolate cores for so many vCPUs.")
@click.option("--node", type=int, help="On this NUMA node; by default the uplink's.")
@click.option("--uplink", default="", metavar="DEVICE", help="The device whose network card counts.")
@click.option("--write", is_flag=True, help="Write a drop-in for GRUB; /etc/default/grub is left alone.")
@click.option("--remove", is_flag=True, help="Remove the drop-in.")
@click.option("--prefix", type=click.Path(path_type=Path), default="/", help="Write below this directory.")
@host_option
@click.pass_obj
def isolate(
    session: Session,
    cpulist: str | None,
    count: int | None,
    node: int | None,
    uplink: str,
    write: bool,
    remove: bool,
    prefix: Path,
    host_dir: str | None,
) -> None:
    """Print the kernel command line that isolates CPUs for VMs; in force from the next boot."""
    if remove:
        _remove(prefix)
        return
    if (cpulist is None) == (count is None):
        raise click.UsageError("give --cpus CPULIST or --vcpus N (not both)")
    if cpulist is not None and (node is not None or uplink):
        raise click.UsageError("--node and --uplink go with --vcpus")
    if host_dir and write and prefix == Path("/"):
        raise click.UsageError("--write with --host: those are the CPUs of another host; give --prefix")
    session = Session(session.uri, host_dir) if host_dir else session
    cpus = _cpus(cpulist) if cpulist is not None else _choice(session, count or 0, node, uplink)
    new = kernel_line.words(cpus, survey.possible(session.sysfs))
    current = session.sysfs.read_or(survey.CMDLINE, "")
    if not write:
        click.echo(kernel_line.line(survey.without_image(current), new))
        return
    _write(prefix, new)


def _cpus(text: str) -> Cpus:
    try:
        return cpuset.parse(text, where="--cpus")
    except ValueError as err:
        raise click.UsageError(str(err)) from None


def _choice(session: Session, count: int, node: int | None, uplink: str) -> Cpus:
    host = survey.survey(session.sysfs)
    if node is None:
        wanted = uplink or policy.resolve("", session.config, None)[0].uplink or ""
        cell, why = home(host, wanted)
    else:
        found = host.cell(node)
        if found is None:
            nodes = cpuset.format(frozenset(cell.id for cell in host.cells))
            raise click.UsageError(f"--node {node}: this host has nodes {nodes}")
        cell, why = found, "as you say"
    choice = choose(host, cell, count)
    click.echo(f"Node {cell.id}: {why}.", err=True)
    click.echo(f"vCPUs on {cpuset.format(choice.vcpus)}: {choice.note}.", err=True)
    click.echo(
        f"Emulator and vhost workers on {cpuset.format(choice.emulator)}, not isolated: they are several"
        " threads, and nothing balances them on isolated CPUs.",
        err=True,
    )
    return choice.cpus


def _write(prefix: Path, new: tuple[str, ...]) -> None:
    target = prefix / GRUB_DROPIN
    if not (prefix / UPDATE_GRUB).exists() and not target.parent.is_dir():
        raise HostError(
            "this system's boot loader takes no drop-ins; nothing was written",
            where=str(target.parent),
            advice=f"run {grubby(new)}; or put this into your boot loader's kernel line: {' '.join(new)}",
        )
    done = install.write_marked(target, grub_dropin(new, mark=install.MARK))
    click.echo(f"{done.what} {done.path}: {' '.join(new)}")
    click.echo("Now run update-grub, and boot.")


def _remove(prefix: Path) -> None:
    done = install.remove(prefix / GRUB_DROPIN)
    if done is None:
        click.echo("nothing to remove: no drop-in of libvirt-tuner", err=True)
        sys.exit(1)
    click.echo(f"{done.what} {done.path}")
    click.echo("Now run update-grub, and boot.")


COMMANDS = (check, isolate)
