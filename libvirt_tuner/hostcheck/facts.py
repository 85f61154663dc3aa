"""Values that ``host check`` reads and returns."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from libvirt_tuner.host.ethtool import Feature, Pause
from libvirt_tuner.hostcheck.kernel_line import Isolation
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology

_NOTHING_ISOLATED = Isolation()
WARNING, NOTE = "warning", "note"


@frozen
class Finding:
    """One problem of the host.

    Attributes:
        check: The function name of the check that found it.
        what: The problem.
        why: Its consequence.
        fix: The command that fixes it, or what to do if no command can.
        severity: ``warning`` (sets the exit status) or ``note``.
    """

    check: str
    what: str
    why: str
    fix: str = ""
    severity: str = WARNING


@frozen
class Guest:
    """A domain's pins: from its claim in the ledger when it runs, else from its definition.

    Attributes:
        name: The domain's.
        vcpupin, emulatorpin: Where its threads may run.
        running: Whether it runs.
        placed: The emulator's pin is this tool's, which gives each vhost worker and iothread one CPU of it.
    """

    name: str
    vcpupin: Mapping[int, Cpus] = field(factory=dict)
    emulatorpin: Cpus = NO_CPUS
    running: bool = True
    placed: bool = False

    @property
    def cpus(self) -> Cpus:
        """Every CPU on which its vCPUs may run."""
        return NO_CPUS.union(*self.vcpupin.values())


@frozen
class Irqbalance:
    """A running irqbalance.

    Attributes:
        cpus: CPUs banned in its settings; None: it bans isolated and nohz_full CPUs.
        irqs: Interrupts it was told to leave alone; None: it did not answer.
    """

    cpus: Cpus | None = None
    irqs: frozenset[int] | None = None


@frozen
class Tuned:
    """A running tuned, its profile, and the CPUs that the profile isolates."""

    profile: str = ""
    cpus: Cpus = NO_CPUS


@frozen
class Facts:
    """All facts that the checks use.

    Attributes:
        host: With every network device, and the queues' masks.
        isolation: CPU isolation of the kernel's command line.
        guests: Running and defined domains.
        features, pause: By device: the uplinks' functions and bonds.
        steered: Interrupts this tool keeps in place.
        napi: Threads that poll a card's queues (``threaded``), by card: process id and CPUs it may run on.
        rfs_entries: ``net.core.rps_sock_flow_entries``; 0: accelerated or plain RFS is off.
        rfs: Cards to how many of their queues have a flow table (``rps_flow_cnt``), which RFS also needs.
        unread: What could not be read, and why.
    """

    host: HostTopology
    isolation: Isolation = _NOTHING_ISOLATED
    guests: tuple[Guest, ...] = ()
    features: Mapping[str, Mapping[str, Feature]] = field(factory=dict)
    pause: Mapping[str, Pause] = field(factory=dict)
    steered: frozenset[int] = frozenset()
    irqbalance: Irqbalance | None = None
    tuned: Tuned | None = None
    napi: Mapping[str, tuple[tuple[int, Cpus], ...]] = field(factory=dict)
    rfs_entries: int = 0
    rfs: Mapping[str, int] = field(factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def vcpus(self) -> Cpus:
        """CPUs that vCPUs are pinned to, by any domain."""
        return NO_CPUS.union(*(guest.cpus for guest in self.guests))
