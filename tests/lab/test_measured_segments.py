"""What an MTU with headroom leaves in one piece: large packets that get past a tunnel, counted."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.lab import measure, overlay
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.results import Measurement, Results

pytestmark = pytest.mark.measured

SECONDS = 3
PEER = "10.79.0.2"
COMPUTED = 1450

SETUP = f"""\
Two hypervisors, joined by a bond of two NICs (active-backup, MTU 1500) and geneve over that, without IPsec.
A VM on a macvtap on geneve0 of the first sends over TCP for {SECONDS} seconds to geneve0 of the second, which
takes 1500 bytes. *1500*: the tool told to leave it alone. *Computed*: the same definition, to which the
service added the computed MTU ({COMPUTED}). Counted on the sending hypervisor by the tracepoint
net:net_dev_start_xmit at bond0, per gigabyte (10^9 bytes) of payload: pieces that reached the bond whole, to
be cut by what is below it (gso_size is not 0), and packets that the CPU had cut before. A card that cuts
packets in a tunnel takes the former as they are; the emulated ones do not, so that throughput shows nothing
of it."""

LEFT_ALONE = "<tuner:policy xmlns:tuner='https://libvirt-tuner.org/policy/1' select='false'/>"
EVENT = "/sys/kernel/tracing/events/net/net_dev_start_xmit"
TRIGGER = "hist:keys=name,gso_size:vals=len"


def begin(hypervisor: Hypervisor) -> None:
    """Count from now on."""
    hypervisor.run("mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing")
    hypervisor.run(f"echo '{TRIGGER}' > {EVENT}/trigger")


def end(hypervisor: Hypervisor, device: str) -> tuple[int, int]:
    """Pieces and single packets that a device was handed since."""
    text = hypervisor.read(f"{EVENT}/hist")
    hypervisor.run(f"echo '!{TRIGGER}' > {EVENT}/trigger")
    found = re.findall(rf"\{{ name: {device}\s*, gso_size:\s*(\d+) \}} hitcount:\s*(\d+)", text)
    pieces = sum(int(hits) for size, hits in found if int(size))
    return pieces, sum(int(hits) for size, hits in found if not int(size))


def send(guest: Guest, peer: Hypervisor) -> Mapping[str, float]:
    """Let one VM send, and count."""
    guest.virsh("resume")
    before = measure.sample(guest.host)
    begin(guest.host)
    own = guest.spec.nics[0].address.partition("/")[0]
    report = measure.iperf3_report(peer.output, f"-c {own} -R -t {SECONDS}")
    pieces, singles = end(guest.host, "bond0")
    grown = measure.sample(guest.host) - before
    gigabytes = report["sum_sent"]["bytes"] / 1e9
    guest.virsh("suspend")
    return {
        "Mbit/s": report["sum_received"]["bits_per_second"] / 1e6,
        "whole pieces per GB": pieces / gigabytes,
        "packets cut before per GB": singles / gigabytes,
        "fragments per GB": grown.ip["FragCreates"] / gigabytes,
    }


def pair(lab: Hypervisor) -> dict[str, Guest]:
    """The two senders, started and suspended."""
    guests = {}
    for number, name in ((3, "left-alone"), (4, "tuned")):
        nic = Vnic(source="dev=geneve0", address=f"10.79.0.{number}/24")
        metadata = LEFT_ALONE if name == "left-alone" else ""
        guests[name] = lab.define(GuestSpec(name=name, nics=(nic,), metadata=metadata))
    lab.wait_for(
        lambda: "host_mtu" in lab.output("virsh dumpxml tuned"), why="the daemon completes the definition"
    )
    for guest in guests.values():
        guest.start(wait=False)
    for guest, mtu in zip(guests.values(), (1500, COMPUTED), strict=True):
        guest.wait()
        assert guest.mtu() == mtu
        guest.virsh("suspend")
    return guests


def test_segments(
    peers: tuple[Hypervisor, Hypervisor], results: Results, pytestconfig: pytest.Config
) -> None:
    for here, there in (peers, reversed(peers)):
        overlay.bond(here)
        overlay.geneve(here, there.number)
    peers[1].ip("link set geneve0 mtu 1500")
    peers[1].ip(f"address add {PEER}/24 dev geneve0")
    guests = pair(peers[0])
    series = measure.alternate(
        pytestconfig.getoption("--rounds"),
        {
            variant: lambda guest=guest: send(guest, peers[1])  # type: ignore[misc]
            for variant, guest in zip(("1500", "computed"), guests.values(), strict=True)
        },
    )
    figure = "packets cut before per GB"
    results.add(Measurement("segments", peers[0].release, SETUP, series, figure, better="lower"))
    whole, computed = series.values()
    assert max(whole["whole pieces per GB"]) < min(computed["whole pieces per GB"])
    assert max(computed["fragments per GB"]) == 0
