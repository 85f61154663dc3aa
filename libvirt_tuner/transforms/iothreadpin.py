"""``<iothreadpin>``: which CPUs each iothread may run on (docs/formatdomain.rst, "CPU Tuning")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libvirt_tuner.domainxml import parts
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def iothreadpin(pins: Mapping[int, Iterable[int] | None] | None) -> Transform:
    """Pin iothreads; others are not changed.

    Args:
        pins: iothread id to CPUs. None for an iothread removes its pin, None for all removes every pin.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383. On a document: :class:`MissingDeviceError` if it
            has no such iothread.
    """
    return _pins.numbered(STORE, pins, on_arrival=True)


def _iothreads(root: Element) -> frozenset[int]:
    return frozenset(parts.iothreads(root))


STORE = _pins.PinStore("iothreadpin", "iothread", _iothreads, "iothread", "/domain/iothreads")
