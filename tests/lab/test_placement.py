"""A VM on a bridge, started with nothing but virsh: vCPUs, memory, emulator, vhost worker and interrupts."""

from __future__ import annotations

import pytest

from libvirt_tuner import cpuset
from tests.lab import measure, site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network
from tests.lab.observe import assert_as_planned, irq_cpus, nothing_held, pins, queue_irqs

ADDRESS = "10.77.0.100"
NODE_0 = "0,2,4,6"


def web(lab: Hypervisor, **changes: object) -> Guest:
    """A domain of two vCPUs on br0, which is over the NIC on node 0; defined."""
    nic = Vnic(source="bridge=br0", address=f"{ADDRESS}/24")
    return lab.define(GuestSpec(name="web", vcpus=2, nics=(nic,), **changes))  # type: ignore[arg-type]


def on_a_bridge(lab: Hypervisor) -> None:
    lab.bridge("br0", lab.nics[0], address=f"{site.address(1)}/24")


def test_first_start_after_define_is_complete(lab: Hypervisor, network: Network) -> None:
    on_a_bridge(lab)
    before = irq_cpus(lab, lab.nics[0])
    guest = web(lab)
    lab.wait_for(
        lambda: "vcpupin" in lab.output("virsh dumpxml web"), why="the daemon completes the definition"
    )
    guest.start()

    seats = pins(lab, "vcpupin web")
    emulator = pins(lab, "emulatorpin web")["*"]
    assert {len(cpuset.parse(cpus)) for cpus in seats.values()} == {1}
    assert cpuset.parse(NODE_0) >= cpuset.parse(",".join([*seats.values(), emulator]))
    assert not cpuset.parse(emulator) & cpuset.parse(",".join(seats.values()))

    threads = guest.vcpu_threads()
    assert {str(vcpu): guest.affinity(tid) for vcpu, tid in threads.items()} == seats
    assert guest.affinity(guest.pid) == emulator
    (worker,) = guest.vhost_threads()
    assert cpuset.parse(guest.affinity(worker)) <= cpuset.parse(emulator)
    assert_memory_on_node_0(lab, guest)

    assert "rx_queue_size='1024'" in lab.output("virsh dumpxml web")
    moved = irq_cpus(lab, lab.nics[0])
    assert set(moved) == set(before)
    busy = cpuset.parse(",".join(seats.values()))
    assert all(
        cpuset.parse(moved[irq]) <= cpuset.parse(NODE_0) - busy for irq in queue_irqs(lab, lab.nics[0])
    )
    assert measure.iperf3(measure.outside(network), ADDRESS, seconds=2) > 1
    assert_as_planned(lab, "web")

    guest.virsh("destroy")
    lab.wait_for(lambda: nothing_held(lab), why="claim and changes taken out of the ledger")
    assert irq_cpus(lab, lab.nics[0]) == before


def assert_memory_on_node_0(lab: Hypervisor, guest: Guest) -> None:
    """The guest's RAM comes from node 0 first, and is there."""
    assert lab.output("virsh numatune web | tr -d ' '").split() == ["numa_mode:preferred", "numa_nodeset:0"]
    # It is the largest mapping. Threads on node 0 have their pages there under the default policy, too: what
    # they are bound to is what shows that they have to be.
    largest = lab.output(
        f"awk '{{ for (i = 1; i <= NF; i++) if ($i ~ /^anon=/) print substr($i, 6), $0 }}'"
        f" /proc/{guest.pid}/numa_maps | sort -n | tail -n 1"
    )
    pages, _, policy, *counts = largest.split()
    assert policy.startswith("prefer")
    assert f"N0={pages}" in counts


def test_without_the_service_pins_come_live_and_the_rest_with_the_second_start(lab: Hypervisor) -> None:
    on_a_bridge(lab)
    lab.run("systemctl stop libvirt-tuner")
    guest = web(lab)
    assert "vcpupin" not in lab.output("virsh dumpxml web")
    guest.start()
    lab.wait_for(lambda: "vcpupin" in lab.output("virsh dumpxml web"), why="settle pins live")
    seats = pins(lab, "vcpupin web")
    threads = guest.vcpu_threads()
    assert {str(vcpu): guest.affinity(tid) for vcpu, tid in threads.items()} == seats
    (worker,) = guest.vhost_threads()
    emulator = cpuset.parse(pins(lab, "emulatorpin web")["*"])
    lab.wait_for(lambda: cpuset.parse(guest.affinity(worker)) <= emulator, why="the worker is placed")
    lab.wait_for(
        lambda: "rx_queue_size='1024'" in lab.output("virsh dumpxml web --inactive"), why="settle completes"
    )
    assert "rx_queue_size" not in lab.output("virsh dumpxml web")

    guest.virsh("destroy")
    guest.start()
    assert "rx_queue_size='1024'" in lab.output("virsh dumpxml web")
    assert pins(lab, "vcpupin web") == seats


