"""testbed up, down, show: bond, tunnel and IPsec between two hosts, in one command on each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

import click
from attrs import asdict

from libvirt_tuner.cli.session import Command, Session, json_option
from libvirt_tuner.errors import MissingError
from libvirt_tuner.testbed import config as testbedconfig
from libvirt_tuner.testbed import keys, updown
from libvirt_tuner.testbed.config import CRYPTO, NONE, ROLES, TUNNELS, Config


@click.group()
def testbed() -> None:
    """Set up a test network between two hosts: bond, Geneve tunnel and IPsec."""


_force = click.option("--force", is_flag=True, help="Continue even if devices are in use.")
_OPTIONS = (
    click.option("--role", type=click.Choice(ROLES), help="Role of this host."),
    click.option("--device", "devices", multiple=True, metavar="DEV", help="Network card; repeatable."),
    click.option("--bond", metavar="DEV", help="Name of the bond, or 'none'."),
    click.option("--tunnel", type=click.Choice(TUNNELS), help="Type of tunnel."),
    click.option("--name", metavar="DEV", help="Name of the tunnel's device."),
    click.option("--vni", type=int, help="The tunnel's network identifier."),
    click.option("--port", type=int, help="The tunnel's UDP port."),
    click.option(
        "--crypto",
        type=click.Choice(CRYPTO),
        help="What encrypts: the card (offload), the kernel, or nothing (none).",
    ),
    click.option("--keys", metavar="FILE", help="Key file."),
    click.option("--mtu", type=int, help="MTU of cards and bond, bytes."),
    click.option("--server", metavar="ADDRESS/LENGTH", help="Outer address of the server."),
    click.option("--client", metavar="ADDRESS/LENGTH", help="Outer address of the client."),
)


def _settings(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@testbed.command()
@click.option("--config", "file", type=click.Path(), help=f"TOML file. [default: {updown.CONFIG_FILE}]")
@_settings
@click.option("--make-keys", is_flag=True, help="Create the key file if it does not exist.")
@click.option("--dry-run", is_flag=True, help="Show the steps, and change nothing.")
@_force
@json_option
@click.pass_obj
def up(
    session: Session,
    /,
    file: str | None,
    make_keys: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **settings: object,
) -> None:
    """Set up this end, or its missing parts. Options override the settings of the file."""
    config = _config(session, file, settings)
    made_keys = ""
    if dry_run:
        plan = updown.preview(session.sysfs, config, force=force)
        steps = plan.steps
    else:
        made_keys = _make_keys(session, config) if make_keys and config.crypto != NONE else ""
        if made_keys and not as_json:
            click.echo(f"{made_keys}: created; copy it to the other host only (scp -p)")
        made = updown.up(session.sysfs, config, force=force)
        plan, steps = made.plan, made.steps
    if as_json:
        data = {"steps": list(map(str, steps)), "device": config.name, "mtu": plan.why}
        click.echo(json.dumps({**data, "crypto": plan.crypto, "made_keys": made_keys}, indent=2))
        return
    for step in steps:
        click.echo(str(step))
    if dry_run:
        return
    if not steps:
        click.echo("nothing to do: the testbed is up")
    click.echo(f"encryption: {plan.crypto}")
    click.echo(f"MTU of {config.name} and of the VMs on it: {plan.why}")


def _config(session: Session, file: str | None, settings: Mapping[str, object]) -> Config:
    """Return the file's settings, overridden by the options."""
    name = file or updown.CONFIG_FILE
    try:
        config = testbedconfig.read(session.sysfs.read(os.path.abspath(name)), name)
    except MissingError:
        if file:
            raise
        config = Config()
    given = {key: value for key, value in settings.items() if value not in (None, ())}
    config = testbedconfig.with_values(
        config, given, lambda key: f"--{'device' if key == 'devices' else key}"
    )
    return testbedconfig.checked(config)


def _make_keys(session: Session, config: Config) -> str:
    """The file that was made; "" where it was there."""
    if session.sysfs.exists(config.keys):
        return ""
    keys.make(config.keys)
    return config.keys


@testbed.command()
@_force
@json_option
@click.pass_obj
def down(session: Session, force: bool, as_json: bool) -> None:
    """Remove this end, and restore devices, addresses and IPsec."""
    was = updown.down(session.sysfs, force=force)
    if as_json:
        used = was.keys if was is not None and was.crypto != NONE else ""
        click.echo(json.dumps({"was_up": was is not None, "used_keys": used}, indent=2))
        return
    if was is None:
        click.echo("nothing to do: no testbed is up")
        return
    click.echo("down")
    if was.crypto != NONE:
        click.echo(f"{was.keys}: used; create new keys before the next 'up' (--make-keys)")


@testbed.command()
@json_option
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """Show the path, MTUs, encryption and counters; exit status 1 if something is missing."""
    report = updown.show(session.sysfs)
    if report is None:
        raise MissingError("no testbed is up", advice="'libvirt-tuner testbed up' sets one up")
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _print(report)
    sys.exit(bool(report.missing))


def _print(report: updown.Report) -> None:
    click.echo(f"path        {report.path}")
    click.echo(f"MTU         {report.mtu}")
    click.echo(f"MTUs        {', '.join(f'{name} {size}' for name, size in report.mtus.items())}")
    click.echo(f"encryption  {report.crypto}")
    if report.fingerprint:
        click.echo(f"keys        {report.fingerprint} (the same on both hosts)")
    for state in report.states:
        by = f"offloaded to {state.offload}" if state.offload else "by the kernel"
        click.echo(
            f"state       {state.way} spi {state.spi}: {by}, {state.packets} packets, {state.bytes} bytes"
        )
    for name, count in report.errors.items():
        click.echo(f"xfrm_stat   {name} {count}")
    for step in report.missing:
        click.echo(f"Missing     {step} ('libvirt-tuner testbed up' restores it)")


COMMANDS = (testbed,)
