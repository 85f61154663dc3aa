"""Interrupts the kernel will not move, and an irqbalance that would move all others back."""

from __future__ import annotations

import time

from libvirt_tuner import cpuset
from tests.lab import site
from tests.lab.guest import GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.observe import assert_as_planned, irq_cpus, pins, queue_irqs, tuner_log

PASS_SECONDS = 2

MOVE_DISK = """\
from libvirt_tuner import apply
from libvirt_tuner.sysfs import Sysfs
outcome = apply.perform(Sysfs(), apply.irq_affinity({irq}, frozenset({{3}})))
print(outcome.ok, type(outcome.error).__name__)
"""


def queues(lab: Hypervisor) -> dict[int, str]:
    """Where the interrupts of the first NIC go that carry packets; the others are irqbalance's to move."""
    mine = queue_irqs(lab, lab.nics[0])
    return {irq: cpus for irq, cpus in irq_cpus(lab, lab.nics[0]).items() if irq in mine}


def test_managed_interrupt_is_reported_and_nothing_breaks(lab: Hypervisor) -> None:
    irq = lab.output("grep -E 'virtio[0-9]+-req' /proc/interrupts | cut -d: -f1 | head -n 1").strip()
    before = lab.read(f"/proc/irq/{irq}/smp_affinity_list")
    said = lab.run("python3 -", stdin=MOVE_DISK.format(irq=irq).encode()).stdout.strip()
    assert said == "False UnsupportedError"
    assert lab.read(f"/proc/irq/{irq}/smp_affinity_list") == before


def test_steering_outlives_irqbalance(lab: Hypervisor) -> None:
    lab.bridge("br0", lab.nics[0], address=f"{site.address(1)}/24")
    lab.write("/etc/default/irqbalance", f'OPTIONS="--interval={PASS_SECONDS}"\n')
    lab.run("systemctl restart irqbalance")
    guest = lab.define(GuestSpec(name="web", vcpus=2, nics=(Vnic(source="bridge=br0"),)))
    lab.wait_for(lambda: "vcpupin" in lab.output("virsh dumpxml web"), why="watch completes the definition")
    guest.start()
    steered = queues(lab)
    busy = cpuset.parse(",".join(pins(lab, "vcpupin web").values()))
    assert all(not cpuset.parse(cpus) & busy for cpus in steered.values())

    time.sleep(3 * PASS_SECONDS)
    assert queues(lab) == steered
    assert_as_planned(lab, "web")
    # It is really there, and knows what to leave alone.
    assert lab.output("systemctl is-active irqbalance") == "active"
    assert "steered interrupts back" not in tuner_log(lab)

    guest.virsh("destroy")
    lab.wait_for(lambda: queues(lab) != steered, why="interrupts given back")
