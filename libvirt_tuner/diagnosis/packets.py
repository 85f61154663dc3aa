"""Findings about packets: on which CPU they are processed, fragmented, lost, or concentrated. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping

from libvirt_tuner import cpuset
from libvirt_tuner.diagnosis.finding import Finding, Fix, apply_later, node_of, percent, room, vcpu_cpus
from libvirt_tuner.diagnosis.sample import Adapter, Interval, Use, Vm
from libvirt_tuner.planning.interrupts import queue_irqs
from libvirt_tuner.planning.queue_masks import aimed
from libvirt_tuner.topology import NO_CPUS, Cpus, Irq, Nic

NET_RX_RATE = 1000.0
"""Runs of NET_RX per second on a vCPU's CPU above which they are reported."""
LONG_RUNS_RATE = 100.0
LONG_RUNS = 0.05
"""The same for runs that handle many packets each: with this share of the CPU in softirqs, as sampled."""
OWN_SHARE = 0.01
"""Interrupts per run of NET_RX from which a card is said to be behind the runs."""
SATURATED = 0.5
"""Share of a CPU that ksoftirqd uses when packets arrive faster than they are processed."""
FRAGMENTS_PER_GB = 1000.0
DROPS_PER_SECOND = 10.0
ONE_QUEUE = 0.9
IDLE_QUEUE = 0.2
_CARD_DROPS = (
    "rx_missed_errors",
    "rx_fifo_errors",
    "ethtool.rx_out_of_buffer",
    "ethtool.rx_no_buffer_count",
    "ethtool.rx_missed_errors",
    "ethtool.rx_discards_phy",
    "ethtool.rx_no_dma_resources",
    "ethtool.port.rx_discards",
    "ethtool.rx_dropped.nic",
    "ethtool.rx_total_discard_pkts",
    "ethtool.port_rx_nodesc_drops",
)
"""Packets for which a card or its port had no buffer, as the kernel and igb, mlx5, ixgbe, i40e, ice, bnxt_en
and sfc name them."""
_QUEUE = re.compile(
    r"ethtool\.(?:rx_queue_|rx-?|\[)(\d+)(?!.*xdp)[]_.: a-z]*"
    r"(?:drops?|dropped|discards|no_buf\w*|buff_alloc_err)$"
)


def queues_at(look: Interval, cpu: int) -> list[tuple[Nic, Irq]]:
    """Return the network cards' queue interrupts that go to a CPU now."""
    return [
        (nic, irq)
        for nic in look.scene.host.nics.values()
        for irq in queue_irqs(nic)
        if irq.number in look.after.irqs and cpu in look.after.irqs[irq.number].effective
    ]


def _irq_fix(look: Interval, nic: Nic, irqs: list[int], but: int) -> Fix:
    planned = {irq: look.scene.wanted.get(irq, NO_CPUS) for irq in irqs}
    if all(home and but not in home for home in planned.values()):
        return _set(planned)
    target = room(look, nic.node, but={but})
    return Fix("libvirt-tuner irqs") if target is None else _set(dict.fromkeys(irqs, frozenset({target})))


def _set(irqs: Mapping[int, Cpus]) -> Fix:
    together: dict[Cpus, list[int]] = {}
    for irq, cpus in irqs.items():
        together.setdefault(cpus, []).append(irq)
    moves = (f"--set {cpuset.format(irqs)} {cpuset.format(cpus)}" for cpus, irqs in together.items())
    return Fix(f"libvirt-tuner irqs {' '.join(moves)}", "irq", irqs=irqs)


def _counted(look: Interval, found: list[tuple[Nic, Irq]], cpu: int) -> str:
    each = (f"IRQ {irq.number}: {look.interrupts(irq.number).get(cpu, 0)}" for _, irq in found)
    return f"interrupts on CPU {cpu}: " + ", ".join(each)


def _ksoftirqd(look: Interval, cpu: int) -> float:
    return max((use.run for use in look.of("ksoftirqd") if use.task.number == cpu), default=0.0)


def on_vcpu(look: Interval) -> Iterator[Finding]:
    """Find packets that are processed on a vCPU's CPU, because of an interrupt or packet steering."""
    for use in look.of("vcpu"):
        cpu = use.task.cpu
        rate, own = look.net_rx(cpu), _ksoftirqd(look, cpu)
        long = rate >= LONG_RUNS_RATE and look.softirq(cpu) >= LONG_RUNS
        if use.run + use.wait < 0.05 or not (rate >= NET_RX_RATE or long or own >= SATURATED):
            continue
        found = queues_at(look, cpu)
        fired = [(nic, irq) for nic, irq in found if look.interrupts(irq.number).get(cpu)]
        count = sum(look.interrupts(irq.number).get(cpu, 0) for _, irq in fired)
        # While ksoftirqd does not poll, each run of the softirq comes from an interrupt or a thread.
        if fired and (own >= SATURATED or count / look.seconds >= OWN_SHARE * rate):
            yield _irq_on_vcpu(look, use, fired, rate, own)
        elif not found:
            yield from _steered_to_vcpu(look, use, rate)