def test_poll_us_is_in_force(lab: Hypervisor) -> None:
    on_a_bridge(lab)
    lab.write("/etc/libvirt-tuner.toml", "[policy]\npoll_us = 200\n")
    guest = web(lab)
    lab.wait_for(
        lambda: "poll-us=200" in lab.output("virsh dumpxml web"), why="the daemon completes the definition"
    )
    guest.start()
    arguments = lab.output(f"tr '\\0' '\\n' < /proc/{guest.pid}/cmdline")
    assert "netdev.hostnet0.poll-us=200" in arguments
    assert guest.run("uname -s") == "Linux"


@pytest.mark.thorough
def test_who_comes_late_has_more_than_one_cpu_and_moves_nobody(lab: Hypervisor) -> None:
    on_a_bridge(lab)
    nics = [Vnic(source="bridge=br0", address=f"10.77.0.{number}/24") for number in (101, 102, 103)]
    *first, late = [lab.define(GuestSpec(name=f"vm{i}", nics=(nic,))) for i, nic in enumerate(nics)]

    def start(guest: Guest) -> None:
        guest.start(wait=False)
        lab.wait_for(
            lambda: lab.run(f"libvirt-tuner status {guest.name}", check=False).status == 0,
            why=f"{guest.name} is where it is planned",
        )

    def cpus(guest: Guest) -> list[str]:
        """Where its vCPU may run, and its vhost worker."""
        return [guest.affinity(tid) for tid in (*guest.vcpu_threads().values(), *guest.vhost_threads())]

    for guest in first:
        start(guest)
    before = [cpus(guest) for guest in first]
    assert {len(cpuset.parse(vcpu)) for vcpu, _ in before} == {1}
    start(late)
    vcpu, worker = cpus(late)
    assert vcpu == worker
    assert len(cpuset.parse(vcpu)) > 1
    assert not cpuset.parse(vcpu) & cpuset.parse(",".join(seat for seat, _ in before))
    assert [cpus(guest) for guest in first] == before


def test_all_is_given_back_after_a_shutdown(lab: Hypervisor) -> None:
    on_a_bridge(lab)
    before = irq_cpus(lab, lab.nics[0])
    guest = web(lab)
    guest.start()
    assert irq_cpus(lab, lab.nics[0]) != before
    guest.virsh("shutdown")
    lab.wait_for(lambda: guest.virsh("domstate").stdout.strip() == "shut off", timeout=60, why="shutdown")
    lab.wait_for(lambda: nothing_held(lab), why="claim and changes taken out of the ledger")
    assert irq_cpus(lab, lab.nics[0]) == before


UNITS = ("init.scope", "system.slice", "user.slice")


def test_services_are_kept_off_vcpus_by_cgroup(lab: Hypervisor) -> None:
    on_a_bridge(lab)
    lab.write("/etc/libvirt-tuner.toml", '[policy]\nisolate = "cgroup"\n')
    before = services(lab)
    first = web(lab)
    other = lab.define(GuestSpec(name="db", vcpus=2, nics=(Vnic(source="bridge=br0"),)))
    online = cpuset.parse(lab.output("cat /sys/devices/system/cpu/online"))

    def kept_off(*names: str) -> bool:
        seats = cpuset.parse(
            ",".join(cpus for name in names for cpus in pins(lab, f"vcpupin {name}").values())
        )
        rest = online - seats
        return len(seats) == 2 * len(names) and all(
            cpuset.parse(cpus) == rest for cpus in services(lab).values()
        )

    first.start(wait=False)
    lab.wait_for(lambda: kept_off("web"), timeout=60, why="no service may run on CPUs of web's vCPUs")
    # libvirtd, which starts it, is in system.slice: the new domain's CPUs are not those of its parent.
    other.start(wait=False)
    lab.wait_for(lambda: kept_off("web", "db"), timeout=60, why="nor on those of db's")
    for guest in (first, other):
        seats = {str(vcpu): guest.affinity(tid) for vcpu, tid in guest.vcpu_threads().items()}
        assert seats == pins(lab, f"vcpupin {guest.name}")
    first.virsh("destroy")
    lab.wait_for(lambda: kept_off("db"), timeout=60, why="web's CPUs are given back")
    other.virsh("destroy")
    lab.wait_for(lambda: services(lab) == before, timeout=60, why="all is as before")
    allowed = f"systemctl show --property=AllowedCPUs --value {' '.join(UNITS)}"
    assert not lab.output(allowed).strip()


def services(lab: Hypervisor) -> dict[str, str]:
    """Where processes of the host's own units may run: as systemd's slice has it, and one process of each."""
    found = {
        unit: lab.output(
            f"cat /sys/fs/cgroup/{unit}/cpuset.cpus.effective 2>/dev/null"
            " || cat /sys/fs/cgroup/cpuset.cpus.effective"
        ).strip()
        for unit in UNITS
    }
    status = "grep Cpus_allowed_list: /proc/$(systemctl show -p MainPID --value libvirtd)/status | cut -f 2"
    return found | {
        "libvirtd": lab.output(status).strip(),
        "init": lab.output("grep Cpus_allowed_list: /proc/1/status | cut -f 2").strip(),
    }
