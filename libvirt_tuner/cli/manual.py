"""The manual pages, made from the commands' own help and the table of settings: man(7) markup."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from libvirt_tuner.config.limits import Limits
from libvirt_tuner.config.policy import CONFIG_FILE
from libvirt_tuner.config.settings import SETTINGS, Setting, table
from libvirt_tuner.install import MARK

NAME = "libvirt-tuner"
WHAT = "tune libvirt VMs for network speed"
STATUS = "0: success; 1: findings or failure; 2: usage error."
_FILES = {
    CONFIG_FILE: "The policy, see libvirt-tuner.toml(5). Optional.",
    "/run/libvirt-tuner": "The ledger: CPUs of each domain, and the earlier values of all changed"
    " host settings.",
    "/etc/libvirt/hooks/qemu": "The hook. If you have one there: /etc/libvirt/hooks/qemu.d/libvirt-tuner.",
}
_METADATA = (
    "virsh metadata DOMAIN --uri https://libvirt-tuner.org/policy/1 --key tuner"
    ' --set \'<policy placement="shared" poll-us="200"/>\''
)


def pages(root: click.Context) -> dict[str, str]:
    """Return every page by file name: ``libvirt-tuner.8``, one for each command, and
    ``libvirt-tuner.toml.5``.

    Args:
        root: Context of the whole command line.
    """
    found = {f"{NAME}.8": _overview(root)}
    for context in commands(root):
        found[f"{_title(context)}.8"] = _command(context)
    return {**found, f"{NAME}.toml.5": _config()}


def commands(parent: click.Context) -> Iterator[click.Context]:
    """Yield the context of every command that is not a group, including those in groups."""
    group = parent.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, parent=parent, info_name=name)
        if isinstance(command, click.Group):
            yield from commands(context)
        else:
            yield context


def _words(context: click.Context) -> list[str]:
    return [NAME, *context.command_path.split()[1:]]


def _title(context: click.Context) -> str:
    return "-".join(_words(context))


def _head(title: str, section: int, what: str) -> list[str]:
    return [
        f'.\\" {MARK}',
        f'.TH "{_escaped(title.upper())}" {section} "" "{NAME}"',
        ".SH NAME",
        f"{_escaped(title)} \\- {_escaped(what)}",
    ]


def _overview(root: click.Context) -> str:
    lines = [*_head(NAME, 8, WHAT), ".SH SYNOPSIS", f".B {_escaped(NAME)}", "[OPTIONS] COMMAND [ARGS]..."]
    lines += [".SH DESCRIPTION", *_paragraphs(root.command.help or ""), ".SH OPTIONS", *_options(root)]
    lines += [".SH COMMANDS"]
    for context in commands(root):
        lines += [".TP", f'.BR "{_escaped(_title(context))}" (8)', _escaped(_short(context))]
    return _page([*lines, *_tail(f"{NAME}.toml(5)", "virsh(1)", "libvirtd(8)", "virtqemud(8)")])


def _command(context: click.Context) -> str:
    usage = [*_words(context), *context.command.collect_usage_pieces(context)]
    lines = [*_head(_title(context), 8, _short(context)), ".SH SYNOPSIS", _escaped(" ".join(usage))]
    lines += [".SH DESCRIPTION", *_paragraphs(context.command.help or ""), ".SH OPTIONS", *_options(context)]
    return _page([*lines, *_tail(f"{NAME}(8)", f"{NAME}.toml(5)", "virsh(1)")])


def _config() -> str:
    lines = [*_head(f"{NAME}.toml", 5, "policy of libvirt-tuner"), ".SH SYNOPSIS", _escaped(CONFIG_FILE)]
    lines += [".SH DESCRIPTION"]
    lines += _paragraphs(
        "The file is TOML. The table [policy] has settings for all domains. Each table [[domain]] has"
        " settings for domains whose name matches its key match, a shell pattern. Each later setting"
        " overrides the earlier one: built-in defaults, [policy], each matching [[domain]] in the order of"
        " the file, the metadata of the domain.\n\n"
        "No configuration is needed. libvirt-tuner config check reports each mistake with its line, the value"
        " and what is allowed. The hook and the daemon read the file each time they need it. Run systemctl"
        " reload libvirt-tuner to apply a change to all domains."
    )
    lines += ['.SH "SETTINGS OF [policy] AND [[domain]]"', *_settings(SETTINGS)]
    lines += [
        '.SH "SETTINGS OF [limits]"',
        "Limits for the metadata of domains.",
        *_settings(table(Limits)),
    ]
    lines += [
        ".SH METADATA",
        "The metadata of a domain can have settings too, with dashes instead of underscores:",
    ]
    lines += [".PP", ".nf", _escaped(_METADATA), ".fi"]
    lines += [
        ".SH EXAMPLE",
        ".nf",
        "[policy]",
        'housekeeping = "0\\-1"',
        "",
        "[[domain]]",
        'match = "db\\-*"',
    ]
    lines += ['placement = "shared"', ".fi"]
    return _page([*lines, ".SH SEE ALSO", *_references(f"{NAME}(8)", f"{NAME}-config-check(8)", "virsh(1)")])


def _settings(table: Mapping[str, Setting]) -> Iterator[str]:
    """An entry for each setting of a table."""
    for name, one in table.items():
        default = json.dumps(sorted(one.default) if isinstance(one.default, frozenset) else one.default)
        yield from (".TP", f'.BR "{_escaped(name)}" " (default: {_escaped(default)})"', _escaped(one.help))
        yield from (".br", _escaped(f"Values: {one.expected()}."))


def _tail(*references: str) -> list[str]:
    lines = [".SH EXIT STATUS", STATUS, ".SH FILES"]
    for file, what in _FILES.items():
        lines += [".TP", _escaped(file), _escaped(what)]
    return [*lines, ".SH SEE ALSO", *_references(*references)]


def _references(*names: str) -> Iterator[str]:
    for number, name in enumerate(names, 1):
        title, _, section = name.rstrip(")").partition("(")
        yield f'.BR "{_escaped(title)}" ({section})' + ("," if number < len(names) else "")


def _page(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _short(context: click.Context) -> str:
    return context.command.get_short_help_str(200).rstrip(".")


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        lines += [*([".PP"] if number else []), _escaped(paragraph.replace("\b", ""))]
    return lines


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record:
            yield from (".TP", _escaped(record[0]), _escaped(record[1]))


def _escaped(text: str) -> str:
    """Escape text for man(7): one line that is not a control line, with literal hyphens and quotes."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{line}" if line.startswith((".", "'")) else line


def write(directory: Path) -> None:
    """Write all pages into a directory, for packages."""
    from libvirt_tuner.cli import main

    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages(click.Context(main, info_name=NAME)).items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
