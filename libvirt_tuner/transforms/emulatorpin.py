"""``<emulatorpin>``: where QEMU's own threads, and the vhost workers with them, may run.

docs/formatdomain.rst, "CPU Tuning". A vhost worker takes over the affinity at start.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Store, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

KEY = "emulator"


def emulatorpin(cpus: Iterable[int] | None) -> Transform:
    """Pin the emulator to these CPUs; None takes the pin out.

    Raises:
        CpusetError: An empty set, or an id outside 0..16383.
    """
    listed = _pins.cpulist(cpus, "emulatorpin")
    text = f"emulatorpin: {listed}" if listed else "take emulatorpin out"
    return Transform("emulatorpin", (listed,), True, text, STORE, _wanted)


def read(root: Element) -> dict[str, str]:
    """``emulator`` to cpuset, as it stands there."""
    element = xmlread.find(root, "cputune", "emulatorpin")
    return {} if element is None else {KEY: element.get("cpuset", "")}


def write(root: Element, key: str, value: str | None) -> None:
    """Set the pin; None takes it out."""
    element = xmlread.find(root, "cputune", "emulatorpin")
    if value is None:
        if element is not None:
            xmledit.discard(element)
    elif element is not None:
        element.set("cpuset", value)
    else:
        xmledit.insert(xmledit.ensure(root, "cputune"), etree.Element("emulatorpin", {"cpuset": value}))


def _wanted(root: Element, cpus: str | None) -> dict[str, str | None]:
    return {KEY: cpus}


STORE = Store(read, write, same=_pins.same)
