"""Several domains in one plan, on the laboratory's host."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.request import plan_request, read_request
from libvirt_tuner.planning.sequence import in_order
from libvirt_tuner.topology import HostTopology
from tests import hosts
from tests.unit.builders import cpus


def survey(devices: Iterable[str], partition: str = "/machine") -> HostTopology:
    return probe.topology(Sysfs(str(hosts.FIXTURES / "small-8")), devices, partition=partition)


def document(number: int, vcpus: int) -> str:
    return (
        f"<domain type='kvm'><name>vm{number}</name><memory unit='GiB'>1</memory><vcpu>{vcpus}</vcpu>"
        "<devices><interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface></devices>"
        "</domain>"
    )


def planned(*vcpus: int, beside: Iterable[Neighbour] = ()) -> list[Plan]:
    requests = [read_request(document(number, count), None) for number, count in enumerate(vcpus)]
    return in_order(requests, survey, beside)


def test_one_is_planned_as_by_itself() -> None:
    assert planned(2) == [plan_request(read_request(document(0, 2), None), survey)]


def test_the_final_state_of_each() -> None:
    made = planned(4, 2, 1)
    seats = [sorted(cpu for pin in plan.vcpupin.values() for cpu in pin) for plan in made]
    assert seats == [[1, 3, 5, 7], [2, 4], [6]]
    assert {plan.emulatorpin for plan in made} == {cpus(0)}


@pytest.mark.parametrize("mix", [(8, 1), (1, 8)])
def test_more_than_there_are(mix: tuple[int, ...]) -> None:
    assert {plan.placement for plan in planned(*mix)} == {"shared"}


def test_beside_what_runs() -> None:
    runs = Neighbour(fixed=tuple(cpus(cpu) for cpu in (1, 3, 5, 7)))
    (made,) = planned(2, beside=[runs])
    assert set(made.vcpupin.values()) == {cpus(2), cpus(4)}
