"""``<vcpupin>``: which CPUs each vCPU may run on (docs/formatdomain.rst, "CPU Tuning")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libvirt_tuner.domainxml import spec as domainxml
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def vcpupin(pins: Mapping[int, Iterable[int] | None] | None) -> Transform:
    """Pin vCPUs; those not named are left as they are.

    Args:
        pins: vCPU id to CPUs; None for a vCPU takes its pin out, None for all takes every pin out.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383.
    """
    normal = _pins.normal(pins, "vcpupin of vCPU")
    return Transform("vcpupin", (normal,), True, _pins.described(normal, "vcpupin"), STORE, _wanted)


def _wanted(root: Element, pins: _pins.Pins | None) -> dict[str, str | None]:
    if pins is None:
        return dict.fromkeys(STORE.read(root))
    vcpus = frozenset(range(domainxml.vcpu_count(root)))
    _pins.check((vcpu for vcpu, _ in pins), vcpus, "/domain/vcpu", "vCPU")
    return {str(vcpu): cpus for vcpu, cpus in pins}


STORE = _pins.numbered("vcpupin", "vcpu")
