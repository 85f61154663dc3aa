"""What is in force for a domain, read from libvirt, from QEMU's threads and from the replayed NIC."""

from __future__ import annotations

from attrs import frozen
from lxml import etree

from tests.libvirtd.daemon import PrivateDaemon

DEFAULT_RING = "256"


@frozen
class Settings:
    """What a domain document says.

    Attributes:
        vcpupin: vCPU to cpulist.
        emulatorpin: cpulist; "" when not pinned.
        numatune: ``mode nodeset``; "" when there is none.
        rx_queue_size: Of the first vNIC; QEMU's default when not set.
        mtu: Of the first vNIC, "" when not set.
    """

    vcpupin: dict[int, str]
    emulatorpin: str
    numatune: str
    rx_queue_size: str
    mtu: str


@frozen
class Running:
    """What holds for a running domain.

    Attributes:
        settings: Of the live document.
        vcpus: vCPU to the CPUs its thread may run on.
        emulator: CPUs QEMU's main thread may run on.
        tap: The first vNIC's host device.
        tap_mtu: Its MTU.
    """

    settings: Settings
    vcpus: dict[int, str]
    emulator: str
    tap: str
    tap_mtu: str


def settings(document: str) -> Settings:
    """Reads a domain document."""
    root = etree.fromstring(document)

    def one(xpath: str) -> str:
        return str(root.xpath(f"string({xpath})"))

    return Settings(
        vcpupin={int(pin.get("vcpu", "")): pin.get("cpuset", "") for pin in root.iterfind("cputune/vcpupin")},
        emulatorpin=one("cputune/emulatorpin/@cpuset"),
        numatune=f"{one('numatune/memory/@mode')} {one('numatune/memory/@nodeset')}".strip(),
        rx_queue_size=one("devices/interface[1]/driver/@rx_queue_size") or DEFAULT_RING,
        mtu=one("devices/interface[1]/mtu/@size"),
    )


def persistent(daemon: PrivateDaemon, domain: str) -> Settings:
    """What the next start goes by."""
    return settings(daemon.virsh("dumpxml", "--inactive", domain))


def running(daemon: PrivateDaemon, domain: str) -> Running:
    """What holds now."""
    document = daemon.virsh("dumpxml", domain)
    tap = str(etree.fromstring(document).xpath("string(devices/interface[1]/target/@dev)"))
    pid = daemon.read(f"/run/libvirt/qemu/{domain}.pid")
    return Running(
        settings=settings(document),
        vcpus=vcpu_threads(daemon, pid),
        emulator=allowed(daemon, pid, pid),
        tap=tap,
        tap_mtu=daemon.read(f"/sys/class/net/{tap}/mtu"),
    )


def vcpu_threads(daemon: PrivateDaemon, pid: str) -> dict[int, str]:
    """Where each vCPU's thread may run; QEMU names them ``CPU 0/TCG``."""
    found = {}
    for task in daemon.path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text()
        if name.startswith("CPU "):
            found[int(name.removeprefix("CPU ").partition("/")[0])] = allowed(daemon, pid, task.name)
    return found


def allowed(daemon: PrivateDaemon, pid: str, tid: str) -> str:
    """``Cpus_allowed_list`` of a thread (proc_pid_status(5))."""
    status = daemon.read(f"/proc/{pid}/task/{tid}/status")
    return next(line for line in status.splitlines() if line.startswith("Cpus_allowed_list:")).split()[1]
