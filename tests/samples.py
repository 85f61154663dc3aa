"""The seed's host with its VM and two samples, described by what differs from a healthy one.

fixtures/samples has them as files: ``healthy.json`` all that is added to the seed's host, by path, the others
what differs from it. ``python -m tests.samples DIRECTORY`` writes every case as a tree, for ``libvirt-tuner
diagnose --host DIRECTORY/NAME``; ``--write`` rewrites fixtures/samples.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.host import commands
from tests import hosts

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures/samples"
BASE = "healthy"
SECONDS = 5.0
CPUS = range(32)
QEMU, OTHER_QEMU, VHOST, NEIGHBOUR = 2000, 3000, 2100, 4000
PORT = "enp23s0f0np0"
VM, OTHER = "vlinux1", "other"
UUID = {VM: "5f3c1a52-7d0e-4c1e-9b6a-000000000001", OTHER: "5f3c1a52-7d0e-4c1e-9b6a-000000000002"}
FIRST_IRQ = 213
"""Of :data:`PORT`; 213 is for events, 214-229 are its queues."""


@frozen
class Thread:
    """A thread: where it may run and runs, and the shares of the time that it ran and waited."""

    name: str
    allowed: str
    cpu: int
    run: float = 0.0
    wait: float = 0.0


@frozen
class Case:
    """What differs from the healthy host, in which the VM runs at 60 % on its own CPUs.

    Attributes:
        threads: By thread id; replaces or adds.
        vms: Running ones, with their vNIC's MTU and the vCPU count.
        softirq, steal, busy: Shares of time by CPU; ``busy`` where no thread of the case explains it.
        net_rx: Runs a second by CPU.
        irqs: Interrupts in the sample by number, with the CPU.
        affinity: ``smp_affinity_list`` of an interrupt in both samples.
        pages: KiB by node.
        counters: Growth of a device's statistics; names with ``ethtool.`` are from ``ethtool -S``.
        network: Growth of ``Ip.`` counters.
        defined: rx_queue_size in the definition, where it differs.
        ledger: Where interrupts were put, by number.
    """

    threads: Mapping[int, Thread] = field(factory=dict)
    mtu: int = 1416
    softirq: Mapping[int, float] = field(factory=dict)
    steal: Mapping[int, float] = field(factory=dict)
    busy: Mapping[int, float] = field(factory=dict)
    net_rx: Mapping[int, int] = field(factory=dict)
    irqs: Mapping[int, tuple[int, int]] = field(factory=dict)
    affinity: Mapping[int, tuple[str, str]] = field(factory=dict)
    pages: Mapping[int, int] = field(factory=lambda: {0: 16777216})
    counters: Mapping[str, Mapping[str, int]] = field(factory=dict)
    network: Mapping[str, int] = field(factory=dict)
    defined: int = 1024
    ledger: Mapping[int, str] = field(factory=dict)


def vcpu(number: int) -> int:
    """Thread id of a vCPU of the VM."""
    return QEMU + 1 + number


def healthy_threads() -> dict[int, Thread]:
    """vCPUs on 20-30, vhost workers on 16 and 18, ksoftirqd on each CPU."""
    found = {QEMU: Thread("qemu-system-x86", "16,18", 18, 0.01)}
    for number, cpu in enumerate((20, 22, 24, 26, 28, 30)):
        found[vcpu(number)] = Thread(f"CPU {number}/KVM", str(cpu), cpu, 0.6, 0.001)
    for number in range(5):
        cpu = 16 + 2 * (number % 2)
        found[VHOST + number] = Thread(f"vhost-{QEMU}", str(cpu), cpu, 0.3 if number < 2 else 0.01, 0.002)
    for cpu in CPUS:
        found[100 + cpu] = Thread(f"ksoftirqd/{cpu}", str(cpu), cpu, 0.001)
    return found


@frozen
class Root:
    """A directory that files are put below, by path from the host's root."""

    files: dict[str, str]
    directory: str = ""

    def put(self, path: str, text: str) -> None:
        """Add a file."""
        self.files[self.directory + path] = text + "\n"


def write(case: Case, target: Path) -> None:
    """Write the host with two samples below ``target``."""
    unpack(files(case), target)


def unpack(case: Mapping[str, str], target: Path) -> None:
    """Write the seed's host with these files in addition."""
    hosts.make("seed", target)
    for path, text in case.items():
        file = target / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if (target / "run/libvirt-tuner").exists():
        (target / "run/libvirt-tuner").chmod(0o700)


