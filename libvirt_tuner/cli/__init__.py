"""The command line, ``libvirt-tuner``; it follows virsh's conventions.

Exit status: 0 success; 1 findings or failure; 2 usage error.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from libvirt_tuner.cli.session import JSON, SYSTEM, Session, one_line
from libvirt_tuner.errors import TunerError

MODULES = {
    "placement": ("plan", "diff", "apply", "revert"),
    "documents": ("transform",),
    "config": ("config",),
    "host": ("host", "undo"),
    "service": ("status", "daemon"),
    "journal": ("log",),
    "listing": ("list",),
    "installation": ("install", "uninstall"),
    "seeing": ("diagnose", "irqs"),
    "map": ("map",),
    "measuring": ("measure",),
    "testbed": ("testbed",),
}
"""The commands of each module. A module is only imported for its own commands, so that a filter starts
quickly."""


class _Commands(click.Group):
    """Commands that are imported when called. Each error is printed as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for names in MODULES.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, names in MODULES.items():
            if cmd_name in names:
                commands = importlib.import_module(f"{__name__}.{module}").COMMANDS
                found: click.Command = next(each for each in commands if each.name == cmd_name)
                return found
        return None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        as_json = JSON in args
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as err:
            raise _shortened(err, as_json=as_json) from None
        context.meta[JSON] = as_json
        return context

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as err:
            raise _shortened(err, as_json=ctx.meta[JSON]) from None
        except TunerError as err:
            raise _failed(ctx, one_line(err), err.remedy) from None
        except BrokenPipeError:
            raise  # the reader closed the pipe: click exits silently
        except OSError as err:
            where = f"{err.filename}: " if err.filename else ""
            raise _failed(ctx, f"{where}{err.strerror or err}") from None


def _failed(ctx: click.Context, text: str, remedy: Sequence[str] = ()) -> click.ClickException:
    """Return the error for standard error. With --json, also print an object with it on standard output."""
    if ctx.meta[JSON]:
        _print_error(text, remedy)
    return click.ClickException("\n    ".join((text, *remedy)))


def _print_error(text: str, remedy: Sequence[str] = ()) -> None:
    found = {"error": text} | ({"remedy": list(remedy)} if remedy else {})
    click.echo(json.dumps(found, indent=2))


def _shortened(err: click.UsageError, *, as_json: bool) -> click.UsageError:
    """Return the same error on one line, with a hint to the command's help instead of its usage."""
    if isinstance(err, click.exceptions.NoArgsIsHelpError):
        return err
    path = err.ctx.command_path if err.ctx else "libvirt-tuner"
    text = one_line(err.format_message())
    if as_json:
        _print_error(text)
    return click.UsageError(f"{text} (see '{path} --help')")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--connect",
    "uri",
    default=SYSTEM,
    envvar="LIBVIRT_DEFAULT_URI",
    show_default=True,
    show_envvar=True,
    help="Connection URI of libvirt.",
    metavar="URI",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only data and errors, no headings.")
@click.option("--verbose", is_flag=True, help="Print every row, including interrupts that are in place.")
@click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    help="Use colours; auto: on a terminal, unless NO_COLOR is set.",
)
@click.version_option(package_name="libvirt-tuner")
@click.pass_context
def main(ctx: click.Context, uri: str, quiet: bool, verbose: bool, color: str) -> None:
    """Tune libvirt VMs for network speed: place them on the node of their network card.

    Exit status: 0 success; 1 findings or failure; 2 usage error.
    """
    automatic = False if os.environ.get("NO_COLOR") else None
    ctx.color = {"always": True, "never": False}.get(color, automatic)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Print names even if the terminal's encoding lacks a character.
        sys.stdout.reconfigure(errors="backslashreplace")
    ctx.obj = ctx.with_resource(Session(uri, quiet=quiet, verbose=verbose))
