"""Converts a placement to and from JSON types for the ledger.

It has only what is valid while the domain runs. Rings, MTU, interrupts and reasons are not stored: they are
in the document or in the ledger's changes, or are planned again. Pure; on the hook's path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml.parts import MODES
from libvirt_tuner.errors import LedgerError
from libvirt_tuner.planning.plan import Held, Placement, PlacementKind
from libvirt_tuner.topology import NO_CPUS, Binding, Cpus

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")
    S = TypeVar("S", bound=str)

KINDS: tuple[PlacementKind, ...] = ("dedicated", "shared", "keep")
KEYS = frozenset(
    {
        "domain",
        "uuid",
        "placement",
        "nodes",
        "vcpupin",
        "emulatorpin",
        "iothreadpin",
        "vhost",
        "numatune",
        "memnodes",
        "holds",
        "vcpus",
        "reach",
        "claimed",
        "tuned",
    }
)


def to_dict(placement: Placement) -> dict[str, object]:
    """Return the placement in JSON types; sets of CPUs and nodes as cpulists (``"16,18"``)."""
    return {
        "domain": placement.domain,
        "uuid": placement.uuid,
        "placement": placement.placement,
        "nodes": list(placement.nodes),
        "vcpupin": _pins_out(placement.vcpupin),
        "emulatorpin": None if placement.emulatorpin is None else cpuset.format(placement.emulatorpin),
        "iothreadpin": _pins_out(placement.iothreadpin),
        "vhost": list(placement.vhost),
        "numatune": None if placement.numatune is None else _memory_out(placement.numatune),
        "memnodes": {str(cell): _memory_out(memory) for cell, memory in sorted(placement.memnodes.items())},
        "holds": {
            "vcpus": cpuset.format(placement.holds.vcpus),
            "emulators": cpuset.format(placement.holds.emulators),
        },
        "vcpus": _pins_out(placement.vcpus),
        "reach": cpuset.format(placement.reach),
        "claimed": placement.claimed,
        "tuned": placement.tuned,
    }


def from_dict(data: Mapping[str, object]) -> Placement:
    """Return the placement that :func:`to_dict` wrote.

    Raises:
        LedgerError: Anything but what it writes.
    """
    try:
        return _placement(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise LedgerError(f"not a plan: {said}", where="ledger", expected="what to_dict() writes") from None


def _placement(data: Mapping[str, object]) -> Placement:
    if set(data) != KEYS:
        raise ValueError(f"keys {', '.join(sorted(set(data) ^ KEYS))} are unknown or missing")
    emulatorpin, numatune = data["emulatorpin"], data["numatune"]
    holds = _is(data["holds"], dict)
    return Placement(
        domain=_is(data["domain"], str),
        uuid=_is(data["uuid"], str),
        placement=_one_of(KINDS, data["placement"]),
        nodes=_numbers(data["nodes"]),
        vcpupin=_pins_in(data["vcpupin"]),
        emulatorpin=None if emulatorpin is None else _cpus(emulatorpin),
        iothreadpin=_pins_in(data["iothreadpin"]),
        vhost=_numbers(data["vhost"]),
        numatune=None if numatune is None else _memory_in(numatune),
        memnodes={_id(cell): _memory_in(value) for cell, value in _is(data["memnodes"], dict).items()},
        holds=Held(_cpus(holds["vcpus"]), _cpus(holds["emulators"])),
        vcpus=_pins_in(data["vcpus"]),
        reach=_cpus(data["reach"]),
        claimed=_bool(data["claimed"]),
        tuned=_bool(data["tuned"]),
    )


def _pins_out(pins: Mapping[int, Cpus]) -> dict[str, str]:
    return {str(number): cpuset.format(cpus) for number, cpus in sorted(pins.items())}


def _pins_in(value: object) -> dict[int, Cpus]:
    return {_id(number): _cpus(cpus) for number, cpus in _is(value, dict).items()}


def _memory_out(memory: Binding) -> list[str]:
    return [memory.mode, cpuset.format(memory.nodes)]


def _memory_in(value: object) -> Binding:
    mode, nodes = _is(value, list)
    return Binding(_one_of(MODES, mode), _cpus(nodes))


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(_is(number, int) for number in _is(value, list))


def _id(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r:.60} is not an id")
    return int(text)


def _cpus(value: object) -> Cpus:
    text = _is(value, str)
    return cpuset.parse(text) if text else NO_CPUS


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not a bool")
    return value


def _one_of(known: Iterable[S], value: object) -> S:
    for each in known:
        if each == value:
            return each
    raise ValueError(f"{value!r:.60} is not one of {', '.join(map(str, known))}")


def _is(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not a {kind.__name__}")
    return value
