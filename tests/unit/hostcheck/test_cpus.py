"""Checks of isolation and of pins."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import check as hostcheck
from libvirt_tuner.hostcheck import cpus as check_cpus
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Guest
from libvirt_tuner.planning.request import plan_request, read_request
from tests import hosts
from tests.unit.builders import cpus
from tests.unit.hostcheck.facts import facts, pinned, whats


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param("isolcpus=nohz,domain,managed_irq,4-7", [], id="fine"),
        pytest.param("isolcpus=no_hz,domain,4-7", ["no_hz"], id="no_hz"),
        pytest.param("isolcpus=nohz,domain,4 nohz_full=5", ["nohz_full=5"], id="contradiction"),
    ],
)
def test_skipped_parameters(line: str, found: list[str]) -> None:
    said = whats("skipped_parameters", facts(line))
    assert [text.partition(":")[0] for text in said] == found


FULL = "isolcpus=nohz,domain,managed_irq,4-7 nohz_full=4-7 irqaffinity=0-3,8-15"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param("", [], id="nothing isolated"),
        pytest.param(FULL, [], id="isolated in every way"),
        pytest.param(
            "isolcpus=nohz,4-7", ["CPUs 4-7 are nohz_full without domain isolation"], id="only nohz"
        ),
        pytest.param(
            "nohz_full=4-7", ["CPUs 4-7 are nohz_full without domain isolation"], id="only nohz_full"
        ),
        pytest.param(
            "isolcpus=4-7 irqaffinity=0-3", ["CPUs 4-7 are isolated without managed_irq"], id="no managed_irq"
        ),
        pytest.param(
            "isolcpus=domain,managed_irq,4-7",
            ["new interrupts may go to isolated CPUs 4-7 (no irqaffinity=)"],
            id="no irqaffinity",
        ),
        pytest.param(
            "isolcpus=domain,managed_irq,4-7 irqaffinity=0-4",
            ["new interrupts may go to isolated CPUs 4 (irqaffinity=0-4)"],
            id="irqaffinity on isolated CPUs",
        ),
    ],
)
def test_partial_isolation(line: str, found: list[str]) -> None:
    assert whats("partial_isolation", facts(line)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param("isolcpus=0-3", ["CPU 0 is isolated"], id="by isolcpus"),
        pytest.param("nohz_full=0-3", [], id="nohz_full leaves it out"),
        pytest.param("isolcpus=1-3", [], id="not isolated"),
    ],
)
def test_isolated_boot_cpu(line: str, found: list[str]) -> None:
    made = facts(line)
    assert whats("isolated_boot_cpu", made) == found
    fixes = {one.fix for one in hostcheck.check(made) if one.check == "isolated_boot_cpu"}
    assert fixes <= {"libvirt-tuner host isolate --cpus 1-3 --write && update-grub  # then reboot"}


def test_one_command_mends_the_whole_line() -> None:
    found = hostcheck.check(facts("isolcpus=no_hz,domain,4-5 nohz_full=6-7"))
    assert {finding.fix for finding in found} == {
        "libvirt-tuner host isolate --cpus 4-7 --write && update-grub  # then reboot"
    }


@pytest.mark.parametrize(
    ("guest", "found"),
    [
        pytest.param(Guest("vm"), [], id="no pins: libvirt keeps it off isolated CPUs"),
        pytest.param(pinned("vm", 4, 5), [], id="1:1 on isolated CPUs"),
        pytest.param(Guest("vm", {0: cpus(1, 2)}), [], id="floats beside them"),
        pytest.param(
            Guest("vm", {0: cpus(4, 5), 1: cpus(4, 5), 2: cpus(6)}),
            ["vm: vCPUs 0-1 may run on more than one CPU, some isolated (4-5)"],
            id="floats over them",
        ),
        pytest.param(
            Guest("vm", {0: cpus(3, 4)}, running=False),
            ["vm: vCPUs 0 may run on more than one CPU, some isolated (4)"],
            id="one of them, and only defined",
        ),
    ],
)
def test_floating_pins(guest: Guest, found: list[str]) -> None:
    assert whats("floating_pins", facts(FULL, "4-7", guest)) == found


@pytest.mark.parametrize(
    ("emulator", "found"),
    [
        pytest.param(cpus(1, 2), [], id="beside"),
        pytest.param(cpus(4), [], id="one isolated CPU"),
        pytest.param(cpus(4, 5), ["vm: its emulator may run on isolated CPUs 4-5"], id="two"),
    ],
)
def test_emulator_on_isolated_cpus_is_a_note(emulator: frozenset[int], found: list[str]) -> None:
    guest = evolve(pinned("vm", 6), emulatorpin=emulator)
    assert whats("floating_pins", facts(FULL, "4-7", guest), NOTE) == found
    assert whats("floating_pins", facts(FULL, "4-7", evolve(guest, placed=True)), NOTE) == []


def test_what_the_planner_does_on_the_seed_host_is_no_finding() -> None:
    sysfs = Sysfs(str(hosts.FIXTURES / "seed"))
    here = probe.topology(sysfs)
    request = read_request((hosts.FIXTURES.parent / "domains" / "seed-in.xml").read_bytes(), None)
    made = plan_request(request, lambda *_: here)
    assert (made.emulatorpin or cpus()) & here.isolated == cpus(16, 18)
    guest = Guest("vm", made.vcpupin, made.emulatorpin or cpus(), placed=True)
    assert list(check_cpus.floating_pins(Facts(here, guests=(guest,)))) == []


@pytest.mark.parametrize(
    ("guests", "found"),
    [
        pytest.param((pinned("a", 4), pinned("b", 5)), [], id="apart"),
        pytest.param((pinned("a", 4), pinned("b", 4, running=False)), [], id="one is only defined"),
        pytest.param(
            (Guest("a", {0: cpus(4, 5)}), Guest("b", {0: cpus(4, 5)})), [], id="both float: their own wish"
        ),
        pytest.param(
            (pinned("a", 4, 5), pinned("b", 5, 6)), ["a and b both have vCPUs on CPUs 5"], id="together"
        ),
    ],
)
def test_shared_cpus(guests: tuple[Guest, ...], found: list[str]) -> None:
    assert whats("shared_cpus", facts("", "", *guests)) == found
