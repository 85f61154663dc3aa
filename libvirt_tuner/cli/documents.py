"""transform: the transforms as a filter. It needs no host and no libvirtd."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any, TypeVar

import click

from libvirt_tuner import cpuset
from libvirt_tuner.cli.session import json_option, read_document
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.parts import MODES
from libvirt_tuner.errors import TunerError
from libvirt_tuner.transforms import Transform, compose, numatune
from libvirt_tuner.transforms import emulatorpin as to_emulatorpin
from libvirt_tuner.transforms import host_mtu as to_host_mtu
from libvirt_tuner.transforms import iothreadpin as to_iothreadpin
from libvirt_tuner.transforms import mtu as to_mtu
from libvirt_tuner.transforms import poll_us as to_poll_us
from libvirt_tuner.transforms import queues as to_queues
from libvirt_tuner.transforms import rx_queue_size as to_rx_queue_size
from libvirt_tuner.transforms import tx_queue_size as to_tx_queue_size
from libvirt_tuner.transforms import vcpupin as to_vcpupin
from libvirt_tuner.transforms.queues import VCPUS

NONE = "none"
T = TypeVar("T")
Ids = frozenset[int]
Placed = tuple[int, Ids | None]
"""A vCPU, iothread or guest cell with its CPUs or nodes. None removes its setting."""


class _OrNone(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A value of another type, or ``none`` to remove the setting."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self._read = read

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"{self.name.upper()}|{NONE}"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str) or value == NONE:
            return value
        try:
            return self._read(value)
        except ValueError as err:
            self.fail(str(err), param, ctx)


class _Version(click.ParamType):  # type: ignore[type-arg]
    """``9.0.0`` as ``(9, 0, 0)``."""

    name = "version"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        parts = value.split(".")
        if not all(map(_is_number, parts)):
            self.fail(f"{value!r:.40} is not a version, such as 9.0.0", param, ctx)
        return tuple(map(int, parts))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _number(text: str) -> int:
    if not _is_number(text):
        raise ValueError(f"{text!r:.40} is not a whole number")
    return int(text)


def _queues(text: str) -> int | str:
    return text if text == VCPUS else _number(text)


def _ids(text: str) -> Ids:
    if not text:
        raise ValueError("an empty list; give 'none' to take the setting out")
    return cpuset.parse(text)


def _placed(text: str) -> Placed:
    number, sign, ids = text.partition("=")
    if not sign or not _is_number(number):
        raise ValueError(f"{text!r:.40} is not ID=LIST, such as 0=20")
    return int(number), None if ids == NONE else _ids(ids)


CPULIST = _OrNone("cpulist", _ids)
NODESET = _OrNone("nodeset", _ids)
NUMBER = _OrNone("number", _number)
QUEUES = _OrNone("number|vcpus", _queues)
PIN = _OrNone("id=cpulist", _placed)
MEMNODE = _OrNone("cell=nodeset", _placed)
VERSION = _Version()


@click.command(short_help="Change a domain document (filter for pipes).")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--vcpupin", type=PIN, multiple=True, help="Pin a vCPU, such as 0=20; repeatable.")
@click.option("--emulatorpin", type=CPULIST, help="CPUs of the emulator and vhost threads.")
@click.option("--iothreadpin", type=PIN, multiple=True, help="Pin an iothread, such as 1=16; repeatable.")
@click.option("--numatune", "nodeset", type=NODESET, help="Host nodes of the memory.")
@click.option("--memnode", type=MEMNODE, multiple=True, help="Host nodes of a guest NUMA cell; repeatable.")
@click.option("--numatune-mode", type=click.Choice(MODES), help="Mode of --numatune.  [default: strict]")
@click.option("--rx-queue-size", type=NUMBER, help="Receive ring of virtio NICs: 256, 512 or 1024.")
@click.option(
    "--tx-queue-size", type=NUMBER, help="Transmit ring; more than 256 only on vhost-user and vDPA."
)
@click.option("--queues", type=QUEUES, help="Queue pairs of virtio NICs, at most one per vCPU.")
@click.option("--mtu", type=NUMBER, help="<mtu size> of NICs, in bytes.")
@click.option("--host-mtu", type=NUMBER, help="MTU by qemu:override, for macvtap (no <mtu> there).")
@click.option("--poll-us", type=NUMBER, help="Busy polling of the vhost workers, in microseconds.")
@click.option("--nic", multiple=True, help="Only this NIC: MAC, alias or position; repeatable.")
@click.option(
    "--libvirt", type=VERSION, default="9.0.0", show_default=True, help="Target version of libvirt."
)
@click.option("--qemu", type=VERSION, default="7.2.0", show_default=True, help="Target version of QEMU.")
@json_option
def transform(
    file: IO[bytes],
    vcpupin: tuple[Placed | str, ...],
    emulatorpin: Ids | str | None,
    iothreadpin: tuple[Placed | str, ...],
    nodeset: Ids | str | None,
    memnode: tuple[Placed | str, ...],
    numatune_mode: str | None,
    rx_queue_size: int | str | None,
    tx_queue_size: int | str | None,
    queues: int | str | None,
    mtu: int | str | None,
    host_mtu: int | str | None,
    poll_us: int | str | None,
    nic: tuple[str, ...],
    libvirt: tuple[int, ...],
    qemu: tuple[int, ...],
    as_json: bool,
) -> None:
    """Change a domain document: read FILE or standard input, write to standard output.

    'none' removes a setting. ID=none removes that of one vCPU, iothread or cell. On an error, nothing is
    printed on standard output.

    The command does not connect to libvirt. --poll-us and --host-mtu depend on the versions of libvirt and
    QEMU: see 'virsh version'. The defaults also work for all later versions.
    """
    nics = _nics(nic)
    per_nic = (rx_queue_size, tx_queue_size, queues, mtu, host_mtu, poll_us)
    if nic and all(value is None for value in per_nic):
        options = "--rx-queue-size, --tx-queue-size, --queues, --mtu, --host-mtu or --poll-us"
        raise click.UsageError(f"--nic needs one of {options}")
    if (memnode or numatune_mode) and nodeset in (None, NONE):
        raise click.UsageError("--memnode and --numatune-mode need --numatune NODESET")
    try:
        wanted = [
            *_each("--vcpupin", vcpupin, to_vcpupin),
            *_one(emulatorpin, to_emulatorpin),
            *_each("--iothreadpin", iothreadpin, to_iothreadpin),
            *_one(nodeset, lambda nodes: _numatune(nodes, memnode, numatune_mode or "strict")),
            *_one(rx_queue_size, lambda size: to_rx_queue_size(size, **nics)),
            *_one(tx_queue_size, lambda size: to_tx_queue_size(size, **nics)),
            *_one(queues, lambda count: to_queues(count, **nics)),
            *_one(mtu, lambda size: to_mtu(size, **nics)),
            *_one(host_mtu, lambda size: to_host_mtu(size, libvirt=libvirt, **nics)),
            *_one(poll_us, lambda value: to_poll_us(value, libvirt=libvirt, qemu=qemu, **nics)),
        ]
    except TunerError as err:
        raise click.UsageError(str(err)) from None
    if not wanted:
        raise click.UsageError("nothing to do: give at least one option")
    before = read_document(file)
    after = compose(*wanted)(before)
    if as_json:
        text = document.serialize(document.parse(after)).decode()
        click.echo(json.dumps({"changed": after != before, "document": text}, indent=2))
        return
    sys.stdout.buffer.write(after)
    sys.stdout.buffer.flush()


def _one(value: T | str | None, make: Callable[[T | None], Transform]) -> list[Transform]:
    if value is None:
        return []
    return [make(None if value == NONE else value)]  # type: ignore[arg-type]


def _each(
    option: str, values: Iterable[Placed | str], make: Callable[[dict[int, Ids | None] | None], Transform]
) -> list[Transform]:
    given = list(values)
    if not given:
        return []
    return [make(None if given == [NONE] else _by_id(option, given))]


def _by_id(option: str, values: Iterable[Placed | str]) -> dict[int, Ids | None]:
    """Return the value for each id.

    Raises:
        click.UsageError: An id is given twice, or ``none`` is combined with others.
    """
    found: dict[int, Ids | None] = {}
    for value in values:
        if isinstance(value, str):
            raise click.UsageError(
                f"{option} {NONE} cannot be combined with others; {NONE} for one of them is ID={NONE}"
            )
        number, ids = value
        if number in found:
            raise click.UsageError(f"{option}: {number} is given twice")
        found[number] = ids
    return found


def _numatune(nodes: Ids | None, memnode: Iterable[Placed | str], mode: str) -> Transform:
    cells = _by_id("--memnode", memnode)
    memnodes = {cell: None if nodeset is None else (nodeset, mode) for cell, nodeset in cells.items()}
    return numatune(nodes, mode=mode, memnodes=memnodes)


def _nics(names: tuple[str, ...]) -> dict[str, Any]:
    """``--nic`` as the keyword of the transforms: without it, every NIC that can have the setting."""
    return {"nics": [int(name) if _is_number(name) else name for name in names] or None}


COMMANDS = (transform,)
