"""Types for settings: an entry of the table, and a layer of values for some domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from attrs import field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def setting(
    default: object,
    *accepts: object,
    help: str,
    unit: str = "",
    none: tuple[object, ...] = (),
    metadata: str = "listed",
) -> Any:
    """One setting of the table. Plain values only: attrs classes here would cost the hook.

    Args:
        default: What the class holds when no layer sets it.
        accepts: Words, numbers, ``range``, ``bool``, ``frozenset`` (a cpulist) or ``str`` (a device's name).
        help: Sentences for the example file and the reference page.
        unit: What a number counts.
        none: Those of ``accepts`` that Policy holds as None; the first is how None is written.
        metadata: Whether a domain's metadata may set it: ``yes``, ``listed`` (where ``[limits]`` of the
            config file lists it) or ``never``.
    """
    table = {"accepts": accepts, "help": help, "unit": unit, "none": none, "metadata": metadata}
    return field(default=default, metadata=table)


class AtMost(int):
    """Bytes of an MTU from a domain's metadata: it may lower what the path leaves room for, not raise it."""

    __slots__ = ()


class Layer(NamedTuple):
    """Settings from one table. Each setting of a later layer overrides that of an earlier one.

    Attributes:
        where: The table: ``[policy]``, ``[[domain]] web-*``...
        values: Attributes of :class:`libvirt_tuner.config.policy.Policy` by name.
        match: Shell pattern for domain names.
    """

    where: str
    values: Mapping[str, object]
    match: str = "*"

    def serves(self, name: str) -> bool:
        """Return whether the layer is for the domain of that name. The match is case-sensitive."""
        if self.match == "*":
            return True
        from fnmatch import fnmatchcase

        return fnmatchcase(name, self.match)
