"""Documents made from libvirt's own grammar (``domain.rng``): whatever it allows, from one number.

Lengths and depths are kept small, not what may stand there; a document need not make sense to libvirt.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lxml import etree

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
RNG = "{http://relaxng.org/ns/structure/1.0}"
_DEEP = 12
"""Levels of elements from which on only what has to be there is."""

_RANGES = {
    "unsignedInt": (0, 2**32 - 1),
    "unsignedShort": (0, 65535),
    "unsignedLong": (0, 2**64 - 1),
    "positiveInteger": (1, 2**31),
    "short": (-32768, 32767),
}
_WORDS = ("a", "web-1", "0", "1", "vnet0", "br0", "é", "/dev/x", "52:54:00:00:00:01", "a&b<c>'\"")

_parser: Any = importlib.import_module("re._parser")
"""Python's own reader of regular expressions, for strings that match one."""


class _DeadEndError(Exception):
    """This way leads to no document."""


class Grammar:
    """The definitions of a grammar and of those it includes."""

    def __init__(self, path: Path) -> None:
        self._defined: dict[str, list[etree._Element]] = {}
        self._start: etree._Element | None = None
        self._load(path)

    def _load(self, path: Path) -> None:
        root = etree.parse(path).getroot()
        for include in root.iterfind(f"{RNG}include"):
            self._load(path.parent / include.get("href", ""))
            for own in include.iterfind(f"{RNG}define"):
                self._defined[own.get("name", "")] = [own]
        for define in root.iterfind(f"{RNG}define"):
            self._defined.setdefault(define.get("name", ""), []).append(define)
        start = root.find(f"{RNG}start")
        if start is not None and len(start):
            self._start = start

    def document(self, seed: int) -> str:
        """One that the grammar allows, or almost: types of data are taken by their names."""
        for attempt in range(100):
            try:
                return self._document(random.Random(f"{seed} {attempt}"))
            except _DeadEndError:
                continue
        raise AssertionError("no document in a hundred tries")

    def _document(self, chance: random.Random) -> str:
        assert self._start is not None
        holder = etree.Element("holder")
        _Maker(self._defined, chance).fill(holder, list(self._start), 0)
        root = holder[0]
        if chance.random() < 0.5:
            etree.indent(root)
        return etree.tostring(root, encoding="unicode")


class _Maker:
    def __init__(self, defined: dict[str, list[etree._Element]], chance: random.Random) -> None:
        self._defined = defined
        self._chance = chance

    def fill(self, into: etree._Element, patterns: list[etree._Element], depth: int) -> None:
        """Let the element have what the patterns want, one after the other."""
        for pattern in patterns:
            if isinstance(pattern.tag, str):
                make: Callable[[etree._Element, etree._Element, int], None]
                make = getattr(self, f"_{pattern.tag.removeprefix(RNG)}")
                make(into, pattern, depth)

    def _group(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        self.fill(into, list(pattern), depth)

    _mixed = _group

    def _interleave(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        parts = list(pattern)
        self._chance.shuffle(parts)
        self.fill(into, parts, depth)

    def _choice(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        ways = [way for way in pattern if isinstance(way.tag, str)]
        if depth > _DEEP:
            ways = [way for way in ways if way.tag in (RNG + "value", RNG + "empty", RNG + "data")] or ways
        self.fill(into, [self._chance.choice(ways)], depth)

    def _optional(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        # Of some 80 optional elements of a domain a dozen stand there.
        if depth <= _DEEP and self._chance.random() < (0.2 if depth < 2 else 0.35):
            self.fill(into, list(pattern), depth)

    def _zeroOrMore(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:  # noqa: N802
        for _ in range(self._chance.choice((0, 0, 1, 2)) if depth <= _DEEP else 0):
            self.fill(into, list(pattern), depth)

    def _oneOrMore(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:  # noqa: N802
        for _ in range(self._chance.choice((1, 1, 2))):
            self.fill(into, list(pattern), depth)

    def _ref(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        defined = self._defined.get(pattern.get("name", ""))
        if defined is None or depth > 3 * _DEEP:
            raise _DeadEndError
        for define in defined if defined[0].get("combine") != "choice" else [self._chance.choice(defined)]:
            self.fill(into, list(define), depth)

    def _element(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        name, rest = self._named(pattern)
        namespace = next((at.get("ns") for at in (pattern, *pattern.iterancestors()) if at.get("ns")), None)
        tag = f"{{{namespace}}}{name}" if namespace and "{" not in name else name
        self.fill(etree.SubElement(into, tag), rest, depth + 1)

    def _attribute(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        name, rest = self._named(pattern)
        value = etree.Element("value")
        self.fill(value, rest, depth + 1)
        into.set(name, (value.text or "") if rest else self._chance.choice(_WORDS))

    def _named(self, pattern: etree._Element) -> tuple[str, list[etree._Element]]:
        parts = [part for part in pattern if isinstance(part.tag, str)]
        if (name := pattern.get("name")) is not None:
            return name, parts
        names = [found.text or "" for found in parts[0].iter(RNG + "name")]
        return self._chance.choice(names or ["any", "{urn:other}any"]), parts[1:]

    def _text(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        _say(into, self._chance.choice(_WORDS))

    def _value(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        _say(into, pattern.text or "")

    def _empty(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        pass

    def _notAllowed(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:  # noqa: N802
        raise _DeadEndError

    def _list(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        self.fill(into, list(pattern), depth)

    def _data(self, into: etree._Element, pattern: etree._Element, depth: int) -> None:
        parameters = {param.get("name", ""): param.text or "" for param in pattern.iterfind(RNG + "param")}
        if "pattern" in parameters:
            _say(into, self._matching(_parser.parse(parameters["pattern"])))
        elif (kind := pattern.get("type", "")) in ("string", "token", "NCName", "ID", "anyURI"):
            _say(into, self._chance.choice(_WORDS[:2]))
        else:
            low, high = _RANGES.get(kind, (0, 2**31))
            low = int(parameters.get("minInclusive", low))
            high = int(parameters.get("maxInclusive", high))
            _say(into, str(self._chance.choice((low, high, self._chance.randint(low, high)))))

    def _matching(self, parsed: Any) -> str:
        return "".join(self._piece(str(kind), what) for kind, what in parsed)

    def _piece(self, kind: str, what: Any) -> str:
        match kind:
            case "LITERAL":
                return chr(what)
            case "IN":
                return self._one_of(what)
            case "ANY" | "NOT_LITERAL":
                return "x"
            case "BRANCH":
                return self._matching(self._chance.choice(what[1]))
            case "SUBPATTERN":
                return self._matching(what[-1])
            case "MAX_REPEAT":
                least, most, inner = what
                times = self._chance.randint(least, max(least, min(int(most), least + 2)))
                return "".join(self._matching(inner) for _ in range(times))
            case "AT":
                return ""
        raise _DeadEndError

    def _one_of(self, what: Any) -> str:
        if str(what[0][0]) == "NEGATE":
            return "x"
        kind, value = self._chance.choice(what)
        match str(kind):
            case "LITERAL":
                return chr(value)
            case "RANGE":
                return chr(self._chance.randint(*value))
        return "0"


def _say(into: etree._Element, text: str) -> None:
    if len(into):
        into[-1].tail = f"{into[-1].tail or ''} {text}".strip()
    else:
        into.text = f"{into.text or ''} {text}".strip()


@cache
def libvirts() -> tuple[Grammar, etree.RelaxNG]:
    """The grammar as a source of documents, and as their judge."""
    return Grammar(SCHEMA), etree.RelaxNG(etree.parse(SCHEMA))
