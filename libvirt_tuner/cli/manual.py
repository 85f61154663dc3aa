"""The manual page, made from the commands' own help: man(7) markup."""

from __future__ import annotations

from collections.abc import Iterator

import click

from libvirt_tuner.install import MARK

NAME = "libvirt-tuner"
_FILES = {
    "/etc/libvirt-tuner.toml": "The policy; built-in defaults where absent.",
    "/run/libvirt-tuner": "Which domain holds which CPU, and what the host was like before.",
}


def page(root: click.Context) -> str:
    """libvirt-tuner(8), every command with its options.

    Args:
        root: Context of the whole command line.
    """
    lines = [f'.\\" {MARK}', '.TH LIBVIRT-TUNER 8 "" "libvirt-tuner"', ".SH NAME"]
    lines += ["libvirt-tuner \\- place VMs where their network card is", ".SH SYNOPSIS"]
    lines += [".B libvirt-tuner", "[OPTIONS] COMMAND [ARGS]...", ".SH OPTIONS", *_options(root)]
    lines += [".SH COMMANDS"]
    for context in _commands(root):
        words = (NAME, *context.command_path.split()[1:], *context.command.collect_usage_pieces(context))
        lines += [f'.SS "{_escaped(" ".join(words))}"']
        lines += [*_paragraphs(context.command.help or ""), *_options(context)]
    lines += [".SH EXIT STATUS", "0 fine; 1 findings or failure; 2 usage error."]
    lines += [".SH FILES"]
    for file, what in _FILES.items():
        lines += [".TP", _escaped(file), _escaped(what)]
    lines += [".SH SEE ALSO", ".BR virsh (1),", ".BR libvirtd (8)"]
    return "\n".join(lines) + "\n"


def _commands(parent: click.Context) -> Iterator[click.Context]:
    group = parent.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, parent=parent, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands(context)
        else:
            yield context


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        yield _escaped(paragraph)


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record:
            yield from (".TP", _escaped(record[0]), _escaped(record[1]))


def _escaped(text: str) -> str:
    """Text for man(7): one line, not taken for a control line, hyphens and quotes as typed."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{line}" if line.startswith((".", "'")) else line
