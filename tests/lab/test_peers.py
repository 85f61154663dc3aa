"""Two hypervisors joined by `libvirt-tuner testbed`, bond, geneve and ESP, and a VM on each."""

from __future__ import annotations

import re

from tests.lab import measure, overlay
from tests.lab.hypervisor import Hypervisor


def esp_packets(hypervisor: Hypervisor) -> dict[str, int]:
    """Packets that each ESP state has let pass, by its SPI; the kernel's own count."""
    states = hypervisor.output("ip -s xfrm state")
    found = re.findall(r"\bproto esp spi (\w+).*?lifetime current:.*?(\d+)\(packets\)", states, re.DOTALL)
    return {spi: int(packets) for spi, packets in found}


def test_vm_to_vm_over_encrypted_overlay(peers: overlay.Peers) -> None:
    guest, _ = overlay.join(*peers)
    before = [(measure.sample(host), esp_packets(host)) for host in peers]
    assert measure.iperf3(guest.run, "10.79.0.2", seconds=3) > 0
    for host, (sample, passed) in zip(peers, before, strict=True):
        assert (measure.sample(host) - sample).ip["FragCreates"] == 0
        grown = [count - passed[spi] for spi, count in esp_packets(host).items()]
        # Data one way, and its acknowledgements, fewer, the other.
        assert len(grown) == 2
        assert max(grown) > 100
        assert min(grown) > 0
