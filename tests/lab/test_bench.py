"""The bench itself: what the other scenarios take for granted about an emulated hypervisor."""

from __future__ import annotations

import pytest

from tests.lab import measure, site
from tests.lab.guest import GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network

GUEST = "10.77.0.100"


def irqs(bare: Hypervisor, action: str) -> list[int]:
    """The interrupts whose name matches an extended regular expression."""
    found = bare.output(f"grep -E '{action}' /proc/interrupts | cut -d: -f1")
    return [int(number) for number in found.split()]


def virtio_of(bare: Hypervisor, nic: str) -> str:
    """The virtio device of a NIC; it names the NIC's interrupts."""
    return bare.output(f"basename $(realpath /sys/class/net/{nic}/device)")


def test_two_nodes_with_interleaved_cpus(bare: Hypervisor) -> None:
    nodes = [bare.read(f"/sys/devices/system/node/node{node}/cpulist") for node in range(2)]
    assert nodes == ["0,2,4,6", "1,3,5,7"]


def test_nics_belong_to_nodes(bare: Hypervisor) -> None:
    # The function is the parent of the virtio device.
    nodes = [bare.read(f"/sys/class/net/{nic}/device/../numa_node") for nic in bare.nics]
    assert nodes == ["0", "0", "1"]


def test_virtio_blk_interrupt_is_managed(bare: Hypervisor, release: str) -> None:
    (irq, *_) = irqs(bare, "virtio[0-9]+-req")
    refused = bare.run(f"/bin/echo 3 > /proc/irq/{irq}/smp_affinity_list", check=False)
    assert refused.status
    reason = {"bookworm": "Input/output error", "trixie": "Operation not permitted"}[release]
    assert reason in refused.stderr


def test_modules_of_the_encrypted_overlay_load(bare: Hypervisor) -> None:
    bare.run("modprobe -a bonding geneve macvtap vhost_net esp4 esp6 xfrm_user")


def test_commands_report_status_and_both_outputs(bare: Hypervisor) -> None:
    result = bare.run("cat; echo oops >&2; exit 3", stdin=b"in\n", check=False)
    assert (result.status, result.stdout, result.stderr) == (3, "in\n", "oops\n")
    assert bare.run("sleep 60", timeout=1, check=False).status == 124


@pytest.mark.thorough
def test_kvm_guest_and_moved_interrupt_carry_traffic(bare: Hypervisor, network: Network) -> None:
    bare.bridge("br0", bare.nics[0], address=f"{site.address(1)}/24")
    nic = Vnic(source="bridge=br0", address=f"{GUEST}/24", mtu=1400)
    guest = bare.define(GuestSpec(name="web", vcpus=2, nics=(nic,)))
    guest.start()
    assert sorted(guest.vcpu_threads()) == [0, 1]
    assert guest.mtu() == 1400

    (irq,) = irqs(bare, rf"{virtio_of(bare, bare.nics[0])}-input")
    bare.run(f"echo 6 > /proc/irq/{irq}/smp_affinity_list")
    (worker,) = guest.vhost_threads()
    parent = bare.output(f"awk '/^Tgid:/ {{ print $2 }}' /proc/{worker}/status")
    kernel_thread = bare.release == "bookworm"
    assert (int(parent) != guest.pid) == kernel_thread

    threads = [*guest.vcpu_threads().values(), worker]
    before = measure.sample(bare, threads)
    assert measure.iperf3(measure.outside(network), GUEST, seconds=2) > 1
    grown = measure.sample(bare, threads) - before
    assert grown.ran[worker] > 0
    assert max(grown.net_rx, key=lambda cpu: grown.net_rx[cpu]) == 6
    # Without interrupt remapping the kernel moves an interrupt when the next one arrives.
    assert bare.read(f"/proc/irq/{irq}/effective_affinity_list") == "6"
    assert measure.iperf3(measure.outside(network), GUEST, seconds=2, reverse=True) > 1
