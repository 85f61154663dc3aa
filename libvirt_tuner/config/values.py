"""Settings as the config file and the metadata spell them, turned into what Policy holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError, PolicyError

#: Settings for which "auto" is the planner's own choice, to take back what an earlier layer said.
_AUTO_IS_NONE = ("housekeeping", "emulator_cpus", "uplink")


@frozen(repr=False)
class Layer:
    """Settings from one place; a later layer wins over an earlier one, setting by setting.

    Attributes:
        where: ``/etc/libvirt-tuner.toml:3`` or ``metadata of web-1, line 7``.
        values: Attributes of :class:`libvirt_tuner.config.policy.Policy` by name.
        match: Shell pattern for domain names.
    """

    where: str
    values: Mapping[str, object] = field(factory=dict)
    match: str = "*"

    def serves(self, name: str) -> bool:
        """Whether the layer is for the domain of that name; upper and lower case differ."""
        if self.match == "*":
            return True
        from fnmatch import fnmatchcase

        return fnmatchcase(name, self.match)


def value(key: str, raw: object, where: str) -> object:
    """Turn a value that the schema has let pass into what Policy holds.

    Args:
        key: The setting, as an attribute of Policy.
        raw: A TOML value, or an attribute's text after :func:`typed`.
        where: For errors.

    Raises:
        PolicyError: A cpulist that only looks like one (``3-1``).
    """
    if isinstance(raw, float):
        raw = int(raw)
    if raw == "auto" and key in _AUTO_IS_NONE:
        return None
    if key == "poll_us":
        return raw or None
    if key == "rx_queue_size" and raw in ("keep", False):
        return None
    if key == "housekeeping" or (key == "emulator_cpus" and isinstance(raw, str)):
        return _cpus(key, str(raw), where)
    return raw


def _cpus(key: str, text: str, where: str) -> frozenset[int]:
    try:
        return cpuset.parse(text, where=where)
    except CpusetError as error:
        problem = f"bad value of {key}: {error.problem}"
        raise PolicyError(problem, where=where, value=text, expected=error.expected) from error


def typed(key: str, text: str) -> object:
    """Give an attribute's text the type it would have in TOML."""
    if key in ("select", "strict"):
        return text == "true"
    if key in ("emulator_cpus", "mtu", "poll_us", "rx_queue_size") and text.isdecimal():
        return int(text)
    return text


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return the question for an error's advice, or "" when nothing allowed is close."""
    from difflib import get_close_matches

    close = get_close_matches(word[:80], list(allowed), n=1)
    return f"did you mean {close[0]}?" if close else ""