def _taken(look: Interval, cpu: int, rate: float, own: float) -> float:
    """Return the share of the CPU for packets: the sampled one, else a lower bound from the softirq count."""
    return max(look.softirq(cpu), own, min(rate / 1e5, 1.0))


def _irq_on_vcpu(look: Interval, use: Use, found: list[tuple[Nic, Irq]], rate: float, own: float) -> Finding:
    cpu, nic = use.task.cpu, found[0][0]
    numbers = [irq.number for _, irq in found]
    label = "IRQ" if len(numbers) == 1 else "IRQs"
    return Finding(
        kind="irq-on-vcpu",
        cost=_taken(look, cpu, rate, own),
        what=f"packets of {nic.name} are handled on CPU {cpu}, where {use.task.full} runs",
        culprit=f"{label} {cpuset.format(numbers)} of {nic.name}",
        fix=_irq_fix(look, nic, numbers, cpu),
        vm=use.task.vm,
        thread=use.task.says,
        cpus=frozenset({cpu}),
        evidence=(
            f"NET_RX on CPU {cpu}: {rate:.0f}/s",
            _counted(look, found, cpu),
            f"softirq {percent(look.softirq(cpu))}, ksoftirqd/{cpu} {percent(own)}",
        ),
        basis=("counts", "sampled"),
    )


def _steered_to_vcpu(look: Interval, use: Use, rate: float) -> Iterator[Finding]:
    cpu = use.task.cpu
    for mask in aimed(look.scene.host.queues, frozenset({cpu})):
        if mask.queue.startswith("rx-"):
            path = f"/sys/class/net/{mask.nic}/queues/{mask.queue}/rps_cpus"
            rest = mask.cpus - vcpu_cpus(look)
            yield Finding(
                kind="irq-on-vcpu",
                cost=_taken(look, cpu, rate, 0.0),
                what=f"packet steering sends packets of {mask.nic} to CPU {cpu}, where {use.task.full} runs",
                culprit=f"RPS of {mask.nic}, {mask.queue}",
                fix=Fix(
                    f"echo {cpuset.format_mask(rest)} > {path}",
                    "rps",
                    cpus=rest,
                    where=f"{mask.nic}/{mask.queue}",
                ),
                vm=use.task.vm,
                thread=use.task.says,
                cpus=frozenset({cpu}),
                evidence=(f"NET_RX on CPU {cpu}: {rate:.0f}/s", f"rps_cpus: {cpuset.format(mask.cpus)}"),
                basis=("counts", "settings"),
            )
            return


def saturated(look: Interval) -> Iterator[Finding]:
    """Find a ksoftirqd that runs most of the time: interrupt on a remote node, or other queues idle."""
    vcpus = {use.task.cpu for use in look.of("vcpu")}
    for use in look.of("ksoftirqd"):
        cpu = use.task.number
        found = queues_at(look, cpu)
        # Since Linux 6.5 other threads run a part of what ksoftirqd cannot finish (kernel/softirq.c).
        share = max(use.run, look.softirq(cpu) if use.run >= LONG_RUNS else 0.0)
        if share < SATURATED or cpu in vcpus or not found:
            continue
        # Polling raises few interrupts. So a low count does not exclude a card, but a count of zero does.
        fired = [entry for entry in found if look.interrupts(entry[1].number)] or found
        nic = fired[0][0]
        if nic.node is not None and node_of(look, cpu) != nic.node:
            yield _remote(look, use, fired, share)
        elif use.run >= ONE_QUEUE and _others_idle(look, nic, cpu):
            yield _one_queue(look, use, fired)


def _remote(look: Interval, use: Use, found: list[tuple[Nic, Irq]], share: float) -> Finding:
    cpu, nic = use.task.number, found[0][0]
    numbers = [irq.number for _, irq in found]
    label = "IRQ" if len(numbers) == 1 else "IRQs"
    return Finding(
        kind="ksoftirqd-remote",
        cost=share,
        what=f"{use.task.name} is saturated on node {node_of(look, cpu)}; {nic.name} is on node {nic.node}",
        culprit=f"{label} {cpuset.format(numbers)} of {nic.name}",
        fix=_irq_fix(look, nic, numbers, cpu),
        thread=use.task.name,
        cpus=frozenset({cpu}),
        evidence=(
            f"{use.task.name} ran {percent(use.run)}" + (f", softirqs {percent(share)}" * (share > use.run)),
            _counted(look, found, cpu),
            f"NET_RX on CPU {cpu}: {look.net_rx(cpu):.0f}/s",
        ),
        basis=("scheduler", "counts"),
    )


