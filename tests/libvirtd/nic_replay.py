"""Two functions of a ConnectX, replayed in the private network and mount namespaces.

The devices that carry packets are veth pairs, which every kernel has; their directories in sysfs are replaced
by bind mounts of plain files that read like mlx5's, so that a program that looks at ``/`` finds a NIC with
a PCI function, a NUMA node and interrupts that it may move::

    br0  <- enp23s0f0np0  0000:17:00.0  interrupts 200-207
    br1  <- vxlan100 -> enp23s0f1np1  0000:17:00.1  interrupts 208-215 (macvtaps go here too)

Each interrupt starts out on every online CPU. What is written to its ``smp_affinity_list`` is what
``effective_affinity_list`` says from then on. SMT reads as off.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple


class Function(NamedTuple):
    """One PCI function: its interface, the far end of the veth, its address and interrupts."""

    interface: str
    peer: str
    address: str
    irqs: range

    @property
    def control(self) -> int:
        """The interrupt that carries no packets."""
        return self.irqs[0]

    @property
    def queues(self) -> range:
        """The interrupts of the queues."""
        return self.irqs[1:]


FUNCTIONS = (
    Function("enp23s0f0np0", "wire0", "0000:17:00.0", range(200, 208)),
    Function("enp23s0f1np1", "wire1", "0000:17:00.1", range(208, 216)),
)
IRQS = tuple(irq for function in FUNCTIONS for irq in function.irqs)
UNDERLAY_MTU = 1500
VXLAN_MTU = 1450


def build(stage: Path) -> None:
    """Makes the devices, then puts their replayed files in place. ``stage`` is a directory on a tmpfs."""
    make_devices()
    stage.mkdir(parents=True)
    for function in FUNCTIONS:
        replay_device(function, stage / function.interface)
    links = {f.address: f"../../../devices/virtual/net/{f.interface}/{f.address}" for f in FUNCTIONS}
    extend("/sys/bus/pci/devices", stage / "pci", links)
    replay_interrupts(stage)
    replay_cores(stage)


def make_devices() -> None:
    """Veth pairs, bridges and the tunnel (documentation addresses, RFC 5737)."""
    for function in FUNCTIONS:
        ip(f"link add {function.interface} mtu {UNDERLAY_MTU} type veth peer name {function.peer}")
        ip(f"link set {function.peer} up")
        ip(f"link set {function.interface} up")
    ip("link add br0 type bridge")
    ip("link set enp23s0f0np0 master br0")
    ip("addr add 198.51.100.1/24 dev enp23s0f1np1")
    ip("link add vxlan100 type vxlan id 100 remote 198.51.100.2 dstport 4789 dev enp23s0f1np1")
    ip(f"link set vxlan100 mtu {VXLAN_MTU} up")
    ip("link add br1 type bridge")
    ip("link set vxlan100 master br1")
    for bridge in ("br0", "br1"):
        ip(f"link set {bridge} up")


def ip(arguments: str) -> None:
    """Runs iproute2."""
    subprocess.run(["ip", *arguments.split()], check=True)


def replay_device(function: Function, staged: Path) -> None:
    """The interface's directory as sysfs has it now, with a PCI function below it, bound over sysfs's own."""
    place = Path("/sys/devices/virtual/net") / function.interface
    copy_tree(place, staged)
    (staged / "operstate").write_text("up\n")
    (staged / "carrier").write_text("1\n")
    (staged / "device").symlink_to(function.address)
    write_function(function, staged / function.address)
    bind(staged, place)


def copy_tree(source: Path, target: Path) -> None:
    """Files and symbolic links of a directory of sysfs, without the attributes that cannot be read."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_symlink():
            (target / entry.name).symlink_to(os.readlink(entry))
        elif entry.is_dir():
            copy_tree(entry, target / entry.name)
        else:
            try:
                (target / entry.name).write_bytes(entry.read_bytes())
            except OSError:
                continue


def write_function(function: Function, place: Path) -> None:
    """The PCI function's own directory (Documentation/ABI/testing/sysfs-bus-pci)."""
    (place / "msi_irqs").mkdir(parents=True)
    for irq in function.irqs:
        (place / "msi_irqs" / str(irq)).write_text("msix\n")
    files = {
        "numa_node": first_node(),
        "vendor": "0x15b3",
        "device": "0x1021",
        "class": "0x020000",
        "uevent": f"DRIVER=mlx5_core\nPCI_CLASS=20000\nPCI_ID=15B3:1021\nPCI_SLOT_NAME={function.address}",
    }
    for name, text in files.items():
        (place / name).write_text(text + "\n")
    (place / "net").mkdir()
    (place / "net" / function.interface).symlink_to("../..")
    (place / "subsystem").symlink_to("../../../../../bus/pci")
    (place / "driver").symlink_to("../../../../../bus/pci/drivers/mlx5_core")


def first_node() -> str:
    """The lowest NUMA node that is online; "0" on a kernel without NUMA."""
    online = Path("/sys/devices/system/node/online")
    return online.read_text().strip().replace(",", "-").split("-")[0] if online.exists() else "0"


def extend(directory: str, staged: Path, links: dict[str, str]) -> None:
    """Adds symbolic links to a directory of symbolic links, where the machine has one."""
    if not os.path.isdir(directory):
        return
    staged.mkdir()
    present = {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}
    for name, target in {**present, **links}.items():
        (staged / name).symlink_to(target)
    bind(staged, Path(directory))


def replay_interrupts(stage: Path) -> None:
    """Replaces /proc/irq and /sys/kernel/irq: the machine's own interrupts are out of reach here."""
    proc, kernel = stage / "proc-irq", stage / "sys-kernel-irq"
    online = Path("/sys/devices/system/cpu/online").read_text()
    proc.mkdir()
    (proc / "default_smp_affinity").write_text(Path("/proc/irq/default_smp_affinity").read_text())
    for function in FUNCTIONS:
        for vector, irq in enumerate(function.irqs):
            name = "mlx5_async0" if irq == function.control else f"mlx5_comp{vector - 1}"
            write_interrupt(proc / str(irq), f"{name}@pci:{function.address}", online)
            (kernel / str(irq)).mkdir(parents=True)
            (kernel / str(irq) / "actions").write_text(f"{name}@pci:{function.address}\n")
            (kernel / str(irq) / "per_cpu_count").write_text("0\n")
    bind(proc, Path("/proc/irq"))
    bind(kernel, Path("/sys/kernel/irq"))


def write_interrupt(place: Path, action: str, cpus: str) -> None:
    """One directory of /proc/irq (Documentation/core-api/irq/irq-affinity.rst)."""
    (place / action).mkdir(parents=True)
    (place / "smp_affinity_list").write_text(cpus)
    (place / "effective_affinity_list").symlink_to("smp_affinity_list")
    (place / "node").write_text(first_node() + "\n")


def replay_cores(stage: Path) -> None:
    """A core for every CPU: two siblings of one core would be too small a host to place anything on."""
    active = Path("/sys/devices/system/cpu/smt/active")
    if active.exists():
        (stage / "smt-active").write_text("0\n")
        bind(stage / "smt-active", active)


def bind(source: Path, target: Path) -> None:
    """A bind mount."""
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