def files(case: Case) -> dict[str, str]:
    """The files of a case, by path: what runs, and two samples."""
    found: dict[str, str] = {}
    target = Root(found)
    threads = healthy_threads() | dict(case.threads)
    names = [VM, OTHER] if any(OTHER_QEMU <= tid < NEIGHBOUR for tid in threads) else [VM]
    for name in names:
        pid = QEMU if name == VM else OTHER_QEMU
        target.put(f"/run/libvirt/qemu/{name}.pid", str(pid))
        document = _document(name, case.mtu, 1024)
        target.put(f"/run/libvirt/qemu/{name}.xml", f"<domstatus>{document}</domstatus>")
        target.put(f"/etc/libvirt/qemu/{name}.xml", _document(name, case.mtu, case.defined))
    if case.ledger:
        _ledger(target, case.ledger)
    for number in (0, 1):
        _sample(Root(found, f"/samples/{number + 1}"), case, threads, names, number)
    return found


def _document(name: str, mtu: int, ring: int) -> str:
    vcpus = 6 if name == VM else 1
    second = (
        "<interface type='network'><mac address='52:54:00:11:22:02'/><source network='default'/>"
        "<model type='virtio'/></interface>"
    )
    first = (
        "<interface type='direct'><mac address='52:54:00:11:22:01'/><source dev='geneve0' mode='vepa'/>"
        f"<target dev='macvtap0'/><model type='virtio'/><mtu size='{mtu}'/>"
        f"<driver name='vhost' queues='4' rx_queue_size='{ring}'/></interface>"
    )
    return (
        f"<domain type='kvm'><name>{name}</name><uuid>{UUID[name]}</uuid><memory unit='GiB'>16</memory>"
        f"<vcpu>{vcpus}</vcpu><cputune><emulatorpin cpuset='16,18'/></cputune><devices>"
        f"{first + second if name == VM else ''}</devices></domain>"
    )


def _ledger(target: Root, wanted: Mapping[int, str]) -> None:
    changes = [
        {"kind": "irq", "target": str(irq), "prior": "0-31", "wanted": cpus, "holders": [UUID[VM]],
         "earlier": [], "identity": ""}
        for irq, cpus in wanted.items()
    ]  # fmt: skip
    target.put(
        "/run/libvirt-tuner/ledger.json",
        json.dumps({"version": 1, "claims": {}, "changes": changes, "bans": {}}),
    )


def _sample(root: Root, case: Case, threads: Mapping[int, Thread], names: list[str], number: int) -> None:
    share = number * SECONDS
    root.put("/proc/uptime", f"{1000 + share:.2f} 0.00")
    root.put("/proc/2/comm", "kthreadd")
    kernel = []
    for tid, thread in sorted(threads.items()):
        pid = _process(tid)
        if pid == tid and tid in range(VHOST, VHOST + 100):
            kernel.append(tid)
        _thread(root, tid, pid, thread, share)
    root.put("/proc/2/task/2/children", " ".join(map(str, kernel)))
    root.put("/proc/2/stat", _stat(2, "kthreadd", 0, 0, 1, 2))
    for name, pid in ((VM, QEMU), (OTHER, OTHER_QEMU)):
        if name in names:
            pages = case.pages if name == VM else {0: 1024}
            counted = " ".join(f"N{node}={kib // 4}" for node, kib in pages.items())
            root.put(f"/proc/{pid}/numa_maps", f"{counted} kernelpagesize_kB=4")
    _cpus(root, case, threads, number)
    _irqs(root, case, number)
    _network(root, case, number)


def _process(tid: int) -> int:
    """The process of a thread: kernel threads, vhost workers and neighbours are their own."""
    if QEMU <= tid < VHOST:
        return QEMU
    return OTHER_QEMU if OTHER_QEMU <= tid < NEIGHBOUR else tid


def _thread(root: Root, tid: int, pid: int, thread: Thread, seconds: float) -> None:
    run, wait = (round(value * seconds * 1e9) for value in (thread.run, thread.wait))
    ticks = run // (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    text = _stat(tid, thread.name, thread.cpu, ticks, 1, 2 if tid < QEMU or VHOST <= tid < OTHER_QEMU else 1)
    root.put(f"/proc/{tid}/stat", text)
    root.put(f"/proc/{tid}/comm", thread.name)
    root.put(f"/proc/{tid}/schedstat", f"{run} {wait} 100")
    root.put(f"/proc/{tid}/status", f"Name:\t{thread.name}\nCpus_allowed_list:\t{thread.allowed}")
    root.put(f"/proc/{pid}/task/{tid}/comm", thread.name)


