"""config check: check the policy, and show it for each domain."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import IO

import click

from libvirt_tuner.cli.session import Session, json_option, one_line, read_document
from libvirt_tuner.config import policy
from libvirt_tuner.config.effective import Effective, effective
from libvirt_tuner.config.policy import CONFIG_FILE, Config
from libvirt_tuner.config.settings import SETTINGS
from libvirt_tuner.domainxml import document, metadata
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import ConnectionFailed, PolicyError, printable


@click.group(short_help="Check the policy.")
def config() -> None:
    """Check the policy of this host and its domains."""


@config.command(short_help="Check the policy, and show it for each domain.")
@click.option("--file", type=click.File("rb"), help=f"Check this file instead of {CONFIG_FILE}.")
@click.option(
    "--xml", "documents", type=click.File("rb"), multiple=True, help="Check only this domain; repeatable."
)
@json_option
@click.pass_obj
def check(session: Session, file: IO[bytes] | None, documents: tuple[IO[bytes], ...], as_json: bool) -> None:
    """Check the policy, and show the settings of each domain and where they come from.

    Settings that are not shown have their defaults (docs/policy.md). Exit status 1 if the file or the
    metadata of a domain has a mistake, or if metadata has a setting that [limits] does not allow.
    """
    name = file.name if file is not None else CONFIG_FILE
    text = _text(file.read(), name) if file is not None else session.config
    found, problems = policy.check(text or "", name)
    domains = {}
    for domain, explained in _explained(session, found, documents):
        domains[domain] = explained
        problems += explained.problems
    for problem in problems:
        session.complain(f"{problem}; {problem.consequence}")
    if as_json:
        click.echo(json.dumps(_data(name, problems, domains), indent=2))
    else:
        _print(name, text, domains, mistakes=bool(problems))
    sys.exit(session.failed)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise PolicyError("not UTF-8", where=f"{name}:{line}") from None


def _explained(
    session: Session, found: Config, documents: Iterable[IO[bytes]]
) -> Iterator[tuple[str, Effective]]:
    for xml in [read_document(file) for file in documents] or _definitions(session):
        root = document.parse(xml)
        name = read_spec(root).name
        yield name, effective(name, found, metadata.policy_element(root))


def _definitions(session: Session) -> Iterator[str]:
    """Yield every domain of libvirt. If libvirt cannot be reached, yield none and print a warning."""
    try:
        for domain in session.connection.domains():
            yield session.connection.xml(domain)
    except ConnectionFailed as err:
        click.echo(f"Warning: {one_line(err)}; no domain is shown", err=True)


def _data(name: str, problems: Iterable[PolicyError], domains: dict[str, Effective]) -> dict[str, object]:
    return {
        "file": name,
        "problems": [{"layer": one.layer, "where": one.where, "problem": str(one)} for one in problems],
        "domains": {
            domain: {
                key: {"value": value, "from": origin} for key, value, origin in _rows(found, built_in=True)
            }
            for domain, found in domains.items()
        },
    }


def _rows(found: Effective, *, built_in: bool) -> Iterator[tuple[str, str, str]]:
    """Setting, value as the file spells it, and where it comes from."""
    for key, one in SETTINGS.items():
        if built_in or key in found.origins:
            yield key, one.spelled(getattr(found.policy, key)), found.origins.get(key, "built-in")


def _print(name: str, text: str | None, domains: dict[str, Effective], *, mistakes: bool) -> None:
    if text is None:
        click.echo(f"{name}: no such file; the defaults are in effect")
    elif not mistakes:
        click.echo(f"{name}: no mistakes")
    for domain, found in domains.items():
        rows = list(_rows(found, built_in=False))
        what = "built-in settings" if not rows else "settings" if found.policy.select else "not tuned"
        click.echo(f"{printable(domain)}: {what}")
        for key, value, origin in rows:
            click.echo(f"    {key:<16} {value:<14} {origin}")


COMMANDS = (config,)
