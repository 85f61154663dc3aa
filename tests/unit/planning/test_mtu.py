"""Which MTU a vNIC gets on the replayed hosts, and by what."""

from __future__ import annotations

import pytest
from attrs import evolve

from libvirt_tuner.config.values import AtMost
from libvirt_tuner.domainxml.spec import Vnic
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning import mtu
from libvirt_tuner.planning.plan import MtuChoice, MtuSetting, Reason
from libvirt_tuner.topology import HostTopology, Link, Route, Tunnel
from libvirt_tuner.uplink import path
from tests import hosts

NEW, OLD = (9, 0, 0), (8, 1, 0)
DIRECT = Vnic(0, mac="52:54:00:00:00:01", type="direct", source="geneve0", model="virtio")
BRIDGE = Vnic(0, mac="52:54:00:00:00:01", type="bridge", source="br0", model="virtio")


def choose(
    name: str, vnic: Vnic, wanted: str | int = "auto", libvirt: tuple[int, ...] = NEW
) -> tuple[MtuChoice | None, Reason]:
    host = probe.topology(Sysfs(str(hosts.FIXTURES / name)), [vnic.source])
    return mtu.choose(vnic, path.trace(vnic.source, host), host, wanted, libvirt=libvirt)


@pytest.mark.parametrize(
    ("name", "vnic", "wanted"),
    [
        pytest.param("smt-2x32", BRIDGE, "auto", id="nothing is added on the way"),
        pytest.param("seed", evolve(DIRECT, source="nosuch"), "auto", id="no such device"),
        pytest.param("seed", evolve(DIRECT, mtu=1300), "auto", id="the user's own"),
        pytest.param("seed", evolve(DIRECT, mtu=1300), 1400, id="the user's own before the policy"),
    ],
)
def test_left_as_it_is(name: str, vnic: Vnic, wanted: str | int) -> None:
    choice, reason = choose(name, vnic, wanted)
    assert choice is None
    assert reason.why


def test_own_mtu_that_is_too_large_is_replaced_and_said() -> None:
    choice, reason = choose("seed", evolve(DIRECT, mtu=1500))
    assert choice is not None
    assert choice.size == 1416
    assert reason.why.endswith("; your MTU of 1500 is too large and is lowered")


@pytest.mark.parametrize(
    ("vnic", "wanted", "libvirt", "size", "how"),
    [
        pytest.param(DIRECT, "auto", NEW, 1416, "host_mtu", id="macvtap over geneve over ESP"),
        pytest.param(DIRECT, "auto", OLD, 1416, "guest", id="before qemu:override"),
        pytest.param(evolve(DIRECT, type="bridge"), "auto", NEW, 1416, "mtu", id="bridge"),
        pytest.param(DIRECT, 1300, NEW, 1300, "host_mtu", id="set in the policy"),
    ],
)
def test_chosen(vnic: Vnic, wanted: str | int, libvirt: tuple[int, ...], size: int, how: MtuSetting) -> None:
    choice, reason = choose("seed", vnic, wanted, libvirt)
    assert choice == MtuChoice(0, size, how, mac=vnic.mac, alias=vnic.alias, target=vnic.target)
    assert reason.decision == str(size)


def test_guest_is_told_how() -> None:
    _, reason = choose("seed", DIRECT, libvirt=OLD)
    assert "1416" in reason.why.rpartition(";")[2]


@pytest.mark.parametrize(
    ("kind", "model", "libvirt", "how"),
    [
        pytest.param("bridge", "virtio", (9, 0, 0), "mtu", id="bridge"),
        pytest.param("network", "virtio", (3, 1, 0), "mtu", id="network"),
        pytest.param("vhostuser", "virtio", (9, 0, 0), "mtu", id="vhostuser"),
        pytest.param("bridge", "virtio", (3, 0, 0), "guest", id="bridge, libvirt too old"),
        pytest.param("direct", "virtio", (8, 2, 0), "host_mtu", id="macvtap"),
        pytest.param("direct", "virtio", (8, 1, 0), "guest", id="macvtap, libvirt too old"),
        pytest.param("hostdev", "virtio", (9, 0, 0), "guest", id="passed through"),
        pytest.param("vdpa", "virtio", (9, 0, 0), "guest", id="vDPA"),
        pytest.param("bridge", "e1000e", (9, 0, 0), "guest", id="no virtio"),
        pytest.param("direct", "virtio-non-transitional", (9, 0, 0), "host_mtu", id="modern virtio"),
    ],
)
def test_mechanism(kind: str, model: str, libvirt: tuple[int, ...], how: str) -> None:
    assert mtu.mechanism(kind, model, libvirt) == how


def test_guest_option_has_the_lines_to_add() -> None:
    text = mtu.guest_option(1416)
    assert "dhcp-option=26,1416" in text
    assert "<dnsmasq:option value='dhcp-option=26,1416'/>" in text


GUEST = 1416


def _host(*links: Link) -> HostTopology:
    every = (*links, Link("p0"))
    return HostTopology(cells=(), cores=(), links={link.name: link for link in every})


