"""What a domain document asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import metadata as xmlrecord
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.topology import NO_CPUS, Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


@frozen(repr=False)
class Vnic:
    """One ``<interface>``, in document order.

    Attributes:
        index: Position among the interfaces, from 0.
        mac: ``52:54:00:...``, lower case; "" when the document gives none.
        type: ``bridge``, ``network``, ``direct``, ``ethernet``, ``vhostuser``, ``hostdev``, ``vdpa``...
        source: The bridge, lower device, network name, or PCI address (hostdev); "" when there is none.
            A live document's resolved bridge or device wins over the network's name.
        network: Name of the libvirt network, "" for other types.
        model: ``virtio``, ``e1000e``...; "" when the document gives none.
        target: Host-side device (``vnet0``, ``macvtap0``); "" while the domain is not running.
        alias: Device alias (``net0``, ``ua-lan``); "" while libvirt has not given one.
        queues: Queue pairs; 1 when not set.
        driver: ``vhost``, ``qemu`` or "" (libvirt's choice: vhost where there is one).
        mtu: ``<mtu size>``, None when not set.
        virtualport: Type of ``<virtualport>`` (``openvswitch``...), "" when there is none.
        vlan: Tags of ``<vlan>``.
        rx_queue_size: ``<driver rx_queue_size=>``, None when not set.
    """

    index: int
    mac: str = ""
    type: str = "bridge"
    source: str = ""
    network: str = ""
    model: str = ""
    target: str = ""
    alias: str = ""
    queues: int = 1
    driver: str = ""
    mtu: int | None = None
    virtualport: str = ""
    vlan: tuple[int, ...] = ()
    rx_queue_size: int | None = None


@frozen(repr=False)
class GuestCell:
    """A guest NUMA cell (``/domain/cpu/numa/cell``); memory in KiB."""

    id: int
    vcpus: Cpus
    memory_kib: int


@frozen(repr=False)
class Numatune:
    """``<numatune>``: the domain's memory, and a guest cell's where ``memnodes`` names it.

    ``mode`` and ``nodeset`` are ``None`` when there is no ``<memory>`` with a nodeset.
    """

    mode: str | None = None
    nodeset: frozenset[int] | None = None
    placement: str = ""
    memnodes: Mapping[int, tuple[str, frozenset[int]]] = field(factory=dict)


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
        hugepage_kib: Page size of ``<hugepages>``: None without, 0 for the host's default size.
        cells: Guest NUMA cells.
        iothreads: Ids of the iothreads.
        vcpupin, emulatorpin, iothreadpin, numatune: As they stand in the document, whoever wrote them.
        vnics: Interfaces in document order.
        hostdevs: PCI addresses of ``<hostdev mode='subsystem' type='pci'>``, in document order.
        recorded: What this tool wrote before, ``(transform, key) -> value`` (None: it took it out), from
            :mod:`libvirt_tuner.transforms.record`. A setting that no longer has its recorded value is the
            user's.
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
    numatune: Numatune = Numatune()
    vnics: tuple[Vnic, ...] = ()
    hostdevs: tuple[str, ...] = ()
    recorded: Mapping[tuple[str, str], str | None] = field(factory=dict)


def read_spec(root: Element) -> DomainSpec:
    """What the document asks for, read strictly; a live document does as well.

    Raises:
        DomainXmlError: A value libvirt would not take either: ``where`` is its xpath.
    """
    vcpus, current = _vcpus(root)
    vcpu = xmlread.child(root, "vcpu")
    topology = xmlread.find(root, "cpu", "topology")
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
        else xmlread.cpus(vcpu, "cpuset", "/domain/vcpu"),
        threads=1
        if topology is None
        else xmlread.number(topology, "threads", "/domain/cpu/topology", default=1),
        memory_kib=_memory(root),
        hugepage_kib=_hugepage(root),
        cells=tuple(_cells(root)),
        iothreads=iothreads(root),
        vcpupin=_pins(root, "vcpupin", "vcpu", frozenset(range(vcpus))),
        emulatorpin=_emulatorpin(root),
        iothreadpin=_pins(root, "iothreadpin", "iothread", frozenset(iothreads(root))),
        numatune=_numatune(root),
        vnics=vnics(root),
        hostdevs=hostdevs(root),
        recorded=xmlrecord.recorded(root),
    )


def vnics(root: Element) -> tuple[Vnic, ...]:
    """Every ``<interface>``, whatever its type, in document order."""
    return tuple(_vnic(element, index) for index, element in enumerate(interfaces(root)))


def hostdevs(root: Element) -> tuple[str, ...]:
    """PCI addresses of the host's functions that ``<hostdev>`` elements pass through, in document order."""
    found = []
    devices = xmlread.child(root, "devices")
    for element in () if devices is None else devices.iterchildren("hostdev"):
        address = xmlread.find(element, "source", "address")
        if element.get("type") == "pci" and address is not None:
            found.append(_pci(address, "/domain/devices/hostdev/source/address"))
    return tuple(found)


def interfaces(root: Element) -> list[Element]:
    """The ``<interface>`` elements in document order."""
    devices = xmlread.child(root, "devices")
    return [] if devices is None else list(devices.iterchildren("interface"))


def vcpu_count(root: Element) -> int:
    """Maximum vCPUs; libvirt's default is 1."""
    return _vcpus(root)[0]


def iothreads(root: Element) -> tuple[int, ...]:
    """Ids of the iothreads: those of ``<iothreadids>``, and the lowest free ones up to ``<iothreads>``."""
    count = xmlread.integer(xmlread.text(root, "iothreads"), "/domain/iothreads", 0)
    ids = [
        xmlread.number(element, "id", "/domain/iothreadids/iothread")
        for group in root.iterchildren("iothreadids")
        for element in group.iterchildren("iothread")
    ]
    if count > cpuset.LIMIT:
        raise DomainXmlError(
            "too many iothreads", where="/domain/iothreads", value=count, expected="up to 16384"
        )
    candidate = 1
    while len(ids) < count:
        if candidate not in ids:
            ids.append(candidate)
        candidate += 1
    return tuple(sorted(ids))


def cell_ids(root: Element) -> tuple[int, ...]:
    """Ids of the guest NUMA cells; a cell without an id has its position, as libvirt counts."""
    numa = xmlread.find(root, "cpu", "numa")
    if numa is None:
        return ()
    where = "/domain/cpu/numa/cell"
    return tuple(
        xmlread.number(cell, "id", where, default=at) for at, cell in enumerate(numa.iterchildren("cell"))
    )


def _name(root: Element) -> str:
    name = xmlread.text(root, "name")
    if not name or name in (".", "..") or "/" in name or "\n" in name:
        raise DomainXmlError(
            "bad name", where="/domain/name", value=name, expected="a name without '/' or newline"
        )
    return name


def _uuid(root: Element) -> str:
    given = xmlread.text(root, "uuid")
    digits = given.replace("-", "").lower()
    if given and not (len(digits) == 32 and set(digits) <= set("0123456789abcdef")):
        raise DomainXmlError("bad uuid", where="/domain/uuid", value=given, expected="32 hex digits")
    return given.lower()


def _vcpus(root: Element) -> tuple[int, int]:
    element = xmlread.child(root, "vcpu")
    if element is None:
        return 1, 1
    where = "/domain/vcpu"
    maximum = xmlread.integer((element.text or "").strip() or "1", where, 1)
    current = xmlread.number(element, "current", where, default=maximum)
    if not 1 <= maximum <= cpuset.LIMIT:
        raise DomainXmlError(
            "bad number of vCPUs", where=where, value=maximum, expected=f"1 to {cpuset.LIMIT}"
        )
    if not 1 <= current <= maximum:
        raise DomainXmlError(
            "bad number", where=f"{where}/@current", value=current, expected=f"1 to {maximum}"
        )
    return maximum, current


def _enabled(root: Element) -> Cpus:
    where = "/domain/vcpus/vcpu"
    return frozenset(
        xmlread.number(vcpu, "id", where)
        for group in root.iterchildren("vcpus")
        for vcpu in group.iterchildren("vcpu")
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
    return -(-xmlread.integer((value or "").strip(), where) * _UNITS[unit] // 1024)


def _memory(root: Element) -> int:
    element = xmlread.child(root, "memory")
    where = "/domain/memory"
    size = 0 if element is None else _kib(element, element.text, where)
    # With guest cells libvirt computes the total itself.
    size = size or sum(cell.memory_kib for cell in _cells(root))
    if size == 0:
        raise DomainXmlError("no memory", where=where, expected="a size above 0")
    return size


def _hugepage(root: Element) -> int | None:
    hugepages = xmlread.find(root, "memoryBacking", "hugepages")
    if hugepages is None:
        return None
    page = xmlread.child(hugepages, "page")
    return 0 if page is None else _kib(page, page.get("size"), "/domain/memoryBacking/hugepages/page/@size")


def _cells(root: Element) -> Iterator[GuestCell]:
    numa = xmlread.find(root, "cpu", "numa")
    if numa is None:
        return
    for cell, identifier in zip(numa.iterchildren("cell"), cell_ids(root), strict=True):
        where = f"/domain/cpu/numa/cell[@id='{identifier}']"
        held = xmlread.cpus(cell, "cpus", where) if cell.get("cpus") else NO_CPUS
        yield GuestCell(identifier, held, _kib(cell, cell.get("memory"), f"{where}/@memory"))


def _pins(root: Element, tag: str, key: str, known: frozenset[int]) -> dict[int, Cpus]:
    pins: dict[int, Cpus] = {}
    for group in root.iterchildren("cputune"):
        for element in group.iterchildren(tag):
            where = f"/domain/cputune/{tag}[@{key}='{element.get(key)}']"
            identifier = xmlread.number(element, key, where)
            if identifier not in known:
                raise DomainXmlError(
                    f"pin of {key} that the domain does not have",
                    where=where,
                    value=identifier,
                    expected=cpuset.format(known) or f"no {tag}",
                )
            pins[identifier] = xmlread.cpus(element, "cpuset", where)
    return pins


def _emulatorpin(root: Element) -> Cpus:
    element = xmlread.find(root, "cputune", "emulatorpin")
    return NO_CPUS if element is None else xmlread.cpus(element, "cpuset", "/domain/cputune/emulatorpin")


_MODES = ("strict", "preferred", "interleave", "restrictive")


def _numatune(root: Element) -> Numatune:
    numatune = xmlread.child(root, "numatune")
    if numatune is None:
        return Numatune()
    memnodes = {}
    for element in numatune.iterchildren("memnode"):
        where = f"/domain/numatune/memnode[@cellid='{element.get('cellid')}']"
        memnodes[xmlread.number(element, "cellid", where)] = (
            _mode(element, where),
            xmlread.cpus(element, "nodeset", where),
        )
    memory = xmlread.child(numatune, "memory")
    if memory is None:
        return Numatune(memnodes=memnodes)
    where = "/domain/numatune/memory"
    if memory.get("nodeset") is None:
        return Numatune(placement=memory.get("placement", ""), memnodes=memnodes)
    nodes = xmlread.cpus(memory, "nodeset", where)
    return Numatune(_mode(memory, where), nodes, memory.get("placement", ""), memnodes)


def _mode(element: Element, where: str) -> str:
    mode = element.get("mode", "strict")
    if mode not in _MODES:
        raise DomainXmlError("unknown mode", where=f"{where}/@mode", value=mode, expected=", ".join(_MODES))
    return mode


def _vnic(interface: Element, index: int) -> Vnic:
    where = f"/domain/devices/interface[{index + 1}]"
    driver, mtu = xmlread.child(interface, "driver"), xmlread.child(interface, "mtu")
    vlan, source = xmlread.child(interface, "vlan"), xmlread.child(interface, "source")
    kind = interface.get("type", "")
    return Vnic(
        index=index,
        mac=xmlread.attribute(interface, "mac", "address").lower(),
        type=kind,
        source="" if source is None else _source(source, kind),
        network=xmlread.attribute(interface, "source", "network") if kind == "network" else "",
        model=xmlread.attribute(interface, "model", "type"),
        target=xmlread.attribute(interface, "target", "dev"),
        alias=xmlread.attribute(interface, "alias", "name"),
        queues=1 if driver is None else xmlread.number(driver, "queues", f"{where}/driver", default=1),
        driver="" if driver is None else driver.get("name", ""),
        mtu=None if mtu is None else xmlread.number(mtu, "size", f"{where}/mtu"),
        rx_queue_size=None
        if driver is None or driver.get("rx_queue_size") is None
        else xmlread.number(driver, "rx_queue_size", f"{where}/driver"),
        virtualport=xmlread.attribute(interface, "virtualport", "type"),
        vlan=()
        if vlan is None
        else tuple(xmlread.number(tag, "id", f"{where}/vlan/tag") for tag in vlan.iterchildren("tag")),
    )


def _source(source: Element, kind: str) -> str:
    if kind == "hostdev":
        address = xmlread.child(source, "address")
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


def next_aliases(root: Element) -> list[str]:
    """The alias each interface's device will have at its next start (qemuAssignDeviceAliases).

    A user's own (``ua-``) stays. The others are given anew: ``netN`` counts those before it that get a
    ``netN``. An interface of type hostdev gets a ``hostdevN``, counted over other devices too: "" here.
    """
    aliases = []
    count = 0
    for interface in interfaces(root):
        alias = xmlread.attribute(interface, "alias", "name")
        if not alias.startswith("ua-"):
            hostdev = interface.get("type") == "hostdev"
            alias = "" if hostdev else f"net{count}"
            count += not hostdev
        aliases.append(alias)
    return aliases
