"""A domain that comes in with its memory: from a save image, and from another hypervisor."""

from __future__ import annotations

from libvirt_tuner import cpuset
from tests.lab import site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.observe import pins

NODES = (cpuset.parse("0,2,4,6"), cpuset.parse("1,3,5,7"))


def on_bridge(lab: Hypervisor, name: str) -> Guest:
    guest = lab.define(GuestSpec(name=name, vcpus=2, nics=(Vnic(source="bridge=br0"),)))
    lab.wait_for(
        lambda: "vcpupin" in lab.output(f"virsh dumpxml {name}"), why="the daemon completes the definition"
    )
    return guest


def vcpus(lab: Hypervisor, name: str) -> frozenset[int]:
    return cpuset.parse(",".join(pins(lab, f"vcpupin {name}").values()))


def test_restore_while_others_took_the_cpus(lab: Hypervisor) -> None:
    lab.bridge("br0", lab.nics[0], address=f"{site.address(1)}/24")
    first = on_bridge(lab, "first")
    first.start()
    before = vcpus(lab, "first")
    assert before <= NODES[0]
    first.virsh("managedsave")
    second = on_bridge(lab, "second")
    # The CPUs of the saved domain, by hand: the user's word is law.
    for vcpu, cpu in enumerate(sorted(before)):
        second.virsh(f"vcpupin {vcpu} {cpu} --config")
    second.start(wait=False)
    assert vcpus(lab, "second") == before
    # A late hook leaves the rest to settle. Until then the CPUs are nobody's, and what runs there stays.
    uuid = second.virsh("domuuid").stdout.strip()
    lab.wait_for(lambda: uuid in lab.read("/run/libvirt-tuner/ledger.json"), why="the claim of the second")

    first.virsh("start")
    first.wait()
    after = vcpus(lab, "first")
    assert not after & before
    assert {first.affinity(tid) for tid in first.vcpu_threads().values()} == {str(cpu) for cpu in after}


def _open_to_migration(hypervisor: Hypervisor) -> None:
    """A bridge to the lan, and a libvirtd that listens there: nobody else is on that network."""
    hypervisor.bridge("br0", hypervisor.nics[0], address=f"{site.address(hypervisor.number)}/24")
    hypervisor.run("echo 'auth_tcp = \"none\"' >> /etc/libvirt/libvirtd.conf")
    hypervisor.run("systemctl stop 'libvirtd*.socket' libvirtd")
    hypervisor.run("systemctl start libvirtd-tcp.socket libvirtd.socket libvirtd")
    hypervisor.run(f"hostname hv{hypervisor.number}")
    hypervisor.wait_for(lambda: hypervisor.run("virsh list", check=False).status == 0, why="libvirtd")


def test_live_migration_plans_anew(peers: tuple[Hypervisor, Hypervisor]) -> None:
    for hypervisor in peers:
        _open_to_migration(hypervisor)
    here, there = peers
    guest = on_bridge(here, "traveller")
    guest.start()
    assert vcpus(here, "traveller") <= NODES[0]

    target = site.address(there.number)
    here.run(
        f"virsh migrate --live --unsafe traveller qemu+tcp://{target}/system tcp://{target}", timeout=300
    )
    arrived = Guest(there, guest.spec)
    arrived.wait()
    assert vcpus(there, "traveller") <= NODES[1]
    threads = arrived.vcpu_threads()
    assert {cpuset.parse(arrived.affinity(tid)) for tid in threads.values()} == {
        cpuset.parse(cpus) for cpus in pins(there, "vcpupin traveller").values()
    }
    assert "traveller" not in here.output("virsh list --name")
    arrived.virsh("destroy")
