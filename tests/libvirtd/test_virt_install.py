"""virt-install beside the service: it defines a domain, starts it at once, and reads back what it defined."""

from __future__ import annotations

import shutil

import pytest

from libvirt_tuner import cpuset
from tests.libvirtd import nic_replay, observe
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import install, running_daemon

WORDS = (
    "virt-install --connect qemu:///system --name web --memory 64 --vcpus 1 --virt-type qemu"
    " --disk none --import --network bridge=br1,model=virtio --graphics none --noautoconsole"
    " --osinfo detect=off,require=off --machine q35 --controller usb,model=none --video none"
)
NIC = nic_replay.FUNCTIONS[1]


def assert_placed_and_steered(daemon: PrivateDaemon, running: observe.Running) -> None:
    vcpu = cpuset.parse(running.vcpus[0])
    assert running.settings.vcpupin == running.vcpus
    assert not vcpu & cpuset.parse(running.emulator)
    assert [irq for irq in NIC.queues if cpuset.parse(daemon.irq(irq)) & vcpu] == []


@pytest.mark.skipif(shutil.which("virt-install") is None, reason="needs virt-install")
def test_the_first_boot_has_the_hooks_part_and_the_second_all(daemon: PrivateDaemon) -> None:
    install(daemon)
    daemon.write("/etc/libvirt-tuner.toml", "[policy]\nsettle_seconds = 5\n")
    with running_daemon(daemon):
        daemon.run(WORDS.split(), env={"HOME": "/run", "XDG_CACHE_HOME": "/run/cache"}, timeout=120)
        daemon.wait_for(lambda: observe.running(daemon, "web").settings.emulatorpin, "live pins")
        first = observe.running(daemon, "web")
        assert_placed_and_steered(daemon, first)
        assert (first.settings.rx_queue_size, first.settings.mtu) == (observe.DEFAULT_RING, "")
        daemon.wait_for(
            lambda: observe.persistent(daemon, "web").rx_queue_size == "1024", "the rest in the definition"
        )
        daemon.virsh("destroy", "web")
        daemon.virsh("start", "web")
        second = observe.running(daemon, "web")
        assert (second.settings.rx_queue_size, second.settings.mtu) == ("1024", str(nic_replay.VXLAN_MTU))
        assert_placed_and_steered(daemon, second)