def _stat(tid: int, name: str, cpu: int, ticks: int, threads: int, parent: int) -> str:
    fields = ["0"] * 50
    fields[0], fields[1], fields[11], fields[17] = "S", str(parent), str(ticks), str(threads)
    fields[19], fields[36] = "500", str(cpu)
    return f"{tid} ({name}) {' '.join(fields)}"


def _cpus(root: Root, case: Case, threads: Mapping[int, Thread], number: int) -> None:
    lines, hundredths = [], round(SECONDS * 100)
    for cpu in CPUS:
        soft, stolen = (round(share.get(cpu, 0) * hundredths) for share in (case.softirq, case.steal))
        ran = sum(thread.run for thread in threads.values() if thread.cpu == cpu)
        user = round(max(min(ran, 1.0), case.busy.get(cpu, 0.0)) * hundredths)
        idle = max(hundredths - soft - stolen - user, 0)
        values = [(1000 + value * number) for value in (user, 0, 0, idle, 0, 0, soft, stolen)]
        lines.append(f"cpu{cpu} " + " ".join(map(str, values)) + " 0 0")
    root.put("/proc/stat", "\n".join(["cpu 0 0 0 0 0 0 0 0 0 0", *lines]))
    head = " ".join(f"CPU{cpu}" for cpu in CPUS)
    counts = (5000 + round(case.net_rx.get(cpu, 20) * SECONDS * number) for cpu in CPUS)
    root.put("/proc/softirqs", f"{head}\nNET_TX: {'0 ' * 32}\nNET_RX: {' '.join(map(str, counts))}")


def _irqs(root: Root, case: Case, number: int) -> None:
    root.put("/sys/devices/system/cpu/possible", "0-31")
    for port in hosts.seed().ports:
        for irq in port.irqs:
            count, cpu = case.irqs.get(irq.number, (100, cpuset.parse(irq.effective).__iter__().__next__()))
            counts = [7 + (count * number if each == cpu else 0) for each in CPUS]
            affinity = case.affinity.get(irq.number, (irq.affinity, irq.affinity))[number]
            goes = affinity if irq.number in case.affinity else str(cpu)
            root.put(f"/sys/kernel/irq/{irq.number}/per_cpu_count", ",".join(map(str, counts)))
            root.put(f"/proc/irq/{irq.number}/smp_affinity_list", affinity)
            root.put(f"/proc/irq/{irq.number}/effective_affinity_list", goes)


def _network(root: Root, case: Case, number: int) -> None:
    healthy = {PORT: {"rx_bytes": 10**9, "tx_bytes": 10**9}, "macvtap0": {"tx_dropped": 0}}
    for device in (PORT, "macvtap0"):
        grown = healthy[device] | dict(case.counters.get(device, {}))
        for name, value in grown.items():
            if not name.startswith("ethtool."):
                root.put(f"/sys/class/net/{device}/statistics/{name}", str(1000 + value * number))
        said = [f"     {name[8:]}: {1000 + value * number}" for name, value in grown.items() if "." in name]
        if said:
            argv = ("ethtool", "-S", device)
            root.put(f"{commands.DIRECTORY}/{commands.slug(argv)}", "NIC statistics:\n" + "\n".join(said))
    names = {"FragCreates": 0, "ReasmReqds": 0} | dict(case.network)
    values = " ".join(str(50 + value * number) for value in names.values())
    root.put("/proc/net/snmp", f"Ip: {' '.join(names)}\nIp: {values}")


HEALTHY = Case(irqs={229: (4000, 4)})
"""The seed's VM as it should be: IRQ 229 on CPU 4."""

LOAD = evolve(
    HEALTHY,
    threads={vcpu(number): Thread(f"CPU {number}/KVM", str(cpu), cpu, 0.97, 0.004)
             for number, cpu in enumerate((20, 22, 24, 26, 28, 30))}
    | {VHOST: Thread(f"vhost-{QEMU}", "16", 16, 0.8, 0.01), 104: Thread("ksoftirqd/4", "4", 4, 0.3)},
    irqs={229: (300_000, 4), 221: (406_290, 0)},
    net_rx={4: 60_000, 0: 80_000},
    softirq={4: 0.6, 0: 0.7},
)  # fmt: skip

