"""macvtap on geneve on a bond of NICs on different nodes: the way down, the node, the MTU, a failover."""

from __future__ import annotations

import pytest

from libvirt_tuner import cpuset
from tests.lab import overlay
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.observe import irq_cpus, pins, queue_irqs

NODES = ("0,2,4,6", "1,3,5,7")


def on_geneve(lab: Hypervisor, name: str, *, source: str = "dev=geneve0") -> Guest:
    """A domain with a macvtap on geneve0, or what ``source`` says; its definition is complete."""
    guest = lab.define(GuestSpec(name=name, nics=(Vnic(source=source),)))
    lab.wait_for(
        lambda: "vcpupin" in lab.output(f"virsh dumpxml {name}"), why="the daemon completes the definition"
    )
    return guest


def node_of(lab: Hypervisor, name: str) -> int:
    """The node of all the CPUs a domain is pinned to."""
    cpus = cpuset.parse(",".join(pins(lab, f"vcpupin {name}").values()))
    (node,) = [number for number, cpulist in enumerate(NODES) if cpus <= cpuset.parse(cpulist)]
    return node


@pytest.mark.parametrize(
    ("source", "encrypted", "mtu"),
    [
        pytest.param("dev=geneve0", False, 1450, id="macvtap on geneve"),
        # What joins the peers is this as well.
        pytest.param("dev=geneve0", True, 1416, id="macvtap on geneve over ESP", marks=pytest.mark.thorough),
        pytest.param("bridge=br0", True, 1416, id="bridge on geneve over ESP"),
    ],
)
def test_guest_takes_the_computed_mtu(lab: Hypervisor, source: str, encrypted: bool, mtu: int) -> None:
    overlay.bond(lab)
    if encrypted:
        overlay.esp(lab, 2)
    overlay.geneve(lab, 2)
    if source == "bridge=br0":
        lab.bridge("br0", "geneve0")
    guest = on_geneve(lab, "vm", source=source)
    plan = lab.output("libvirt-tuner plan vm | tr -s ' \\n' ' '")
    assert f"geneve0 (vni 100, 192.168.1.2) > bond0 (active-backup) > {lab.nics[1]}" in plan
    guest.start()
    assert guest.mtu() == mtu
    assert node_of(lab, "vm") == 0
    if source == "bridge=br0":
        # The guest's smaller MTU has not pulled the bridge's down.
        assert lab.read("/sys/class/net/br0/mtu") == lab.read("/sys/class/net/geneve0/mtu") == "1450"


def test_failover(lab: Hypervisor) -> None:
    overlay.bond(lab)
    overlay.geneve(lab, 2)
    first = on_geneve(lab, "first")
    first.start()
    assert node_of(lab, "first") == 0
    busy = cpuset.parse(",".join(pins(lab, "vcpupin first").values()))
    for nic, node in zip(lab.nics[1:], NODES, strict=True):
        where = {irq: cpus for irq, cpus in irq_cpus(lab, nic).items() if irq in queue_irqs(lab, nic)}
        free = cpuset.parse(node) - busy
        assert {irq: cpus for irq, cpus in where.items() if not cpuset.parse(cpus) <= free} == {}, nic

    overlay.activate(lab, lab.nics[2])
    second = on_geneve(lab, "second")
    second.start()
    assert node_of(lab, "second") == 1
    # What runs is not dragged to another node with its memory.
    assert node_of(lab, "first") == 0
    assert "bond0 (active-backup) > " + lab.nics[2] in lab.output(
        "libvirt-tuner plan second | tr -s ' \\n' ' '"
    )


def test_interrupts_are_steered_again_when_a_port_goes_down(lab: Hypervisor) -> None:
    overlay.bond(lab)
    overlay.geneve(lab, 2)
    ports = lab.nics[1:]
    before = [irq_cpus(lab, nic) for nic in ports]
    guest = on_geneve(lab, "vm")
    guest.start(wait=False)
    busy = cpuset.parse(",".join(pins(lab, "vcpupin vm").values()))
    queues = {nic: queue_irqs(lab, nic) for nic in ports}
    # As a driver does it that comes up again.
    for irq in (irq for found in queues.values() for irq in found):
        lab.run(f"echo 0-7 > /proc/irq/{irq}/smp_affinity_list")

    lab.ip(f"link set {ports[0]} down")
    lab.wait_for(
        lambda: (
            not any(
                cpuset.parse(cpus) & busy
                for nic in ports
                for irq, cpus in irq_cpus(lab, nic).items()
                if irq in queues[nic]
            )
        ),
        timeout=60,
        why="the service steers both ports again",
    )
    guest.virsh("destroy")
    lab.wait_for(lambda: [irq_cpus(lab, nic) for nic in ports] == before, why="interrupts given back")
