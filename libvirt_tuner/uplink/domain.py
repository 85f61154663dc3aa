"""Uplinks of a domain's devices: its vNICs and passed-through PCI functions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from libvirt_tuner.topology import HostTopology
from libvirt_tuner.uplink.path import Path, devices_of, nic_of, trace, trace_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.domainxml.spec import DomainSpec

_NETWORK_CLASS = 0x02


class DevicePath(NamedTuple):
    """One device of a domain and where it leads.

    Attributes:
        subject: For people: ``vNIC 0``, ``hostdev 0000:81:02.0``.
        path: From the device down.
        node: NUMA node of the hardware; None if unknown.
        passed_through: Whether the guest has the PCI function itself.
        network: Whether it carries network traffic; False for a GPU, a disk controller...
        speed: Mbit/s of the hardware, the sum of active functions; 0 if unknown.
        queues: Queue pairs of a vNIC; 1 for a passed-through function.
        vnic: Index of the interface, None for a ``<hostdev>``.
    """

    subject: str
    path: Path
    node: int | None
    passed_through: bool = False
    network: bool = True
    speed: int = 0
    queues: int = 1
    vnic: int | None = None


def devices(spec: DomainSpec, uplink: str = "") -> tuple[str, ...]:
    """Return names of host devices to read for a domain: the first devices of its paths, and the policy's
    uplink."""
    named = [name for vnic in spec.vnics for name in devices_of(vnic)]
    named += [*spec.hostdevs, *([uplink] if uplink else [])]
    return tuple(dict.fromkeys(named))


def device_paths(spec: DomainSpec, host: HostTopology, uplink: str = "") -> tuple[DevicePath, ...]:
    """Return every device of a domain that should lead to hardware: vNICs first, in document order.

    Args:
        spec: The domain.
        host: Read with :func:`devices`.
        uplink: The policy's uplink, at which the vNICs' paths end.
    """
    found = []
    for vnic in spec.vnics:
        path = trace_to(vnic, uplink, host)
        passed = vnic.type == "hostdev" or _is_function(path, host)
        found.append(_device(f"vNIC {vnic.index}", path, host, passed, vnic.queues or 1, vnic.index))
    for address in spec.hostdevs:
        found.append(_device(f"hostdev {address}", trace(address, host), host, passed=True))
    return tuple(found)


def by_weight(found: Iterable[DevicePath]) -> list[DevicePath]:
    """Sort by importance: passed-through functions, faster links, more queues."""
    return sorted(found, key=lambda one: (not one.passed_through, not one.network, -one.speed, -one.queues))


def _device(
    subject: str, path: Path, host: HostTopology, passed: bool, queues: int = 1, vnic: int | None = None
) -> DevicePath:
    nics = [nic for name in path.active if (nic := nic_of(name, host))]
    return DevicePath(
        subject,
        path,
        node=path.node(host),
        passed_through=passed,
        network=vnic is not None or any(nic.device_class >> 16 == _NETWORK_CLASS for nic in nics),
        speed=sum(nic.speed for nic in nics),
        queues=queues,
        vnic=vnic,
    )


def _is_function(path: Path, host: HostTopology) -> bool:
    """Return whether a libvirt network gives the guest a whole function."""
    first = host.links.get(path.steps[0]) if path.steps else None
    return first is not None and first.kind == "network" and first.attach == "hostdev"
