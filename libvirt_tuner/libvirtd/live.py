"""Changes of a running domain through libvirt: pins and memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import DomainSpec, read_spec
from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.libvirtd.connection import Connection, Domain
from libvirt_tuner.planning.plan import Placement
from libvirt_tuner.topology import Cpus


def pin(conn: Connection, domain: Domain, placement: Placement) -> None:
    """Pin the threads of the running domain that are not pinned as planned.

    Raises:
        ConnectionFailed: The last pin that libvirt refused. The others are in force.
    """
    failed = None
    for call in pins(conn, domain, _live(conn, domain), placement):
        try:
            call()
        except ConnectionFailed as error:
            if error.try_again:
                raise
            failed = error
    if failed:
        raise failed


def pins(conn: Connection, domain: Domain, spec: DomainSpec, placement: Placement) -> Iterator[partial[None]]:
    """Yield the calls that give a running domain with ``spec`` the pins of ``placement``."""
    for vcpu, cpus in sorted(placement.vcpupin.items()):
        if spec.vcpupin.get(vcpu) != cpus:
            yield partial(conn.pin_vcpu, domain, vcpu, cpus)
    if placement.emulatorpin and placement.emulatorpin != spec.emulatorpin:
        yield partial(conn.pin_emulator, domain, placement.emulatorpin)
    for iothread, cpus in sorted(placement.iothreadpin.items()):
        if spec.iothreadpin.get(iothread) != cpus:
            yield partial(conn.pin_iothread, domain, iothread, cpus)


def unpin(conn: Connection, domain: Domain, placement: Placement, online: Cpus) -> None:
    """Let every thread that is pinned as in ``placement`` run on all CPUs of the host again.

    Pins that somebody changed since then stay. A ``<vcpu cpuset=...>`` is used for vCPUs.

    Raises:
        ConnectionFailed: libvirt refused one pin. Later ones were not tried.
    """
    spec = _live(conn, domain)
    for vcpu, cpus in sorted(placement.vcpupin.items()):
        if spec.vcpupin.get(vcpu) == cpus:
            conn.pin_vcpu(domain, vcpu, spec.cpuset or online)
    if placement.emulatorpin and placement.emulatorpin == spec.emulatorpin:
        conn.pin_emulator(domain, online)
    for iothread, cpus in sorted(placement.iothreadpin.items()):
        if spec.iothreadpin.get(iothread) == cpus:
            conn.pin_iothread(domain, iothread, online)


def bind_memory(conn: Connection, domain: Domain, placement: Placement) -> str:
    """Bind the memory live if libvirt can. Otherwise it is bound at the next start by the definition.

    libvirt cannot change the mode of a running domain, and only moves ``strict`` memory.

    Returns:
        What could not be done, and why; "" if the memory is bound as planned.
    """
    now = _live(conn, domain).numatune
    if placement.numatune is None or placement.numatune == now.memory:
        return ""
    mode, nodeset = placement.numatune
    why = "libvirt cannot change the mode of a running domain"
    if mode == "strict" == (now.mode or mode) and not (placement.memnodes or now.memnodes):
        try:
            conn.set_nodeset(domain, nodeset)
            return ""
        except ConnectionFailed as error:
            why = str(error)
    when = "is bound at the next start" if domain.persistent else "stays where it is"
    return f"memory {mode} on node {cpuset.format(nodeset)} {when}: {why}"


def _live(conn: Connection, domain: Domain) -> DomainSpec:
    return read_spec(document.parse(conn.xml(domain)))
