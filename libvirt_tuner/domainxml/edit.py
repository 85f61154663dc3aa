"""Edits elements in libvirt's order and indentation, so that remove(insert(x)) is x byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from libvirt_tuner.domainxml.metadata import RECORD_NS
from libvirt_tuner.domainxml.read import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"

# virDomainDefFormatInternalSetRootName, virDomainCputuneDefFormat, virDomainNumatuneFormatXML,
# virDomainNetDefFormat (src/conf/domain_conf.c, numa_conf.c) and qemuDomainDefNamespaceFormatXML.
_ORDER = {
    "domain": (
        "name uuid genid title description metadata maxMemory memory currentMemory blkiotune "
        "memtune memoryBacking vcpu vcpus iothreads iothreadids defaultiothread cputune numatune "
        "resource sysinfo bootloader bootloader_args os idmap features cpu clock on_poweroff "
        "on_reboot on_crash on_lockfailure pm perf devices seclabel keywrap launchSecurity "
        f"{{{QEMU_NS}}}commandline {{{QEMU_NS}}}capabilities {{{QEMU_NS}}}deprecation {{{QEMU_NS}}}override"
    ),
    "cputune": (
        "shares period quota global_period global_quota emulator_period emulator_quota "
        "iothread_period iothread_quota vcpupin emulatorpin iothreadpin vcpusched iothreadsched "
        "emulatorsched cachetune memorytune"
    ),
    "numatune": ("memory memnode"),
    "interface": (
        "mac source virtualport bandwidth vlan port backend ip route portForward script downscript "
        "backenddomain target guest model driver filterref boot tune link mtu coalesce teaming acpi "
        "alias address"
    ),
    "driver": (
        "name txmode ioeventfd event_idx queues rx_queue_size tx_queue_size iommu ats packed "
        "page_per_vq rss rss_hash_report"
    ),
    "memory": ("mode nodeset placement"),
}
_RANKS = {tag: {name: rank for rank, name in enumerate(order.split())} for tag, order in _ORDER.items()}
_IDS = {"vcpupin": "vcpu", "iothreadpin": "iothread", "memnode": "cellid"}


def insert(parent: Element, element: Element) -> Element:
    """Insert the element into the parent, in libvirt's order, with the indentation of its neighbours.

    A tag that is not in libvirt's order goes to the end.
    """
    insert_all(parent, [element])
    return element


def insert_all(parent: Element, elements: Iterable[Element]) -> None:
    """Like :func:`insert`, for several elements in one pass. They must be in libvirt's order."""
    waiting = list(elements)
    ranks = _RANKS.get(str(parent.tag), {})
    indent = _child_indent(parent)
    comment: Element | None = None
    rank = _rank(waiting[-1], ranks) if waiting else None
    for other in parent.iterchildren(reversed=True):
        other_rank = _rank(other, ranks)
        comment = other if other.tag is etree.Comment else None  # type: ignore[comparison-overlap]
        while waiting and (rank is None or (other_rank is not None and other_rank <= rank)):
            _put_after(other, waiting.pop(), indent)
            rank = _rank(waiting[-1], ranks) if waiting else None
        if not waiting:
            return
    while waiting and comment is not None:
        # A comment at the beginning of a container describes it, so new elements come after it.
        _put_after(comment, waiting.pop(), indent)
    while waiting:
        element = waiting.pop()
        if _is_text(parent.text):
            element.tail = None
            parent.insert(0, element)
            continue
        element.tail = parent.text if parent.text or has_children(parent) else _own_indent(parent)
        parent.insert(0, element)
        parent.text = indent


def _put_after(other: Element, element: Element, indent: str | None) -> None:
    if _is_text(other.tail):
        # libvirt ignores text between elements. It stays where it is, a CDATA section too.
        element.tail, following, parent = None, other.getnext(), other.getparent()
        if following is not None:
            following.addprevious(element)
        elif parent is not None:
            parent.append(element)
        return
    # ``insert`` at an index would count the children. Without tails, all versions of lxml behave alike.
    tail, other.tail, element.tail = other.tail, None, None
    other.addnext(element)
    other.tail, element.tail = indent, tail


def remove(element: Element) -> None:
    """Remove the element and the white space of :func:`insert`. The parent stays."""
    parent, previous, tail = element.getparent(), element.getprevious(), element.tail
    if parent is None:
        return
    before = parent.text if previous is None else previous.tail
    parent.remove(element)
    if _is_text(before) and not _is_text(tail):
        return
    if _is_text(before):
        tail = f"{before}{tail}"
    if previous is not None:
        previous.tail = tail
    else:
        parent.text = tail if has_children(parent) or (tail and tail.strip()) else None


def _is_text(space: str | None) -> bool:
    return bool(space and space.strip())


def discard(element: Element) -> None:
    """Like :func:`remove`, and also remove parents that become empty (up to the domain)."""
    parent = element.getparent()
    remove(element)
    while parent is not None and is_bare(parent) and parent.tag not in ("domain", "devices", "interface"):
        above = parent.getparent()
        remove(parent)
        parent = above


def is_bare(element: Element) -> bool:
    """Whether the element has no children, attributes or text."""
    return not has_children(element) and not element.attrib and not (element.text or "").strip()


def has_children(element: Element) -> bool:
    """Return whether it has children. ``len`` would count all of them."""
    return next(element.iterchildren(), None) is not None


def ensure(parent: Element, tag: str) -> Element:
    """Return the child with that tag. Create it in libvirt's order if it is missing."""
    found = child(parent, tag)
    return insert(parent, new(tag)) if found is None else found


_PREFIXES = {QEMU_NS: {"qemu": QEMU_NS}, RECORD_NS: {"tuner": RECORD_NS}}


def new(tag: str, **attributes: str) -> Element:
    """Create an element, with the usual prefix if its namespace is libvirt's QEMU namespace or ours."""
    namespace = tag[1:].partition("}")[0] if tag.startswith("{") else ""
    return etree.Element(tag, attributes, nsmap=_PREFIXES.get(namespace))


def set_attribute(element: Element, name: str, value: str | None) -> None:
    """Set the attribute at its place in libvirt's order. None removes it."""
    if value is None:
        if name in element.attrib:
            del element.attrib[name]
        return
    ranks = _RANKS.get(str(element.tag), {})
    if name in element.attrib or name not in ranks:
        element.set(name, value)
        return
    later = [(other, old) for other, old in element.items() if ranks.get(str(other), 0) > ranks[name]]
    for other, _ in later:
        del element.attrib[other]
    element.set(name, value)
    for other, other_value in later:
        element.set(other, other_value)


def _rank(element: Element, ranks: Mapping[str, int]) -> tuple[int, int] | None:
    tag = element.tag
    rank = ranks.get(tag) if isinstance(tag, str) else None
    if rank is None:
        return None
    key = _IDS.get(str(tag))
    identifier = element.get(key, "") if key else ""
    return rank, int(identifier) if identifier.isdecimal() and len(identifier) <= 9 else 0


def _child_indent(parent: Element) -> str | None:
    """White space before a child; None in a document written without line breaks."""
    space = parent.text or ""
    if "\n" in space and has_children(parent) and not space.strip():
        return "\n" + space.rpartition("\n")[2]
    own = _own_indent(parent)
    return own and own + "  "


def _own_indent(element: Element) -> str | None:
    above = element.getparent()
    if above is None:
        return "\n" if "\n" in (element.text or "") else None
    previous = element.getprevious()
    space = (above.text if previous is None else previous.tail) or ""
    if "\n" not in space:
        return None
    return "\n" + space[len(space.rstrip()) :].rpartition("\n")[2]
