"""``<emulatorpin>``: which CPUs QEMU's own threads and the vhost workers may run on.

docs/formatdomain.rst, "CPU Tuning". A vhost worker gets the same affinity when it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from libvirt_tuner.domainxml import edit, read
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Fits, Stateless, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

KEY = "emulator"


def emulatorpin(cpus: Iterable[int] | None) -> Transform:
    """Pin the emulator to these CPUs. None removes the pin.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383.
    """
    listed = _pins.cpulist(cpus, "emulatorpin")
    text = f"emulatorpin: {listed}" if listed else "remove emulatorpin"
    return Transform("emulatorpin", (listed,), True, text, STORE, _wanted)


class _Store(Stateless):
    """``emulator`` to cpuset."""

    def read(self, root: Element) -> dict[str, str]:
        element = read.find(root, "cputune", "emulatorpin")
        return {} if element is None else {KEY: element.get("cpuset", "")}

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        if KEY not in settings:
            return
        element, value = read.find(root, "cputune", "emulatorpin"), settings[KEY]
        if value is None:
            if element is not None:
                edit.discard(element)
        elif element is not None:
            element.set("cpuset", value)
        else:
            edit.insert(edit.ensure(root, "cputune"), etree.Element("emulatorpin", {"cpuset": value}))

    def same(self, one: str, other: str) -> bool:
        return _pins.same(one, other)

    def fits(self, root: Element) -> Fits:
        return lambda key, value: key == KEY and _pins.is_cpulist(value)

    def containers(self, root: Element) -> dict[str, Element]:
        found = read.child(root, "cputune")
        return {} if found is None else {"cputune": found}


def _wanted(root: Element, cpus: str | None) -> dict[str, str | None]:
    return {KEY: cpus}


STORE = _Store()
