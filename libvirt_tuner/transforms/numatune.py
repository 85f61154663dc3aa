"""``<numatune>``: which host nodes the guest's memory comes from (docs/formatdomain.rst)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import edit, parts, read
from libvirt_tuner.domainxml.parts import MODES
from libvirt_tuner.errors import ArgumentError, CpusetError
from libvirt_tuner.transforms import _pins
from libvirt_tuner.transforms._transform import Fits, Stateless, Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MEMORY = "memory"


def numatune(
    nodeset: Iterable[int] | None,
    *,
    mode: str = "strict",
    memnodes: Mapping[int, tuple[Iterable[int], str] | None] | None = None,
) -> Transform:
    """Bind the domain's memory. Cells that ``memnodes`` does not name are not changed.

    Args:
        nodeset: Host nodes. None removes all settings of ``<numatune>``, including those of the cells.
        mode: ``strict``, ``preferred``, ``interleave`` or ``restrictive``.
        memnodes: Guest cell to ``(host nodes, mode)``. None for a cell removes its setting.

    Raises:
        ArgumentError: An unknown mode, ``restrictive`` mixed with another mode (libvirt refuses it), or cells
            without nodes for the domain. On a document: :class:`MissingDeviceError` if it has no such guest
            cell.
        CpusetError: An empty set, or an id outside 0..16383.
    """
    if nodeset is None:
        if memnodes:
            raise ArgumentError(
                "memnodes need a nodeset", where="numatune", expected="a nodeset for the domain"
            )
        return Transform("numatune", (None, ()), True, "remove numatune", STORE, _wanted)
    memory = _value(nodeset, mode, "numatune")
    if not isinstance(memnodes or {}, Mapping) or not all(map(_is_memnode, (memnodes or {}).items())):
        raise ArgumentError(
            "bad memnodes",
            where="numatune(memnodes=)",
            value=memnodes,
            expected="guest cell to (host nodes, mode) or None",
        )
    cells = tuple(
        (cell, None if choice is None else _value(*choice, f"numatune of cell {cell}"))
        for cell, choice in sorted((memnodes or {}).items())
    )
    restrictive = {value.startswith("restrictive") for _, value in (*cells, (0, memory)) if value}
    if len(restrictive) > 1:
        raise ArgumentError(
            "restrictive cannot be combined with another mode",
            where="numatune",
            expected="restrictive for the domain and all cells, or for none",
        )
    text = f"numatune: {memory}" + "".join(
        f", cell {cell}: {value or 'as the domain'}" for cell, value in cells
    )
    return Transform("numatune", (memory, cells), True, text, STORE, _wanted)


class _Store(Stateless):
    """``memory`` and ``memnode=CELL`` to ``MODE NODESET``, or to every attribute where there are others."""

    def read(self, root: Element) -> dict[str, str]:
        found = read.child(root, "numatune")
        if found is None:
            return {}
        return {key: _spelled(element) for key, element in _present(found).items()}

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        group = read.child(root, "numatune")
        present = {} if group is None else _present(group)
        new = []
        for key, value in settings.items():
            found = present.get(key)
            if value is None:
                if found is not None:
                    edit.discard(found)
                continue
            if found is None:
                tag, _, cell = key.partition("=")
                found = etree.Element(tag, {"cellid": cell} if cell else {})
                new.append(found)
            _set_attributes(found, _attributes(value))
        if new:
            new.sort(key=lambda element: int(element.get("cellid", "-1")))
            edit.insert_all(edit.ensure(root, "numatune"), new)

    def same(self, one: str, other: str) -> bool:
        return _same(one, other)

    def fits(self, root: Element) -> Fits:
        known = frozenset([MEMORY, *(f"memnode={cell}" for cell in parts.cell_ids(root))])
        return lambda key, value: key in known and (value is None or _is_valid(value))

    def containers(self, root: Element) -> dict[str, Element]:
        found = read.child(root, "numatune")
        return {} if found is None else {"numatune": found}


def _present(group: Element) -> dict[str, Element]:
    memory = read.child(group, MEMORY)
    cells = {f"memnode={node.get('cellid')}": node for node in group.iterchildren("memnode")}
    return cells if memory is None else {MEMORY: memory, **cells}


def _wanted(
    root: Element, memory: str | None, cells: tuple[tuple[int, str | None], ...]
) -> dict[str, str | None]:
    if memory is None:
        return dict.fromkeys(STORE.read(root))
    known = frozenset(parts.cell_ids(root)) if cells else frozenset()
    _pins.check((cell for cell, _ in cells), known, "/domain/cpu/numa", "NUMA cell")
    return {MEMORY: memory} | {f"memnode={cell}": value for cell, value in cells}


def _is_memnode(item: tuple[object, object]) -> bool:
    cell, choice = item
    return type(cell) is int and (choice is None or (isinstance(choice, tuple) and len(choice) == 2))


def _value(nodes: Iterable[int], mode: str, where: str) -> str:
    if mode not in MODES:
        raise ArgumentError("unknown mode", where=where, value=mode, expected=", ".join(MODES))
    return f"{mode} {_pins.cpulist(nodes, where)}"


def _spelled(element: Element) -> str:
    items = [(str(name), str(value)) for name, value in element.items() if name != "cellid"]
    if [name for name, _ in items] == ["mode", "nodeset"]:
        return f"{items[0][1]} {items[1][1]}"
    return ";".join(f"{name}={value}" for name, value in items)


def _attributes(value: str) -> dict[str, str]:
    if "=" in value or not value:
        return dict(item.partition("=")[::2] for item in value.split(";") if item)
    mode, _, nodeset = value.partition(" ")
    return {"mode": mode, "nodeset": nodeset}


def _is_valid(value: str) -> bool:
    """Whether these are attributes that libvirt takes there."""
    wanted = _attributes(value)
    return (
        wanted.keys() <= {"mode", "nodeset", "placement"}
        and wanted.get("mode", "strict") in MODES
        and wanted.get("placement", "static") in ("static", "auto")
        and ("nodeset" not in wanted or _pins.is_cpulist(wanted["nodeset"]))
    )


def _set_attributes(element: Element, wanted: dict[str, str]) -> None:
    for name in {*element.attrib} - {"cellid", *wanted}:
        del element.attrib[name]
    for name, value in wanted.items():
        edit.set_attribute(element, name, value)
    if [name for name in element.attrib if name != "cellid"] != [*wanted]:
        # As its user had them, who does not know libvirt's order.
        for name, value in wanted.items():
            del element.attrib[name]
            element.set(name, value)


def _same(one: str, other: str) -> bool:
    first, second = _attributes(one), _attributes(other)
    try:
        return (
            first.get("mode", "strict") == second.get("mode", "strict")
            and first.get("placement", "static") == second.get("placement", "static")
            and cpuset.parse_bits(first.get("nodeset", "")) == cpuset.parse_bits(second.get("nodeset", ""))
        )
    except CpusetError:
        return False


STORE = _Store()
