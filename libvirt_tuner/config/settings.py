"""The table of settings (:class:`libvirt_tuner.config.policy.Policy`) as the checks and the schemas use it.

A setting has two forms: a TOML value in the config file, and the text of an attribute in the metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import attrs
from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.errors import CpusetError, PolicyError

_ITEM = "[0-9]{1,4}(-[0-9]{1,4})?"
#: A cpulist, one that is more than a lone number, and a device's name (dev_valid_name, net/core/dev.c).
CPULIST = rf"{_ITEM}(,\^?{_ITEM})*"
CPULIST_NOT_COUNT = rf"[0-9]{{1,4}}(-[0-9]{{1,4}}(,\^?{_ITEM})*|(,\^?{_ITEM})+)"
DEVICE = r"[^./:\s][^/:\s]{0,14}"


@frozen(repr=False)
class Setting:
    """One setting; the attributes are the arguments of :func:`libvirt_tuner.config.policy.setting`.

    Attributes:
        default: As the config file spells it.
    """

    name: str
    accepts: tuple[object, ...]
    default: object
    help: str
    unit: str = ""
    none: tuple[object, ...] = ()
    metadata: str = "listed"

    @property
    def attribute(self) -> str:
        """The name of the metadata's attribute."""
        return self.name.replace("_", "-")

    def read(self, raw: object, where: str, key: str) -> object:
        """Return the value for Policy from a TOML value. ``key`` is its name in errors (``policy.mtu``).

        Raises:
            PolicyError: It is none of those accepted.
        """
        if not any(self._takes(form, raw) for form in self.accepts):
            raise _refusal(key, raw, where, self.expected())
        return self._held(raw, where, key)

    def read_text(self, text: str, where: str) -> object:
        """Return the value for Policy from an attribute's text.

        Raises:
            PolicyError: It is none of those accepted.
        """
        for form in self.accepts:
            raw = self._typed(form, text)
            if raw is not None and self._takes(form, raw):
                return self._held(raw, where, self.attribute)
        raise _refusal(self.attribute, text, where, self.expected(in_file=False))

    def holds(self, held: object) -> bool:
        """Return whether Policy can hold this value for the setting."""
        if held is None:
            return bool(self.none)
        if isinstance(held, (set, frozenset)):
            return frozenset in self.accepts and all(
                is_whole(cpu) and 0 <= cpu < cpuset.LIMIT for cpu in held
            )
        return any(self._takes(form, held) for form in self.accepts if form is not frozenset)

    def spelled(self, held: object) -> str:
        """Return a value of Policy in the form of the config file."""
        if held is None:
            return json.dumps(self.none[0])
        if not isinstance(held, frozenset):
            return json.dumps(held)
        return json.dumps(sorted(held) if list in self.accepts else cpuset.format(held))

    def pattern(self, form: object) -> str:
        """The regular expression of a form that is ``frozenset`` or ``str``."""
        if form is str:
            return DEVICE
        counts = any(isinstance(other, range) for other in self.accepts)
        return CPULIST_NOT_COUNT if counts else CPULIST

    def expected(self, *, in_file: bool = True) -> str:
        """Return the accepted values in words, in the form of the file or of the metadata."""
        return joined([text for form in self.accepts for text in self.forms(form, in_file=in_file)])

    def forms(self, form: object, *, in_file: bool = True) -> tuple[str, ...]:
        """Return one of :attr:`accepts` in words; nothing if it is not for the metadata."""
        if form is bool:
            return ("true", "false")
        if form is str:
            return ("the name of a network device",)
        if form is frozenset:
            return (self._cpulist(in_file=in_file),)
        if form is list:
            return (f"a list of {joined([json.dumps(name) for name in LISTABLE])}",)
        if isinstance(form, range):
            return (f"a number of {self.unit} from {form.start} to {form.stop - 1}",)
        if in_file:
            return (json.dumps(form),)
        return () if form is False else (str(form),)

    def _cpulist(self, *, in_file: bool) -> str:
        quote = '"' if in_file else ""
        if self.pattern(frozenset) == CPULIST:
            return f"a cpulist such as {quote}0-3,8{quote}"
        return f"a cpulist such as {quote}0-3{quote} (CPU 2 alone: {quote}2-2{quote}, as 2 means two CPUs)"

    def _takes(self, form: object, raw: object) -> bool:
        if form is bool:
            return isinstance(raw, bool)
        if form in (str, frozenset):
            return isinstance(raw, str) and re.fullmatch(self.pattern(form), raw) is not None
        if form is list:
            return isinstance(raw, list) and all(item in LISTABLE for item in raw)
        if isinstance(form, range):
            return is_whole(raw) and form.start <= raw < form.stop  # type: ignore[operator]
        return raw == form and isinstance(raw, bool) == isinstance(form, bool)

    def _typed(self, form: object, text: str) -> object:
        """Return the text as a TOML value of this form, or None."""
        if form in (str, frozenset):
            return text
        if isinstance(form, range):
            digits = text.isascii() and text.isdecimal() and len(text) <= len(str(form.stop - 1))
            return int(text) if digits else None
        # RELAX NG compares words without the white space around them.
        word = text.strip(" \t\r\n")
        if form is bool:
            return {"true": True, "false": False}.get(word)
        return form if form is not False and word == str(form) else None

    def _held(self, raw: object, where: str, key: str) -> object:
        if any(raw == none and isinstance(raw, bool) == isinstance(none, bool) for none in self.none):
            return None
        if isinstance(raw, str) and frozenset in self.accepts and raw not in self.accepts:
            return _cpus(raw, where, key)
        if isinstance(raw, list):
            return frozenset(raw)
        return int(raw) if isinstance(raw, float) else raw


def _cpus(text: str, where: str, key: str) -> frozenset[int]:
    try:
        return cpuset.parse(text, where=where)
    except CpusetError as error:
        raise _refusal(f"{key}: {error.problem}", text, where, error.expected) from error


def _refusal(key: str, value: object, where: str, expected: str) -> PolicyError:
    return PolicyError(f"bad value of {key}", where=where, value=value, expected=expected)


def table(of: type[attrs.AttrsInstance]) -> dict[str, Setting]:
    """The settings that an attrs class declares with :func:`libvirt_tuner.config.policy.setting`."""
    return {column.name: _setting(column) for column in attrs.fields(of)}


def _setting(column: attrs.Attribute[object]) -> Setting:
    given = column.metadata
    default = given["none"][0] if column.default is None else column.default
    return Setting(column.name, default=default, **given)


SETTINGS: Mapping[str, Setting] = table(Policy)
#: Settings that ``[limits]`` may list; the others are never for the metadata.
LISTABLE = tuple(name for name, one in SETTINGS.items() if one.metadata != "never")


def is_whole(raw: object) -> bool:
    """Whether a TOML or JSON value is a whole number: 1.0 is, true is not."""
    if isinstance(raw, float):
        return raw.is_integer()
    return isinstance(raw, int) and not isinstance(raw, bool)


def joined(words: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return a hint for an error's advice, or "" if no allowed value is similar."""
    from difflib import get_close_matches

    close = get_close_matches(word[:80], list(allowed), n=1)
    return f"did you mean {close[0]}?" if close else ""
