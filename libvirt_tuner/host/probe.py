"""Reads the host from sysfs and procfs into :class:`~libvirt_tuner.topology.HostTopology`.

Everything is read through a :class:`~libvirt_tuner.host.sysfs.Sysfs`, so a captured host is read like the
running one. The hook calls this on every start, so it reads only what is needed: never ``/proc/interrupts``
(4,096 lines of 1,024 columns on a large host), one ``thread_siblings_list`` per core instead of per CPU, and
interrupts of the needed NICs only.

Import budget: attrs, cpuset, errors, sysfs, topology, uplink (and lxml with it, which the hook has anyway).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libvirt_tuner.host import cgroups, pollers
from libvirt_tuner.host.cgroups import PARTITION
from libvirt_tuner.host.cpus import cpus_and_cells, isolated, nohz_full
from libvirt_tuner.host.nics import irq_default, nics, queue_masks
from libvirt_tuner.topology import (
    NO_CPUS,
    Core,
    Cpus,
    HostTopology,
    Xfrm,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.commands import Run
    from libvirt_tuner.host.links import Networks
    from libvirt_tuner.host.sysfs import Sysfs
    from libvirt_tuner.topology import Link, Route


def topology(
    sysfs: Sysfs,
    devices: Iterable[str] | None = None,
    run: Run | None = None,
    *,
    queues: bool = False,
    partition: str = PARTITION,
    networks: Networks | None = None,
) -> HostTopology:
    """Read the host, with the network devices below ``devices`` (None: all).

    Args:
        sysfs: The host.
        devices: Names as for :func:`libvirt_tuner.host.links.network`. Each is followed to hardware, a tunnel
            through the route to its remote end. None reads every network device. An empty iterable reads none
            and runs no program.
        run: What runs programs; :func:`libvirt_tuner.host.commands.run` unless said.
        queues: Read the NICs' RPS and XPS masks as well.
        partition: The domain's ``<resource><partition>``: its cgroup's CPUs and nodes are read.
        networks: Function that asks libvirt for a network's XML; never given in the hook.

    Raises:
        HostError: A file is missing or cannot be read.
        CpusetError: A cpulist that is none.
    """
    found, found_cores = cpus_and_cells(sysfs)
    switch: dict[str, str] = {}
    links, routes = _network(sysfs, devices, run, networks, switch)
    allowed = cgroups.allowed(sysfs, partition)
    online = frozenset(cpu for core in found_cores for cpu in core.cpus)
    hardware = nics(sysfs, (name for name, link in links.items() if link.kind in _HARDWARE))
    return HostTopology(
        cells=found,
        cores=found_cores,
        isolated=isolated(sysfs),
        nohz_full=nohz_full(sysfs),
        busy=_busy(sysfs, found_cores, switch),
        irq_default=irq_default(sysfs) if hardware else NO_CPUS,
        allowed=allowed[0] if allowed[0] != online else NO_CPUS,
        allowed_nodes=allowed[1],
        nics=hardware,
        links=links,
        routes=routes,
        xfrm=_xfrm(sysfs, links, run),
        queues=tuple(mask for name in hardware for mask in queue_masks(sysfs, name)) if queues else (),
    )


_HARDWARE = ("", "pci")


def _busy(sysfs: Sysfs, cores: Iterable[Core], config: Mapping[str, str]) -> Cpus:
    """Return CPUs of poll mode drivers and their SMT siblings, which get only half a core."""
    polled = pollers.busy(sysfs) | pollers.configured(config)
    return frozenset(cpu for core in cores if polled.intersection(core.cpus) for cpu in core.cpus)


def _xfrm(sysfs: Sysfs, links: Mapping[str, Link], run: Run | None) -> Xfrm:
    """Read IPsec states and policies. They only matter for packets of tunnels."""
    if not any(link.tunnel for link in links.values()):
        return Xfrm()
    from libvirt_tuner.host import xfrm

    return xfrm.xfrm(sysfs, *([run] if run else []))


def _network(
    sysfs: Sysfs,
    devices: Iterable[str] | None,
    run: Run | None,
    networks: Networks | None,
    switch: dict[str, str],
) -> tuple[dict[str, Link], dict[str, Route]]:
    wanted = None if devices is None else tuple(devices)
    if wanted == ():
        return {}, {}
    # Imported here, because a host without devices to follow does not need it.
    from libvirt_tuner.host import links as netprobe

    if run is None:
        return netprobe.network(sysfs, wanted, networks=networks, switch=switch)
    return netprobe.network(sysfs, wanted, run, networks, switch)
