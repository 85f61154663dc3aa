"""Interrupts the kernel will not move, and an irqbalance that would move all others back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from libvirt_tuner import cpuset
from tests.lab import measure, site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network
from tests.lab.observe import (
    assert_as_planned,
    irq_cpus,
    irqs,
    ledger,
    nothing_held,
    pins,
    queue_irqs,
    tuner_log,
)

ADDRESS = "10.77.0.100"
NODE_0 = frozenset({0, 2, 4, 6})
ANYWHERE = "0-7"

PASS_SECONDS = 2

BANNED = """\
from libvirt_tuner.hostside import irqbalance
from libvirt_tuner.host.sysfs import Sysfs
sysfs = Sysfs()
(name,) = irqbalance.sockets(sysfs)
print(*irqbalance.setup(sysfs, name, timeout=20))
"""


def web(lab: Hypervisor) -> Guest:
    lab.bridge("br0", lab.nics[0], address=f"{site.address(1)}/24")
    nic = Vnic(source="bridge=br0", address=f"{ADDRESS}/24")
    guest = lab.define(GuestSpec(name="web", vcpus=2, nics=(nic,)))
    lab.wait_for(
        lambda: "vcpupin" in lab.output("virsh dumpxml web"), why="the daemon completes the definition"
    )
    return guest


def queues(lab: Hypervisor, index: int = 0) -> dict[int, str]:
    """Where the interrupts of a NIC go that carry packets; of ours, the others are irqbalance's to move."""
    nic = lab.nics[index]
    mine = queue_irqs(lab, nic)
    return {irq: cpus for irq, cpus in irq_cpus(lab, nic).items() if irq in mine}


def managed_irq(lab: Hypervisor) -> int:
    """One of the disk's interrupts, which the kernel places itself, and has placed on node 1."""
    numbers = lab.output("grep -E 'virtio[0-9]+-req' /proc/interrupts | cut -d: -f1").split()
    files = " ".join(f"/proc/irq/{number}/smp_affinity_list" for number in numbers)
    places = zip(numbers, lab.output(f"cat {files}").split(), strict=True)
    return next(int(number) for number, cpus in places if not cpuset.parse(cpus) & NODE_0)


def add_irq(lab: Hypervisor, nic: str, irq: int) -> None:
    """Have sysfs list another device's interrupt among a NIC's: virtio-net has none that is managed."""
    listed = f"$(realpath /sys/class/net/{nic}/device/..)/msi_irqs"
    lab.run(
        f"mkdir /run/lab/msi_irqs && cp {listed}/* /run/lab/msi_irqs && echo msix > /run/lab/msi_irqs/{irq}"
        f" && mount --bind /run/lab/msi_irqs {listed}"
    )
    assert irq in irqs(lab, nic)


def test_managed_interrupt_is_reported_and_nothing_breaks(lab: Hypervisor) -> None:
    managed = managed_irq(lab)
    movable = queues(lab)
    add_irq(lab, lab.nics[0], managed)
    before = irq_cpus(lab, lab.nics[0])
    guest = web(lab)
    guest.start()
    assert guest.run("uname -s") == "Linux"

    now = irq_cpus(lab, lab.nics[0])
    assert now[managed] == before[managed]
    busy = cpuset.parse(",".join(pins(lab, "vcpupin web").values()))
    assert all(cpuset.parse(now[irq]) <= NODE_0 - busy for irq in movable)

    assert "2 of 3 interrupts moved" in tuner_log(lab)
    refused = [line for line in tuner_log(lab).splitlines() if f"/proc/irq/{managed}/" in line]
    assert all("the kernel manages this interrupt's affinity itself" in line for line in refused)
    # The hook's line says where to look further; the daemon, which tries again, says it once of its own.
    assert len([line for line in refused if "see 'libvirt-tuner status web'" in line]) == 1
    assert len(refused) == len(set(refused))
    assert_as_planned(lab, "web")
    assert {entry["target"] for entry in ledger(lab)["changes"]} == {str(irq) for irq in movable}

    guest.virsh("destroy")
    lab.wait_for(lambda: nothing_held(lab), why="claim and changes taken out of the ledger")
    assert irq_cpus(lab, lab.nics[0]) == before


def banned(lab: Hypervisor) -> set[int]:
    """What irqbalance itself says it was told to leave alone."""
    return set(map(int, lab.run("python3 -", stdin=BANNED.encode()).stdout.split()))


def have_all_placed_anew(lab: Hypervisor) -> None:
    """Have irqbalance place every interrupt that it may, and see by those of another NIC that it did.

    Left to itself it moves only what weighs enough, and under emulation that is nothing for a long time.
    After SIGHUP it forgets all places, and the next pass writes them anew.
    """
    for irq in queue_irqs(lab, lab.nics[1]):
        lab.run(f"echo {ANYWHERE} > /proc/irq/{irq}/smp_affinity_list")
    lab.run("systemctl kill --signal=HUP irqbalance")
    lab.wait_for(lambda: ANYWHERE not in queues(lab, 1).values(), why="irqbalance places the other NIC's")


def test_steering_outlives_irqbalance(lab: Hypervisor, network: Network) -> None:
    lab.write("/etc/default/irqbalance", f'IRQBALANCE_ARGS="--interval={PASS_SECONDS}"\n')
    lab.run("systemctl restart irqbalance")
    guest = web(lab)
    guest.start()
    lab.wait_for(lambda: banned(lab) == set(queues(lab)), why="irqbalance is told, and of no other NIC")
    assert set().union(*ledger(lab)["bans"].values()) == set(queues(lab))
    steered = {int(entry["target"]): entry["wanted"] for entry in ledger(lab)["changes"]}
    busy = cpuset.parse(",".join(pins(lab, "vcpupin web").values()))
    assert all(cpuset.parse(cpus) <= NODE_0 - busy for cpus in steered.values())
    # One that irqbalance moved in its last pass before it heeded the ban is put back by the daemon.
    lab.wait_for(lambda: queues(lab) == steered, why="steered")

    done = Event()

    def flow() -> list[float]:
        """Traffic through the steered interrupts for as long as it takes; Mbit/s."""
        rates = []
        while not done.is_set():
            rates.append(measure.iperf3(measure.outside(network), ADDRESS, seconds=3))
        return rates

    with ThreadPoolExecutor() as pool:
        flowing = pool.submit(flow)
        try:
            for _ in range(2):
                have_all_placed_anew(lab)
                assert queues(lab) == steered
        finally:
            done.set()
    assert min(flowing.result()) > 1
    assert queues(lab) == steered
    assert_as_planned(lab, "web")
    assert "interrupts back" not in tuner_log(lab)

    guest.virsh("destroy")
    lab.wait_for(lambda: not banned(lab) and nothing_held(lab), why="interrupts and bans given back")
