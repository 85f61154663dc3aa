"""The command line, ``libvirt-tuner``; virsh's habits where there is one.

Exit status: 0 fine; 1 something was found, or failed; 2 the call was wrong.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

from libvirt_tuner.cli.session import SYSTEM, Session, one_line
from libvirt_tuner.errors import TunerError

MODULES = {
    "placement": ("plan", "diff", "apply", "revert"),
    "documents": ("transform",),
    "host": ("host", "undo"),
    "service": ("status", "daemon"),
    "installation": ("install", "uninstall"),
    "testbed": ("testbed",),
}
"""Where each command is; a module is imported for its own commands only, so that a filter starts quickly."""


class _Commands(click.Group):
    """Commands that are imported when called, and whose errors are one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for names in MODULES.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, names in MODULES.items():
            if cmd_name in names:
                found: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), cmd_name)
                return found
        return None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as err:
            raise _shortened(err) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as err:
            raise _shortened(err) from None
        except TunerError as err:
            raise click.ClickException(one_line(err)) from None
        except BrokenPipeError:
            raise  # the reader has had enough: click ends without a word
        except OSError as err:
            where = f"{err.filename}: " if err.filename else ""
            raise click.ClickException(f"{where}{err.strerror or err}") from None


def _shortened(err: click.UsageError) -> click.UsageError:
    """The same error on one line, its command's help named instead of its usage shown."""
    if isinstance(err, click.exceptions.NoArgsIsHelpError):
        return err
    path = err.ctx.command_path if err.ctx else "libvirt-tuner"
    return click.UsageError(f"{one_line(err.format_message())} (see '{path} --help')")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--connect",
    "uri",
    default=SYSTEM,
    envvar="LIBVIRT_DEFAULT_URI",
    show_default=True,
    show_envvar=True,
    help="libvirt's URI.",
    metavar="URI",
)
@click.version_option(package_name="libvirt-tuner")
@click.pass_context
def main(ctx: click.Context, uri: str) -> None:
    """Place VMs where their network card is.

    Exit status: 0 fine; 1 something was found, or failed; 2 the call was wrong.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    ctx.obj = ctx.with_resource(Session(uri))
