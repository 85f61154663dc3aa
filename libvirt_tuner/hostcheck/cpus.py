"""Findings about CPUs: isolation and pins. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import argument
from libvirt_tuner.hostcheck.facts import NOTE, Facts, Finding, Guest
from libvirt_tuner.topology import NO_CPUS, Cpus


def skipped_parameters(facts: Facts) -> Iterator[Finding]:
    """Find flags and parameters that the kernel ignores."""
    for skipped in facts.isolation.skipped:
        yield Finding(
            "skipped_parameters",
            f"{skipped.word}: {skipped.why}",
            "this part of the parameter has no effect",
            _isolate(facts),
        )


def partial_isolation(facts: Facts) -> Iterator[Finding]:
    """Find CPUs that are only partly isolated."""
    line = facts.isolation
    if bare := line.nohz - line.domain:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(bare)} are nohz_full without domain isolation",
            "the scheduler still moves other tasks there, and the tick then runs again",
            _isolate(facts),
        )
    if open_ := line.domain - line.managed_irq:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(open_)} are isolated without managed_irq",
            "managed interrupts (NVMe, virtio-blk) may go there, and cannot be moved",
            _isolate(facts),
        )
    if half := facts.host.half_isolated:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(half)} are not isolated, but their SMT siblings are",
            "tasks there slow down the isolated CPUs of the same cores",
            _isolate(facts),
        )
    default = facts.host.online if line.irqaffinity is None else line.irqaffinity
    if line.domain and (hit := line.domain & default):
        said = "no irqaffinity=" if line.irqaffinity is None else f"irqaffinity={cpuset.format(default)}"
        yield Finding(
            "partial_isolation",
            f"new interrupts may go to isolated CPUs {cpuset.format(hit)} ({said})",
            "interrupts of drivers that load later may go to vCPUs",
            _isolate(facts),
        )


def isolated_boot_cpu(facts: Facts) -> Iterator[Finding]:
    """Find an isolated CPU 0: much kernel work can run nowhere else."""
    line = facts.isolation
    if 0 in line.domain | line.managed_irq:
        yield Finding(
            "isolated_boot_cpu",
            "CPU 0 is isolated",
            "timekeeping, firmware and kernel work stay on CPU 0 in any case",
            _isolate(facts),
        )


def _isolate(facts: Facts) -> str:
    """Return the command that fixes the whole line: isolate each of these CPUs completely."""
    line = facts.isolation
    listed = cpuset.format((line.domain | line.nohz | line.managed_irq or facts.vcpus) - {0})
    asked = f"--cpus {listed}" if listed else "--vcpus N"
    return f"libvirt-tuner host isolate {asked} --write && update-grub  # then reboot"


def floating_pins(facts: Facts) -> Iterator[Finding]:
    """Find vCPUs or emulators on several isolated CPUs. The scheduler does not balance them there.

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
                f"{guest.name}: vCPUs {cpuset.format(loose)} may run on more than one CPU,"
                f" some isolated ({cpus})",
                "the scheduler does not balance isolated CPUs, so several vCPUs may stay on one",
                f"libvirt-tuner apply {argument(guest.name)}"
                "  # or pin each vCPU to one CPU with virsh vcpupin",
            )
        if len(both := guest.emulatorpin & isolated) > 1 and not guest.placed:
            yield Finding(
                "floating_pins",
                f"{guest.name}: its emulator may run on isolated CPUs {cpuset.format(both)}",
                "the scheduler does not balance isolated CPUs;"
                " libvirt-tuner pins each vhost worker and iothread to one CPU",
                severity=NOTE,
            )


def shared_cpus(facts: Facts) -> Iterator[Finding]:
    """Find CPUs to which two running domains are pinned."""
    running = [guest for guest in facts.guests if guest.running]
    for number, guest in enumerate(running):
        for other in running[number + 1 :]:
            if both := _own(guest) & _own(other):
                yield Finding(
                    "shared_cpus",
                    f"{guest.name} and {other.name} both have vCPUs on CPUs {cpuset.format(both)}",
                    "they wait for each other",
                    f"libvirt-tuner apply --live {other.name}",
                )


def _own(guest: Guest) -> Cpus:
    return NO_CPUS.union(*(cpus for cpus in guest.vcpupin.values() if len(cpus) == 1))
