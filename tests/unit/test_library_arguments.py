"""Every public function refuses an argument of a wrong type with an error that says what is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import libvirt_tuner
from libvirt_tuner import TunerError, transforms

ROOT = Path(__file__).parents[2]
SEED = (ROOT / "fixtures/domains/seed-in.xml").read_bytes()
HOST = libvirt_tuner.read_host(str(ROOT / "fixtures/hosts/seed"))
BAD: tuple[object, ...] = (
    None,
    3,
    -1,
    3.5,
    True,
    "x",
    b"",
    [],
    [None],
    ["a"],
    {"a": 1},
    {0: [[]]},
    {0: 1},
    (1,),
    object(),
)
GOOD = {
    "name": "own",
    "tag": "vcpupin",
    "key": "vcpu",
    "child": "driver",
    "path": "memoryBacking/source",
    "attribute": "iommu",
    "cpus": {0},
    "nodeset": {0},
    "pins": {0: {0}},
    "known": lambda root: frozenset({0}),
    "change": lambda root: None,
}


def _functions() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in (libvirt_tuner, transforms):
        for name in module.__all__:
            given = getattr(module, name)
            # It takes an element, and is given to nic_setting.
            if inspect.isfunction(given) and name != "only_virtio":
                yield f"{module.__name__}.{name}", given


@pytest.mark.parametrize("function", [pytest.param(each, id=name) for name, each in _functions()])
def test_wrong_types_are_refused_clearly(function: Callable[..., object]) -> None:
    known = GOOD | {"xml": SEED, "host": HOST, "plan": libvirt_tuner.plan(HOST, SEED)}
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind is not p.VAR_POSITIONAL]
    needed = {p.name: known.get(p.name, 1) for p in named if p.default is p.empty}
    refused = [
        error
        for parameter in parameters
        for bad in BAD
        if (error := _refusal(function, needed, parameter, bad)) is not None
    ]
    assert refused
    unclear = [
        error
        for error in refused
        if not isinstance(error, TunerError)
        and not any(words in str(error) for words in ("need ", "must be ", "is not a transform"))
    ]
    assert unclear == []


def _refusal(
    function: Callable[..., object], needed: dict[str, object], parameter: inspect.Parameter, bad: object
) -> Exception | None:
    try:
        if parameter.kind is parameter.VAR_POSITIONAL:
            function(*needed.values(), bad)
        else:
            function(**{**needed, parameter.name: bad})
    except (TunerError, TypeError) as error:
        return error
    return None
