"""Folds neighbouring cores that look the same into one, like hwloc's lstopo. Pure.

With two pictures of a host (now, and with a plan), the folded cores look the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.picture.host import CacheBox, CoreBox, NodeBox, Picture, Seat, labels

UNFOLDED = 64
"""A host of at most so many CPUs is drawn core by core."""


@frozen
class Cell:
    """Cores drawn as one; a tuple of them for each picture, with the same CPUs."""

    sides: tuple[tuple[CoreBox, ...], ...]

    @property
    def cores(self) -> int:
        """How many."""
        return len(self.sides[0])

    @property
    def ids(self) -> str:
        """``0+64``: CPU 0 and its sibling; ``0-31+64-95``: so many cores."""
        return "+".join(cpuset.format(seat.cpu for seat in thread) for thread in self.threads(0))

    def threads(self, side: int) -> list[tuple[Seat, ...]]:
        """The first siblings of all its cores, then the second ones."""
        return list(zip(*(core.seats for core in self.sides[side]), strict=True))

    def says(self, side: int) -> str:
        """The tenants: separated by a bar for each sibling, or once if all siblings have the same."""
        said = [", ".join(labels(thread)) for thread in self.threads(side)]
        return said[0] if len(set(said)) == 1 else " | ".join(said)

    @property
    def changed(self) -> bool:
        """Whether the pictures differ here."""
        return any(side != self.sides[0] for side in self.sides)


@frozen
class Cache:
    """L3s drawn as one: their first CPUs (empty where the kernel names no L3)."""

    firsts: tuple[int, ...]
    cells: tuple[Cell, ...]

    @property
    def says(self) -> str:
        """``L3 of CPU 0``; "" where there is none."""
        if not self.firsts:
            return ""
        several = f"{len(self.firsts)} L3s, from CPUs" if len(self.firsts) > 1 else "L3 from CPU"
        return f"{several} {cpuset.format(self.firsts)}"


@frozen
class Node:
    """A NUMA node, in each picture, and what is in it."""

    sides: tuple[NodeBox, ...]
    caches: tuple[Cache, ...]


def folds(picture: Picture) -> bool:
    """Whether it has more CPUs than are drawn core by core."""
    return sum(1 for _ in picture.seats) > UNFOLDED


def nodes(pictures: Sequence[Picture], *, fold: bool) -> Iterator[Node]:
    """The nodes of pictures of one host, with their cells.

    Args:
        pictures: One, or several of the same host.
        fold: Draw neighbours that look the same as one.
    """
    for sides in zip(*(picture.nodes for picture in pictures), strict=True):
        caches = list(zip(*(node.caches for node in sides), strict=True))
        # L3s of which each is the same all through are drawn as one.
        groups = groupby(enumerate(caches), lambda one: (fold and _uniform(one[1])) or one[0])
        merged = ([cache for _, cache in group] for _, group in groups)
        yield Node(sides, tuple(_cache(group, fold=fold) for group in merged))


def _uniform(caches: tuple[CacheBox, ...]) -> object:
    """What every core of an L3 looks like; None where they differ."""
    looks = set(zip(*([core.like for core in cache.cores] for cache in caches), strict=True))
    return looks.pop() if len(looks) == 1 else None


def _cache(group: Sequence[tuple[CacheBox, ...]], *, fold: bool) -> Cache:
    firsts = tuple(caches[0].first for caches in group if caches[0].first >= 0)
    cores = [core for caches in group for core in zip(*(cache.cores for cache in caches), strict=True)]
    if not fold:
        return Cache(firsts, tuple(Cell(tuple((core,) for core in sides)) for sides in cores))
    runs = groupby(cores, lambda sides: tuple(core.like for core in sides))
    return Cache(firsts, tuple(Cell(tuple(zip(*run, strict=True))) for _, run in runs))
