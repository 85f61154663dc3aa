"""Each finding on a host where it is the only fault, and none on healthy hosts; read from written samples."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.cli.seeing import captured
from libvirt_tuner.diagnosis.diagnose import diagnose
from libvirt_tuner.diagnosis.finding import Finding, argument
from libvirt_tuner.diagnosis.sample import Interval
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.scene import read_scene, sampler
from libvirt_tuner.topology import Core
from tests import samples
from tests.samples import CASES, HEALTHY, NEIGHBOUR, OTHER_QEMU, PORT, QEMU, VHOST, Case, Thread, vcpu


def interval(case: Case | str, target: Path) -> Interval:
    """Two looks at a host: a stored one by its name, or one that is described here."""
    samples.unpack(samples.stored(case) if isinstance(case, str) else samples.files(case), target)
    sysfs = Sysfs(str(target))
    scene, troubles = read_scene(sysfs)
    assert troubles == ()
    eyes = sampler(sysfs, scene)
    first, second = captured(target)
    before, after = eyes.look(first), eyes.look(second, memory=True)
    assert before.unread == after.unread == ()
    return Interval(scene, before, after)


def found(case: Case | str, target: Path) -> tuple[Finding, ...]:
    return diagnose(interval(case, target))


@pytest.mark.parametrize("name", ["healthy", "under-load"])
def test_nothing_hurts_on_a_healthy_host(name: str, tmp_path: Path) -> None:
    assert found(name, tmp_path) == ()


@pytest.mark.parametrize("name", CASES)
def test_a_stored_case_is_as_described(name: str) -> None:
    """``python -m tests.samples --write`` writes it anew."""
    assert samples.stored(name) == samples.files(CASES[name])


@pytest.mark.parametrize(
    ("name", "kind", "culprit", "command"),
    [
        pytest.param(
            "seed-vhost-on-vcpu", "vhost-on-vcpu", "vhost worker 0 of vlinux1, queue 0 of vNIC 0",
            f"taskset -p -c 16 {VHOST}", id="a, the seed's: vhost worker on CPU 20 with a vCPU",
        ),
        pytest.param(
            "seed-irq-on-vcpu", "irq-on-vcpu", "IRQ 229 of enp23s0f0np0", "libvirt-tuner irqs --set 229 2",
            id="b, the seed's: packets on CPU 28 with vCPU 4",
        ),
        pytest.param(
            "seed-remote-irq", "ksoftirqd-remote", "IRQ 229 of enp23s0f0np0",
            "libvirt-tuner irqs --set 229 2", id="c, the seed's: 50 interrupts, ksoftirqd/1 at 98.7 %",
        ),
        pytest.param(
            "remote-vcpus", "remote-node", "the pins of vlinux1",
            "libvirt-tuner apply vlinux1   # from the next start of vlinux1", id="d, vCPUs",
        ),
        pytest.param(
            "remote-vhost", "remote-node", "the pins of vlinux1", f"taskset -p -c 16 {VHOST}", id="d, vhost"
        ),
        pytest.param(
            "remote-memory", "remote-node",
            "memory that was allocated before the VM was placed, or without numatune",
            f"migratepages {QEMU} 1 0", id="d, memory",
        ),
        pytest.param(
            "vms-share-cpu", "vms-share-cpu", "vCPU 0 of other", "libvirt-tuner apply --live vlinux1", id="e"
        ),
        pytest.param(
            "housekeeping", "busy-core", "the host's own work (housekeeping)",
            "libvirt-tuner apply --live vlinux1", id="f",
        ),
        pytest.param(
            "neighbour", "neighbour", "backup (4000)",
            "taskset -a -p -c 0-15,17,19,21,23,25,27,29,31 4000", id="g",
        ),
        pytest.param(
            "fragments", "fragments", "the MTU of vNIC 0 of vlinux1", "libvirt-tuner apply vlinux1", id="h"
        ),
        pytest.param(
            "tap-drops", "drops", "vNIC 0 of vlinux1 (macvtap0)", "libvirt-tuner apply vlinux1", id="i, tap"
        ),
        pytest.param(
            "card-drops", "drops", "enp23s0f0np0, queue 3", "ethtool -G enp23s0f0np0 rx 4096", id="i, card"
        ),
        pytest.param(
            "one-queue", "one-queue", "enp23s0f0np0 hashes the flows into one queue",
            "ethtool -N enp23s0f0np0 rx-flow-hash udp4 sdfn", id="j, card",
        ),
        pytest.param(
            "one-worker", "one-queue", "one flow, or a guest that uses queue 0 only",
            "ethtool -L eth0 combined 4   # in the guest, for its own name of vNIC 0", id="j, vhost",
        ),
        pytest.param("moved-back", "moved-back", "irqbalance", "libvirt-tuner irqs --set 229 4", id="k"),
        pytest.param(
            "restart-pending", "restart-pending", "the definition of vlinux1 changed after its start",
            "virsh shutdown vlinux1   # and 'virsh start vlinux1' once it is off", id="l",
        ),
        pytest.param(
            "steal", "steal", "the hypervisor below this host",
            "libvirt-tuner diagnose   # on the hypervisor that runs this host", id="m",
        ),
    ],
)  # fmt: skip
def test_the_culprit_comes_first_and_alone(
    name: str, kind: str, culprit: str, command: str, tmp_path: Path
) -> None:
    (finding,) = found(name, tmp_path)
    assert (finding.kind, finding.culprit, finding.fix.command) == (kind, culprit, command)
    assert finding.evidence
    assert finding.basis
    assert finding.cost > 0


def test_the_harmless_interrupt_with_many_more_counts_is_not_blamed(tmp_path: Path) -> None:
    for name in ("seed-irq-on-vcpu", "seed-remote-irq"):
        look = interval(name, tmp_path / name)
        assert look.interrupts(221) == {0: 406_290}
        assert not any(
            "221" in text for finding in diagnose(look) for text in (finding.what, finding.culprit)
        )


def test_evidence_has_the_numbers(tmp_path: Path) -> None:
    (finding,) = found("seed-remote-irq", tmp_path)
    assert finding.evidence == (
        "ksoftirqd/1 ran 98.7 %",
        "interrupts on CPU 1: IRQ 229: 50",
        "NET_RX on CPU 1: 30000/s",
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            evolve(HEALTHY, threads={vcpu(0): Thread("CPU 0/KVM", "0-31", 0, 0.02, 0.2)}, busy={0: 0.9}),
            id="waits, and nobody else ran there",
        ),
        pytest.param(
            evolve(HEALTHY, threads={NEIGHBOUR: Thread("backup", "0-31", 24, 0.4)}),
            id="a neighbour for which nobody waits",
        ),
        pytest.param(
            evolve(HEALTHY, threads={101: Thread("ksoftirqd/3", "3", 3, 0.9)}),
            id="ksoftirqd busy with no network card's interrupt",
        ),
        pytest.param(evolve(HEALTHY, network={"FragCreates": 90}), id="few fragments"),
        pytest.param(evolve(HEALTHY, counters={"macvtap0": {"tx_dropped": 20}}), id="few drops"),
        pytest.param(evolve(HEALTHY, pages={0: 16777216, 1: 40 * 1024}), id="a little memory elsewhere"),
        pytest.param(
            evolve(HEALTHY, ledger={229: "4"}, affinity={229: ("4", "4")}), id="IRQ where it was put"
        ),
        pytest.param(
            evolve(HEALTHY, threads={VHOST: Thread(f"vhost-{QEMU}", "20", 20, 0.3, 0.01)}),
            id="a vhost worker with a vCPU, and neither waits",
        ),
        pytest.param(
            evolve(HEALTHY, irqs={229: (20, 28)}, net_rx={28: 40_000}),
            id="packets of somebody else on a vCPU's CPU: 20 interrupts, 40,000 runs a second",
        ),
        pytest.param(evolve(HEALTHY, irqs={229: (3000, 28)}, net_rx={28: 600}), id="few packets there"),
        pytest.param(
            evolve(HEALTHY, irqs={229: (300, 28)}, net_rx={28: 60}, softirq={28: 0.2}),
            id="softirqs there that are not the network's",
        ),
        pytest.param(
            evolve(HEALTHY, threads={vcpu(0): Thread("CPU 0/KVM", "21", 21, 0.01)}),
            id="an idle vCPU far away",
        ),
        pytest.param(
            evolve(
                HEALTHY,
                threads={
                    OTHER_QEMU: Thread("qemu-system-x86", "16,18", 18),
                    OTHER_QEMU + 1: Thread("CPU 0/KVM", "22", 22, 0.02, 0.01),
                },
            ),
            id="two VMs on one CPU, one of them idle",
        ),
        pytest.param(
            evolve(HEALTHY, threads={vcpu(0): Thread("CPU 0/KVM", "0", 0, 0.6, 0.01)}, busy={0: 0.7}),
            id="a vCPU on a housekeeping CPU where it does not wait",
        ),
        pytest.param(
            evolve(
                HEALTHY,
                threads={
                    VHOST + number: Thread(f"vhost-{QEMU}", str(cpu), cpu, 0.97)
                    for number, cpu in enumerate((2, 4, 6, 8))
                },
            ),
            id="all queues busy alike",
        ),
        pytest.param(
            evolve(HEALTHY, counters={PORT: {"ethtool.rx_queue_0_xdp_drops": 9000}}),
            id="packets that an XDP program drops",
        ),
        pytest.param(evolve(HEALTHY, steal={20: 0.02}), id="hardly any steal"),
        pytest.param(evolve(HEALTHY, steal={5: 0.5}), id="steal where no VM runs"),
    ],
)
def test_what_does_not_hurt(case: Case, tmp_path: Path) -> None:
    assert found(case, tmp_path) == ()


@pytest.mark.parametrize(
    ("case", "culprit", "command"),
    [
        pytest.param(
            evolve(HEALTHY, counters={"macvtap0": {"rx_dropped": 9000}}),
            "vNIC 0 of vlinux1 (macvtap0)", "libvirt-tuner apply vlinux1", id="a macvtap counts as received",
        ),
        *(
            pytest.param(
                evolve(HEALTHY, counters={PORT: {f"ethtool.{counter}": 7000}}),
                f"{PORT}{queue}", f"ethtool -G {PORT} rx 4096", id=counter,
            )
            for counter, queue in (
                ("rx_queue_5_drops", ", queue 5"), ("rx7_drops", ", queue 7"), ("rx-3.dropped", ", queue 3"),
                ("[4]: rx_discards", ", queue 4"), ("rx_discards_phy", ""), ("port.rx_discards", ""),
                ("rx_dropped.nic", ""), ("rx_no_dma_resources", ""),
            )
        ),
        pytest.param(
            evolve(
                HEALTHY,
                threads={
                    NEIGHBOUR: Thread("kworker/24:1", "24", 24, 0.4),
                    vcpu(2): Thread("CPU 2/KVM", "24", 24, 0.6, 0.35),
                },
            ),
            f"kworker/24:1 ({NEIGHBOUR})", "libvirt-tuner host isolate", id="a thread that cannot be moved",
        ),
    ],
)  # fmt: skip
def test_a_variant_that_drivers_and_kernels_have(
    case: Case, culprit: str, command: str, tmp_path: Path
) -> None:
    (finding,) = found(case, tmp_path)
    assert (finding.culprit, finding.fix.command) == (culprit, command)


def paired(look: Interval) -> Interval:
    """The same host with two hardware threads a core: CPUs 0 and 2, 4 and 6, and so on; 1 and 3, 5 and 7."""
    host = look.scene.host
    cores = tuple(Core((cpu, cpu + 2), node=cpu % 2) for cpu in range(32) if cpu % 4 < 2)
    return Interval(evolve(look.scene, host=evolve(host, cores=cores)), look.before, look.after)


@pytest.mark.parametrize(
    ("threads", "found_at", "culprit", "command"),
    [
        pytest.param({}, [], "", "", id="its own vCPUs on one core"),
        pytest.param(
            {NEIGHBOUR: Thread("make", "0-31", 10, 0.95), vcpu(5): Thread("CPU 5/KVM", "8", 8, 0.6)},
            ["8,10"], f"make ({NEIGHBOUR})", "taskset -a -p -c 0-7,9,11-15,17,19,21,23,25,27,29,31 4000",
            id="a process on the same CPU",
        ),
        pytest.param(
            {
                OTHER_QEMU: Thread("qemu-system-x86", "16,18", 18),
                OTHER_QEMU + 1: Thread("CPU 0/KVM", "10", 10, 0.9),
                vcpu(5): Thread("CPU 5/KVM", "8", 8, 0.6),
            },
            ["8,10", "8,10"], "vCPU 5 of vlinux1", "libvirt-tuner apply --live other", id="another VM",
        ),
    ],
)  # fmt: skip
def test_a_busy_sibling(
    threads: dict[int, Thread], found_at: list[str], culprit: str, command: str, tmp_path: Path
) -> None:
    findings = diagnose(paired(interval(evolve(HEALTHY, threads=threads), tmp_path)))
    assert [cpuset.format(each.cpus) for each in findings] == found_at
    if findings:
        assert (findings[0].culprit, findings[0].fix.command) == (culprit, command)


def test_a_process_that_is_named_is_not_the_hosts_own_work_too(tmp_path: Path) -> None:
    threads = {vcpu(0): Thread("CPU 0/KVM", "0", 0, 0.5, 0.2), NEIGHBOUR: Thread("backup", "0-31", 0, 0.45)}
    (finding,) = found(evolve(HEALTHY, threads=threads), tmp_path)
    assert (finding.kind, finding.culprit) == ("neighbour", f"backup ({NEIGHBOUR})")


def test_a_saturated_cpu_whose_ksoftirqd_runs_for_a_part_of_it(tmp_path: Path) -> None:
    case = CASES["seed-remote-irq"]
    threads = {101: Thread("ksoftirqd/1", "1", 1, 0.3)}
    (finding,) = found(evolve(case, threads=threads, softirq={0: 0.4, 1: 0.69}), tmp_path)
    assert (finding.kind, finding.culprit) == ("ksoftirqd-remote", "IRQ 229 of enp23s0f0np0")
    assert finding.cost == pytest.approx(0.69)
    assert finding.evidence[0] == "ksoftirqd/1 ran 30.0 %, softirqs 69.0 %"


def test_fragments_of_ipv6_count(tmp_path: Path) -> None:
    look = interval(HEALTHY, tmp_path)
    before = evolve(look.before, network={"Ip6FragCreates": 5})
    after = evolve(look.after, network={"Ip6FragCreates": 90_005})
    (finding,) = diagnose(Interval(look.scene, before, after))
    assert finding.kind == "fragments"
    assert finding.evidence[0].startswith("90000 fragments")


def test_few_runs_that_take_long_hurt_too(tmp_path: Path) -> None:
    """As measured on a slow machine: 900 runs a second, each of many packets."""
    (finding,) = found(
        evolve(HEALTHY, irqs={229: (2600, 28)}, net_rx={28: 900}, softirq={28: 0.19}), tmp_path
    )
    assert finding.kind == "irq-on-vcpu"
    assert finding.cost == pytest.approx(0.19)


def test_costliest_first(tmp_path: Path) -> None:
    both = evolve(CASES["seed-remote-irq"], network={"FragCreates": 40_000}, mtu=1500)
    assert [finding.kind for finding in found(both, tmp_path)] == ["ksoftirqd-remote", "fragments"]


def test_only_what_hurts_this_vm(tmp_path: Path) -> None:
    look = interval("vms-share-cpu", tmp_path)
    assert [finding.vm for finding in diagnose(look, "vlinux1")] == ["vlinux1"]
    assert diagnose(look, "third") == ()


def test_a_thread_id_that_was_used_again_counts_for_nothing(tmp_path: Path) -> None:
    look = interval(HEALTHY, tmp_path)
    task = look.before.tasks[vcpu(0)]
    tasks = {**look.before.tasks, task.tid: evolve(task, start=1)}
    other = Interval(look.scene, evolve(look.before, tasks=tasks), look.after)
    assert vcpu(0) not in {use.task.tid for use in other.uses}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("web-1", ["web-1"], id="plain"),
        pytest.param("a b; rm $(x)", ["a b; rm $(x)"], id="for the shell"),
        pytest.param("--all", ["--", "--all"], id="for the program"),
    ],
)
def test_a_name_in_a_command_is_a_name(name: str, words: list[str]) -> None:
    assert shlex.split(argument(name)) == words


def pinned(look: Interval, vm: str, **changes: Any) -> Interval:
    """The same with something else known of a VM."""
    vms = {**look.scene.vms, vm: evolve(look.scene.vms[vm], **changes)}
    return Interval(evolve(look.scene, vms=vms), look.before, look.after)


def test_of_two_vms_on_one_cpu_the_one_that_left_its_pin_is_placed_anew(tmp_path: Path) -> None:
    look = interval("vms-share-cpu", tmp_path)
    for vm in ("vlinux1", "other"):
        number = 1 if vm == "vlinux1" else 0
        (finding,) = diagnose(pinned(look, vm, pins={number: frozenset({24})}))
        assert finding.fix.command == f"libvirt-tuner apply --live {vm}"


def test_a_vcpu_that_left_its_pin_is_pinned_live(tmp_path: Path) -> None:
    look = pinned(interval("remote-vcpus", tmp_path), "vlinux1", pins={0: frozenset({20})})
    (finding,) = diagnose(look)
    assert finding.fix.command == "libvirt-tuner apply --live vlinux1"


@pytest.mark.parametrize(
    ("planned", "command", "alone"),
    [
        pytest.param(
            frozenset({16, 18}),
            "libvirt-tuner apply --live vlinux1",
            True,
            id="this tool pinned it elsewhere",
        ),
        pytest.param(
            frozenset(), "virsh emulatorpin --live --cpulist 16 vlinux1", False, id="the user pinned it there"
        ),
    ],
)
def test_a_worker_whose_cgroup_has_no_other_cpu(
    planned: frozenset[int], command: str, alone: bool, tmp_path: Path
) -> None:
    case = CASES["seed-vhost-on-vcpu"]
    inside = {
        QEMU: Thread("qemu-system-x86", "20", 20, 0.01),
        **{VHOST + number: Thread(f"vhost-{QEMU}", "20", 20, 0.01) for number in range(1, 5)},
        VHOST: evolve(case.threads[VHOST], allowed="20"),
    }
    look = interval(evolve(case, threads={**case.threads, **inside}), tmp_path)
    first, *_ = diagnose(pinned(look, "vlinux1", emulatorpin=planned))
    assert (first.kind, first.fix.command, first.fix.alone) == ("vhost-on-vcpu", command, alone)


def test_a_passer_by_is_named_where_nobody_stayed(tmp_path: Path) -> None:
    look = interval("neighbour", tmp_path)
    moved = {**look.before.tasks, NEIGHBOUR: evolve(look.before.tasks[NEIGHBOUR], cpu=3)}
    passing = Interval(look.scene, evolve(look.before, tasks=moved), look.after)
    (finding,) = diagnose(passing)
    assert finding.culprit == "backup (4000)"


def test_a_passer_by_is_not_named_beside_who_stayed(tmp_path: Path) -> None:
    case = CASES["neighbour"]
    look = interval(
        evolve(case, threads={**case.threads, NEIGHBOUR + 1: Thread("other", "0-31", 24, 0.3)}), tmp_path
    )
    moved = {**look.before.tasks, NEIGHBOUR: evolve(look.before.tasks[NEIGHBOUR], cpu=3)}
    (finding,) = diagnose(Interval(look.scene, evolve(look.before, tasks=moved), look.after))
    assert finding.culprit == f"other ({NEIGHBOUR + 1})"


def test_an_interrupt_that_was_moved_onto_a_vcpu_goes_back_where_it_was_planned(tmp_path: Path) -> None:
    case = evolve(CASES["seed-irq-on-vcpu"], ledger={229: "6"}, affinity={229: ("28", "28")})
    (finding,) = found(case, tmp_path)
    assert (finding.kind, finding.fix.command) == ("irq-on-vcpu", "libvirt-tuner irqs --set 229 6")
    (finding,) = diagnose(interval(case, tmp_path / "other"), "another")
    assert (finding.kind, finding.fix.command) == ("moved-back", "libvirt-tuner irqs --set 229 6")


def test_interrupts_that_were_planned_apart_go_back_apart(tmp_path: Path) -> None:
    case = CASES["seed-irq-on-vcpu"]
    there = dict.fromkeys((228, 229), ("28", "28"))
    counted = {**case.irqs, 228: (90_000, 28)}
    (finding,) = found(evolve(case, irqs=counted, ledger={228: "6", 229: "8"}, affinity=there), tmp_path)
    assert finding.fix.command == "libvirt-tuner irqs --set 228 6 --set 229 8"


def test_one_queue_that_sends_and_receives_by_two_interrupts_is_no_crowd(tmp_path: Path) -> None:
    look = interval("one-queue", tmp_path)
    nics = {
        name: nic._replace(irqs=tuple(
            irq._replace(action=f"virtio0-{'input' if irq.number == 229 else 'output'}.0") for irq in nic.irqs
        ))
        for name, nic in look.scene.host.nics.items()
    }  # fmt: skip
    scene = evolve(look.scene, host=evolve(look.scene.host, nics=nics))
    assert diagnose(Interval(scene, look.before, look.after)) == ()
