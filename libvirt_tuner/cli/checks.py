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
from libvirt_tuner.cli.session import Session, json_option, one_line
from libvirt_tuner.config import policy
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import DomainSpec, read_spec
from libvirt_tuner.errors import ConnectionFailed, HostError, MissingError
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
    help="Use a captured host ('libvirt-tuner host capture').",
)


@click.command()
@host_option
@click.option(
    "--xml", "files", type=click.File("rb"), multiple=True, help="Also check this domain; repeatable."
)
@json_option
@click.pass_obj
def check(session: Session, host_dir: str | None, files: tuple[IO[bytes], ...], as_json: bool) -> None:
    """Report problems of this host and how to fix them; exit status 1 if there are any.

    Domains are read from libvirt. With --host, they are read from the captured ledger and --xml.
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
    """Yield every domain of libvirt. If libvirt cannot be reached, yield none and print a warning."""
    try:
        for domain in session.connection.domains():
            xml = session.connection.xml(domain)
            yield survey.guest(_spec(xml), running=domain.active)
    except ConnectionFailed as err:
        session.remark(f"Warning: {one_line(err)}; only domains in the ledger are checked")


def _spec(xml: str | bytes) -> DomainSpec:
    return read_spec(document.parse(xml))


@click.command()
@click.option("--cpus", "cpulist", metavar="CPULIST", help="Isolate exactly these CPUs.")
@click.option("--vcpus", "count", type=click.IntRange(1), metavar="N", help="Isolate cores for N vCPUs.")
@click.option("--node", type=int, metavar="NODE", help="NUMA node to use; default: the uplink's.")
@click.option("--uplink", default="", metavar="DEVICE", help="Use the NUMA node of this network device.")
@click.option("--write", is_flag=True, help="Write a drop-in for GRUB; /etc/default/grub is not changed.")
@click.option("--remove", is_flag=True, help="Remove the drop-in.")
@click.option(
    "--prefix", type=click.Path(path_type=Path), default="/", help="Write below this directory instead of /."
)
@host_option
@json_option
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
    as_json: bool,
) -> None:
    """Print the kernel command line that isolates CPUs for VMs. It takes effect at the next boot."""
    if remove:
        removed = _remove(prefix)
        _say(as_json, {"removed": removed.path}, f"{removed.what} {removed.path}", UPDATE)
        return
    if (cpulist is None) == (count is None):
        raise click.UsageError("give either --cpus CPULIST or --vcpus N")
    if cpulist is not None and (node is not None or uplink):
        raise click.UsageError("--node and --uplink need --vcpus")
    if host_dir and write and prefix == Path("/"):
        raise click.UsageError("--write with --host needs --prefix: the CPUs are those of another host")
    session = Session(session.uri, host_dir) if host_dir else session
    notes: tuple[str, ...] = ()
    if cpulist is not None:
        cpus = _cpus(cpulist)
    else:
        cpus, notes = _choice(session, count or 0, node, uplink)
    for note in notes:
        session.remark(note)
    new = kernel_line.words(cpus, survey.possible(session.sysfs))
    whole = kernel_line.line(survey.without_image(session.sysfs.read_or(survey.CMDLINE, "")), new)
    data = {"cpus": cpuset.format(cpus), "parameters": list(new), "line": whole, "notes": list(notes)}
    if not write:
        _say(as_json, {**data, "written": ""}, whole)
        return
    done = _write(prefix, new)
    _say(as_json, {**data, "written": done.path}, f"{done.what} {done.path}: {' '.join(new)}", UPDATE)


UPDATE = "Now run update-grub and reboot."


def _say(as_json: bool, data: dict[str, object], *lines: str) -> None:
    click.echo(json.dumps(data, indent=2) if as_json else "\n".join(lines))


def _cpus(text: str) -> Cpus:
    try:
        return cpuset.parse(text, where="--cpus")
    except ValueError as err:
        raise click.UsageError(str(err)) from None


def _choice(session: Session, count: int, node: int | None, uplink: str) -> tuple[Cpus, tuple[str, ...]]:
    """The CPUs, and why those, a sentence each."""
    host = survey.survey(session.sysfs)
    if node is None:
        wanted = uplink or policy.resolve("", session.config, None)[0].uplink or ""
        cell, why = home(host, wanted)
    else:
        found = host.cell(node)
        if found is None:
            nodes = cpuset.format(frozenset(cell.id for cell in host.cells))
            raise click.UsageError(f"--node {node}: this host has nodes {nodes}")
        cell, why = found, "set by --node"
    choice = choose(host, cell, count)
    return choice.cpus, (
        f"Node {cell.id}: {why}.",
        f"vCPUs on {cpuset.format(choice.vcpus)}: {choice.note}.",
        f"Emulator and vhost workers on {cpuset.format(choice.emulator)}, which are not isolated: the"
        " scheduler does not balance threads on isolated CPUs.",
    )


def _write(prefix: Path, new: tuple[str, ...]) -> install.Done:
    target = prefix / GRUB_DROPIN
    if not (prefix / UPDATE_GRUB).exists() and not target.parent.is_dir():
        raise HostError(
            "the boot loader of this system has no drop-ins; nothing was written",
            where=str(target.parent),
            advice=f"run: {grubby(new)}; or add to the kernel command line: {' '.join(new)}",
        )
    return install.write_marked(target, grub_dropin(new, mark=install.MARK))


def _remove(prefix: Path) -> install.Done:
    done = install.remove(prefix / GRUB_DROPIN)
    if done is None:
        raise MissingError("nothing to remove: no drop-in of libvirt-tuner", where=str(prefix / GRUB_DROPIN))
    return done


COMMANDS = (check, isolate)
