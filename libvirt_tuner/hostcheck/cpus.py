"""Findings about CPUs: isolation and pins. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import argument
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Finding, Guest
from libvirt_tuner.topology import NO_CPUS, Cpus


def skipped_parameters(facts: Facts) -> Iterator[Finding]:
    """Flags and parameters that do not mean what they seem to."""
    for skipped in facts.isolation.skipped:
        yield Finding(
            "skipped_parameters",
            f"{skipped.word}: {skipped.why}",
            "what it was meant to do is not in force",
            _isolate(facts),
        )


def partial_isolation(facts: Facts) -> Iterator[Finding]:
    """CPUs that are isolated in one way and not in another."""
    line = facts.isolation
    if bare := line.nohz - line.domain:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(bare)} are nohz_full without domain isolation",
            "the scheduler still moves other tasks there, and each brings the tick back",
            _isolate(facts),
        )
    if open_ := line.domain - line.managed_irq:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(open_)} are isolated without managed_irq",
            "interrupts the kernel places itself (NVMe, virtio-blk) may sit there, and nobody can move them",
            _isolate(facts),
        )
    if half := facts.host.half_isolated:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(half)} are not isolated, and their siblings are",
            "what runs there takes time from the isolated CPUs of the same cores",
            _isolate(facts),
        )
    default = facts.host.online if line.irqaffinity is None else line.irqaffinity
    if line.domain and (hit := line.domain & default):
        said = "no irqaffinity=" if line.irqaffinity is None else f"irqaffinity={cpuset.format(default)}"
        yield Finding(
            "partial_isolation",
            f"new interrupts may go to isolated CPUs {cpuset.format(hit)} ({said})",
            "every driver that comes up later interrupts vCPUs",
            _isolate(facts),
        )


def isolated_boot_cpu(facts: Facts) -> Iterator[Finding]:
    """CPU 0 is isolated: much of the kernel's own work has no other place."""
    line = facts.isolation
    if 0 in line.domain | line.managed_irq:
        yield Finding(
            "isolated_boot_cpu",
            "CPU 0 is isolated",
            "timekeeping, firmware and much of the kernel's own work stay there, whoever else runs on it",
            _isolate(facts),
        )


def _isolate(facts: Facts) -> str:
    """The one command that puts the whole line right: all that is isolated in some way, in every way."""
    line = facts.isolation
    listed = cpuset.format((line.domain | line.nohz | line.managed_irq or facts.vcpus) - {0})
    asked = f"--cpus {listed}" if listed else "--vcpus N"
    return f"libvirt-tuner host isolate {asked} --write && update-grub, and boot"


def floating_pins(facts: Facts) -> Iterator[Finding]:
    """vCPUs, or an emulator, that may move over isolated CPUs: nothing moves them there.

    A thread that works there has one CPU (docs/decisions.md): the emulator's that this tool placed hardly do.
    """
    isolated = facts.host.isolated
    for guest in facts.guests:
        loose = {
            vcpu: cpus for vcpu, cpus in guest.vcpupin.items() if len(cpus) > 1 and len(cpus & isolated) > 0
        }
        if loose:
            cpus = cpuset.format(NO_CPUS.union(*loose.values()) & isolated)
            yield Finding(
                "floating_pins",
                f"{guest.name}: vCPUs {cpuset.format(loose)} float over isolated CPUs {cpus}",
                "without load balancing they pile up on one of them while the others idle",
                f"libvirt-tuner apply {argument(guest.name)}, or one CPU for each vCPU by virsh vcpupin",
            )
        if len(both := guest.emulatorpin & isolated) > 1 and not guest.placed:
            yield Finding(
                "floating_pins",
                f"{guest.name}: its emulator floats over isolated CPUs {cpuset.format(both)}",
                "nothing balances its threads there; this tool gives each vhost worker and iothread a CPU",
                severity=NOTE,
            )


def shared_cpus(facts: Facts) -> Iterator[Finding]:
    """A CPU that two running domains are pinned to."""
    running = [guest for guest in facts.guests if guest.running]
    for number, guest in enumerate(running):
        for other in running[number + 1 :]:
            if both := _own(guest) & _own(other):
                yield Finding(
                    "shared_cpus",
                    f"{guest.name} and {other.name} both have vCPUs on CPUs {cpuset.format(both)}",
                    "each waits for the other",
                    f"libvirt-tuner apply --live {other.name}",
                )


def _own(guest: Guest) -> Cpus:
    return NO_CPUS.union(*(cpus for cpus in guest.vcpupin.values() if len(cpus) == 1))
