"""Shared by all commands: the connection (opened when needed), the host, and common options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import click

from libvirt_tuner.errors import ConnectionFailed, LedgerError, TunerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from libvirt_tuner.host.sysfs import Sysfs
    from libvirt_tuner.hostside.ledger import Book
    from libvirt_tuner.libvirtd.connection import Connection, Domain
    from libvirt_tuner.planning.neighbours import Neighbour
    from libvirt_tuner.planning.plan import Placement, Plan
    from libvirt_tuner.planning.request import Request
    from libvirt_tuner.topology import HostTopology

SYSTEM = "qemu:///system"

Command = Callable[..., Any]


JSON = "--json"
json_option = click.option(JSON, "as_json", is_flag=True, help="Print JSON, also on failure.")
no_header_option = click.option("--no-header", is_flag=True, help="Print no heading.")


class Session:
    """One run of the command line.

    Args:
        uri: libvirt's.
        root: The host: ``/``, or a captured one.
        quiet: Print only data and errors.
        verbose: Every row.

    Attributes:
        failed: A problem was reported, so the exit status will be 1.
        errors: Reported problems, by domain.
    """

    def __init__(self, uri: str, root: str = "/", *, quiet: bool = False, verbose: bool = False) -> None:
        self.uri = uri
        self.root = root
        self.quiet = quiet
        self.verbose = verbose
        self.failed = False
        self.errors: dict[str, str] = {}
        self._opened: Connection | None = None
        self._askable = True
        self._remarks: set[str] = set()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()

    @cached_property
    def sysfs(self) -> Sysfs:
        """The host's files."""
        from libvirt_tuner.host.sysfs import Sysfs

        return Sysfs(self.root)

    @property
    def connection(self) -> Connection:
        """The connection to libvirt, opened on first use. Commands that only need files work without
        libvirtd."""
        if self._opened is None:
            try:
                from libvirt_tuner.libvirtd.connection import Connection
            except ImportError as err:
                raise TunerError(f"cannot use libvirt: {err}", advice="install libvirt-python") from None

            self._opened = self._connected(Connection)
        return self._opened

    def _connected(self, connect: type[Connection]) -> Connection:
        """Connect. A user who is not root falls back to a read-only connection."""
        try:
            return connect(self.uri)
        except ConnectionFailed as err:
            if os.geteuid() == 0 or err.kind == "lost":
                raise
            opened = connect(self.uri, readonly=True)
            self.remark(f"connected read only ({err}): changes need root")
            return opened

    def book(self) -> Book | None:
        """Return the ledger. If a user who is not root cannot read it, print one line and return None."""
        from libvirt_tuner.hostside.ledger import Ledger

        try:
            return Ledger(self.sysfs).read()
        except LedgerError as err:
            self._only_root(err)
            return None

    def recorded(self, sysfs: Sysfs, uuid: str) -> tuple[list[Neighbour], Placement | None]:
        """What the ledger has of others and of this domain; nothing where only root may read it."""
        from libvirt_tuner.hostside import holding

        try:
            return holding.recorded(sysfs, uuid)
        except LedgerError as err:
            self._only_root(err)
            return [], None

    def _only_root(self, err: LedgerError) -> None:
        if os.geteuid() == 0:
            raise err
        self.remark(f"the placement of running domains is not shown: {err}")

    @cached_property
    def config(self) -> str | None:
        """Text of the host's config file, None where there is none."""
        from libvirt_tuner.config.policy import CONFIG_FILE

        return self.sysfs.read_or(CONFIG_FILE, "") or None

    def complain(self, what: object) -> None:
        """Print a problem on stderr in one line and continue. The exit status will be 1."""
        self.failed = True
        click.echo(f"Error: {one_line(what)}", err=True)

    @contextmanager
    def going_on(self, subject: str) -> Iterator[None]:
        """Report an error raised inside the block, and continue after it."""
        try:
            yield
        except TunerError as err:
            self.errors[subject] = one_line(err)
            self.complain(err if str(err).startswith(f"domain {subject}:") else f"{subject}: {err}")

    def remark(self, text: str) -> None:
        """Say on stderr, once, what is no error; not with --quiet."""
        if not self.quiet and text not in self._remarks:
            click.echo(text, err=True)
        self._remarks.add(text)

    def failures(self) -> list[dict[str, object]]:
        """For JSON: each domain that failed, and why."""
        return [{"domain": name, "error": why} for name, why in self.errors.items()]

    def survey(self, devices: Iterable[str], partition: str = "/machine") -> HostTopology:
        """Read the host."""
        from libvirt_tuner.host import probe

        networks = self._network if self.sysfs.live else None
        return probe.topology(self.sysfs, devices, queues=True, partition=partition, networks=networks)

    def _network(self, name: str) -> str:
        """Return the XML of a libvirt network; "" if it does not exist or libvirt cannot be reached."""
        if not self._askable:
            return ""
        try:
            return self.connection.network_xml(name)
        except TunerError:
            self._askable = self._opened is not None
            return ""

    def request(self, xml: str | bytes) -> Request:
        """Read a document, and report problems of its policy and its own pins."""
        from libvirt_tuner.cli import pins
        from libvirt_tuner.host import cpus
        from libvirt_tuner.planning.request import read_request

        request = read_request(xml, self.config)
        for problem in request.problems:
            self.complain(f"{problem}; {problem.consequence}")
        for error in pins.misplaced(request.own, cpus.cells(self.sysfs)):
            self.complain(error)
        return request

    def plan(self, request: Request) -> Plan:
        """Plan a document. It need not belong to a domain on this host."""
        from libvirt_tuner.planning.request import plan_request

        neighbours, given = self.recorded(self.sysfs, request.spec.uuid)
        return plan_request(request, self.survey, neighbours, before=given, running=given is not None)

    def plan_all(self, requests: Sequence[Request]) -> list[Plan]:
        """Plan several documents as if started in that order, in addition to running domains."""
        from libvirt_tuner.planning.sequence import in_order

        neighbours, _ = self.recorded(self.sysfs, "")
        return in_order(requests, self.survey, neighbours)

    def domains(
        self,
        names: Iterable[str],
        *,
        every: bool,
        active: bool | None = None,
        persistent: bool | None = None,
    ) -> tuple[Domain, ...]:
        """Return the named domains, or all that run (``active``) or have a definition (``persistent``).

        Raises:
            click.UsageError: Neither names nor ``every`` are given, or both.
            ConnectionFailed: There is no domain of one of the names.
        """
        wanted = tuple(names)
        if bool(wanted) == every:
            raise click.UsageError("give either DOMAIN names or --all")
        if every:
            return self.connection.domains(active=active, persistent=persistent)
        found = {domain.uuid: domain for domain in map(self.connection.lookup, wanted)}
        return tuple(found.values())


def read_document(file: IO[bytes]) -> bytes:
    """Read a document, but not more than a document may have."""
    from libvirt_tuner.domainxml.document import LARGEST

    return file.read(LARGEST + 1)


def one_line(what: object) -> str:
    """Return the text without line breaks. libvirt's messages may have some."""
    return " ".join(str(what).split())


def complete_domain(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete names of domains. Returns none if libvirt cannot be reached."""
    from click.shell_completion import CompletionItem

    uri = context.find_root().params.get("uri") or SYSTEM
    try:
        from libvirt_tuner.libvirtd.connection import Connection

        with Connection(uri, readonly=True) as connection:
            names = [domain.name for domain in connection.domains()]
    except (ImportError, TunerError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
