"""Two hypervisors joined by bond, geneve and ESP, and a VM on each."""

from __future__ import annotations

import pytest

from tests.lab import measure, overlay
from tests.lab.hypervisor import Hypervisor


@pytest.mark.thorough
def test_vm_to_vm_over_encrypted_overlay(peers: tuple[Hypervisor, Hypervisor]) -> None:
    guest, _ = overlay.join(*peers)
    before = measure.sample(peers[0])
    assert measure.iperf3(guest.run, "10.79.0.2", seconds=3) > 1
    grown = (measure.sample(peers[0]) - before).ip
    assert grown["OutRequests"] > 100
    assert grown["FragCreates"] == 0
    spent = peers[0].output("ip -s xfrm state | grep -A1 'lifetime current' | grep -o '[0-9]*(packets)'")
    assert any(int(line.removesuffix("(packets)")) > 100 for line in spent.splitlines())
