"""``<vcpupin>``: which CPUs each vCPU may run on (docs/formatdomain.rst, "CPU Tuning")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libvirt_tuner.domainxml import parts
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def vcpupin(pins: Mapping[int, Iterable[int] | None] | None) -> Transform:
    """Pin vCPUs; others are not changed.

    Args:
        pins: vCPU id to CPUs. None for a vCPU removes its pin, None for all removes every pin.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383. On a document: :class:`MissingDeviceError` if it
            has no such vCPU.
    """
    return _pins.numbered(STORE, pins, on_arrival=True)


def _vcpus(root: Element) -> frozenset[int]:
    return frozenset(range(parts.vcpu_count(root)))


STORE = _pins.PinStore("vcpupin", "vcpu", _vcpus, "vCPU", "/domain/vcpu")
