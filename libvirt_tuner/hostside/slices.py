"""Dynamic isolation: the host's own services kept off the CPUs of vCPUs (``isolate = "cgroup"``).

systemd's ``AllowedCPUs=`` (systemd.resource-control(5)) of :data:`UNITS`, set at run time, so that a boot
forgets it. Domains are in machine.slice, which is not changed. It needs cgroup v2. The ledger has the earlier
values of the units. They are restored when the last such domain has ended, unless another program has changed
them since.

The hook never calls this, because systemd may be slow. The service and ``settle`` call it.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import CpusetError, HostError, TunerError
from libvirt_tuner.host import commands
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import Book, Ledger, Slice
from libvirt_tuner.topology import Cpus

UNITS = ("init.scope", "system.slice", "user.slice")
ONLINE = "/sys/devices/system/cpu/online"
_SECONDS = 10.0
"""One command may take; also the wait for another process that is at it."""


@frozen
class _Units:
    """systemd's units of a host."""

    sysfs: Sysfs
    run: commands.Run

    def allowed(self, unit: str) -> str:
        """``AllowedCPUs`` as a cpulist; "" where nobody has set any."""
        said = self.run(self.sysfs, ["systemctl", "show", "--property=AllowedCPUs", "--value", unit])
        # systemd puts spaces between ranges.
        text = ",".join(said.replace(",", " ").split())
        return cpuset.format(cpuset.parse(text, where=f"AllowedCPUs of {unit}")) if text else ""

    def allow(self, unit: str, cpus: str) -> None:
        """Set it until the next boot; "" for all. systemd would say "done" where no cgroup can have it."""
        self.run(self.sysfs, ["systemctl", "set-property", "--runtime", unit, f"AllowedCPUs={cpus}"])
        if (found := self.allowed(unit)) != cpus:
            raise HostError(
                "systemd took another value", where=f"AllowedCPUs of {unit}", value=found, expected=cpus
            )


def _patiently(sysfs: Sysfs, argv: Sequence[str]) -> str:
    return commands.run(sysfs, argv, _SECONDS)


def keep(sysfs: Sysfs, run: commands.Run = _patiently) -> tuple[str, ...]:
    """Have the units allow what the ledger says, and nothing else because of us.

    Args:
        sysfs: The host.
        run: What runs ``systemctl``.

    Returns:
        What went wrong, a sentence each.

    Raises:
        LedgerError: The ledger cannot be read or written.
        HostError: The host's CPUs cannot be read.
    """
    ledger = Ledger(sysfs)
    book = ledger.read()
    if not (book.alone or book.slices):
        return ()
    with ledger.alone("slices", 3 * _SECONDS):
        book = ledger.read()
        rest = cpuset.parse(sysfs.read(ONLINE), where=ONLINE) - book.alone
        troubles = [_keep(ledger, _Units(sysfs, run), unit, book, rest) for unit in UNITS]
    return tuple(dict.fromkeys(filter(None, troubles)))


def _keep(ledger: Ledger, units: _Units, unit: str, book: Book, rest: Cpus) -> str:
    """One unit; what went wrong."""
    try:
        found = units.allowed(unit)
        old = book.slices.get(unit)
        prior = old.prior if old is not None and found in (old.wanted, old.before) else found
        if not book.alone:
            if old is not None and found != prior:
                units.allow(unit, prior)
            _remember(ledger, unit, None)
            return ""
        wanted = cpuset.format(cpuset.parse(prior) & rest if prior else rest)
        if not wanted:
            return f"{unit}: not changed: every CPU it may use runs a vCPU"
        if found != wanted or old is None:
            _remember(ledger, unit, Slice(prior, wanted, found))
            units.allow(unit, wanted)
    except (HostError, CpusetError) as error:
        return f"{unit} may still run on CPUs of vCPUs: {error}"
    return ""


def _remember(ledger: Ledger, unit: str, kept: Slice | None) -> None:
    with ledger.locked() as book:
        if book.slices.get(unit) == kept:
            return
        if kept is None:
            del book.slices[unit]
        else:
            book.slices[unit] = kept
        book.save()


def troubles(sysfs: Sysfs) -> tuple[str, ...]:
    """:func:`keep`, with every failure as a sentence."""
    try:
        return keep(sysfs)
    except TunerError as error:
        return (str(error),)
