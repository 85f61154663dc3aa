"""Reads CPU isolation from the kernel command line like the kernel, and writes it. Pure.

Sources: Documentation/admin-guide/kernel-parameters.txt (isolcpus, nohz_full, irqaffinity, rcu_nocbs),
kernel/sched/isolation.c (housekeeping_isolcpus_setup, housekeeping_setup), kernel/irq/irqdesc.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, field, frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError, HostError
from libvirt_tuner.topology import NO_CPUS, Cpus

FLAGS = ("nohz", "domain", "managed_irq")
"""Flags that may precede the list of ``isolcpus=``."""

PARAMETERS = ("isolcpus", "nohz_full", "irqaffinity", "rcu_nocbs")
OURS = ("isolcpus", "nohz_full", "irqaffinity")
"""Parameters that :func:`words` writes and a new line replaces."""


@frozen
class Skipped:
    """A flag or parameter that the kernel ignores, and what it does instead."""

    word: str
    why: str


@frozen
class Isolation:
    """CPU isolation of a command line.

    Attributes:
        domain: CPUs without load balancing.
        managed_irq: CPUs that managed interrupts avoid if possible.
        nohz: CPUs whose tick stops while one task runs there (``isolcpus=nohz`` or ``nohz_full=``).
        noiseless: CPUs of ``nohz_full=``: also free of timers, work queues and RCU callbacks.
        rcu_nocbs: CPUs whose RCU callbacks run elsewhere by ``rcu_nocbs=`` alone.
        irqaffinity: CPUs new interrupts go to; None: all.
        skipped: In the order of the line.
        given: Parameters of :data:`PARAMETERS` on the line.
    """

    domain: Cpus = NO_CPUS
    managed_irq: Cpus = NO_CPUS
    nohz: Cpus = NO_CPUS
    noiseless: Cpus = NO_CPUS
    rcu_nocbs: Cpus = NO_CPUS
    irqaffinity: Cpus | None = None
    skipped: tuple[Skipped, ...] = ()
    given: tuple[str, ...] = field(default=())

    def _skip(self, word: str, why: str) -> Isolation:
        return evolve(self, skipped=(*self.skipped, Skipped(word, why)))


def parse(line: str, *, last: int, boot: int = 0) -> Isolation:
    """Parse a command line like the kernel. Args:
    line: As in ``/proc/cmdline``.
    last: The highest possible CPU: what ``N`` stands for in a list.
    boot: The boot CPU. nohz_full never includes it (kernel/time/tick-sched.c). isolcpus excludes it only
        if no other CPU would be left (kernel/sched/isolation.c).
    """
    found = Isolation()
    for word in line.split():
        name, sign, value = word.partition("=")
        # The kernel takes a dash for an underscore in a parameter's name.
        name = name.replace("-", "_")
        if sign and name in PARAMETERS:
            found = evolve(found, given=(*found.given, name))
            found = _PARAMETERS[name](found, word, value.strip('"'), last, boot)
    return found


def _isolcpus(found: Isolation, word: str, value: str, last: int, boot: int) -> Isolation:
    flags: set[str] = set()
    while value[:1].isascii() and value[:1].isalpha():
        flag, comma, value = value.partition(",")
        if not re.fullmatch("[A-Za-z_]+", flag) or not comma:
            return found._skip(word, f"{flag!r} is not a flag; the kernel ignores the whole parameter")
        if flag in FLAGS:
            flags.add(flag)
        else:
            found = found._skip(flag, f"the kernel skips this flag; isolcpus has {', '.join(FLAGS)}")
    kinds = tuple(flag for flag in FLAGS if flag in flags) or ("domain",)
    return _taken(found, word, kinds, value, last, boot)


def _nohz_full(found: Isolation, word: str, value: str, last: int, boot: int) -> Isolation:
    return _taken(found, word, ("nohz", "noiseless"), value, last, boot)


def _taken(found: Isolation, word: str, kinds: Sequence[str], value: str, last: int, boot: int) -> Isolation:
    """Read the CPUs of one parameter. A second one may not contradict the first."""
    try:
        listed = _list(value, last)
    except CpusetError as error:
        return found._skip(word, f"{error.problem}: the kernel ignores the whole parameter")
    cpus = listed - {boot} if "nohz" in kinds or listed >= frozenset(range(last + 1)) else listed
    before = {kind: getattr(found, kind) for kind in kinds if getattr(found, kind)}
    if any(known != cpus for known in before.values()):
        why = "isolcpus= and nohz_full= must name the same CPUs: the kernel ignores the second"
        return found._skip(word, why)
    changed: dict[str, Any] = dict.fromkeys(kinds, cpus)
    return evolve(found, **changed)


def _irqaffinity(found: Isolation, word: str, value: str, last: int, boot: int) -> Isolation:
    try:
        return evolve(found, irqaffinity=_list(value, last) | {boot})
    except CpusetError as error:
        return found._skip(word, f"{error.problem}: the kernel ignores it")


def _rcu_nocbs(found: Isolation, word: str, value: str, last: int, boot: int) -> Isolation:
    try:
        return evolve(found, rcu_nocbs=_list(value, last))
    except CpusetError as error:
        return found._skip(word, f"{error.problem}: the kernel ignores it")


_PARAMETERS = {
    "isolcpus": _isolcpus,
    "nohz_full": _nohz_full,
    "irqaffinity": _irqaffinity,
    "rcu_nocbs": _rcu_nocbs,
}


def _list(text: str, last: int) -> Cpus:
    """A cpulist as the kernel reads it: ``all``, and ``N`` for the last CPU (lib/bitmap.c)."""
    if text.lower() == "all":
        return frozenset(range(last + 1))
    if not text or "^" in text:
        raise CpusetError("not a cpulist", value=text, expected="0-3,8")
    cpus = cpuset.parse(re.sub(r"\bN\b", str(last), text))
    if any(cpu > last for cpu in cpus):
        raise CpusetError(f"a CPU above {last}, the last one", value=text)
    return cpus


# The line to boot with


def words(cpus: Cpus, possible: Cpus) -> tuple[str, ...]:
    """The parameters that isolate ``cpus``; new interrupts go to the rest of ``possible``.

    ``nohz_full=`` has the same CPUs as ``isolcpus=nohz``, because the kernel ignores a different second list.
    It also implies rcu_nocbs.

    Raises:
        HostError: CPU 0 or a missing CPU is among them, or none is left.
    """
    rest = possible - cpus
    wrong = cpus - possible
    if not cpus or wrong or 0 in cpus or not rest:
        problem = "the host has no such CPU" if wrong else "these CPUs cannot be isolated"
        raise HostError(
            problem,
            where="isolcpus",
            value=cpuset.format(wrong or cpus) or "none",
            expected=f"some of {cpuset.format(possible - {0})}; CPU 0 stays with the kernel",
        )
    listed = cpuset.format(cpus)
    return (
        f"isolcpus={','.join(FLAGS)},{listed}",
        f"nohz_full={listed}",
        f"irqaffinity={cpuset.format(rest)}",
    )


def line(current: str, new: Iterable[str]) -> str:
    """The command line ``current`` with the parameters ``new`` in place of those of :data:`OURS`."""
    kept = [word for word in current.split() if word.partition("=")[0].replace("-", "_") not in OURS]
    # Words after "--" are for init.
    at = kept.index("--") if "--" in kept else len(kept)
    return " ".join([*kept[:at], *new, *kept[at:]])
