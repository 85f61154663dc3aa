"""Chooses CPUs to isolate, and writes the boot parameters for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError
from libvirt_tuner.hostcheck.kernel_line import OURS
from libvirt_tuner.planning import cores
from libvirt_tuner.planning.cores import Assignment, Demand, Free
from libvirt_tuner.topology import Cpus, HostTopology, NumaCell
from libvirt_tuner.uplink.path import SWITCHES, nic_of, trace


@frozen
class Choice:
    """CPUs to isolate on one node.

    Attributes:
        cpus: Whole cores: the vCPUs' CPUs and their siblings.
        vcpus: Those that vCPUs will run on.
        emulator: Where emulator and vhost workers go: not isolated.
        node: Which node.
        note: How SMT siblings are used.
    """

    cpus: Cpus
    vcpus: Cpus
    emulator: Cpus
    node: int
    note: str


def choose(host: HostTopology, cell: NumaCell, count: int) -> Choice:
    """Return whole cores of ``cell`` for ``count`` vCPUs: those that the planner would use, without CPU 0's.

    Isolated cores come first, so that the result is the same after the reboot. CPUs for emulator and vhost
    workers are not isolated: several threads share them, and without load balancing they would collect on one
    CPU.

    Raises:
        HostError: The node has too few cores.
    """
    kept = cores.housekeeping(host, None) & cell.cpus
    allowed = host.online - host.siblings(frozenset({0}))
    free = Free(allowed, housekeeping=kept)
    seats = cores.assign(host, (cell,), free, Demand(tuple(range(count)))) if count > 0 else None
    if seats is None:
        most = len((cell.cpus & allowed) - kept)
        raise HostError(
            f"node {cell.id} has too few cores for {count} vCPUs",
            where="--vcpus",
            expected=f"1 to {most}; {cpuset.format(kept) or 'the first core'} stays with the host",
        )
    return _chosen(host, cell, seats, kept)


def home(host: HostTopology, uplink: str = "") -> tuple[NumaCell, str]:
    """Return the node of the network card that guests use, and the reason.

    Args:
        host: With every network device.
        uplink: Start at this device; "" searches below every bridge, bond and tunnel, then all network cards.

    Raises:
        HostError: There are network cards on several nodes, or no card has a known node.
    """
    if len(host.cells) == 1:
        return host.cells[0], "the only node"
    above = [uplink] if uplink else [name for name, link in host.links.items() if link.kind in SWITCHES]
    used = {function for name in above for function in trace(name, host).functions}
    for names in (used, frozenset() if uplink else frozenset(host.nics)):
        nics = [nic for name in sorted(names) if (nic := nic_of(name, host)) and nic.node is not None]
        nodes = {nic.node for nic in nics}
        cells = [cell for cell in host.cells if cell.id in nodes]
        if len(cells) == 1:
            return cells[0], f"the node of {', '.join(nic.name for nic in nics)}"
        if cells:
            found = ", ".join(f"{nic.name} on node {nic.node}" for nic in nics)
            raise HostError(
                "network cards on several nodes", value=found, expected="choose with --node or --uplink"
            )
    raise HostError("no network card has a known NUMA node", value=uplink or None, expected="--node")


def _chosen(host: HostTopology, cell: NumaCell, seats: Assignment, kept: Cpus) -> Choice:
    vcpus = frozenset().union(*seats.vcpupin.values())
    return Choice(host.siblings(vcpus), vcpus, seats.emulator or kept, cell.id, seats.note)


GRUB_DROPIN = "etc/default/grub.d/libvirt-tuner.cfg"
_GRUB = """\
# {mark}: written by 'libvirt-tuner host isolate'; run update-grub after a change.
# It replaces isolcpus, nohz_full and irqaffinity of /etc/default/grub, and does not change that file.
# If both had them, the kernel would follow the first.
libvirt_tuner_rest() {{
    printf '%s' "$1" | sed -E 's/(^| +)({names})=[^ ]*//g'
}}
GRUB_CMDLINE_LINUX_DEFAULT="$(libvirt_tuner_rest "$GRUB_CMDLINE_LINUX_DEFAULT")"
GRUB_CMDLINE_LINUX="$(libvirt_tuner_rest "$GRUB_CMDLINE_LINUX")"
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {new}"
"""


def grub_dropin(new: Iterable[str], *, mark: str) -> str:
    """A file for ``/etc/default/grub.d``, which Debian's grub-mkconfig reads as shell after the user's own.

    Args:
        new: From :func:`words`.
        mark: Identifies our file.
    """
    return _GRUB.format(mark=mark, names="|".join(OURS), new=" ".join(new))


def grubby(new: Iterable[str]) -> str:
    """The command for systems with boot loader specification entries (Fedora, RHEL and theirs)."""
    return f'grubby --update-kernel=ALL --remove-args="{" ".join(OURS)}" --args="{" ".join(new)}"'
