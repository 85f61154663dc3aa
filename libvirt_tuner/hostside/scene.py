"""Running VMs and their parts for a diagnosis, from libvirt's files and the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.sample import Adapter, Queue, Scene, Vm
from libvirt_tuner.domainxml.document import parse
from libvirt_tuner.domainxml.spec import DomainSpec, Vnic, read_spec
from libvirt_tuner.errors import LedgerError, MissingError, TunerError
from libvirt_tuner.host import commands, probe
from libvirt_tuner.host.samples import Sampler
from libvirt_tuner.hostside.ledger import Book, Claim, Ledger
from libvirt_tuner.hostside.libvirt_files import live_document, process_id, running
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.case import has_vhost
from libvirt_tuner.planning.plan import Placement
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology
from libvirt_tuner.uplink.budget import vnic_mtu
from libvirt_tuner.uplink.path import devices_of, trace_vnic

if TYPE_CHECKING:
    from libvirt_tuner.host.sysfs import Sysfs

DEFINED = "/etc/libvirt/qemu"


def read_scene(
    sysfs: Sysfs, run: commands.Run = commands.run, *, every_card: bool = False
) -> tuple[Scene, tuple[str, ...]]:
    """Read everything except samples, and the problems.

    Args:
        sysfs: The host.
        run: What runs programs.
        every_card: Read all network cards, not those of the VMs only; without VMs all are read.

    Raises:
        HostError: The host's CPUs cannot be read.
    """
    troubles: list[str] = []
    book = _book(sysfs, troubles)
    specs: dict[str, tuple[int, DomainSpec]] = {}
    for name in running(sysfs):
        try:
            spec = read_spec(parse(live_document(sysfs, name)))
            specs[name] = process_id(sysfs, name), spec
        except MissingError:
            continue  # stopped meanwhile
        except TunerError as err:
            troubles.append(f"{name}: {err}")
    wanted = {device for _, spec in specs.values() for vnic in spec.vnics for device in devices_of(vnic)}
    host = probe.topology(sysfs, sorted(wanted) if wanted and not every_card else None, run, queues=True)
    vms = {
        name: _vm(sysfs, host, book.claims.get(spec.uuid), pid, spec, troubles)
        for name, (pid, spec) in specs.items()
    }
    irqs = {
        int(entry.target): cpuset.parse(entry.wanted)
        for entry in book.changes.values()
        if entry.kind == "irq" and entry.holders and entry.wanted and entry.target.isdecimal()
    }
    held = NO_CPUS.union(*(claim.vcpus for claim in book.claims.values()))
    return Scene(host, vms, irqs, held), tuple(troubles)


def sampler(sysfs: Sysfs, scene: Scene, run: commands.Run = commands.run) -> Sampler:
    """Return a sampler for the scene's VMs and network cards."""
    cards = sorted(name for name, nic in scene.host.nics.items() if ":" not in name)
    taps = {adapter.tap for vm in scene.vms.values() for adapter in vm.adapters if adapter.tap}
    return Sampler(
        sysfs,
        {name: vm.process for name, vm in scene.vms.items()},
        sorted(irq.number for nic in scene.host.nics.values() for irq in nic.irqs if irq.action),
        sorted(taps | set(cards)),
        cards,
        run,
    )


def _book(sysfs: Sysfs, troubles: list[str]) -> Book:
    try:
        return Ledger(sysfs).read()
    except LedgerError as err:
        if sysfs.live:
            troubles.append(f"the ledger: {err}")
        return Book()


def _vm(
    sysfs: Sysfs, host: HostTopology, claim: Claim | None, pid: int, spec: DomainSpec, troubles: list[str]
) -> Vm:
    placement = _placement(claim, troubles)
    adapters = tuple(_adapter(host, vnic) for vnic in spec.vnics)
    nodes = (path.node(host) for path in (trace_vnic(vnic, host) for vnic in spec.vnics))
    return Vm(
        name=spec.name,
        uuid=spec.uuid,
        process=pid,
        adapters=adapters,
        workers=tuple(_queues(spec)),
        node=next((node for node in nodes if node is not None), None),
        nodes=placement.nodes if placement else (),
        emulators=_emulators(claim, placement, spec),
        pins=placement.vcpupin if placement else {},
        emulatorpin=(placement.emulatorpin if placement else None) or NO_CPUS,
        waiting=tuple(_waiting(sysfs, spec, troubles)),
    )


def _placement(claim: Claim | None, troubles: list[str]) -> Placement | None:
    if claim is None or not claim.plan:
        return None
    try:
        return stored.from_dict(claim.plan)
    except LedgerError as err:
        troubles.append(f"{claim.name}: {err}")
        return None


def _emulators(claim: Claim | None, placement: Placement | None, spec: DomainSpec) -> Cpus:
    planned = placement.emulatorpin if placement else None
    return planned or (claim.emulators if claim else NO_CPUS) or spec.emulatorpin


def _adapter(host: HostTopology, vnic: Vnic) -> Adapter:
    path = trace_vnic(vnic, host)
    link = host.links.get(vnic.target)
    largest = vnic_mtu(path, host, tags=len(vnic.vlan))[0] if path.functions else None
    mtu = vnic.mtu or (link.mtu if link else 0)
    macvtap = vnic.type == "direct" or vnic.target.startswith("macvtap")
    return Adapter(vnic.index, vnic.target, macvtap, mtu, largest or 0, path.functions)


def _queues(spec: DomainSpec) -> Iterator[Queue]:
    """vhost workers are created in the order of the interfaces, one for each queue pair."""
    for vnic in spec.vnics:
        if has_vhost(spec, vnic):
            for queue in range(vnic.queues or 1):
                yield Queue(vnic.index, queue, vnic.target)


def _waiting(sysfs: Sysfs, live: DomainSpec, troubles: list[str]) -> Iterator[str]:
    """Return settings of the definition that the running VM only gets at its next start."""
    try:
        defined = read_spec(parse(sysfs.read_bytes(f"{DEFINED}/{live.name}.xml")))
    except MissingError:
        return  # transient
    except TunerError as err:
        troubles.append(f"{live.name}: {err}")
        return
    later = {vnic.mac: vnic for vnic in defined.vnics}
    for now in live.vnics:
        then = later.get(now.mac, now)
        for name in ("rx_queue_size", "queues", "mtu"):
            real, wanted = getattr(now, name), getattr(then, name)
            if wanted is not None and real != wanted:
                yield f"{name} of vNIC {now.index}: {wanted}, now {real or 'default'}"
    if defined.numatune.nodeset and defined.numatune.nodeset != live.numatune.nodeset:
        now_on = cpuset.format(live.numatune.nodeset) if live.numatune.nodeset else "any"
        yield f"memory on node {cpuset.format(defined.numatune.nodeset)}, now {now_on}"
