"""Parses ``/etc/libvirt-tuner.toml`` into layers of settings. Only imported if the file exists."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping

from libvirt_tuner.config import toml_lines
from libvirt_tuner.config.limits import LIMITS, NOTHING, Limits
from libvirt_tuner.config.settings import SETTINGS, Setting, did_you_mean, joined
from libvirt_tuner.config.values import Layer
from libvirt_tuner.errors import PolicyError

Path = tuple[str | int, ...]
Table = Mapping[str, object]
TABLES = ("limits", "policy", "domain")
MATCH = 'a shell pattern for domain names, such as "web-*"'


def read(text: str, file: str) -> tuple[tuple[Layer, ...], Limits | None, tuple[PolicyError, ...]]:
    """Read the valid tables of the file. A table with a mistake is ignored as a whole.

    Args:
        text: The file's content.
        file: Its name, for errors.

    Returns:
        The valid tables (``[policy]``, then each ``[[domain]]``), ``[limits]`` (None without such a table),
        and the mistakes with line, value and allowed values.
    """
    reader = _Reader(text, file)
    try:
        document = _parsed(text, file)
    except PolicyError as error:
        return (), NOTHING, (reader.noted(error),)
    reader.unknown(document, (), TABLES)
    limits = reader.limits(document)
    layers = tuple(reader.layers(document))
    return layers, limits, tuple(reader.errors)


def _parsed(text: str, file: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).partition(" (at ")
        line = place.removeprefix("line ").partition(",")[0]
        where = f"{file}:{line if line.isdecimal() else text.count(chr(10)) + 1}"
        raise PolicyError(f"not valid TOML: {problem}", where=where) from error
    except RecursionError as error:
        raise PolicyError("not valid TOML: nested too deeply", where=file) from error


class _Reader:
    """One pass over a file; collects its mistakes."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self.errors: list[PolicyError] = []

    def limits(self, document: Table) -> Limits | None:
        """Read ``[limits]``. If it has a mistake, nothing is allowed."""
        if "limits" not in document:
            return None
        values = self._values(document["limits"], ("limits",), LIMITS)
        return NOTHING if values is None else Limits(**values)  # type: ignore[arg-type]

    def layers(self, document: Table) -> Iterator[Layer]:
        """``[policy]``, then each ``[[domain]]``, those without a mistake."""
        values = self._values(document.get("policy", {}), ("policy",), SETTINGS)
        if values:
            yield Layer("[policy]", values)
        domains = document.get("domain", [])
        if not isinstance(domains, list):
            self._bad(("domain",), domains, "tables that begin with [[domain]]")
            return
        for index, domain in enumerate(domains):
            path = ("domain", index)
            match = self._match(domain, path)
            values = self._values(domain, path, SETTINGS, also=("match",))
            if values is not None and match is not None:
                yield Layer(f"[[domain]] {match}", values, match)

    def unknown(self, table: Table, path: Path, known: Iterable[str]) -> None:
        """Report unknown keys of a table."""
        allowed = list(known)
        for key in table:
            if key not in allowed:
                advice = did_you_mean(key, allowed)
                self._note("unknown key", (*path, key), key, joined(allowed), advice)

    def noted(self, error: PolicyError) -> PolicyError:
        """The error, among the mistakes of the file."""
        error.layer = "file"
        self.errors.append(error)
        return error

    def _match(self, domain: object, path: Path) -> str | None:
        if not isinstance(domain, dict):
            return None
        if "match" not in domain:
            self._note("match is missing", path, None, f"match = {MATCH}")
            return None
        match = domain["match"]
        if isinstance(match, str) and match:
            return match
        self._bad((*path, "match"), match, MATCH)
        return None

    def _values(
        self, table: object, path: Path, settings: Mapping[str, Setting], also: tuple[str, ...] = ()
    ) -> dict[str, object] | None:
        """Return the settings of a table as in Policy or Limits; None if the table has a mistake."""
        if not isinstance(table, dict):
            self._bad(path, table, "a table")
            return None
        before = len(self.errors)
        self.unknown(table, path, (*also, *settings))
        values = {}
        for key, raw in table.items():
            if key in settings:
                try:
                    values[key] = settings[key].read(raw, self._file, _spelled((*path, key)))
                except PolicyError as error:
                    # Done only for errors, because finding a line reads the whole file again.
                    error.where = self._where((*path, key))
                    self.noted(error)
        return values if len(self.errors) == before else None

    def _bad(self, path: Path, value: object, expected: str) -> None:
        self._note(f"bad value of {_spelled(path)}", path, value, expected)

    def _note(self, problem: str, path: Path, value: object, expected: str, advice: str = "") -> None:
        where = self._where(path)
        self.noted(PolicyError(problem, where=where, value=value, expected=expected, advice=advice))

    def _where(self, path: Path) -> str:
        return f"{self._file}:{toml_lines.line_of(self._text, path)}"


def _spelled(path: Path) -> str:
    """``domain[0].mtu``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