def _others_idle(look: Interval, nic: Nic, cpu: int) -> bool:
    cpus = {
        each
        for irq in queue_irqs(nic)
        if irq.number in look.after.irqs and not _only_sends(irq)
        for each in look.after.irqs[irq.number].effective
    } - {cpu}
    return bool(cpus) and all(max(look.softirq(each), _ksoftirqd(look, each)) < IDLE_QUEUE for each in cpus)


def _only_sends(irq: Irq) -> bool:
    """``virtio0-output.0``, ``eth0-tx-1``; not ``eth0-TxRx-1``."""
    words = irq.action.lower()
    return "output" in words or ("tx" in words and "rx" not in words)


def _one_queue(look: Interval, use: Use, found: list[tuple[Nic, Irq]]) -> Finding:
    nic, cpu = found[0][0], use.task.number
    return Finding(
        kind="one-queue",
        cost=use.run / 2,
        what=f"one queue of {nic.name} is saturated on CPU {cpu} while its other queues are idle",
        culprit=f"{nic.name} hashes the flows into one queue",
        # Tunnel flows differ in the outer UDP source port, which cards do not hash by default.
        fix=Fix(f"ethtool -N {shlex.quote(nic.name)} rx-flow-hash udp4 sdfn", "flow-hash", where=nic.name),
        thread=use.task.name,
        cpus=frozenset({cpu}),
        evidence=(f"{use.task.name} ran {percent(use.run)}", _counted(look, found, cpu)),
        basis=("scheduler", "sampled"),
    )


def one_worker(look: Interval) -> Iterator[Finding]:
    """Find a saturated vhost worker while the others of its vNIC are idle."""
    for vm in look.scene.vms.values():
        uses = {use.task.number: use for use in look.of("vhost") if use.task.vm == vm.name}
        for number, use in uses.items():
            if use.run < ONE_QUEUE or number >= len(vm.workers):
                continue
            queue = vm.workers[number]
            mates = [
                uses[each].run
                for each, other in enumerate(vm.workers)
                if each != number and other.vnic == queue.vnic and each in uses
            ]
            if mates and max(mates) < IDLE_QUEUE:
                yield _one_worker(vm, use, mates)


def _one_worker(vm: Vm, use: Use, mates: list[float]) -> Finding:
    queue = vm.workers[use.task.number]
    count = len(mates) + 1
    return Finding(
        kind="one-queue",
        cost=use.run / 2,
        what=f"{use.task.full} is saturated while the {len(mates)} other workers of vNIC"
        f" {queue.vnic} are idle",
        culprit=f"one flow, or a guest that uses queue {queue.queue} only",
        fix=Fix(f"ethtool -L eth0 combined {count}   # in the guest, for its own name of vNIC {queue.vnic}"),
        vm=vm.name,
        thread=use.task.says,
        cpus=frozenset({use.task.cpu}),
        evidence=(f"{use.task.says} ran {percent(use.run)}, the others {percent(max(mates))} at most",),
    )


def fragmented(look: Interval) -> int:
    """Fragments that the host made or put together, of IPv4 and IPv6."""
    names = ("Ip.FragCreates", "Ip.ReasmReqds", "Ip6FragCreates", "Ip6ReasmReqds")
    return sum(look.network.get(name, 0) for name in names)


def fragments(look: Interval) -> Iterator[Finding]:
    """Find packets that the host fragments, because a vNIC's MTU leaves no room for added headers."""
    cut = fragmented(look)
    uplinks = {name for vm in look.scene.vms.values() for each in vm.adapters for name in each.uplinks}
    sent = sum(
        look.counters(name).get("tx_bytes", 0) + look.counters(name).get("rx_bytes", 0) for name in uplinks
    )
    per_gb = cut / (sent / 1e9) if sent else float(cut)
    tight = [
        (vm, each) for vm in look.scene.vms.values() for each in vm.adapters if 0 < each.largest < each.mtu
    ]
    if cut < 100 or per_gb < FRAGMENTS_PER_GB:
        return
    who = ", ".join(f"vNIC {each.index} of {vm.name}" for vm, each in tight)
    evidence = [f"{cut} fragments in {look.seconds:.1f} s, {per_gb:.0f} per gigabyte"]
    evidence += [
        f"vNIC {each.index} of {vm.name}: MTU {each.mtu}, at most {each.largest} fits" for vm, each in tight
    ]
    vm = tight[0][0].name if tight else ""
    yield Finding(
        kind="fragments",
        cost=min(per_gb / 1e5, 1.0),
        what=f"packets are fragmented on the host ({per_gb:.0f} fragments per gigabyte)",
        culprit=f"the MTU of {who}" if who else "an MTU on the path that is too large for the headers",
        fix=apply_later(vm) if vm else Fix("libvirt-tuner host check"),
        vm=vm,
        evidence=tuple(evidence),
        basis=("counts", "settings"),
    )


