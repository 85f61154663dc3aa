"""What host check reads, of replayed hosts and of this one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from libvirt_tuner import capture
from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import commands, ethtool, nics
from libvirt_tuner.host.ethtool import Feature, Pause
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import survey
from libvirt_tuner.hostcheck.facts import Guest, Irqbalance, Tuned
from libvirt_tuner.hostside.ledger import Claim, Ledger
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Held, Plan
from libvirt_tuner.topology import QueueMask
from tests import hosts
from tests.unit.builders import cpus

FEATURES = """Features for eth0:
rx-checksumming: on [fixed]
tx-checksumming: on
\ttx-checksum-ipv4: off [fixed]
tx-esp-segmentation: off [requested on]
esp-hw-offload: off"""
PAUSE = "Pause parameters for eth0:\nAutonegotiate:\ton\nRX:\t\ton\nTX:\t\toff"


def host(tmp_path: Path, **files: str) -> Sysfs:
    """The small host with files of its own; names with ``__`` for a slash."""
    hosts.make("small-8", tmp_path / "host")
    for name, text in files.items():
        path = tmp_path / "host" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sysfs(str(tmp_path / "host"))


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        pytest.param("rx-checksumming", Feature(True, fixed=True), id="fixed"),
        pytest.param("tx-checksumming", Feature(True), id="on"),
        pytest.param("tx-checksum-ipv4", Feature(False, fixed=True), id="indented"),
        pytest.param("tx-esp-segmentation", Feature(False, requested=True), id="requested"),
        pytest.param("esp-hw-offload", Feature(False), id="off"),
        pytest.param("Features for eth0", None, id="headline"),
    ],
)
def test_features(name: str, feature: Feature | None) -> None:
    assert ethtool.parse_features(FEATURES).get(name) == feature


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        pytest.param("", Pause(False, False), id="nothing"),
        pytest.param(PAUSE, Pause(True, False), id="set"),
        pytest.param(f"{PAUSE}\nRX negotiated: off\nTX negotiated: on", Pause(False, True), id="negotiated"),
    ],
)
def test_pause(text: str, pause: Pause) -> None:
    assert ethtool.parse_pause(text) == pause


def test_misfit() -> None:
    found = survey.facts(Sysfs(str(hosts.FIXTURES / "misfit")))
    assert found.irqbalance == Irqbalance(cpus(3))
    assert found.tuned == Tuned("cpu-partitioning", cpus(3, 4, 5, 6, 7))
    assert found.rfs_entries == 32768
    assert set(found.features) == {"ens1f0np0", "ens1f1np1", "bond0"}
    assert found.pause == {"ens1f0np0": Pause(False, False), "ens1f1np1": Pause(True, True)}
    assert found.isolation.domain == cpus(2, 3)
    assert QueueMask("ens1f0np0", "rx-1", cpus(2, 3)) in found.host.queues
    assert found.unread == ()


def test_a_host_without_any_of_it(tmp_path: Path) -> None:
    found = survey.facts(host(tmp_path))
    assert (found.irqbalance, found.tuned, found.guests, found.host.queues) == (None, None, (), ())
    assert found.unread == ("offloads and flow control: ethtool is not there to ask",)


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        pytest.param("", None, id="by itself"),
        pytest.param("IRQBALANCE_BANNED_CPULIST=\n", None, id="empty"),
        pytest.param("#IRQBALANCE_BANNED_CPULIST=1", None, id="comment"),
        pytest.param("IRQBALANCE_BANNED_CPULIST='1-2'", cpus(1, 2), id="list"),
        pytest.param("IRQBALANCE_BANNED_CPUS=00000000,0000000c", cpus(2, 3), id="mask"),
        pytest.param("IRQBALANCE_BANNED_CPULIST=x", cpus(), id="nonsense bans nothing"),
    ],
)
def test_irqbalance_settings(tmp_path: Path, text: str, banned: frozenset[int] | None) -> None:
    sysfs = host(tmp_path, proc__7__comm="irqbalance\n", etc__default__irqbalance=text)
    assert survey.facts(sysfs).irqbalance == Irqbalance(banned)


@pytest.mark.parametrize(
    ("profile", "settings", "tuned"),
    [
        pytest.param("virtual-host", "", Tuned("virtual-host"), id="no settings"),
        pytest.param("realtime", "isolated_cores=2-3", Tuned("realtime", cpus(2, 3)), id="list"),
        pytest.param("realtime", "isolated_cores=${f:calc:1}", Tuned("realtime"), id="function"),
        pytest.param("../etc", "isolated_cores=1", Tuned("../etc"), id="no file name"),
    ],
)
def test_tuned_settings(tmp_path: Path, profile: str, settings: str, tuned: Tuned) -> None:
    files = {"proc__7__comm": "tuned", "etc__tuned__active_profile": profile}
    sysfs = host(tmp_path, **files)
    (tmp_path / "host/etc/tuned/realtime-variables.conf").write_text(settings)
    assert survey.facts(sysfs).tuned == tuned


def test_a_claim_counts_more_than_a_document(tmp_path: Path) -> None:
    sysfs = host(tmp_path)
    plan = Plan("vm", "u", "dedicated", vcpupin={0: cpus(2)}, emulatorpin=cpus(4), holds=Held(cpus(2)))
    with Ledger(sysfs).locked() as book:
        book.claim(Claim("u", "vm", 1, 1, vcpus=cpus(2), plan=stored.to_dict(plan)))
        book.save()
    others = (
        Guest("vm", {0: cpus(6), 1: cpus(7)}, running=False),
        Guest("other", {0: cpus(5)}, running=False),
    )
    assert survey.facts(sysfs, others).guests == (
        Guest("vm", {0: cpus(2), 1: cpus(7)}, cpus(4), running=True),
        Guest("other", {0: cpus(5)}, running=False),
    )


def test_a_damaged_ledger_names_nobody(tmp_path: Path) -> None:
    sysfs = host(tmp_path)
    with Ledger(sysfs).locked() as book:
        book.save()
    ledger = next((tmp_path / "host/run/libvirt-tuner").glob("*.json"))
    ledger.write_text("{")
    assert survey.facts(sysfs).guests == ()


def test_ethtool_that_hangs_is_said_for_each_device(tmp_path: Path) -> None:
    def run(sysfs: Sysfs, argv: Sequence[str]) -> str:
        if argv[0] == "ethtool":
            raise HostError("no answer within 2 s", where=" ".join(argv))
        return commands.run(sysfs, argv)

    found = survey.facts(Sysfs(str(hosts.FIXTURES / "misfit")), (), run)
    assert found.unread[0] == "offloads and flow control of ens1f0np0: no answer within 2 s"
    assert len(found.unread) == 3


def test_a_document_s_pins() -> None:
    text = "<domain type='kvm'><name>vm</name><memory>1</memory><vcpu cpuset='2-3'>2</vcpu>"
    text += "<cputune><vcpupin vcpu='1' cpuset='5'/></cputune></domain>"
    found = survey.guest(read_spec(document.parse(text)), running=True)
    assert found == Guest("vm", {0: cpus(2, 3), 1: cpus(5)})


def test_possible_cpus(tmp_path: Path) -> None:
    assert survey.possible(host(tmp_path / "a")) == frozenset(range(8))
    sysfs = host(tmp_path / "b", sys__devices__system__cpu__possible="0-11\n")
    assert survey.possible(sysfs) == frozenset(range(12))


def test_queue_masks(tmp_path: Path) -> None:
    base = "sys__class__net__ens1np0__queues"
    files = {f"{base}__rx-10__rps_cpus": "ff", f"{base}__rx-2__rps_cpus": "0", f"{base}__tx-0__none": ""}
    assert nics.queue_masks(host(tmp_path, **files), "ens1np0") == (
        QueueMask("ens1np0", "rx-2"),
        QueueMask("ens1np0", "rx-10", frozenset(range(8))),
    )


def test_this_machine_can_be_judged_and_captured(tmp_path: Path) -> None:
    capture.capture(Sysfs(), str(tmp_path / "host"))
    live, replayed = (survey.facts(sysfs) for sysfs in (Sysfs(), Sysfs(str(tmp_path / "host"))))
    assert replayed.isolation == live.isolation
    assert replayed.features == live.features
    assert replayed.host.queues == live.host.queues
    assert (replayed.tuned, replayed.irqbalance is None) == (live.tuned, live.irqbalance is None)


@pytest.mark.parametrize(
    ("path", "text", "kept"),
    [
        pytest.param(
            "/proc/cmdline", "root=UUID=5 secret=x isolcpus=2-3 nohz-full=2 quiet",
            "isolcpus=2-3 nohz-full=2",
            id="kernel line",
        ),
        pytest.param(
            "/etc/default/irqbalance", "# mine\nIRQBALANCE_ARGS=--x\nIRQBALANCE_BANNED_CPUS=c",
            "IRQBALANCE_BANNED_CPUS=c", id="irqbalance",
        ),
        pytest.param("/etc/tuned/x-variables.conf", "a=b\nisolated_cores=2", "isolated_cores=2", id="tuned"),
    ],
)  # fmt: skip
def test_only_what_matters_is_captured_of_settings(path: str, text: str, kept: str) -> None:
    assert capture._Cleaner().clean(path, text.encode()).decode() == kept + "\n"


def test_the_ledger_is_not_captured(tmp_path: Path) -> None:
    sysfs = host(tmp_path)
    with Ledger(sysfs).locked() as book:
        book.save()
    capture.capture(sysfs, str(tmp_path / "copy"))
    assert not (tmp_path / "copy/run/libvirt-tuner").exists()
    with pytest.raises(MissingError):
        Sysfs(str(tmp_path / "copy")).read("/run/libvirt-tuner/ledger.json")
