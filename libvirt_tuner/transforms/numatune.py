"""``<numatune>``: which host nodes the guest's memory comes from (docs/formatdomain.rst)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.domainxml import spec as domainxml
from libvirt_tuner.errors import CpusetError, DomainXmlError
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Store, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MODES = ("strict", "preferred", "interleave", "restrictive")
MEMORY = "memory"


def numatune(
    nodeset: Iterable[int] | None,
    *,
    mode: str = "strict",
    memnodes: Mapping[int, tuple[Iterable[int], str] | None] | None = None,
) -> Transform:
    """Place the domain's memory; cells that ``memnodes`` does not name are left as they are.

    Args:
        nodeset: Host nodes; None takes ``<numatune>``'s settings out, those of the cells too.
        mode: ``strict``, ``preferred``, ``interleave`` or ``restrictive``.
        memnodes: Guest cell to ``(host nodes, mode)``; None for a cell takes its setting out.

    Raises:
        DomainXmlError: An unknown mode, ``restrictive`` mixed with another (libvirt refuses it), or cells
            with nothing for the domain.
        CpusetError: An empty set, or an id outside 0..16383.
    """
    if nodeset is None:
        if memnodes:
            raise DomainXmlError(
                "memnodes need a nodeset", where="numatune", expected="a nodeset for the domain"
            )
        return Transform("numatune", (None, ()), True, "take numatune out", STORE, _wanted)
    memory = _value(nodeset, mode, "numatune")
    cells = tuple(
        (cell, None if choice is None else _value(*choice, f"numatune of cell {cell}"))
        for cell, choice in sorted((memnodes or {}).items())
    )
    restrictive = {value.startswith("restrictive") for _, value in (*cells, (0, memory)) if value}
    if len(restrictive) > 1:
        raise DomainXmlError(
            "restrictive and another mode",
            where="numatune",
            expected="restrictive for all of them or for none",
        )
    text = f"numatune: {memory}" + "".join(
        f", cell {cell}: {value or 'as the domain'}" for cell, value in cells
    )
    return Transform("numatune", (memory, cells), True, text, STORE, _wanted)


def read(root: Element) -> dict[str, str]:
    """``memory`` and ``memnode=CELL`` to ``MODE NODESET``, or to every attribute where there are others."""
    found = xmlread.child(root, "numatune")
    if found is None:
        return {}
    settings = {str(memory.tag): _spelled(memory) for memory in found.iterchildren("memory")}
    cells = {f"memnode={node.get('cellid')}": _spelled(node) for node in found.iterchildren("memnode")}
    return settings | cells


def write(root: Element, key: str, value: str | None) -> None:
    """Set one of them to what :func:`read` gave or ``MODE NODESET``; None takes it out.

    Raises:
        DomainXmlError: Neither; the record that these come from is in metadata, which is anyone's to write.
    """
    tag, _, cell = key.partition("=")
    if tag not in (MEMORY, "memnode"):
        raise DomainXmlError(
            "not a setting", where="/domain/numatune", value=key, expected="memory, memnode=ID"
        )
    group = xmlread.child(root, "numatune")
    same_tag = () if group is None else group.iterchildren(tag)
    found = next((element for element in same_tag if element.get("cellid", "") == cell), None)
    if value is None:
        if found is not None:
            xmledit.discard(found)
        return
    if found is None:
        found = etree.Element(tag, {"cellid": cell} if cell else {})
        xmledit.insert(xmledit.ensure(root, "numatune"), found)
    _set_attributes(found, _attributes(value))


def _wanted(
    root: Element, memory: str | None, cells: tuple[tuple[int, str | None], ...]
) -> dict[str, str | None]:
    if memory is None:
        return dict.fromkeys(read(root))
    known = frozenset(domainxml.cell_ids(root)) if cells else frozenset()
    _pins.check((cell for cell, _ in cells), known, "/domain/cpu/numa", "NUMA cell")
    return {MEMORY: memory} | {f"memnode={cell}": value for cell, value in cells}


def _value(nodes: Iterable[int], mode: str, where: str) -> str:
    if mode not in MODES:
        raise DomainXmlError("unknown mode", where=where, value=mode, expected=", ".join(MODES))
    return f"{mode} {_pins.cpulist(nodes, where)}"


def _spelled(element: Element) -> str:
    items = [(str(name), str(value)) for name, value in element.items() if name != "cellid"]
    if [name for name, _ in items] == ["mode", "nodeset"]:
        return f"{items[0][1]} {items[1][1]}"
    return ";".join(f"{name}={value}" for name, value in items)


def _attributes(value: str) -> dict[str, str]:
    if "=" in value:
        return dict(item.partition("=")[::2] for item in value.split(";"))
    mode, _, nodeset = value.partition(" ")
    return {"mode": mode, "nodeset": nodeset}


def _set_attributes(element: Element, wanted: dict[str, str]) -> None:
    if not all(name.isidentifier() for name in wanted):
        raise DomainXmlError("not attributes", where="/domain/numatune", value=sorted(wanted))
    for name in {*element.attrib} - {"cellid", *wanted}:
        del element.attrib[name]
    for name, value in wanted.items():
        element.set(name, value)


def _same(one: str, other: str) -> bool:
    first, second = _attributes(one), _attributes(other)
    try:
        return (
            first.get("mode", "strict") == second.get("mode", "strict")
            and first.get("placement", "static") == second.get("placement", "static")
            and cpuset.parse(first.get("nodeset", "")) == cpuset.parse(second.get("nodeset", ""))
        )
    except CpusetError:
        return False


STORE = Store(read, write, same=_same)
