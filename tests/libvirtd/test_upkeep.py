"""The service keeps interrupts where they belong while the host changes under running domains."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from libvirt_tuner import cpuset
from libvirt_tuner.daemon.upkeep import AGAIN
from tests.libvirtd import domains, nic_replay, observe
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import PROGRAM, install, running_daemon

NIC = nic_replay.FUNCTIONS[1]
SOON = 5.0
"""Before the second of :data:`AGAIN` can be what did it."""
SECONDS = 8.0
"""An event is acted on after 0.3 s, or what the self-imposed rest leaves: a twentieth of the time is work."""


@pytest.fixture
def domain(daemon: PrivateDaemon) -> Iterator[PrivateDaemon]:
    """A domain on the tunnel runs, and so does the service."""
    install(daemon)
    with running_daemon(daemon):
        daemon.define(domains.diskless("web", domains.bridge("br1")))
        daemon.wait_for(lambda: observe.persistent(daemon, "web").vcpupin, "the definition")
        daemon.virsh("start", "web")
        daemon.wait_for(lambda: steered(daemon), "the hook")
        yield daemon


def steered(daemon: PrivateDaemon) -> bool:
    vcpu = cpuset.parse(observe.running(daemon, "web").vcpus[0])
    return not any(cpuset.parse(daemon.irq(irq)) & vcpu for irq in NIC.queues)


def scatter(daemon: PrivateDaemon) -> None:
    """As a driver may when it brings its link up."""
    for irq in NIC.queues:
        daemon.write(f"/proc/irq/{irq}/smp_affinity_list", f"{daemon.online}\n")


def flap(daemon: PrivateDaemon) -> None:
    daemon.run(["ip", "link", "set", NIC.interface, "down"])
    daemon.run(["ip", "link", "set", NIC.interface, "up"])


def hang_up(daemon: PrivateDaemon) -> None:
    listing = daemon.run(["ps", "ax", "-o", "pid=,args="]).stdout.splitlines()
    (pid,) = (line.split()[0] for line in listing if line.endswith(f"{PROGRAM} daemon"))
    daemon.run(["kill", "-HUP", pid])


def changes(daemon: PrivateDaemon) -> list[dict[str, str]]:
    ledger = json.loads(daemon.read("/run/libvirt-tuner/ledger.json"))
    return list(ledger["changes"])


def nothing_due(daemon: PrivateDaemon) -> None:
    """Whatever is put right from now on was put right because of something that happens from now on."""
    for _ in range(5):
        scatter(daemon)
        time.sleep(2)
        if not steered(daemon):
            return
    raise AssertionError("interrupts are steered again and nothing happens")


def test_each_sign_is_heeded(domain: PrivateDaemon) -> None:
    # The taps of the start are events, too, which are followed up on 3 and 15 s later.
    time.sleep(AGAIN[-1] + 2)
    nothing_due(domain)
    hang_up(domain)
    domain.wait_for(lambda: steered(domain), "steering after SIGHUP", seconds=SOON)

    time.sleep(AGAIN[0] + 0.5)
    nothing_due(domain)
    flap(domain)
    domain.wait_for(lambda: steered(domain), "steering after the link came up", seconds=SOON)

    time.sleep(1.5)
    scatter(domain)  # as a driver may that is late
    domain.wait_for(lambda: steered(domain), "the second look", seconds=SECONDS)

    domain.virsh("destroy", "web")
    assert {domain.irq(irq) for irq in nic_replay.IRQS} == {domain.online}


def test_while_libvirtd_is_away(domain: PrivateDaemon) -> None:
    domain.stop_libvirtd()
    try:
        scatter(domain)
        flap(domain)
        vcpu = [entry["wanted"] for entry in changes(domain) if entry["kind"] == "irq"]
        domain.wait_for(
            lambda: all(domain.irq(irq) in vcpu for irq in NIC.queues), "steering", seconds=SECONDS
        )
    finally:
        domain.start_libvirtd()


def test_uplink_leaves_the_bridge_and_another_takes_its_place(domain: PrivateDaemon) -> None:
    other = nic_replay.FUNCTIONS[0]
    domain.run(["ip", "link", "set", "vxlan100", "nomaster"])
    domain.run(["ip", "link", "set", other.interface, "master", "br1"])
    try:
        domain.wait_for(
            lambda: all(domain.irq(irq) != domain.online for irq in other.queues),
            "the interrupts of the new uplink",
            seconds=SECONDS,
        )
        domain.wait_for(
            lambda: all(domain.irq(irq) == domain.online for irq in NIC.queues),
            "those of the old one to be given back",
            seconds=SECONDS,
        )
        targets = {entry["target"] for entry in changes(domain) if entry["kind"] == "irq"}
        assert targets == set(map(str, other.queues))
    finally:
        domain.run(["ip", "link", "set", other.interface, "master", "br0"])
        domain.run(["ip", "link", "set", "vxlan100", "master", "br1"])


def test_a_vcpu_that_is_plugged_in(daemon: PrivateDaemon) -> None:
    install(daemon)
    with running_daemon(daemon):
        daemon.define(domains.diskless("web").replace("<vcpu>1<", "<vcpu current='1'>2<"))
        daemon.wait_for(lambda: observe.persistent(daemon, "web").vcpupin, "the definition")
        assert sorted(observe.persistent(daemon, "web").vcpupin) == [0, 1], "also the one that may come"
        daemon.virsh("start", "web")
        assert sorted(observe.running(daemon, "web").vcpus) == [0]
        daemon.virsh("setvcpus", "web", "2", "--live")

        def planned() -> bool:
            said = daemon.run([PROGRAM, "status", "--json", "web"], check=False).stdout
            return bool(said) and "vcpu 1" in said and not waiting(daemon)

        daemon.wait_for(planned, "the vCPU to be where it is planned", seconds=SECONDS)
        running = observe.running(daemon, "web")
        assert running.vcpus == running.settings.vcpupin


def waiting(daemon: PrivateDaemon) -> list[str]:
    """vCPUs whose threads are not where the ledger has them."""
    (claim,) = json.loads(daemon.read("/run/libvirt-tuner/ledger.json"))["claims"].values()
    real = observe.running(daemon, "web").vcpus
    return [vcpu for vcpu in claim["plan"]["vcpus"] if real[int(vcpu)] != claim["plan"]["vcpupin"].get(vcpu)]
