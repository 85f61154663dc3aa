"""The project in a stock Debian, on the distribution's own Python and libraries."""

from __future__ import annotations

from tests.lab.hypervisor import Hypervisor


def test_hook_and_service_are_in_place(lab: Hypervisor) -> None:
    hooks = lab.output("find /etc/libvirt/hooks -type f -perm -u+x")
    assert hooks
    assert lab.output("systemctl is-active libvirtd") == "active"
    assert lab.run("libvirt-tuner --version").stdout.strip()
