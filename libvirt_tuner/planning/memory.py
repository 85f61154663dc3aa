"""Checks from which nodes a domain's memory can come. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.topology import Binding, HostTopology, NumaCell

OVERHEAD_KIB = 256 * 1024
"""QEMU's memory in addition to the guest's. libvirt documents no exact figure; this is a safe value."""


def by_distance(host: HostTopology, node: int) -> list[NumaCell]:
    """Return all cells, nearest to ``node`` first, then by id."""
    origin = host.cell(node)
    distances = origin.distances if origin else {}
    return sorted(host.cells, key=lambda cell: (cell.id != node, distances.get(cell.id, 255), cell.id))


def demand_kib(need_kib: int, hugepage_kib: int | None) -> int:
    """Return the memory that a domain of this size takes from a node."""
    return need_kib + (OVERHEAD_KIB if hugepage_kib is None else 0)


def fits(cell: NumaCell, need_kib: int, hugepage_kib: int | None, bound_kib: int = 0) -> bool:
    """Return whether ``cell`` has ``need_kib``.

    Args:
        cell: The node.
        need_kib: The domain's memory.
        hugepage_kib: Page size; None: ordinary, 0: the default huge page.
        bound_kib: Memory that other domains bind there, used or not (:func:`bound`).
    """
    return available_kib(cell, hugepage_kib, bound_kib) >= demand_kib(need_kib, hugepage_kib)


def bound(held: Mapping[tuple[int, int | None], int], node: int, hugepage_kib: int | None) -> int:
    """KiB of :attr:`libvirt_tuner.planning.plan.Reserved.memory` that come out of such pages of a node."""
    return sum(kib for (at, size), kib in held.items() if at == node and _same_pages(size, hugepage_kib))


def bound_by(
    spec: DomainSpec, whole: Binding | None, memnodes: Mapping[int, Binding]
) -> dict[tuple[int, int | None], int]:
    """Return node and page size to KiB, for a domain's memory that must come from one node.

    Args:
        spec: The domain.
        whole: How all of its memory is bound.
        memnodes: The same for each guest cell, which counts instead.
    """
    parts = [
        (memnodes[cell.id], cell.hugepage_kib, cell.memory_kib) for cell in spec.cells if cell.id in memnodes
    ]
    if not memnodes and whole is not None:
        parts = [(whole, page, kib) for page, kib in spec.memory_by_page.items()]
    held: dict[tuple[int, int | None], int] = {}
    for (mode, nodes), page, kib in parts:
        if mode in ("strict", "preferred") and len(nodes) == 1:
            held[min(nodes), page] = held.get((min(nodes), page), 0) + kib
    return {(node, page): demand_kib(kib, page) for (node, page), kib in held.items()}


def _same_pages(one: int | None, other: int | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or 0 in (one, other)


def available_kib(cell: NumaCell, hugepage_kib: int | None, bound_kib: int = 0) -> int:
    """Return free and unbound memory of ``cell`` in pages of this size; below 0 if overcommitted."""
    if hugepage_kib is None:
        pages = sum(pool.total * pool.size_kib for pool in cell.hugepages)
        return min(cell.free_kib, cell.memory_kib - pages - bound_kib) if bound_kib else cell.free_kib
    pools = [pool for pool in cell.hugepages if hugepage_kib in (0, pool.size_kib)]
    if hugepage_kib == 0:
        pools = [pool for pool in pools if pool.default] or [pool for pool in pools if pool.total][:1]
    free = sum(pool.free * pool.size_kib for pool in pools)
    return min(free, sum(pool.total * pool.size_kib for pool in pools) - bound_kib)


def shortage(cell: NumaCell, need_kib: int, hugepage_kib: int | None, bound_kib: int = 0) -> str:
    """Return why ``cell`` has too little memory, for people."""
    kind = "" if hugepage_kib is None else " in huge pages"
    free = max(0, available_kib(cell, hugepage_kib, bound_kib)) // 1024
    others = f" ({bound_kib // 1024} MiB are bound for other domains)" if bound_kib else ""
    return f"node {cell.id} has {free} MiB free{kind}{others}, {need_kib // 1024} MiB needed"
