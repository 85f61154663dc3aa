"""A picture in the types of JSON (docs/json.md), and as Misc objects for hwloc's lstopo. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.errors import printable
from libvirt_tuner.picture.host import WORDS, CacheBox, NodeBox, Picture, Seat, Tenant


def to_dict(picture: Picture) -> dict[str, object]:
    """Nodes, L3s, cores and CPUs, one in the other, and who is on no CPU of its own."""
    return {
        "nodes": [_node(node) for node in picture.nodes],
        "floating": [_tenant(tenant) for tenant in picture.floating],
        "offline": cpuset.format(picture.offline),
    }


def _node(node: NodeBox) -> dict[str, object]:
    cell = node.cell
    return {
        "node": cell.id,
        "cpus": cpuset.format(cell.cpus),
        "memory_kib": cell.memory_kib,
        "free_kib": cell.free_kib,
        "nics": [{"nic": nic.name, "driver": nic.driver, "speed": nic.speed} for nic in node.nics],
        "l3s": [_cache(cache) for cache in node.caches],
    }


def _cache(cache: CacheBox) -> dict[str, object]:
    return {
        "first": cache.first if cache.first >= 0 else None,
        "cores": [[_seat(seat) for seat in core.seats] for core in cache.cores],
    }


def _seat(seat: Seat) -> dict[str, object]:
    return {
        "cpu": seat.cpu,
        "is": seat.sort,
        "marks": list(seat.marks),
        "tenants": [_tenant(tenant) for tenant in seat.tenants],
    }


def _tenant(tenant: Tenant) -> dict[str, object]:
    return {
        "kind": tenant.kind,
        "number": tenant.number if tenant.number >= 0 else None,
        "of": tenant.of,
        "cpus": cpuset.format(tenant.cpus),
        "note": tenant.note,
    }


def lstopo(picture: Picture) -> Iterator[str]:
    """Lines for ``lstopo --misc-from FILE``: threads and interrupts, each as a Misc object at its CPUs.

    hwloc's lstopo(1), ``--misc-from``: ``name=``, ``cpuset=`` (hwloc's form: 32-bit words) and ``subtype=``,
    an empty line after each. lstopo of hwloc 2.10 and later draws them.
    """
    seen = set()
    for seat in picture.seats:
        for tenant in seat.tenants:
            if tenant in seen:
                continue
            seen.add(tenant)
            words = cpuset.format_mask(tenant.cpus).split(",")
            yield f"name={WORDS[tenant.kind]} {_number(tenant)}{printable(tenant.of)}"
            yield f"cpuset={','.join(f'0x{word}' for word in words)}"
            yield f"subtype={WORDS[tenant.kind]}"
            yield ""


def _number(tenant: Tenant) -> str:
    return f"{tenant.number} of " if tenant.number >= 0 else "of "
