"""What a domain document asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from attrs import field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.cpuset import EMPTY, NO_CPUS, Binding, Cpus, NumaMode
from libvirt_tuner.domainxml import metadata, parts, read
from libvirt_tuner.errors import CpusetError, DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

# The name of a slice, which repeats those above it, is a file name: at most 255 bytes (systemd.unit(5)).
_LONGEST_PARTITION = 255


@frozen(repr=False)
class Vnic:
    """One ``<interface>``, in document order.

    Attributes:
        index: Position among the interfaces, from 0.
        mac: ``52:54:00:...``, lower case; "" when the document gives none.
        type: ``bridge``, ``network``, ``direct``, ``ethernet``, ``vhostuser``, ``hostdev``, ``vdpa``...
        source: The bridge, lower device, network name, or PCI address (hostdev); "" when there is none.
            In a live document, the resolved bridge or device is used instead of the network's name.
        network: Name of the libvirt network, "" for other types.
        model: ``virtio``, ``e1000e``...; "" when the document gives none.
        target: Host-side device (``vnet0``, ``macvtap0``); "" while the domain is not running.
        alias: Device alias (``net0``, ``ua-lan``); "" while libvirt has not given one.
        queues, rx_queue_size, tx_queue_size: Of ``<driver>``; None when not set (1, 256, 256).
        driver: ``vhost``, ``qemu`` or "" (libvirt's choice: vhost where there is one).
        mtu: ``<mtu size>``, None when not set.
        virtualport: Type of ``<virtualport>`` (``openvswitch``...), "" when there is none.
        vlan: Tags of ``<vlan>``.
    """

    index: int
    mac: str = ""
    type: str = "bridge"
    source: str = ""
    network: str = ""
    model: str = ""
    target: str = ""
    alias: str = ""
    queues: int | None = None
    driver: str = ""
    mtu: int | None = None
    virtualport: str = ""
    vlan: tuple[int, ...] = ()
    rx_queue_size: int | None = None
    tx_queue_size: int | None = None


class GuestCell(NamedTuple):
    """A guest NUMA cell (``/domain/cpu/numa/cell``).

    Attributes:
        id, vcpus: As in the document.
        memory_kib: Its memory.
        hugepage_kib: The pages it comes in, as in :attr:`DomainSpec.hugepage_kib`.
    """

    id: int
    vcpus: Cpus
    memory_kib: int
    hugepage_kib: int | None = None


class Numatune(NamedTuple):
    """``<numatune>``: the domain's memory, and a guest cell's where ``memnodes`` names it.

    ``mode`` and ``nodeset`` are ``None`` when there is no ``<memory>`` with a nodeset.
    """

    mode: NumaMode | None = None
    nodeset: frozenset[int] | None = None
    placement: str = ""
    memnodes: Mapping[int, Binding] = EMPTY

    @property
    def memory(self) -> Binding | None:
        """The domain's memory as one value."""
        return Binding(self.mode or "strict", self.nodeset) if self.nodeset is not None else None


NO_NUMATUNE = Numatune()


@frozen(repr=False)
class DomainSpec:
    """What a domain document asks for.

    Attributes:
        name, uuid: As in the document; uuid is "" when the document gives none.
        type: ``kvm`` or ``qemu``.
        vcpus: Maximum vCPUs.
        current: vCPUs online at boot (``<vcpu current=>``), else the maximum.
        enabled: Which ones, where ``<vcpus>`` says so; empty without it: the first ``current``.
        placement: ``<vcpu placement=>``: ``static`` or ``auto``.
        cpuset: ``<vcpu cpuset=>``; empty when not set.
        threads: SMT threads per guest core (``<topology threads=>``), 1 when not set.
        memory_kib: ``<memory>``.
        hugepage_kib: Page size of ``<hugepages>``: None without, 0 for the host's default size. Of a domain
            with guest cells: that of cells which no ``<page nodeset=>`` names.
        cells: Guest NUMA cells.
        iothreads: Ids of the iothreads.
        vcpupin, emulatorpin, iothreadpin, numatune: As in the document, written by the user or by this tool.
        vnics: Interfaces in document order.
        hostdevs: PCI addresses of ``<hostdev>``, in document order.
        partition: ``<resource><partition>``; libvirt's default if the document has none.
        realtime: Whether vCPUs have a scheduler of their own (``<vcpusched>``).
        manager: Name of another program that places the domain, according to its metadata; "" for none.
        recorded: What this tool wrote before, ``(transform, key) -> value`` (None: it removed it), from
            :mod:`libvirt_tuner.transforms.record`. A setting without its recorded value is the user's.
        warnings: Parts of the document that libvirt ignores, and this tool too.
    """

    name: str
    uuid: str = ""
    type: str = "kvm"
    vcpus: int = 1
    current: int = 1
    enabled: Cpus = NO_CPUS
    placement: str = "static"
    cpuset: Cpus = NO_CPUS
    threads: int = 1
    memory_kib: int = 0
    hugepage_kib: int | None = None
    cells: tuple[GuestCell, ...] = ()
    iothreads: tuple[int, ...] = ()
    vcpupin: Mapping[int, Cpus] = field(factory=dict)
    emulatorpin: Cpus = NO_CPUS
    iothreadpin: Mapping[int, Cpus] = field(factory=dict)
    numatune: Numatune = NO_NUMATUNE
    vnics: tuple[Vnic, ...] = ()
    hostdevs: tuple[str, ...] = ()
    partition: str = "/machine"
    realtime: bool = False
    manager: str = ""
    recorded: Mapping[tuple[str, str], str | None] = field(factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def online(self) -> frozenset[int]:
        """vCPUs that run; the others up to :attr:`vcpus` may be plugged in."""
        return self.enabled or frozenset(range(self.current))

    @property
    def memory_by_page(self) -> Mapping[int | None, int]:
        """KiB by page size as in :attr:`hugepage_kib`."""
        sizes = {cell.hugepage_kib for cell in self.cells} or {self.hugepage_kib}
        if len(sizes) == 1:
            return {next(iter(sizes)): self.memory_kib}
        sums: dict[int | None, int] = {}
        for cell in self.cells:
            sums[cell.hugepage_kib] = sums.get(cell.hugepage_kib, 0) + cell.memory_kib
        return sums


def read_spec(root: Element) -> DomainSpec:
    """Read what the document asks for, strictly. It may be a live document.

    Raises:
        DomainXmlError: It has a value that libvirt would refuse too; ``where`` is its xpath.
    """
    _check_cpusets(root)
    vcpus, current = parts.vcpu_counts(root)
    vcpu = read.child(root, "vcpu")
    topology = read.find(root, "cpu", "topology")
    threads = parts.iothreads(root)
    recorded, damaged = metadata.recorded(root)
    warnings: list[str] = [f"record: {damaged[0]} ({len(damaged)} in all)"] if damaged else []
    return DomainSpec(
        name=_name(root),
        uuid=_uuid(root),
        type=root.get("type", "kvm"),
        vcpus=vcpus,
        current=current,
        enabled=_enabled(root),
        placement="static" if vcpu is None else vcpu.get("placement", "static"),
        cpuset=NO_CPUS
        if vcpu is None or vcpu.get("cpuset") is None
        else read.cpus(vcpu, "cpuset", "/domain/vcpu"),
        threads=1
        if topology is None
        else read.number(topology, "threads", "/domain/cpu/topology", default=1),
        memory_kib=_memory(root),
        hugepage_kib=_hugepages(root)[0],
        cells=tuple(_cells(root)),
        iothreads=threads,
        vcpupin=_pins(root, "vcpupin", "vcpu", frozenset(range(vcpus)), warnings),
        emulatorpin=_emulatorpin(root),
        iothreadpin=_pins(root, "iothreadpin", "iothread", frozenset(threads), warnings),
        numatune=_numatune(root),
        vnics=vnics(root),
        hostdevs=tuple(_hostdevs(root)),
        partition=_partition(root),
        realtime=read.find(root, "cputune", "vcpusched") is not None,
        manager=_manager(root),
        recorded=recorded,
        warnings=tuple(warnings),
    )


def vnics(root: Element) -> tuple[Vnic, ...]:
    """Every ``<interface>``, whatever its type, in document order."""
    return tuple(_vnic(element, index) for index, element in enumerate(parts.interfaces(root)))


def _hostdevs(root: Element) -> Iterator[str]:
    devices = read.child(root, "devices")
    for device in () if devices is None else devices.iterchildren("hostdev"):
        address = read.find(device, "source", "address")
        if device.get("type") == "pci" and address is not None:
            yield _pci(address, "/domain/devices/hostdev/source/address")


MANAGERS = {
    "openstack.org/xmlns/libvirt/nova/": "OpenStack Nova",
    "ovirt.org/vm/": "oVirt",
    "kubevirt.io": "KubeVirt",
}
"""Part of a metadata namespace, to the program that places such domains itself."""


def _manager(root: Element) -> str:
    metadata = read.child(root, "metadata")
    for element in () if metadata is None else metadata.iterchildren("*"):
        namespace = str(element.tag).partition("}")[0]
        for part, name in MANAGERS.items():
            if part in namespace:
                return name
    return ""


def _partition(root: Element) -> str:
    partition = read.content(read.find(root, "resource", "partition")).strip() or "/machine"
    # Each of its groups is looked for in several places, and those of no length that a cgroup can have.
    if len(partition) > _LONGEST_PARTITION:
        raise DomainXmlError(
            "partition is too long",
            where="/domain/resource/partition",
            value=len(partition),
            expected=f"at most {_LONGEST_PARTITION} characters",
        )
    return partition


_CPUSETS = (
    (("cputune", "vcpupin"), "cpuset"),
    (("cputune", "iothreadpin"), "cpuset"),
    (("numatune", "memnode"), "nodeset"),
    (("memoryBacking", "hugepages", "page"), "nodeset"),
    (("cpu", "numa", "cell"), "cpus"),
)
MOST_IDS = 1 << 21
"""CPUs and nodes in all cpusets of a document. 2048 vCPUs that float over 1024 CPUs have so many."""


def _check_cpusets(root: Element) -> None:
    """Check their size before they are read: a few bytes can name 16384 CPUs."""
    named = 0
    for path, name in _CPUSETS:
        for element in read.each(root, *path):
            with suppress(CpusetError):  # it is reported where it is read
                named += cpuset.parse_bits(element.get(name, "")).bit_count()
    if named > MOST_IDS:
        raise DomainXmlError(
            "cpusets name too many CPUs", where="/domain", value=named, expected=f"at most {MOST_IDS}"
        )


def _name(root: Element) -> str:
    # As in libvirt, blanks at its ends are part of the name.
    name = read.content(read.child(root, "name"))
    if not name or name in (".", "..") or "/" in name or "\n" in name:
        raise DomainXmlError(
            "bad name", where="/domain/name", value=name, expected="a name without '/' or newline"
        )
    return name


def _uuid(root: Element) -> str:
    given = read.text(root, "uuid")
    digits = given.replace("-", "").lower()
    if not given:
        return ""
    if len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        raise DomainXmlError("bad uuid", where="/domain/uuid", value=given, expected="32 hex digits")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _enabled(root: Element) -> Cpus:
    where = "/domain/vcpus/vcpu"
    return frozenset(
        read.number(vcpu, "id", where)
        for vcpu in read.each(root, "vcpus", "vcpu")
        if vcpu.get("enabled") == "yes"
    )


_UNITS: dict[str, int] = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtpe", 1)},
    **{name: 1024**power for power, prefix in enumerate("kmgtpe", 1) for name in (prefix, f"{prefix}ib")},
}


def _kib(element: Element, value: str | None, where: str) -> int:
    """A size as libvirt scales it (virScaleInteger): KiB by default, rounded up to whole KiB."""
    unit = (element.get("unit") or "KiB").lower()
    if unit not in _UNITS:
        raise DomainXmlError(
            "unknown unit", where=f"{where}/@unit", value=unit, expected="b, KiB, MiB, GiB, kB..."
        )
    return -(-read.integer(value or "", where) * _UNITS[unit] // 1024)


def _memory(root: Element) -> int:
    element = read.child(root, "memory")
    where = "/domain/memory"
    size = 0 if element is None else _kib(element, read.content(element), where)
    # With guest cells libvirt computes the total itself.
    size = size or sum(cell.memory_kib for cell in _cells(root))
    if size == 0:
        raise DomainXmlError("no memory", where=where, expected="a size above 0")
    return size


def _hugepages(root: Element) -> tuple[int | None, dict[int, int]]:
    """The page size of the domain, and those of single guest cells (qemuBuildMemoryBackendProps)."""
    hugepages = read.find(root, "memoryBacking", "hugepages")
    if hugepages is None:
        return None, {}
    whole: int | None = None
    of_cell: dict[int, int] = {}
    where = "/domain/memoryBacking/hugepages/page"
    pages = list(hugepages.iterchildren("page"))
    guest = read.find(root, "cpu", "numa") is not None
    for page in pages:
        size = _kib(page, page.get("size"), f"{where}/@size")
        if page.get("nodeset") is None or not guest:
            whole = size if whole is None else whole
        else:
            of_cell |= {cell: size for cell in read.cpus(page, "nodeset", where) if cell not in of_cell}
    return (whole if pages else 0), of_cell


def _cells(root: Element) -> Iterator[GuestCell]:
    numa = read.find(root, "cpu", "numa")
    if numa is None:
        return
    whole, of_cell = _hugepages(root)
    for cell, identifier in zip(numa.iterchildren("cell"), parts.cell_ids(root), strict=True):
        where = f"/domain/cpu/numa/cell[@id='{identifier}']"
        held = read.cpus(cell, "cpus", where) if cell.get("cpus") else NO_CPUS
        kib = _kib(cell, cell.get("memory"), f"{where}/@memory")
        yield GuestCell(identifier, held, kib, of_cell.get(identifier, whole))


def _pins(root: Element, tag: str, key: str, known: frozenset[int], warnings: list[str]) -> dict[int, Cpus]:
    """Return the pins of threads that the domain has. libvirt drops others with a warning."""
    pins: dict[int, Cpus] = {}
    surplus: list[int] = []
    for element in read.each(root, "cputune", tag):
        identifier = read.number(element, key, f"/domain/cputune/{tag}")
        if identifier in known:
            where = f"/domain/cputune/{tag}[@{key}='{identifier}']"
            pins[identifier] = read.cpus(element, "cpuset", where)
        else:
            surplus.append(identifier)
    if surplus:
        listed = cpuset.format(surplus)
        warnings.append(f"{tag} of {key} {listed}: the domain has no such {key}")
    return pins


def _emulatorpin(root: Element) -> Cpus:
    element = read.find(root, "cputune", "emulatorpin")
    return NO_CPUS if element is None else read.cpus(element, "cpuset", "/domain/cputune/emulatorpin")


def _numatune(root: Element) -> Numatune:
    numatune = read.child(root, "numatune")
    if numatune is None:
        return NO_NUMATUNE
    memnodes = {}
    for element in numatune.iterchildren("memnode"):
        where = f"/domain/numatune/memnode[@cellid='{element.get('cellid')}']"
        memnodes[read.number(element, "cellid", where)] = Binding(
            _mode(element, where),
            read.cpus(element, "nodeset", where),
        )
    memory = read.child(numatune, "memory")
    if memory is None:
        return Numatune(memnodes=memnodes)
    where = "/domain/numatune/memory"
    if memory.get("nodeset") is None:
        return Numatune(placement=memory.get("placement", ""), memnodes=memnodes)
    nodes = read.cpus(memory, "nodeset", where)
    return Numatune(_mode(memory, where), nodes, memory.get("placement", ""), memnodes)


def _mode(element: Element, where: str) -> NumaMode:
    given = element.get("mode", "strict")
    for mode in parts.MODES:
        if mode == given:
            return mode
    raise DomainXmlError("unknown mode", where=f"{where}/@mode", value=given, expected=", ".join(parts.MODES))


def _vnic(interface: Element, index: int) -> Vnic:
    where = f"/domain/devices/interface[{index + 1}]"
    driver, mtu = read.child(interface, "driver"), read.child(interface, "mtu")
    vlan, source = read.child(interface, "vlan"), read.child(interface, "source")
    kind = interface.get("type", "")
    return Vnic(
        index=index,
        mac=read.attribute(interface, "mac", "address").lower(),
        type=kind,
        source="" if source is None else _source(source, kind),
        network=read.attribute(interface, "source", "network") if kind == "network" else "",
        model=read.attribute(interface, "model", "type"),
        target=read.attribute(interface, "target", "dev"),
        alias=read.attribute(interface, "alias", "name"),
        queues=_of_driver(driver, "queues", where),
        driver="" if driver is None else driver.get("name", ""),
        mtu=None if mtu is None else read.number(mtu, "size", f"{where}/mtu"),
        rx_queue_size=_of_driver(driver, "rx_queue_size", where),
        tx_queue_size=_of_driver(driver, "tx_queue_size", where),
        virtualport=read.attribute(interface, "virtualport", "type"),
        vlan=()
        if vlan is None
        else tuple(read.number(tag, "id", f"{where}/vlan/tag") for tag in vlan.iterchildren("tag")),
    )


def _of_driver(driver: Element | None, name: str, where: str) -> int | None:
    if driver is None or driver.get(name) is None:
        return None
    return read.number(driver, name, f"{where}/driver")


def _source(source: Element, kind: str) -> str:
    if kind == "hostdev":
        address = read.child(source, "address")
        return "" if address is None else _pci(address, "/domain/devices/interface/source/address")
    return next(
        (source.get(name, "") for name in ("bridge", "dev", "network", "path") if source.get(name)), ""
    )


def _pci(address: Element, where: str) -> str:
    try:
        domain, bus, slot, function = (
            int(address.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function")
        )
    except ValueError:
        raise DomainXmlError("bad PCI address", where=where, expected="numbers as in 0x17") from None
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
