"""``<iothreadpin>``: which CPUs each iothread may run on (docs/formatdomain.rst, "CPU Tuning")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libvirt_tuner.domainxml import spec as domainxml
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def iothreadpin(pins: Mapping[int, Iterable[int] | None] | None) -> Transform:
    """Pin iothreads; those not named are left as they are.

    Args:
        pins: iothread id to CPUs; None for an iothread takes its pin out, None for all takes every pin out.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383.
    """
    normal = _pins.normal(pins, "iothreadpin of iothread")
    return Transform("iothreadpin", (normal,), True, _pins.described(normal, "iothreadpin"), STORE, _wanted)


def _wanted(root: Element, pins: _pins.Pins | None) -> dict[str, str | None]:
    if pins is None:
        return dict.fromkeys(STORE.read(root))
    known = frozenset(domainxml.iothreads(root))
    _pins.check((iothread for iothread, _ in pins), known, "/domain/iothreads", "iothread")
    return {str(iothread): cpus for iothread, cpus in pins}


STORE = _pins.numbered("iothreadpin", "iothread")
