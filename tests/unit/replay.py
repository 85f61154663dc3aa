"""A replayed host that runs domains, as far as the hook and the service look at one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import Book, Ledger
from tests import hosts

UUID = "5b1d0a52-0000-4000-8000-{:012d}"
ON_TUNNEL = "<interface type='direct'><source dev='geneve0' mode='bridge'/><model type='virtio'/></interface>"


@frozen
class Domain:
    """A domain of :class:`Replay`."""

    name: str
    number: int
    vnics: str = ON_TUNNEL
    vcpus: int = 2
    metadata: str = ""
    vcpupin: tuple[str, ...] = ()

    @property
    def uuid(self) -> str:
        return UUID.format(self.number)

    @property
    def pid(self) -> int:
        return 4000 + self.number

    @property
    def xml(self) -> bytes:
        """Its live document."""
        pins = "".join(f"<vcpupin vcpu='{n}' cpuset='{cpus}'/>" for n, cpus in enumerate(self.vcpupin))
        return f"""\
<domain type='kvm' id='{self.number}'>
  <name>{self.name}</name>
  <uuid>{self.uuid}</uuid>
  <metadata>{self.metadata}</metadata>
  <memory unit='KiB'>1048576</memory>
  <vcpu placement='static'>{self.vcpus}</vcpu>
  <cputune>{pins}</cputune>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    {self.vnics}
  </devices>
</domain>
""".encode()


@frozen
class Replay:
    """The host below ``root``."""

    root: Path

    @classmethod
    def make(cls, root: Path, name: str = "seed") -> Replay:
        """One of :data:`tests.hosts.HOSTS`."""
        hosts.make(name, root)
        made = cls(root)
        made.settle_interrupts()
        return made

    def settle_interrupts(self) -> None:
        """Have its interrupts go at once to where they may."""
        for place in self.root.glob("proc/irq/*/effective_affinity_list"):
            place.unlink()
            place.symlink_to("smp_affinity_list")

    @property
    def sysfs(self) -> Sysfs:
        return Sysfs(str(self.root))

    @property
    def book(self) -> Book:
        return Ledger(self.sysfs).read()

    def write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def run(self, domain: Domain) -> None:
        """Have it run: QEMU's process, and the files libvirt keeps of it."""
        self.write(f"/proc/{domain.pid}/stat", f"{domain.pid} (qemu) S {' '.join(['1'] * 50)}\n")
        self.write(f"/proc/{domain.pid}/task/{domain.pid}/comm", "qemu\n")
        self.write(f"/run/libvirt/qemu/{domain.name}.pid", f"{domain.pid}\n")
        status = b"<domstatus state='running' pid='%d'>%b</domstatus>" % (domain.pid, domain.xml)
        self.write(f"/run/libvirt/qemu/{domain.name}.xml", status.decode())

    def end(self, domain: Domain) -> None:
        """QEMU has ended."""
        (self.root / f"proc/{domain.pid}/stat").unlink()

    def irqs(self) -> dict[int, str]:
        """Where each interrupt may go."""
        return {
            int(place.parent.name): place.read_text().strip()
            for place in self.root.glob("proc/irq/*/smp_affinity_list")
        }

    def scatter(self, irq: int, cpus: str) -> None:
        """What a driver, or anybody else, writes."""
        self.write(f"/proc/irq/{irq}/smp_affinity_list", f"{cpus}\n")

    def vcpus(self) -> frozenset[int]:
        """The CPUs of all domains' vCPUs, by the ledger."""
        return frozenset().union(*(claim.vcpus for claim in self.book.claims.values()))

    def on_vcpus(self, irqs: Iterable[int]) -> list[int]:
        """Those of ``irqs`` that may go to a vCPU's CPU."""
        now, held = self.irqs(), self.vcpus()
        return [irq for irq in irqs if cpuset.parse(now[irq]) & held]