@pytest.mark.parametrize(
    ("links", "changes"),
    [
        pytest.param([], (), id="no such device"),
        pytest.param(
            [Link("t0", "tun", GUEST, ("br0",)), Link("br0", "bridge", GUEST, ("p0",))],
            (("t0", 1500),),
            id="the tap pulled the bridge down",
        ),
        pytest.param(
            [Link("t0", "tun", 1500, ("br0",)), Link("br0", "bridge", 1500, ("p0",))],
            (),
            id="the tap is as the bridge",
        ),
        pytest.param(
            [Link("t0", "tun", GUEST, ("br0",)), Link("br0", "bridge", 1480, ("p0",))],
            (("t0", 1480),),
            id="the bridge has an MTU of its own",
        ),
        pytest.param(
            [Link("t0", "tun", GUEST, ("virbr0",)), Link("virbr0", "bridge", GUEST)],
            (),
            id="nothing else on the bridge",
        ),
        pytest.param(
            [Link("t0", "tun", GUEST, ("br-int",)), Link("br-int", "openvswitch", 1500)],
            (),
            id="Open vSwitch",
        ),
        pytest.param(
            [Link("t0", "macvtap", 1450, ("gnv",)), Link("gnv", "geneve", 1450)],
            (("t0", GUEST),),
            id="macvtap",
        ),
    ],
)
def test_mtus_of_the_host_once_the_domain_has_started(
    links: list[Link], changes: tuple[tuple[str, int], ...]
) -> None:
    assert mtu.host_side("t0", GUEST, _host(*links)) == changes


@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        pytest.param(9000, None, id="more than everybody has"),
        pytest.param(1500, None, id="what everybody has"),
        pytest.param(1499, 1499, id="a byte less"),
        pytest.param(1400, 1400, id="less"),
    ],
)
def test_a_way_without_tunnels_that_carries_less_than_1500(size: int, chosen: int | None) -> None:
    links = {"br0": Link("br0", "bridge", size, lower=("p0",)), "p0": Link("p0", mtu=size)}
    host = HostTopology((), (), links=links)
    choice, reason = mtu.choose(BRIDGE, path.trace("br0", host), host, "auto", libvirt=NEW)
    assert (choice and choice.size) == chosen
    assert reason.why


@pytest.mark.parametrize(
    ("size", "wanted", "chosen"),
    [
        pytest.param(1500, "auto", 1450, id="1500"),
        pytest.param(1500, "jumbo", 1450, id="jumbo frames asked for and not carried"),
        pytest.param(9000, "auto", 1500, id="jumbo frames not asked for"),
        pytest.param(9000, "jumbo", 8950, id="jumbo frames"),
    ],
)
def test_a_tunnel_is_counted_however_much_the_wire_carries(size: int, wanted: str, chosen: int) -> None:
    tunnel = Link("gnv", "geneve", size, tunnel=Tunnel(("10.0.0.2",)))
    links = {"gnv": tunnel, "p0": Link("p0", mtu=size)}
    host = HostTopology((), (), links=links, routes={"10.0.0.2": Route("10.0.0.2", "p0")})
    choice, _ = mtu.choose(evolve(DIRECT, source="gnv"), path.trace("gnv", host), host, wanted, libvirt=NEW)
    assert choice is not None
    assert choice.size == chosen


@pytest.mark.parametrize(
    ("wanted", "asked", "size"),
    [
        pytest.param(AtMost(1500), 0, 1450, id="more than crosses"),
        pytest.param(AtMost(1451), 0, 1450, id="a byte more"),
        pytest.param(AtMost(1450), 0, 1450, id="what crosses"),
        pytest.param(AtMost(1300), 0, 1300, id="less"),
        pytest.param(AtMost(1440), 1400, 1400, id="more than the network asks for"),
        pytest.param(AtMost(1300), 1400, 1300, id="less than the network asks for"),
        pytest.param(1500, 0, 1500, id="the host's owner is taken at his word"),
    ],
)
def test_metadata_may_lower_only(wanted: int, asked: int, size: int) -> None:
    links = {
        "br-int": Link("br-int", "openvswitch", 1500, lower=("gnv",), asked=asked),
        "gnv": Link("gnv", "geneve", 1500, tunnel=Tunnel(("10.0.0.2",))),
        "p0": Link("p0", mtu=1500),
    }
    host = HostTopology((), (), links=links, routes={"10.0.0.2": Route("10.0.0.2", "p0")})
    vnic = evolve(BRIDGE, source="br-int")
    choice, reason = mtu.choose(vnic, path.trace("br-int", host), host, wanted, libvirt=NEW)
    assert choice is not None, reason
    assert choice.size == size
    assert ("may only lower the MTU" in reason.why) == (size < wanted)


@pytest.mark.parametrize(
    ("links", "size"),
    [
        pytest.param([Link("br0", "bridge", 1400)], 1400, id="a bridge that leads nowhere"),
        pytest.param([Link("br0", "bridge", 1500)], 1500, id="nothing says less than Ethernet"),
        pytest.param([], 1500, id="no such device"),
    ],
)
def test_metadata_where_the_path_is_not_known(links: list[Link], size: int) -> None:
    host = HostTopology((), (), links={link.name: link for link in links})
    choice, _ = mtu.choose(BRIDGE, path.trace("br0", host), host, AtMost(9000), libvirt=NEW)
    assert choice is not None
    assert choice.size == size
