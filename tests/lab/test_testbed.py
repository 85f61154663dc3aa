"""`libvirt-tuner testbed` whole: bond, geneve and ESP between two hypervisors, and nothing left of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab import measure, overlay
from tests.lab.channel import CommandError
from tests.lab.hypervisor import Hypervisor
from tests.lab.overlay import KEY_FILE, Peers, configure, up

JOURNAL = "/run/libvirt-tuner/testbed.json"
#: Not "ip address": the lifetime of a leased address runs.
WATCHED = ("ip -details link", "ip xfrm state", "ip xfrm policy", "ip -4 address | grep -v valid_lft")


def seen(host: Hypervisor) -> str:
    return "\n".join(host.output(command) for command in WATCHED)


def assert_as_before(host: Hypervisor, before: str) -> None:
    """Byte for byte, once carriers that were taken down are back."""
    try:
        host.wait_for(lambda: seen(host) == before, timeout=10)
    except AssertionError:
        assert seen(host) == before


def down(peers: Peers) -> None:
    for host in peers:
        host.output("libvirt-tuner testbed down")


def show(host: Hypervisor) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.output("libvirt-tuner testbed show --json"))
    return found


def packets(host: Hypervisor) -> dict[str, int]:
    return {state["way"]: state["packets"] for state in show(host)["states"]}


def ping(host: Hypervisor, address: str, size: int, *, count: int = 5) -> bool:
    """Whether IPv4 packets of ``size`` bytes that may not be cut come back."""
    command = f"ping -n -c {count} -i 0.2 -W 5 -M do -s {size - 28} {address}"
    return host.run(command, check=False).status == 0


def cut(host: Hypervisor) -> int:
    """Outer packets that were cut so far, IPv4 and IPv6."""
    words = host.output("nstat -asz IpFragCreates Ip6FragCreates").split()
    return sum(int(words[words.index(name) + 1]) for name in ("IpFragCreates", "Ip6FragCreates"))


ESP_PADDING = 4


def room_above(host: Hypervisor, address: str, size: int) -> int:
    """How many bytes above ``size`` the kernel begins to refuse or to cut, geneve0 being told nothing of it.

    Geneve asks ESP for the path's MTU (skb_tunnel_check_pmtu() of net/ipv4/ip_tunnel_core.c).
    """
    host.ip(f"link set geneve0 mtu {size + 34}")
    before = cut(host)
    try:
        more = range(1, 2 * ESP_PADDING)
        return next(
            extra for extra in more if not ping(host, address, size + extra, count=1) or cut(host) > before
        )
    finally:
        host.ip(f"link set geneve0 mtu {size}")


THOROUGH = pytest.mark.thorough
CASES = [
    pytest.param({}, 1416, id="bond, IPv4"),
    pytest.param({"server": "fd00::1/64", "client": "fd00::2/64"}, 1396, id="bond, IPv6", marks=THOROUGH),
    pytest.param({"tunnel": "vxlan", "name": "vx0"}, 1416, id="bond, vxlan", marks=THOROUGH),
    pytest.param({"crypto": "none"}, 1450, id="bond, no IPsec", marks=THOROUGH),
    pytest.param({"mtu": 1400}, 1316, id="bond, smaller MTU", marks=THOROUGH),
]


@pytest.mark.parametrize(("settings", "size"), CASES)
def test_up_carries_and_down_leaves_nothing(peers: Peers, settings: dict[str, object], size: int) -> None:
    before = [seen(host) for host in peers]
    configure(peers, **settings)
    said = up(peers)
    tunnel = str(settings.get("name", "geneve0"))
    for host in peers:
        assert int(host.read(f"/sys/class/net/{tunnel}/mtu")) == size
        host.ip(f"address add 10.88.0.{host.number}/24 dev {tunnel}")
    assert ping(peers[0], "10.88.0.2", 100, count=2)
    counted = [] if settings.get("crypto") == "none" else [packets(host) for host in peers]
    # What one end sent before the other was up is no error of the testbed's.
    errors = [show(host)["errors"] for host in peers]
    fragments = [cut(host) for host in peers]
    assert ping(peers[0], "10.88.0.2", size)
    assert [cut(host) for host in peers] == fragments
    assert [show(host)["errors"] for host in peers] == errors
    if tunnel == "geneve0" and counted:
        room = room_above(peers[0], "10.88.0.2", size)
        assert 1 <= room <= ESP_PADDING, room
    peers[1].run("iperf3 --server --one-off --daemon")
    report = measure.iperf3_report(peers[0].output, "-c 10.88.0.2 -n 512K")
    assert report["sum_sent"]["bytes"] >= 512 * 1024
    for host, old in zip(peers, counted, strict=False):
        assert all(count >= old[way] + 5 for way, count in packets(host).items())
    assert all("nothing to do" in text for text in up(peers))
    if counted:
        keys = [line.split()[1][2:] for line in peers[0].read(KEY_FILE).splitlines()[1:]]
        texts = [*said, *(host.read(JOURNAL) for host in peers)]
        assert not [key for key in keys for text in texts if key in text]
    down(peers)
    for host, text in zip(peers, before, strict=True):
        assert_as_before(host, text)


@THOROUGH
def test_failover_and_down_with_vms(peers: Peers) -> None:
    before = [seen(host) for host in peers]
    guest, _ = overlay.join(*peers)
    guest.run("ping -c 3 10.79.0.2")
    refused = peers[0].run("libvirt-tuner testbed down", check=False)
    assert refused.status == 1
    assert "geneve0: is in use by macvtap" in refused.stderr
    active = peers[0].read("/sys/class/net/bond0/bonding/active_slave")
    other = next(nic for nic in peers[0].nics[1:] if nic != active)
    overlay.activate(peers[0], other)
    guest.run("ping -c 3 10.79.0.2")
    for host in peers:
        host.clean()
    down(peers)
    for host, text in zip(peers, before, strict=True):
        assert_as_before(host, text)


@THOROUGH
def test_port_that_was_up_with_addresses_and_a_route(peers: Peers) -> None:
    host, nic = peers[0], peers[0].nics[1]
    host.ip(f"link set {nic} mtu 1450 up")
    host.ip(f"address add 10.5.0.1/24 dev {nic}")
    host.ip(f"address add fd05::1/64 dev {nic} nodad")
    host.ip(f"route add 10.6.0.0/24 via 10.5.0.9 dev {nic} metric 7")
    watched = "ip -4 route; ip -6 route | grep -v fe80; ip -6 address show scope global | grep -v valid_lft"
    before, routes = seen(host), host.output(watched)
    configure(peers)
    with pytest.raises(CommandError, match=rf"{nic}: is in use: has the address 10.5.0.1/24"):
        host.output("libvirt-tuner testbed up --crypto none")
    assert seen(host) == before
    host.output("libvirt-tuner testbed up --crypto none --force")
    assert host.read(f"/sys/class/net/{nic}/master/uevent").find("bond0") >= 0
    host.output("libvirt-tuner testbed down")
    assert_as_before(host, before)
    host.wait_for(lambda: host.output(watched) == routes, why=host.output(watched))


def test_card_without_offload_is_named(peers: Peers) -> None:
    host = peers[0]
    before = seen(host)
    configure(peers)
    refused = host.run("libvirt-tuner testbed up --make-keys --crypto offload", check=False)
    assert refused.status == 1
    assert f"{host.nics[1]}: does not offer esp-hw-offload" in refused.stderr
    assert seen(host) == before


@THOROUGH
def test_killed_on_the_way_up_and_down_undoes_it(peers: Peers) -> None:
    host = peers[0]
    before = seen(host)
    configure(peers)
    for step in ("link bond0", f"port {host.nics[1]}", "state 300001", "policy fwd", "link geneve0"):
        noted = f"grep -qs '\"{step}\"' {JOURNAL}"
        watched = f"until {noted} || ! kill -0 $!; do :; done; kill -KILL $!; wait $!"
        host.run(f"libvirt-tuner testbed up --make-keys & {watched}", check=False)
        host.run(noted)
        host.output("libvirt-tuner testbed down")
        assert_as_before(host, before)
