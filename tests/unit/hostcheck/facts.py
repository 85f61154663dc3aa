"""Facts of hosts for the checks, and what a check says of them."""

from __future__ import annotations

from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.hostcheck import check as hostcheck
from libvirt_tuner.hostcheck import kernel_line
from libvirt_tuner.hostcheck.facts import WARNING, Facts, Guest
from libvirt_tuner.topology import HostTopology, Link, Route, Tunnel, Xfrm, XfrmState
from tests.unit import builders
from tests.unit.builders import cpus

ESP = Xfrm((XfrmState("192.168.1.1", "192.168.1.2"),))


def pinned(name: str = "vm", *seats: int, running: bool = True) -> Guest:
    return Guest(name, {vcpu: cpus(cpu) for vcpu, cpu in enumerate(seats)}, running=running)


def facts(line: str = "", isolated: str = "", *guests: Guest, **changes: object) -> Facts:
    """A host of two nodes of 8 CPUs with a ConnectX port below a bridge."""
    host = builders.host(isolated=cpuset.parse(isolated), nics=(builders.nic(at=(0, 1, 2, 3)),))
    made = Facts(host, kernel_line.parse(line, last=15), guests)
    return evolve(made, **changes)  # type: ignore[arg-type]


def bonded(mode: str = "active-backup", xfrm: Xfrm = ESP) -> HostTopology:
    """Two ports in a bond below a geneve tunnel."""
    nics = (builders.nic("p0"), builders.nic("p1", first_irq=200))
    host = builders.host(nics=nics)
    links = {nic.name: Link(nic.name) for nic in nics}
    links["bond0"] = Link("bond0", "bond", lower=("p0", "p1"), active="p0", mode=mode)
    links["geneve0"] = Link("geneve0", "geneve", 1450, tunnel=Tunnel(("192.168.1.2",), vni=1))
    return evolve(host, links=links, routes={"192.168.1.2": Route("192.168.1.2", "bond0")}, xfrm=xfrm)


def whats(check: str, made: Facts, severity: str = WARNING) -> list[str]:
    found = hostcheck.check(made)
    return [finding.what for finding in found if (finding.check, finding.severity) == (check, severity)]
