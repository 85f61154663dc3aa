"""The project in a stock Debian, on the distribution's own Python and libraries."""

from __future__ import annotations

from tests.lab.hypervisor import Hypervisor
from tests.lab.observe import UNIT


def test_hook_and_service_are_in_place(lab: Hypervisor) -> None:
    assert lab.output("find /etc/libvirt/hooks -type f -perm -u+x") == "/etc/libvirt/hooks/qemu"
    assert lab.output(f"systemctl is-active {UNIT}") == "active"
    assert lab.output(f"systemctl is-enabled {UNIT}") == "enabled"
    assert lab.output("systemctl is-active libvirtd") == "active"
    assert lab.run("libvirt-tuner --version").stdout.strip()
