"""What the facts of a host say together."""

from __future__ import annotations

from libvirt_tuner.hostcheck.facts import Guest
from tests.unit.builders import cpus
from tests.unit.hostcheck.facts import facts, pinned


def test_a_guest_has_every_cpu_of_its_vcpus() -> None:
    assert Guest("vm").cpus == cpus()
    assert Guest("vm", {0: cpus(1, 2), 1: cpus(5)}, emulatorpin=cpus(7)).cpus == cpus(1, 2, 5)


def test_cpus_of_vcpus_are_those_of_running_and_defined_guests() -> None:
    assert facts().vcpus == cpus()
    assert facts("", "", pinned("a", 4), pinned("b", 6, running=False)).vcpus == cpus(4, 6)