def drops(look: Interval) -> Iterator[Finding]:
    """Find packets dropped at a tap (the guest's ring is full) or at a network card, per queue if known."""
    for vm in look.scene.vms.values():
        for each in vm.adapters:
            lost = _lost_by_guest(look, each)
            if lost / look.seconds >= DROPS_PER_SECOND:
                yield _dropped(
                    look, lost, f"vNIC {each.index} of {vm.name} ({each.tap})", "its ring is full",
                    apply_later(vm.name), vm.name,
                )  # fmt: skip
    for name in sorted(look.scene.host.nics):
        grown = look.counters(name)
        queues = _queue_drops(grown)
        lost = max([grown.get(counter, 0) for counter in _CARD_DROPS] + [sum(queues.values())])
        if lost / look.seconds >= DROPS_PER_SECOND:
            worst = f", queue {max(queues, key=lambda queue: queues[queue])}" if queues else ""
            yield _dropped(
                look, lost, f"{name}{worst}", "its receive ring is full",
                Fix(f"ethtool -G {shlex.quote(name)} rx 4096"), "",
            )  # fmt: skip


def _lost_by_guest(look: Interval, adapter: Adapter) -> int:
    """Packets for which the guest's ring had no room: a tap sends to the guest, a macvtap receives for it."""
    grown = look.counters(adapter.tap) if adapter.tap else {}
    return max(grown.get("tx_dropped", 0), grown.get("rx_dropped", 0) if adapter.macvtap else 0)


def _queue_drops(grown: Mapping[str, int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for name, count in grown.items():
        if match := _QUEUE.match(name):
            found[int(match[1])] = found.get(int(match[1]), 0) + count
    return found


def _dropped(look: Interval, lost: int, where: str, why: str, fix: Fix, vm: str) -> Finding:
    rate = lost / look.seconds
    return Finding(
        kind="drops",
        cost=min(rate / 1e4, 1.0) + 0.05,
        what=f"{where} drops packets: {why}",
        culprit=where,
        fix=fix,
        vm=vm,
        evidence=(f"{lost} packets in {look.seconds:.1f} s, {rate:.0f}/s",),
        basis=("counts",),
    )


def moved_back(look: Interval, but: Collection[int] = ()) -> Iterator[Finding]:
    """Find interrupts that something moved after this tool had moved them, except the numbers in ``but``."""
    away: dict[Cpus, list[int]] = {}
    for number, wanted in look.scene.wanted.items():
        now = look.after.irqs.get(number)
        if number not in but and now is not None and now.allowed and now.allowed != wanted:
            away.setdefault(wanted, []).append(number)
    names = {irq.number: nic.name for nic in look.scene.host.nics.values() for irq in nic.irqs}
    running = {use.task.name for use in look.uses}
    who = next((name for name in ("irqbalance", "tuned") if name in running), "a driver or an administrator")
    for wanted, numbers in away.items():
        yield _moved(look, names.get(numbers[0], "another device"), wanted, numbers, who)


def _moved(look: Interval, nic: str, wanted: Cpus, numbers: list[int], who: str) -> Finding:
    now, old = look.after.irqs[numbers[0]].allowed, look.before.irqs.get(numbers[0])
    during = " during the sample" if old is not None and old.allowed != now else ""
    irqs, home = cpuset.format(numbers), cpuset.format(wanted)
    label = "IRQ" if len(numbers) == 1 else "IRQs"
    return Finding(
        kind="moved-back",
        # Where that hurts, it is a finding of its own, and a costlier one.
        cost=0.02,
        what=f"{label} {irqs} of {nic} moved away from CPU {home}{during}",
        culprit=who,
        fix=_set(dict.fromkeys(numbers, wanted)),
        cpus=now,
        evidence=tuple(
            f"IRQ {number}: may go to {cpuset.format(look.after.irqs[number].allowed)}, planned {home}"
            for number in numbers[:4]
        ),
        basis=("settings",),
    )
