"""Pins of a user's own that this host cannot serve."""

from __future__ import annotations

import pytest

from libvirt_tuner.cli.pins import misplaced
from libvirt_tuner.domainxml.spec import DomainSpec, Numatune
from libvirt_tuner.topology import NumaCell
from tests.unit.builders import cpus

CELLS = (NumaCell(0, cpus(0, 1, 2)), NumaCell(4, cpus(4, 5)))


@pytest.mark.parametrize(
    ("own", "found"),
    [
        pytest.param(DomainSpec("vm"), [], id="no pins"),
        pytest.param(DomainSpec("vm", vcpupin={0: cpus(0), 1: cpus(5)}, cpuset=cpus(4)), [], id="all there"),
        pytest.param(
            DomainSpec("vm", vcpupin={0: cpus(0), 1: cpus(3, 4)}),
            [("/domain/cputune/vcpupin[@vcpu='1']/@cpuset", "3")], id="one of a vCPU's",
        ),
        pytest.param(
            DomainSpec("vm", iothreadpin={2: cpus(9)}),
            [("/domain/cputune/iothreadpin[@iothread='2']/@cpuset", "9")], id="an iothread's",
        ),
        pytest.param(
            DomainSpec("vm", emulatorpin=cpus(3), cpuset=cpus(6, 7)),
            [("/domain/cputune/emulatorpin/@cpuset", "3"), ("/domain/vcpu/@cpuset", "6-7")],
            id="emulator and placement",
        ),
        pytest.param(
            DomainSpec("vm", numatune=Numatune("strict", nodeset=cpus(0, 1))),
            [("/domain/numatune/memory/@nodeset", "1")], id="a node",
        ),
    ],
)  # fmt: skip
def test_misplaced(own: DomainSpec, found: list[tuple[str, str]]) -> None:
    assert [(error.where, error.value) for error in misplaced(own, CELLS)] == found


def test_what_is_there_is_named() -> None:
    pins, nodes = misplaced(
        DomainSpec("vm", emulatorpin=cpus(3), numatune=Numatune("strict", nodeset=cpus(1))), CELLS
    )
    assert "expected CPUs of 0-2,4-5" in str(pins)
    assert "expected nodes of 0,4" in str(nodes)
