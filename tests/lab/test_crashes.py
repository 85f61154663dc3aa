"""What survives: a restart of libvirtd, a hook killed between two writes, a reboot."""

from __future__ import annotations

from tests.lab import site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.observe import assert_as_planned, irq_cpus, pins, queue_irqs, tuner_log

# The hook's own code on the real kernel, killed with SIGKILL at its second write of an interrupt.
KILLED_HOOK = """\
import os, sys
from libvirt_tuner import hook
from libvirt_tuner.host import sysfs
write, count = sysfs.Sysfs.write, 0
def counting(self, path, text):
    global count
    count += path.startswith("/proc/irq/")
    if count == 2:
        os.kill(os.getpid(), 9)
    write(self, path, text)
sysfs.Sysfs.write = counting
hook.main(["qemu", "web", "started", "begin", "-"])
"""


def web(lab: Hypervisor) -> Guest:
    lab.bridge("br0", lab.nics[0], address=f"{site.address(1)}/24")
    guest = lab.define(GuestSpec(name="web", vcpus=2, nics=(Vnic(source="bridge=br0"),)))
    lab.wait_for(
        lambda: "vcpupin" in lab.output("virsh dumpxml web"), why="the daemon completes the definition"
    )
    return guest


def test_restart_of_libvirtd(lab: Hypervisor) -> None:
    guest = web(lab)
    guest.start()
    pid, seats, steered = guest.pid, pins(lab, "vcpupin web"), irq_cpus(lab, lab.nics[0])
    # What a driver does when its link comes up again.
    moved = queue_irqs(lab, lab.nics[0])[0]
    lab.run(f"echo {seats['0']} > /proc/irq/{moved}/smp_affinity_list")
    lab.run("systemctl restart libvirtd")
    lab.wait_for(lambda: lab.run("virsh list", check=False).status == 0, why="libvirtd is back")
    assert guest.pid == pid
    assert pins(lab, "vcpupin web") == seats
    lab.wait_for(lambda: irq_cpus(lab, lab.nics[0]) == steered, why="the hook steers again at reconnect")
    assert lab.output("systemctl is-active libvirt-tuner") == "active"
    assert_as_planned(lab, "web")


def test_hook_killed_between_two_writes(lab: Hypervisor) -> None:
    before = irq_cpus(lab, lab.nics[0])
    guest = web(lab)
    # The service would give the domain what the hook could not.
    lab.run("systemctl stop libvirt-tuner")
    lab.run("chmod -x /etc/libvirt/hooks/qemu && systemctl reload libvirtd")
    guest.start(wait=False)
    assert irq_cpus(lab, lab.nics[0]) == before
    lab.write("/run/lab/killed.py", KILLED_HOOK)
    killed = lab.run("virsh dumpxml web | python3 /run/lab/killed.py", check=False)
    assert killed.status == 137
    halfway = irq_cpus(lab, lab.nics[0])
    assert halfway != before
    lab.run("chmod +x /etc/libvirt/hooks/qemu && systemctl reload libvirtd")
    guest.virsh("destroy")
    lab.wait_for(lambda: irq_cpus(lab, lab.nics[0]) == before, why="given back what the killed hook changed")


def test_reboot_leaves_nothing_stale(lab: Hypervisor) -> None:
    guest = web(lab)
    guest.start()
    assert lab.run("test -e /run/libvirt-tuner/ledger.json").status == 0
    lab.reboot()
    assert "web" not in lab.output("virsh list --name")
    assert '"web"' not in lab.output("cat /run/libvirt-tuner/ledger.json 2>/dev/null || true")
    lab.bridge("br0", lab.nics[0])
    guest.start()
    assert_as_planned(lab, "web")
    assert "damaged" not in tuner_log(lab)
