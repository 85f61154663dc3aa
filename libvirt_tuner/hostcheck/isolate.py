"""Which CPUs to isolate, and the boot parameters that do it. Pure."""

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
    """Whole cores of ``cell`` for ``count`` vCPUs: those the planner would give them, never CPU 0's.

    Cores that are isolated already come first, so that the same question has the same answer after the boot.
    Emulator and vhost workers are left out: several threads share their CPUs, and where nothing balances them
    they would pile up on one.

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
    """The node of the network card that guests use, and why it is that one.

    Args:
        host: With every network device.
        uplink: Begin here; "" looks below every bridge, bond and tunnel, then at every network card.

    Raises:
        HostError: Network cards on several nodes would do, or none says where it is.
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
            raise HostError("network cards on several nodes", value=found, expected="--node or --uplink")
    raise HostError("no network card says on which node it is", value=uplink or None, expected="--node")


def _chosen(host: HostTopology, cell: NumaCell, seats: Assignment, kept: Cpus) -> Choice:
    vcpus = frozenset().union(*seats.vcpupin.values())
    return Choice(host.siblings(vcpus), vcpus, seats.emulator or kept, cell.id, seats.note)


GRUB_DROPIN = "etc/default/grub.d/libvirt-tuner.cfg"
_GRUB = """\
# {mark}: written by 'libvirt-tuner host isolate'; run update-grub after a change.
# It goes in place of isolcpus, nohz_full and irqaffinity in /etc/default/grub, which stays as it is:
# of two contradicting ones the kernel would follow the first.
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
        mark: Says whose file it is.
    """
    return _GRUB.format(mark=mark, names="|".join(OURS), new=" ".join(new))


def grubby(new: Iterable[str]) -> str:
    """The command for systems with boot loader specification entries (Fedora, RHEL and theirs)."""
    return f'grubby --update-kernel=ALL --remove-args="{" ".join(OURS)}" --args="{" ".join(new)}"'