CASES: dict[str, Case] = {
    "healthy": HEALTHY,
    "under-load": LOAD,
    "seed-vhost-on-vcpu": evolve(
        HEALTHY,
        threads={
            vcpu(5): Thread("CPU 5/KVM", "20", 20, 0.404, 0.35),
            vcpu(0): Thread("CPU 0/KVM", "30", 30, 0.2),
            VHOST: Thread(f"vhost-{QEMU}", "16,18,20", 20, 0.404, 0.38),
        },
    ),
    "seed-irq-on-vcpu": evolve(
        HEALTHY,
        irqs={229: (90_000, 28), 221: (406_290, 0)},
        net_rx={28: 40_000, 0: 50_000},
        softirq={28: 0.45, 0: 0.3},
    ),
    "seed-remote-irq": evolve(
        HEALTHY,
        threads={101: Thread("ksoftirqd/1", "1", 1, 0.987, 0.001)},
        irqs={229: (50, 1), 221: (406_290, 0)},
        net_rx={1: 30_000, 0: 60_000},
        softirq={0: 0.4},
    ),
    "remote-vcpus": evolve(HEALTHY, threads={vcpu(0): Thread("CPU 0/KVM", "21", 21, 0.9, 0.001)}),
    "remote-vhost": evolve(HEALTHY, threads={VHOST: Thread(f"vhost-{QEMU}", "17", 17, 0.7)}),
    "remote-memory": evolve(HEALTHY, pages={0: 8388608, 1: 8388608}),
    "vms-share-cpu": evolve(
        HEALTHY,
        threads={
            OTHER_QEMU: Thread("qemu-system-x86", "16,18", 18),
            OTHER_QEMU + 1: Thread("CPU 0/KVM", "22", 22, 0.5, 0.4),
            vcpu(1): Thread("CPU 1/KVM", "22", 22, 0.5, 0.45),
        },
    ),
    "housekeeping": evolve(
        HEALTHY, threads={vcpu(0): Thread("CPU 0/KVM", "0", 0, 0.6, 0.12)}, busy={0: 0.95}
    ),
    "neighbour": evolve(
        HEALTHY,
        threads={
            NEIGHBOUR: Thread("backup", "0-31", 24, 0.4, 0.3),
            vcpu(2): Thread("CPU 2/KVM", "24", 24, 0.6, 0.35),
        },
    ),
    "fragments": evolve(HEALTHY, mtu=1500, network={"FragCreates": 40_000}),
    "tap-drops": evolve(HEALTHY, counters={"macvtap0": {"tx_dropped": 9000}}),
    "card-drops": evolve(
        HEALTHY, counters={PORT: {"ethtool.rx3_buff_alloc_err": 5000, "ethtool.rx_out_of_buffer": 5000}}
    ),
    "one-queue": evolve(
        HEALTHY, threads={104: Thread("ksoftirqd/4", "4", 4, 0.96)}, net_rx={4: 50_000}
    ),
    "one-worker": evolve(
        HEALTHY,
        threads={
            VHOST: Thread(f"vhost-{QEMU}", "16", 16, 0.97),
            VHOST + 1: Thread(f"vhost-{QEMU}", "18", 18),
        },
    ),
    "moved-back": evolve(
        HEALTHY,
        threads={NEIGHBOUR + 1: Thread("irqbalance", "0-31", 3, 0.01)},
        affinity={229: ("4", "6")},
        ledger={229: "4"},
    ),
    "restart-pending": evolve(HEALTHY, defined=512),
    "steal": evolve(HEALTHY, steal={20: 0.2, 22: 0.2}),
}  # fmt: skip


def stored(name: str) -> dict[str, str]:
    """A case as fixtures/samples has it: the healthy host with the files that differ."""
    changed = json.loads((FIXTURES / f"{name}.json").read_text())
    return changed if name == BASE else {**stored(BASE), **changed}


def difference(name: str) -> dict[str, str]:
    """What fixtures/samples is to have of a case: its files that are not the healthy host's."""
    base = {} if name == BASE else files(CASES[BASE])
    return {path: text for path, text in sorted(files(CASES[name]).items()) if base.get(path) != text}


def main(arguments: list[str]) -> int:
    """Write every case below a directory, or (``--write``) fixtures/samples."""
    if len(arguments) != 1:
        print("usage: python -m tests.samples DIRECTORY | --write", file=sys.stderr)
        return 2
    for name in CASES:
        if arguments == ["--write"]:
            FIXTURES.mkdir(exist_ok=True)
            (FIXTURES / f"{name}.json").write_text(json.dumps(difference(name), indent=0) + "\n")
        else:
            unpack(stored(name), Path(arguments[0]) / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
