"""Sets of CPUs and nodes, and the only parser of CPU lists and hex masks.

Formats: the kernel's cpulist with strides (Documentation/admin-guide/kernel-parameters.rst, "cpu lists"),
libvirt's cpuset with ``^`` exclusion (docs/formatdomain.rst, "CPU Allocation"), and the kernel's mask of
comma-separated 32-bit words (Documentation/core-api/irq/irq-affinity.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from libvirt_tuner.errors import CpusetError

Cpus = frozenset[int]
NO_CPUS: Cpus = frozenset()
EMPTY: Mapping[Any, Any] = {}
"""A default that instances of a named tuple share. Nobody may change it."""

NumaMode = Literal["strict", "preferred", "interleave", "restrictive"]
"""Mode of the memory binding (``<numatune>``, docs/formatdomain.rst of libvirt)."""


class Binding(NamedTuple):
    """Where memory comes from: the mode and the host nodes."""

    mode: NumaMode
    nodes: frozenset[int]


# libvirt's VIR_DOMAIN_CPUMASK_LEN; the kernel's own limit (NR_CPUS) is half of it.
LIMIT = 16384
_LONGEST = 131072
_LIST_FORM = "a list as in '0-3,8' or '0-7,^3' or '0-31:2/4'"
_MASK_FORM = "hex words of up to 8 digits with commas between, as in 'ff,ffffffff'"
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def parse(text: str, *, where: str = "") -> frozenset[int]:
    """The CPUs (or nodes) a cpulist names.

    Blank text is the empty set, as in ``/sys/devices/system/cpu/isolated``. Items are processed in order, so
    ``^n`` only removes a CPU that an earlier item added, as in libvirt.

    Args:
        text: ``0-3,8``, ``0-7,^3``, ``0-31:2/4`` (the first 2 of every 4); white space around items.
        where: The place that the error names.

    Raises:
        CpusetError: The text is not a cpulist, has an id of 16384 or more, or excludes every CPU.
    """
    return frozenset(_bits(parse_bits(text, where=where)))


def parse_bits(text: str, *, where: str = "") -> int:
    """Like :func:`parse`, but returns a number with a bit for each CPU. Thousands of wide ranges cost as
    little as one."""
    if len(text) > _LONGEST:
        raise CpusetError(
            "cpulist is too long", where=where, value=text, expected="at most 131072 characters"
        )
    stripped = text.strip()
    if not stripped:
        return 0
    mask = 0
    for item in stripped.split(","):
        token = item.strip()
        if token.startswith("^"):
            mask &= ~(1 << _number(token[1:], text, where))
        else:
            mask |= _item(token, text, where)
    if not mask:
        raise CpusetError("cpulist leaves no CPU", where=where, value=text, expected=_LIST_FORM)
    return mask


def format(cpus: Iterable[int]) -> str:
    """A cpulist in ascending order with ranges, as libvirt and the kernel print it: ``0-3,8``."""
    ordered = sorted(set(cpus))
    parts: list[str] = []
    start = 0
    for position, cpu in enumerate(ordered):
        if position + 1 < len(ordered) and ordered[position + 1] == cpu + 1:
            continue
        first = ordered[start]
        parts.append(f"{first}" if first == cpu else f"{first}-{cpu}")
        start = position + 1
    return ",".join(parts)


def parse_mask(text: str, *, where: str = "") -> frozenset[int]:
    """The CPUs of a hex mask, as in ``/proc/irq/N/smp_affinity``; the last word holds CPUs 0 to 31.

    Raises:
        CpusetError: No digits, a word of more than 8, or more than 16384 CPUs.
    """
    words = text.strip().split(",")
    if len(words) > LIMIT // 32:
        raise CpusetError("mask is too long", where=where, value=text, expected=f"at most {LIMIT} CPUs")
    mask = 0
    for word in words:
        if not 1 <= len(word) <= 8 or not _HEX_DIGITS.issuperset(word):
            raise CpusetError("not a CPU mask", where=where, value=text, expected=_MASK_FORM)
        mask = mask << 32 | int(word, 16)
    return frozenset(_bits(mask))


def format_mask(cpus: Iterable[int], width: int | None = None) -> str:
    """A hex mask as the kernel prints it.

    Args:
        cpus: CPU ids.
        width: Number of CPUs that the mask covers, which fixes its digits; None: as few as needed.

    Raises:
        CpusetError: A CPU outside the width.
    """
    mask = 0
    for cpu in cpus:
        if not 0 <= cpu < (LIMIT if width is None else width):
            raise CpusetError("CPU is outside the mask", value=cpu, expected=f"0 to {(width or LIMIT) - 1}")
        mask |= 1 << cpu
    digits = f"{mask:x}" if width is None else f"{mask:0{max(1, (width + 3) // 4)}x}"
    words = [digits[max(0, end - 8) : end] for end in range(len(digits), 0, -8)]
    return ",".join(reversed(words))


def _bits(mask: int) -> Iterable[int]:
    if mask.bit_count() * 8 > mask.bit_length():
        return [at for at, bit in enumerate(reversed(f"{mask:b}")) if bit == "1"]
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def _item(token: str, text: str, where: str) -> int:
    """The mask of one item."""
    span, colon, stride = token.partition(":")
    low, dash, high = span.partition("-")
    first = _number(low, text, where)
    if not dash:
        if colon:
            raise CpusetError("a stride needs a range", where=where, value=text, expected=_LIST_FORM)
        return 1 << first
    last = _number(high, text, where)
    if last < first:
        raise CpusetError("range runs backwards", where=where, value=text, expected=_LIST_FORM)
    ones = (1 << (last - first + 1)) - 1
    return (_strided(stride, last - first + 1, text, where) & ones if colon else ones) << first


def _strided(stride: str, width: int, text: str, where: str) -> int:
    """USED bits of every GROUP, over at least ``width`` bits."""
    used_text, _, group_text = stride.partition("/")
    used, group = _number(used_text, text, where), _number(group_text, text, where)
    if not 0 < used <= group:
        raise CpusetError("stride is not USED/GROUP", where=where, value=text, expected=_LIST_FORM)
    mask, covered = (1 << used) - 1, group
    while covered < width:
        mask |= mask << covered
        covered *= 2
    return mask


def _number(digits: str, text: str, where: str) -> int:
    bare = digits.strip()
    if not (bare.isascii() and bare.isdigit()):
        raise CpusetError("not a cpulist", where=where, value=text, expected=_LIST_FORM)
    # Check the length first, because int() of a million digits is slow.
    number = int(bare) if len(bare) <= 9 else LIMIT
    if number >= LIMIT:
        raise CpusetError("id is too large", where=where, value=text, expected=f"at most {LIMIT - 1}")
    return number
