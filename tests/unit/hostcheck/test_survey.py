"""What host check reads, of replayed hosts and of this one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import HostError
from libvirt_tuner.host import commands
from libvirt_tuner.host.ethtool import Pause
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import survey
from libvirt_tuner.hostcheck.facts import Guest, Irqbalance, Tuned
from libvirt_tuner.hostside.ledger import Claim, Ledger
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Held, Plan
from libvirt_tuner.topology import QueueMask
from tests import hosts
from tests.unit.builders import cpus
from tests.unit.trees import small_host


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


def test_rfs_needs_a_flow_table_of_a_queue_too(tmp_path: Path) -> None:
    hosts.make("misfit", tmp_path / "host")
    sysfs = Sysfs(str(tmp_path / "host"))
    assert survey.facts(sysfs).rfs == {}
    queues = tmp_path / "host/sys/class/net/ens1f0np0/queues"
    (queues / "rx-0/rps_flow_cnt").write_text("2048\n")
    (queues / "rx-1/rps_flow_cnt").write_text("0\n")
    assert survey.facts(sysfs).rfs == {"ens1f0np0": 1}


def test_a_host_without_any_of_it(tmp_path: Path) -> None:
    found = survey.facts(small_host(tmp_path))
    assert (found.irqbalance, found.tuned, found.guests, found.host.queues) == (None, None, (), ())
    assert found.unread == ("offloads and flow control: the program ethtool is missing",)


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
    sysfs = small_host(tmp_path, proc__7__comm="irqbalance\n", etc__default__irqbalance=text)
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
    sysfs = small_host(tmp_path, **files)
    (tmp_path / "host/etc/tuned/realtime-variables.conf").write_text(settings)
    assert survey.facts(sysfs).tuned == tuned


def test_a_claim_counts_more_than_a_document(tmp_path: Path) -> None:
    sysfs = small_host(tmp_path)
    plan = Plan(
        "vm",
        "u",
        "dedicated",
        vcpupin={0: cpus(2), 3: cpus(9)},
        emulatorpin=cpus(4),
        holds=Held(cpus(2)),
        vcpus={0: cpus(2)},
    )
    with Ledger(sysfs).locked() as book:
        book.claim(Claim("u", "vm", 1, 1, vcpus=cpus(2), plan=stored.to_dict(plan)))
        book.save()
    others = (
        Guest("vm", {0: cpus(6), 1: cpus(7)}, running=False),
        Guest("other", {0: cpus(5)}, running=False),
    )
    assert survey.facts(sysfs, others).guests == (
        Guest("vm", {0: cpus(2), 1: cpus(7)}, cpus(4), running=True, placed=True),
        Guest("other", {0: cpus(5)}, running=False),
    )


def test_a_damaged_ledger_names_nobody(tmp_path: Path) -> None:
    sysfs = small_host(tmp_path)
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
    assert survey.possible(small_host(tmp_path / "a")) == frozenset(range(8))
    sysfs = small_host(tmp_path / "b", sys__devices__system__cpu__possible="0-11\n")
    assert survey.possible(sysfs) == frozenset(range(12))


def test_napi_threads_of_the_cards_named(tmp_path: Path) -> None:
    threads = {"41": "napi/p0-8193", "42": "napi/p0-8194", "43": "napi/p00-8195", "44": "napi/enp129s0f0"}
    files = {f"proc__{pid}__comm": name for pid, name in threads.items()}
    files |= {f"proc__{pid}__status": f"Name:\tx\nCpus_allowed_list:\t0-{pid[1]}\n" for pid in threads}
    sysfs = small_host(tmp_path, **files)
    assert survey.napi(sysfs, ["p0"]) == {"p0": ((41, cpus(0, 1)), (42, cpus(0, 1, 2)))}
    # The kernel cuts the thread's name off there.
    assert survey.napi(sysfs, ["enp129s0f0np0"]) == {"enp129s0f0np0": ((44, cpus(0, 1, 2, 3, 4)),)}
    assert survey.napi(sysfs, ["p1"]) == {}
    assert survey.napi(sysfs, []) == {}
