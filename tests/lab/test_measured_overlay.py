"""What the right MTU buys over geneve and ESP: counted by the kernel, per gigabyte of payload."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.lab import measure, overlay
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.results import Measurement, Results

pytestmark = pytest.mark.measured

SECONDS = 3
PEER = "10.79.0.2"

SETUP = f"""\
A bond of two NICs connects two hypervisors (active-backup, MTU 1500), with ESP in transport mode (AES-GCM,
kernel crypto) and geneve over it. A VM on a macvtap on geneve0 of the first sends over TCP for {SECONDS}
seconds to geneve0 of the second, which accepts 1500 bytes. *1500*: the policy does not select the domain, and
its eth0 has an MTU of 1500. *Computed*: the service added the computed MTU (1416) to the same definition.
Nothing is changed in the guest. The sending hypervisor counts three figures per gigabyte (10^9 bytes) of
payload: created outer IPv4 fragments (FragCreates of /proc/net/snmp), segments that passed ESP (counter of
the state), and packets that left through the bond. Emulated NICs have no offloads. So throughput shows the
CPU cost of more packets, but not the loss of segmentation and crypto offload that fragments cause on real
NICs."""

LEFT_ALONE = "<tuner:policy xmlns:tuner='https://libvirt-tuner.org/policy/1' select='false'/>"


def counters(hypervisor: Hypervisor) -> dict[str, int]:
    """What the sender's kernel counted so far."""
    state = hypervisor.output(
        f"ip -s xfrm state list src {overlay.address(1)} dst {overlay.address(2)}"
        " | sed -n '/lifetime current/,$ s/.* \\([0-9]*\\)(packets).*/\\1/p' | head -n 1"
    )
    return {
        "fragments": measure.sample(hypervisor).ip["FragCreates"],
        "segments": int(state),
        "packets on the bond": int(hypervisor.read("/sys/class/net/bond0/statistics/tx_packets")),
    }


def send(guest: Guest, peer: Hypervisor) -> Mapping[str, float]:
    """Let one VM send, and count."""
    guest.virsh("resume")
    (vcpu,) = guest.vcpu_threads().values()
    counted, before = counters(guest.host), measure.sample(guest.host, (vcpu,))
    report = measure.iperf3_report(peer.output, f"-c {address(guest)} -R -t {SECONDS}")
    grown = measure.sample(guest.host, (vcpu,)) - before
    gigabytes = report["sum_sent"]["bytes"] / 1e9
    after = counters(guest.host)
    guest.virsh("suspend")
    return {
        "Mbit/s": report["sum_received"]["bits_per_second"] / 1e6,
        **{f"{name} per GB": (after[name] - value) / gigabytes for name, value in counted.items()},
        "vCPU waits, ms/s": 1000 * grown.wait[vcpu] / grown.seconds,
        **{f"NET_RX of CPU {cpu}, 1/s": n / grown.seconds for cpu, n in grown.net_rx.items()},
    }


def address(guest: Guest) -> str:
    """The VM's, on the overlay."""
    return guest.spec.nics[0].address.partition("/")[0]


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
    for guest, mtu in zip(guests.values(), (1500, overlay.VM_MTU), strict=True):
        guest.wait()
        assert guest.mtu() == mtu
        guest.virsh("suspend")
    return guests


def test_mtu(peers: tuple[Hypervisor, Hypervisor], results: Results, pytestconfig: pytest.Config) -> None:
    for here, there in (peers, reversed(peers)):
        overlay.bond(here)
        overlay.esp(here, there.number)
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
    results.add(Measurement("MTU", peers[0].release, SETUP, series, "fragments per GB", better="lower"))
    whole, computed = series.values()
    assert min(whole["fragments per GB"]) > 1e5
    assert max(computed["fragments per GB"]) == 0
    # What was sent passed ESP, or no fragment would say nothing.
    assert min(whole["segments per GB"] + computed["segments per GB"]) > 1e5
