"""Planned and actual state of a running domain: threads, memory, interrupts, and settings that need a
restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from attrs import evolve, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import TunerError
from libvirt_tuner.host import nics, processes
from libvirt_tuner.host.nics import NET
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, holding
from libvirt_tuner.hostside.ledger import Book, Claim
from libvirt_tuner.planning import driver, queue_masks, stored
from libvirt_tuner.planning.plan import Placement
from libvirt_tuner.topology import NO_CPUS, Cpus

LATER = "from the next start"
PLUGGED = "plugged in since; the service plans it, or 'libvirt-tuner apply --live'"


@frozen
class Row:
    """A planned value, the actual value of the kernel or libvirt, and why they differ.

    ``irq`` is the number where it is an interrupt.
    """

    subject: str
    planned: str
    real: str
    ok: bool
    note: str = ""
    irq: int | None = None


NOT_SELECTED = Row("domain", "not tuned", "not tuned", ok=True, note="select = false in its policy")
"""The only row of a domain that the policy does not select."""


def rows(sysfs: Sysfs, book: Book, uuid: str, live: DomainSpec, defined: DomainSpec | None) -> list[Row]:
    """Return all rows of a running domain.

    Args:
        sysfs: The host.
        book: The ledger.
        uuid: The domain's.
        live: The domain as it runs.
        defined: Its definition, None for a transient domain.
    """
    claim = book.claims.get(uuid)
    if claim is None:
        why = "no record of its start (started before installation, or undone)"
        return [Row("domain", "", "", ok=False, note=why)]
    plan = stored.from_dict(claim.plan)
    found = list(_threads(sysfs, claim, plan))
    if plan.numatune:
        mode, nodes = plan.numatune
        now = (live.numatune.mode, live.numatune.nodeset)
        real = f"{now[0]} {cpuset.format(now[1])}" if now[0] and now[1] else "anywhere"
        found.append(_compared("memory", f"{mode} {cpuset.format(nodes)}", real, LATER))
    found += _changes(sysfs, book, uuid)
    found += _masks(sysfs, plan.holds.vcpus)
    found += [Row("shared CPU", "", "", ok=True, note=said) for said in holding.overlapping(book, uuid)]
    return found + list(_waiting(live, defined))


def readable_rows(sysfs: Sysfs, uuid: str, live: DomainSpec, defined: DomainSpec | None) -> list[Row]:
    """Return the rows of a running domain without the ledger, which only root can read.

    libvirt's pins against where the threads are, and what waits for a restart. Arguments as for :func:`rows`.
    """
    pid = _process(sysfs, uuid)
    if pid is None:
        return [Row("process", "", "not seen", ok=False, note="/proc does not show it to this user")]
    threads = processes.threads(sysfs, pid)
    pinned = [(f"vcpu {vcpu}", threads.vcpus.get(vcpu), cpus) for vcpu, cpus in sorted(live.vcpupin.items())]
    pinned += [
        (f"iothread {number}", threads.iothreads.get(number), cpus)
        for number, cpus in sorted(live.iothreadpin.items())
    ]
    pinned += [("emulator", pid, live.emulatorpin)] if live.emulatorpin else []
    found = [_thread(sysfs, subject, tid, cpus) for subject, tid, cpus in pinned]
    return found + list(_waiting(live, defined)) or [NO_PINS]


NO_PINS = Row("domain", "no pins", "no pins", ok=True)
"""The one row of a domain about which there is nothing to compare."""


def _process(sysfs: Sysfs, uuid: str) -> int | None:
    """The QEMU process of a domain, by its command line, which everybody may read."""
    for name in sysfs.listdir("/proc"):
        with suppress(TunerError):
            if name.isdecimal() and processes.is_domains(sysfs, int(name), uuid):
                return int(name)
    return None


def _threads(sysfs: Sysfs, claim: Claim, plan: Placement) -> Iterator[Row]:
    try:
        started = processes.process_start(sysfs, claim.pid)
        threads = processes.threads(sysfs, claim.pid)
    except TunerError as err:
        yield Row("process", str(claim.pid), "gone", ok=False, note=str(err))
        return
    if started != claim.start_time:
        yield Row("process", str(claim.pid), "gone", ok=False, note="ended; another process has its id")
        return
    for vcpu in sorted({*plan.vcpus, *threads.vcpus} if plan.vcpupin else ()):
        if vcpu in plan.vcpupin:
            yield _thread(sysfs, f"vcpu {vcpu}", threads.vcpus.get(vcpu), plan.vcpupin[vcpu])
        elif vcpu not in plan.vcpus:
            yield evolve(_thread(sysfs, f"vcpu {vcpu}", threads.vcpus[vcpu], NO_CPUS), note=PLUGGED)
    for number, cpus in sorted(plan.iothreadpin.items()):
        yield _thread(sysfs, f"iothread {number}", threads.iothreads.get(number), cpus)
    if plan.emulatorpin:
        yield _thread(sysfs, "emulator", claim.pid, plan.emulatorpin)
    for number, tid in enumerate(threads.vhost):
        if cpus := plan.worker_cpus(number):
            yield _thread(sysfs, f"vhost worker {number}", tid, cpus)


def _thread(sysfs: Sysfs, subject: str, tid: int | None, cpus: Cpus) -> Row:
    planned = cpuset.format(cpus)
    try:
        real = processes.affinity(sysfs, tid) if tid else None
    except TunerError:
        real = None
    if real is None:
        return Row(subject, planned, "no such thread", ok=False)
    return _compared(subject, planned, cpuset.format(real))


def _compared(subject: str, planned: str, real: str, note: str = "") -> Row:
    """Return a row. Its ``note`` says why the values differ."""
    same = planned == real
    return Row(subject, planned, real, ok=same, note="" if same else note)


def _changes(sysfs: Sysfs, book: Book, uuid: str) -> Iterator[Row]:
    for entry in book.changes.values():
        if uuid not in entry.holders:
            continue
        try:
            real = changes.current(sysfs, changes.Change(entry.kind, entry.target, entry.wanted))
        except TunerError as err:
            real = str(err)
        row = _compared(f"{entry.kind} {entry.target}", entry.wanted, real)
        yield evolve(row, irq=int(entry.target)) if entry.kind == "irq" else row


def _masks(sysfs: Sysfs, vcpus: Cpus) -> Iterator[Row]:
    """Yield RPS masks that send packets to the domain's vCPUs. They are not part of the plan."""
    for name in sysfs.listdir_or_empty(NET) if vcpus else ():
        if not nics.is_hardware(sysfs, name):
            continue
        masks = queue_masks.aimed(nics.queue_masks(sysfs, name), vcpus)
        hit = [mask for mask in masks if mask.queue.startswith("rx-")]
        if hit:
            cpus = cpuset.format(NO_CPUS.union(*(mask.cpus for mask in hit)) & vcpus)
            queues = queue_masks.queues(hit)
            note = f'packets of {queues} go to these vCPUs; rps = "steer" in the policy removes them'
            yield Row(f"rps {name}", "", cpus, ok=True, note=note)


def _waiting(live: DomainSpec, defined: DomainSpec | None) -> Iterator[Row]:
    """Yield settings of the definition that the running domain does not have."""
    if defined is None:
        return
    later = {vnic.mac: vnic for vnic in defined.vnics}
    for now in live.vnics:
        then = later.get(now.mac, now)
        for name in (*driver.ATTRIBUTES, "mtu"):
            real, planned = getattr(now, name), getattr(then, name)
            if planned is not None and real != planned:
                subject = f"{name} of vNIC {now.index}"
                yield Row(subject, str(planned), str(real or "default"), ok=False, note=LATER)
