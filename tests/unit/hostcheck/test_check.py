"""Each check of a host, on facts made for it; then the captured hosts as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.host.ethtool import Feature, Pause
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import check as hostcheck
from libvirt_tuner.hostcheck import crypto, interrupts, kernel_line, network, survey
from libvirt_tuner.hostcheck.crypto import ESP_FEATURES
from libvirt_tuner.hostcheck.facts import NOTE, WARNING, Facts, Guest, Irqbalance, Tuned
from libvirt_tuner.topology import HostTopology, Link, QueueMask, Route, Tunnel, Xfrm, XfrmState
from tests import hosts
from tests.unit import builders
from tests.unit.builders import cpus

DOMAINS = hosts.FIXTURES.parent / "domains"
ON, OFF = Feature(True), Feature(False)
ALL_ON = dict.fromkeys(ESP_FEATURES, ON)
ALL_FIXED = dict.fromkeys(ESP_FEATURES, Feature(False, fixed=True))
DROPPED = Feature(False, requested=True)
ESP = Xfrm((XfrmState("192.168.1.1", "192.168.1.2"),))
OFFLOADED = Xfrm((XfrmState("192.168.1.1", "192.168.1.2", offload="bond0", direction="out"),))


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


def test_nothing_is_found_on_a_plain_host() -> None:
    assert hostcheck.check(facts()) == ()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param("isolcpus=nohz,domain,managed_irq,4-7", [], id="fine"),
        pytest.param("isolcpus=no_hz,domain,4-7", ["no_hz"], id="no_hz"),
        pytest.param("isolcpus=nohz,domain,4 nohz_full=5", ["nohz_full=5"], id="contradiction"),
    ],
)
def test_skipped_parameters(line: str, found: list[str]) -> None:
    said = whats("skipped_parameters", facts(line))
    assert [text.partition(":")[0] for text in said] == found


FULL = "isolcpus=nohz,domain,managed_irq,4-7 nohz_full=4-7 irqaffinity=0-3,8-15"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param("", [], id="nothing isolated"),
        pytest.param(FULL, [], id="isolated in every way"),
        pytest.param(
            "isolcpus=nohz,4-7", ["CPUs 4-7 are nohz_full without domain isolation"], id="only nohz"
        ),
        pytest.param(
            "nohz_full=4-7", ["CPUs 4-7 are nohz_full without domain isolation"], id="only nohz_full"
        ),
        pytest.param(
            "isolcpus=4-7 irqaffinity=0-3", ["CPUs 4-7 are isolated without managed_irq"], id="no managed_irq"
        ),
        pytest.param(
            "isolcpus=domain,managed_irq,4-7",
            ["new interrupts may go to isolated CPUs 4-7 (no irqaffinity=)"],
            id="no irqaffinity",
        ),
        pytest.param(
            "isolcpus=domain,managed_irq,4-7 irqaffinity=0-4",
            ["new interrupts may go to isolated CPUs 4 (irqaffinity=0-4)"],
            id="irqaffinity on isolated CPUs",
        ),
    ],
)
def test_partial_isolation(line: str, found: list[str]) -> None:
    assert whats("partial_isolation", facts(line)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param("isolcpus=0-3", ["CPU 0 is isolated"], id="by isolcpus"),
        pytest.param("nohz_full=0-3", [], id="nohz_full leaves it out"),
        pytest.param("isolcpus=1-3", [], id="not isolated"),
    ],
)
def test_isolated_boot_cpu(line: str, found: list[str]) -> None:
    made = facts(line)
    assert whats("isolated_boot_cpu", made) == found
    mends = {one.mend for one in hostcheck.check(made) if one.check == "isolated_boot_cpu"}
    assert mends <= {"libvirt-tuner host isolate --cpus 1-3 --write && update-grub, and boot"}


def test_broken_uplinks() -> None:
    host = bonded()
    assert whats("broken_uplinks", facts(host=host)) == []
    assert whats("broken_uplinks", facts(host=evolve(host, routes={}))) == [
        "geneve0: no route to 192.168.1.2"
    ]
    empty = evolve(host.links["bond0"], lower=(), active=None)
    said = whats("broken_uplinks", facts(host=evolve(host, links={**host.links, "bond0": empty})))
    assert said == ["bond0: bond0 (bond) has no slaves", "geneve0: bond0 (bond) has no slaves"]


def test_unreadable_ipsec_is_no_reason_to_change_an_mtu() -> None:
    host = evolve(bonded(), xfrm=Xfrm(problem="needs root"))
    assert whats("mtu_chain", facts(host=host)) == []


def test_one_command_mends_the_whole_line() -> None:
    found = hostcheck.check(facts("isolcpus=no_hz,domain,4-5 nohz_full=6-7"))
    assert {finding.mend for finding in found} == {
        "libvirt-tuner host isolate --cpus 4-7 --write && update-grub, and boot"
    }


@pytest.mark.parametrize(
    ("guest", "found"),
    [
        pytest.param(Guest("vm"), [], id="no pins: libvirt keeps it off isolated CPUs"),
        pytest.param(pinned("vm", 4, 5), [], id="1:1 on isolated CPUs"),
        pytest.param(Guest("vm", {0: cpus(1, 2)}), [], id="floats beside them"),
        pytest.param(
            Guest("vm", {0: cpus(4, 5), 1: cpus(4, 5), 2: cpus(6)}),
            ["vm: vCPUs 0-1 float over isolated CPUs 4-5"],
            id="floats over them",
        ),
        pytest.param(
            Guest("vm", {0: cpus(3, 4)}, running=False),
            ["vm: vCPUs 0 float over isolated CPUs 4"],
            id="one of them, and only defined",
        ),
    ],
)
def test_floating_pins(guest: Guest, found: list[str]) -> None:
    assert whats("floating_pins", facts(FULL, "4-7", guest)) == found


@pytest.mark.parametrize(
    ("emulator", "found"),
    [
        pytest.param(cpus(1, 2), [], id="beside"),
        pytest.param(cpus(4), [], id="one isolated CPU"),
        pytest.param(cpus(4, 5), ["vm: its emulator floats over isolated CPUs 4-5"], id="two"),
    ],
)
def test_emulator_on_isolated_cpus_is_a_note(emulator: frozenset[int], found: list[str]) -> None:
    guest = evolve(pinned("vm", 6), emulatorpin=emulator)
    assert whats("floating_pins", facts(FULL, "4-7", guest), NOTE) == found


@pytest.mark.parametrize(
    ("guests", "found"),
    [
        pytest.param((pinned("a", 4), pinned("b", 5)), [], id="apart"),
        pytest.param((pinned("a", 4), pinned("b", 4, running=False)), [], id="one is only defined"),
        pytest.param(
            (Guest("a", {0: cpus(4, 5)}), Guest("b", {0: cpus(4, 5)})), [], id="both float: their own wish"
        ),
        pytest.param(
            (pinned("a", 4, 5), pinned("b", 5, 6)), ["a and b both have vCPUs on CPUs 5"], id="together"
        ),
    ],
)
def test_shared_cpus(guests: tuple[Guest, ...], found: list[str]) -> None:
    assert whats("shared_cpus", facts("", "", *guests)) == found


@pytest.mark.parametrize(
    ("at", "isolated", "seats", "found"),
    [
        pytest.param((0, 1, 2, 3), "", (), [], id="on its node"),
        pytest.param((0, 1, 2, 9), "", (), ["p0: interrupt 104 away from its node (9)"], id="far"),
        pytest.param((0, 1, 2, 3), "", (2, 3), ["p0: interrupts 103 104 on CPUs of vCPUs (2-3)"], id="vCPUs"),
        pytest.param((0, 1, 2, 3), "3", (), ["p0: interrupt 104 on isolated CPUs (3)"], id="isolated"),
        pytest.param(
            (0, 9, 2, 3),
            "3",
            (9,),
            ["p0: interrupt 102 on CPUs of vCPUs (9)", "p0: interrupt 104 on isolated CPUs (3)"],
            id="each once, by what hurts most",
        ),
    ],
)
def test_misplaced_interrupts(
    at: tuple[int, ...], isolated: str, seats: tuple[int, ...], found: list[str]
) -> None:
    host = builders.host(isolated=cpuset.parse(isolated), nics=(builders.nic(at=at),))
    made = Facts(host, guests=(pinned("vm", *seats),))
    assert whats("misplaced_interrupts", made) == found


def test_the_command_moves_an_interrupt_to_a_cpu_of_its_node() -> None:
    made = facts("", "", pinned("vm", 2, 3))
    (finding,) = interrupts.misplaced_interrupts(made)
    assert finding.mend == "for irq in 103 104; do echo 0-1,4-7 > /proc/irq/$irq/smp_affinity_list; done"


@pytest.mark.parametrize(
    ("masks", "found"),
    [
        pytest.param((), [], id="not read"),
        pytest.param((QueueMask("p0", "rx-0"),), [], id="off"),
        pytest.param((QueueMask("p0", "rx-0", cpus(1)),), [], id="elsewhere"),
        pytest.param((QueueMask("p0", "tx-0", cpus(4)),), [], id="XPS puts no work anywhere"),
        pytest.param((QueueMask("other", "rx-0", cpus(4)),), [], id="not an uplink"),
        pytest.param(
            (QueueMask("p0", "rx-0", cpus(1, 4)), QueueMask("p0", "rx-1", cpus(5))),
            ["p0: RPS sends packets of rx 0-1 to CPUs 4-5 of vCPUs or isolated"],
            id="hit",
        ),
    ],
)
def test_steering_masks(masks: tuple[QueueMask, ...], found: list[str]) -> None:
    made = facts("", "5", pinned("vm", 4))
    assert whats("steering_masks", evolve(made, host=evolve(made.host, queues=masks))) == found


def test_rfs_is_a_note() -> None:
    assert whats("steering_masks", facts(rfs_entries=32768), NOTE) == [
        "RFS is on (rps_sock_flow_entries 32768)"
    ]
    accelerated = facts(rfs_entries=32768, features={"p0": {"ntuple-filters": ON}, "p1": {}})
    assert whats("steering_masks", accelerated, NOTE) == [
        "RFS is on (rps_sock_flow_entries 32768), accelerated (aRFS) by p0 where a queue has an rps_flow_cnt"
    ]


@pytest.mark.parametrize(
    ("daemon", "found"),
    [
        pytest.param(None, [], id="not running"),
        pytest.param(Irqbalance(), ["irqbalance may put interrupts on CPUs 3 of vCPUs"], id="by itself"),
        pytest.param(Irqbalance(cpus(3, 4)), [], id="settings name them"),
        pytest.param(
            Irqbalance(cpus(3)), ["irqbalance may put interrupts on CPUs 4 of vCPUs"],
            id="settings count alone",
        ),
        pytest.param(
            Irqbalance(cpus(3, 4), frozenset({100})),
            ["irqbalance was not told to leave interrupts 101 where this tool put them"],
            id="not told of all",
        ),
        pytest.param(Irqbalance(cpus(3, 4), frozenset({100, 101})), [], id="told"),
    ],
)  # fmt: skip
def test_irqbalance(daemon: Irqbalance | None, found: list[str]) -> None:
    made = facts(FULL, "4", pinned("vm", 3, 4), irqbalance=daemon, steered=frozenset({100, 101}))
    assert whats("balancers", made) == found


@pytest.mark.parametrize(
    ("tuned", "warnings", "notes"),
    [
        pytest.param(Tuned("virtual-host"), 0, 0, id="leaves CPUs alone"),
        pytest.param(Tuned("cpu-partitioning", cpus(3)), 1, 0, id="isolates others"),
        pytest.param(Tuned("realtime-virtual-host", cpus(3, 4)), 0, 0, id="isolates the same"),
    ],
)
def test_tuned(tuned: Tuned, warnings: int, notes: int) -> None:
    made = facts("", "", pinned("vm", 3, 4), tuned=tuned)
    assert len(whats("balancers", made)) == warnings
    assert len(whats("balancers", made, NOTE)) == notes


@pytest.mark.parametrize(
    ("features", "mode", "mends"),
    [
        pytest.param({}, "active-backup", [], id="nobody could ask"),
        pytest.param({"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_ON}, "active-backup", [], id="all on"),
        pytest.param(
            {"p0": ALL_ON | {"tx-gso-partial": OFF}, "p1": ALL_ON, "bond0": ALL_ON},
            "active-backup", ["ethtool -K p0 tx-gso-partial on"], id="off on a port",
        ),
        pytest.param(
            {"p0": ALL_FIXED}, "active-backup", [""], id="no such hardware"
        ),
        pytest.param(
            {"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_ON | {"esp-hw-offload": OFF}},
            "active-backup", ["ethtool -K bond0 esp-hw-offload on"], id="off on the bond",
        ),
        pytest.param(
            {"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_ON | {"tx-esp-segmentation": DROPPED}},
            "active-backup", [f"a kernel with {crypto._BOND_COMMITS}"], id="the bond drops it",
        ),
        pytest.param(
            {"p0": ALL_ON, "p1": ALL_ON, "bond0": ALL_FIXED},
            "802.3ad", ["mode active-backup: bonding passes them on in no other (802.3ad here)"],
            id="other mode",
        ),
    ],
)  # fmt: skip
def test_esp_features(features: Mapping[str, Mapping[str, Feature]], mode: str, mends: list[str]) -> None:
    made = Facts(bonded(mode), features=features)
    assert [finding.mend for finding in crypto.esp_features(made)] == mends


def test_offloads_matter_with_esp_only() -> None:
    made = Facts(bonded(xfrm=Xfrm()), features={"p0": dict.fromkeys(ALL_ON, OFF)})
    assert list(crypto.esp_features(made)) == []
    assert list(crypto.esp_states(made)) == []


@pytest.mark.parametrize(
    ("xfrm", "features", "severities"),
    [
        pytest.param(OFFLOADED, {"p0": ALL_ON}, [], id="offloaded"),
        pytest.param(ESP, {"p0": ALL_ON}, [WARNING], id="the card could"),
        pytest.param(ESP, {"p0": dict.fromkeys(ALL_ON, OFF)}, [NOTE], id="the card cannot"),
    ],
)
def test_esp_states(xfrm: Xfrm, features: Mapping[str, Mapping[str, Feature]], severities: list[str]) -> None:
    found = list(crypto.esp_states(Facts(bonded(xfrm=xfrm), features=features)))
    assert [finding.severity for finding in found] == severities
    assert all("offload dev bond0" in finding.mend for finding in found if finding.severity == WARNING)


@pytest.mark.parametrize(
    ("pause", "severities"),
    [
        pytest.param({}, [], id="not known"),
        pytest.param({"p0": Pause(False, False), "p1": Pause(False, False)}, [], id="off"),
        pytest.param({"p0": Pause(True, True), "p1": Pause(True, True)}, [NOTE], id="on"),
        pytest.param({"p0": Pause(True, False), "p1": Pause(False, False)}, [WARNING, NOTE], id="differs"),
    ],
)
def test_flow_control(pause: Mapping[str, Pause], severities: list[str]) -> None:
    found = network.flow_control(Facts(bonded(), pause=pause))
    assert [finding.severity for finding in found] == severities


@pytest.mark.parametrize(
    ("changes", "mends"),
    [
        pytest.param({}, [], id="fits"),
        pytest.param({"geneve0": 1460}, ["ip link set geneve0 mtu 1450"], id="tunnel too large"),
        pytest.param({"p1": 1400, "bond0": 1400}, ["ip link set geneve0 mtu 1350"], id="backup"),
        pytest.param({"p1": 1450, "geneve0": 1400}, ["ip link set bond0 mtu 1450"], id="bond"),
    ],
)  # fmt: skip
def test_mtu_chain(changes: Mapping[str, int], mends: list[str]) -> None:
    host = bonded(xfrm=Xfrm())
    links = {name: evolve(link, mtu=changes.get(name, link.mtu)) for name, link in host.links.items()}
    found = network.mtu_chain(Facts(evolve(host, links=links)))
    assert [finding.mend for finding in found] == mends


def test_a_tunnel_in_metadata_mode_has_no_mtu_of_its_own() -> None:
    host = bonded(xfrm=Xfrm())
    links = {**host.links, "genev_sys": Link("genev_sys", "geneve", 65465, tunnel=Tunnel(external=True))}
    assert list(network.mtu_chain(Facts(evolve(host, links=links)))) == []


def test_a_tap_on_top_is_measured_too() -> None:
    host = bonded(xfrm=Xfrm())
    links = {**host.links, "macvtap0": Link("macvtap0", "macvtap", 1500, lower=("geneve0",))}
    (finding,) = network.mtu_chain(Facts(evolve(host, links=links)))
    assert finding.what == "macvtap0 has an MTU of 1500, 50 more than crosses whole"


def test_what_was_not_read_is_a_note() -> None:
    (finding,) = hostcheck.check(facts(unread=("ethtool is not there",)))
    assert (finding.check, finding.severity) == ("unread", NOTE)


def judged(name: str, *documents: str) -> list[tuple[str, str]]:
    guests = [
        survey.guest(read_spec(document.parse((DOMAINS / file).read_bytes())), running=False)
        for file in documents
    ]
    found = hostcheck.check(survey.facts(Sysfs(str(hosts.FIXTURES / name)), guests))
    return [(finding.check, finding.severity) for finding in found]


def test_seed_host() -> None:
    found = judged("seed", "seed-out.xml")
    assert found == [
        ("skipped_parameters", WARNING),
        ("partial_isolation", WARNING),
        ("partial_isolation", WARNING),
        ("floating_pins", NOTE),
        ("misplaced_interrupts", WARNING),
        ("mtu_chain", WARNING),
    ]


def test_every_check_finds_something_on_the_misfit() -> None:
    found = {check for check, severity in judged("misfit") if severity == WARNING}
    # Without a domain nobody's vCPUs are in the way.
    assert found == {each.__name__ for each in hostcheck.CHECKS} - {
        "floating_pins",
        "shared_cpus",
        "balancers",
        # These two have tests of their own.
        "isolated_boot_cpu",
        "broken_uplinks",
    }


@pytest.mark.parametrize(
    "name", ["smt-2x32", "sparse-4node", "laptop", "small-8", "ovn", "bridge-vlan", "vf"]
)
def test_other_hosts_are_fine(name: str) -> None:
    assert judged(name) == [("unread", NOTE)]
