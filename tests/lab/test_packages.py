"""The Debian package from its installation to its purge, AppArmor in force, with a VM that keeps running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import project, site
from tests.lab.guest import GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.observe import UNIT, assert_as_planned, irq_cpus, pins

Packages = tuple[Path, Path]

#: Where a package may leave files; /var and /run are dpkg's and systemd's own, and libvirt keeps an AppArmor
#: profile of each domain that ran.
FILES = (
    "find /etc /usr -xdev -not -path '*/__pycache__*' -not -path '/etc/systemd/system/*.wants/*'"
    " -not -name 'ld.so.cache' -not -path '/etc/apparmor.d/libvirt/libvirt-*' | sort"
)


@pytest.fixture(scope="session")
def packages(package: Path) -> Iterator[Packages]:
    """Two versions of the package: an older one, and the tree's."""
    older = project.build_package("0.0.9")
    yield older, package
    older.unlink()


def confined(lab: Hypervisor) -> bool:
    """Whether AppArmor's profile of the libvirt daemon is in force."""
    return "libvirtd (enforce)" in lab.output("cat /sys/kernel/security/apparmor/profiles")


def test_from_installation_to_purge(bare: Hypervisor, packages: Packages) -> None:
    old, new = packages
    nic = bare.nics[0]
    bare.bridge("br0", nic, address=f"{site.address(1)}/24")
    interrupts = irq_cpus(bare, nic)
    assert confined(bare)
    # As libvirt completes it (UUID, MAC address) and orders it when it is defined again: what differs later
    # is the package's doing.
    guest = bare.define(GuestSpec(name="web", vcpus=2, nics=(Vnic(source="bridge=br0"),)))
    again = "virsh dumpxml --inactive web > /run/lab/web.xml && virsh define /run/lab/web.xml"
    bare.run(f"{again} && {again}")
    original, files = bare.output("virsh dumpxml --inactive web"), bare.output(FILES)
    bare.run("virsh undefine web")

    assert "verified: libvirt runs the hook" in project.install(bare, old)
    assert bare.output(f"systemctl is-enabled {UNIT}") == "enabled"
    bare.run("virsh define /run/lab/web.xml")
    bare.wait_for(lambda: "vcpupin" in bare.output("virsh dumpxml web"), why="the daemon completes it")
    guest.start()
    assert_as_planned(bare, "web")
    assert irq_cpus(bare, nic) != interrupts
    pid = guest.pid

    project.install(bare, new)
    assert (guest.pid, bare.output("virsh domstate web")) == (pid, "running")
    assert_as_planned(bare, "web")
    assert bare.output(f"systemctl is-active {UNIT}") == "active"

    bare.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y libvirt-tuner", timeout=300)
    assert (guest.pid, bare.output("virsh domstate web")) == (pid, "running")
    assert bare.output("virsh dumpxml --inactive web") == original
    online = bare.output("cat /sys/devices/system/cpu/online")
    assert set(pins(bare, "vcpupin web --live").values()) == {online}
    assert irq_cpus(bare, nic) == interrupts
    assert bare.output(FILES) == files
    assert bare.run("test -e /run/libvirt-tuner", check=False).status != 0
    assert "DENIED" not in bare.output("dmesg | grep 'apparmor=' || true")


def test_a_hook_of_the_administrators_stays(bare: Hypervisor, packages: Packages) -> None:
    own = '#!/bin/sh\necho "$1 $2" >> /run/lab/own-hook\n'
    bare.run("mkdir -p /etc/libvirt/hooks")
    bare.write("/etc/libvirt/hooks/qemu", own, mode=0o755)
    project.install(bare, packages[1])
    assert bare.read("/etc/libvirt/hooks/qemu") == own.rstrip()
    assert bare.output("ls /etc/libvirt/hooks/qemu.d") == "libvirt-tuner"
    bare.run("apt-get purge -y libvirt-tuner", timeout=300)
    assert bare.read("/etc/libvirt/hooks/qemu") == own.rstrip()
    assert bare.run("test -e /etc/libvirt/hooks/qemu.d", check=False).status != 0


def test_a_unit_that_was_disabled_stays_so(bare: Hypervisor, packages: Packages) -> None:
    project.install(bare, packages[0])
    bare.run(f"systemctl disable --now {UNIT}")
    project.install(bare, packages[1])
    assert bare.run(f"systemctl is-enabled {UNIT}", check=False).stdout.strip() == "disabled"
    assert bare.run(f"systemctl is-active {UNIT}", check=False).stdout.strip() == "inactive"
