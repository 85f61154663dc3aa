"""Sampling for ``diagnose``: 64 VMs of 4 threads each that run on the seed's host, replayed."""

from __future__ import annotations

import time
from pathlib import Path

from libvirt_tuner.host.samples import Sampler
from libvirt_tuner.host.sysfs import Sysfs
from tests import hosts, samples
from tests.bench.measure import Ratio

VMS = 64
SECONDS = 5.0
"""What ``diagnose`` samples unless it is told otherwise: a look at each end."""
ROUNDS = 10
_FIRST = 10_000
_THREADS = ("qemu-system-x86", "CPU 0/KVM", "CPU 1/KVM", "vhost-{pid}")
_MAPPINGS = 400
"""Lines of ``numa_maps`` of a QEMU; most are of its libraries."""


def ratios(work: Path) -> list[Ratio]:
    """Measure in ``work``, an empty directory."""
    root = work / "sampling"
    samples.unpack(samples.stored(samples.BASE), root)
    now = root / "samples/1"
    vms = {f"vm{number}": _FIRST + 10 * number for number in range(VMS)}
    for pid in vms.values():
        _run(now, pid)
    irqs = [irq.number for port in hosts.seed().ports for irq in port.irqs]
    eyes = Sampler(Sysfs(str(now)), vms, irqs)
    seen = sum(bool(task.vm) for task in eyes.look(memory=True).tasks.values())
    if seen != VMS * len(_THREADS):
        raise RuntimeError(f"{seen} threads of VMs were seen: not what was to be measured")
    began = time.process_time()
    for _ in range(ROUNDS):
        eyes.look()
        eyes.look(memory=True)
    spent = (time.process_time() - began) / ROUNDS
    return [
        Ratio(f"diagnose: CPU of sampling {VMS} VMs, {seen} threads / {SECONDS:g} s", spent / SECONDS, 0.02)
    ]


def _run(root: Path, pid: int) -> None:
    """Have a QEMU run; its worker is a thread of its own, as since Linux 6.4."""
    for number, name in enumerate(_THREADS):
        tid = pid + number
        comm = name.format(pid=pid)
        fields = ["S", "1", *["0"] * 17, "500", *["0"] * 16, str(tid % 32), *["0"] * 12]
        files = {
            f"task/{tid}/comm": comm,
            f"../{tid}/comm": comm,
            f"../{tid}/stat": f"{tid} ({comm}) {' '.join(fields)}",
            f"../{tid}/schedstat": "123456789 1234567 890",
            f"../{tid}/status": f"Name:\t{comm}\nCpus_allowed_list:\t{tid % 32}",
        }
        for path, text in files.items():
            file = Path(root, "proc", str(pid), path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
    mapping = "7f0000000000 default anon=512 dirty=512 active=0 N0=256 N1=256 kernelpagesize_kB=4\n"
    (root / "proc" / str(pid) / "numa_maps").write_text(mapping * _MAPPINGS)
