"""Network cards of the host: PCI functions, interrupts and queue masks, from sysfs."""

from __future__ import annotations

from collections.abc import Iterable

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host.cpus import cpulist, decimal
from libvirt_tuner.host.sysfs import component
from libvirt_tuner.topology import (
    Cpus,
    Irq,
    Nic,
    QueueMask,
    is_pci_address,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.sysfs import Sysfs

NET = "/sys/class/net"
PCI = "/sys/bus/pci/devices"
IRQ_ACTIONS = "/sys/kernel/irq"
IRQ = "/proc/irq"


def irq_default(sysfs: Sysfs) -> Cpus:
    """CPUs that new interrupts may go to; none where the kernel does not say.

    Raises:
        CpusetError: The file holds no mask.
    """
    path = f"{IRQ}/default_smp_affinity"
    text = sysfs.read_or(path, "")
    return cpuset.parse_mask(text, where=path) if text else cpuset.NO_CPUS


def function_node(sysfs: Sysfs, address: str) -> int | None:
    """Return the NUMA node of a PCI function; None if the firmware does not say.

    Raises:
        MissingError: There is no such function.
        RejectedError: ``address`` is no name.
    """
    base = f"{PCI}/{component(address)}"
    node = decimal(sysfs.read(f"{base}/numa_node"), f"{base}/numa_node")
    if node < 0:  # of a virtual function, if the firmware only tells the physical function's
        node = decimal(sysfs.read_or(f"{base}/physfn/numa_node", "-1"), f"{base}/physfn/numa_node")
    return node if node >= 0 else None


def irqs(sysfs: Sysfs, address: str) -> tuple[Irq, ...]:
    """Return interrupts of a PCI function, ascending; the legacy interrupt if it has no MSI.

    Raises:
        HostError: A file cannot be read.
        RejectedError: ``address`` is no name.
    """
    base = f"{PCI}/{component(address)}"
    numbers = [decimal(name, f"{base}/msi_irqs") for name in sysfs.listdir_or_empty(f"{base}/msi_irqs")]
    if not numbers:
        legacy = decimal(sysfs.read_or(f"{base}/irq", "0"), f"{base}/irq")
        numbers = [legacy] if legacy and sysfs.exists(f"{IRQ}/{legacy}") else []
    # Most interrupts have the same affinity, so "0-1023" is only parsed once.
    parsed: dict[str, Cpus] = {}
    return tuple(_irq(sysfs, number, parsed) for number in sorted(numbers))


def _irq(sysfs: Sysfs, number: int, parsed: dict[str, Cpus]) -> Irq:
    def cpus(name: str) -> Cpus:
        path = f"{IRQ}/{number}/{name}"
        text = sysfs.read_or(path, "")
        if text not in parsed:
            parsed[text] = cpulist(text, path)
        return parsed[text]

    return Irq(
        number=number,
        action=_action(sysfs, number),
        affinity=cpus("smp_affinity_list"),
        effective=cpus("effective_affinity_list"),
    )


def _action(sysfs: Sysfs, number: int) -> str:
    try:
        return sysfs.read(f"{IRQ_ACTIONS}/{number}/actions")
    except MissingError:
        # No /sys/kernel/irq (CONFIG_SPARSE_IRQ off): each action is a directory in procfs.
        base = f"{IRQ}/{number}"
        names = sysfs.listdir_or_empty(base)
        return ",".join(name for name in names if name not in _IRQ_FILES)


_IRQ_FILES = frozenset(
    {
        "affinity_hint",
        "effective_affinity",
        "effective_affinity_list",
        "node",
        "smp_affinity",
        "smp_affinity_list",
        "spurious",
    }
)


def is_hardware(sysfs: Sysfs, name: str) -> bool:
    """Whether a network device has a device of a bus below it."""
    return bool(sysfs.link_name(f"{NET}/{component(name)}/device"))


def nic(sysfs: Sysfs, name: str) -> Nic:
    """A hardware network device with its PCI function and interrupts.

    The PCI function of a virtio or auxiliary device (mlx5 subfunction) is the one above it. A device
    on another bus (USB) has no address and no interrupts of its own, but the node of its controller.

    Raises:
        MissingError: There is no such device, or no hardware below it.
        RejectedError: ``name`` is no name.
        HostError: A file cannot be read.
    """
    device = sysfs.realpath(f"{NET}/{component(name)}/device")
    bus = sysfs.link_name(f"{device}/subsystem")
    above = [part for part in device.split("/") if is_pci_address(part)]
    function = above[-1] if above else ""
    address = function if bus in ("pci", "virtio", "auxiliary") else ""
    return Nic(
        name=name,
        address=address,
        node=function_node(sysfs, function) if function else None,
        driver=sysfs.link_name(f"{device}/driver"),
        irqs=_subfunction_irqs(sysfs, device) or irqs(sysfs, address) if address else (),
        device_class=_class(sysfs, function) if function else 0,
        speed=_speed(sysfs, name),
        threaded=sysfs.read_or(f"{NET}/{name}/threaded", "") not in ("", "0"),
    )


def _class(sysfs: Sysfs, address: str) -> int:
    """``class`` of a PCI function: base class, subclass and interface, a byte each."""
    text = sysfs.read_or(f"{PCI}/{address}/class", "")
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _speed(sysfs: Sysfs, name: str) -> int:
    """Return Mbit/s; 0 if the link is down (EINVAL, or -1) or the driver does not say."""
    try:
        text = sysfs.read_or(f"{NET}/{component(name)}/speed", "")
    except HostError:
        return 0
    return int(text) if text.isdecimal() else 0


def _subfunction_irqs(sysfs: Sysfs, device: str) -> tuple[Irq, ...]:
    """A subfunction's own interrupts, which Linux lists since 6.11 (``irqs`` of the auxiliary device)."""
    numbers = [name for name in sysfs.listdir_or_empty(f"{device}/irqs") if name.isdecimal()]
    parsed: dict[str, Cpus] = {}
    return tuple(_irq(sysfs, number, parsed) for number in sorted(map(int, numbers)))


def function(sysfs: Sysfs, address: str) -> Nic:
    """Read a PCI function without network device (bound to VFIO or another driver), named by its address.

    Raises:
        MissingError: There is no such function.
        RejectedError: ``address`` is no name.
        HostError: A file cannot be read.
    """
    return Nic(
        name=address,
        address=address,
        node=function_node(sysfs, address),
        driver=sysfs.link_name(f"{PCI}/{address}/driver"),
        irqs=irqs(sysfs, address),
        device_class=_class(sysfs, address),
        speed=next((speed for name in _ports(sysfs, address) if (speed := _speed(sysfs, name))), 0),
    )


def _ports(sysfs: Sysfs, address: str) -> list[str]:
    """Network devices of a virtual function's physical function."""
    return sysfs.listdir_or_empty(f"{PCI}/{address}/physfn/net")


def nics(sysfs: Sysfs, names: Iterable[str] | None = None) -> dict[str, Nic]:
    """Return the named network devices (None: all) that are hardware, by name.

    A PCI address stands for the function itself. Names that the host does not have are ignored.

    Raises:
        HostError: A file cannot be read.
    """
    wanted = sysfs.listdir_or_empty(NET) if names is None else sorted(set(names))
    found = {}
    for name in wanted:
        try:
            if is_pci_address(name):
                found[name] = function(sysfs, name)
            elif "/" not in name and is_hardware(sysfs, name):
                found[name] = nic(sysfs, name)
        except MissingError:  # missing, or unplugged meanwhile
            continue
    return found


def queue_masks(sysfs: Sysfs, name: str) -> tuple[QueueMask, ...]:
    """RPS and XPS of every queue of a network device, in the order of their numbers.

    A device with a single transmit queue has no XPS. Reading one file per queue takes 8 ms for 127 queues of
    each direction. So the hook only does it if the policy asks for it.

    Raises:
        RejectedError: ``name`` is no name.
    """
    base = f"{NET}/{component(name)}/queues"
    found = []
    for queue in sorted(sysfs.listdir_or_empty(base), key=lambda queue: (queue[:3], len(queue), queue)):
        path = f"{base}/{queue}/{'rps_cpus' if queue.startswith('rx-') else 'xps_cpus'}"
        try:
            text = sysfs.read(path)
        except HostError:
            continue
        found.append(QueueMask(name, queue, cpuset.parse_mask(text, where=path)))
    return tuple(found)
