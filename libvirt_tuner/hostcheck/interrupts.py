"""Findings about interrupts, queue masks and daemons that change them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from libvirt_tuner import cpuset
from libvirt_tuner.host.ethtool import Feature
from libvirt_tuner.hostcheck.facts import NOTE, WARNING, Facts, Finding
from libvirt_tuner.planning import interrupts
from libvirt_tuner.planning.queue_masks import queues
from libvirt_tuner.topology import NO_CPUS, Irq, Nic
from libvirt_tuner.uplink.path import uplinks


def misplaced_interrupts(facts: Facts) -> Iterator[Finding]:
    """Find queue interrupts of an uplink on a vCPU's CPU, on an isolated CPU, or on another node."""
    host = facts.host
    for nic in uplinks(host)[0]:
        cell = host.cell(nic.node) if nic.node is not None else None
        far = host.online - cell.cpus if cell and cell.cpus else NO_CPUS
        sorts = (
            (facts.vcpus, "on CPUs of vCPUs", "their softirqs take time from the vCPU"),
            (host.isolated, "on isolated CPUs", "they slow down a VM on these CPUs"),
            (far, "not on the card's node", "every packet crosses between NUMA nodes"),
        )
        rest = list(interrupts.queue_irqs(nic))
        for cpus, where, why in sorts:
            if cpus is far:
                # This tool moves interrupts there if the card's node has too few CPUs left.
                rest = [irq for irq in rest if irq.number not in facts.steered]
            hit = [irq for irq in rest if (irq.effective or irq.affinity) & cpus and _settled(irq)]
            rest = [irq for irq in rest if irq not in hit]
            if hit:
                yield _interrupts(facts, nic, hit, where, why)


def _settled(irq: Irq) -> bool:
    """Return whether its CPUs are known. An idle interrupt that may go anywhere does not tell."""
    return bool(irq.effective) or len(irq.affinity) == 1


def _interrupts(facts: Facts, nic: Nic, hit: list[Irq], where: str, why: str) -> Finding:
    numbers = " ".join(str(irq.number) for irq in hit)
    cpus = cpuset.format(NO_CPUS.union(*(irq.effective or irq.affinity for irq in hit)))
    on = f"CPU {cpus}" if cpus.isdecimal() else f"CPUs {cpus}"
    word = "interrupt" if len(hit) == 1 else "interrupts"
    good, _ = interrupts.choose_cpus(facts.host, nic.node, facts.vcpus, NO_CPUS)
    files = f"/proc/irq/{numbers}/smp_affinity_list"
    fix = f"echo {cpuset.format(good)} > {files}"
    if len(hit) > 1:
        fix = f"for irq in {numbers}; do echo {cpuset.format(good)} > /proc/irq/$irq/smp_affinity_list; done"
    return Finding(
        "misplaced_interrupts", f"{nic.name}: {word} {numbers} {where} ({on})", why, fix if good else ""
    )


def napi_threads(facts: Facts) -> Iterator[Finding]:
    """Cards whose queues are polled by threads that may run where vCPUs do; the interrupts only wake them."""
    for nic in uplinks(facts.host)[0]:
        hit = [(pid, cpus) for pid, cpus in facts.napi.get(nic.name, ()) if cpus & facts.vcpus]
        if not hit:
            continue
        shared = cpuset.format(NO_CPUS.union(*(cpus for _, cpus in hit)) & facts.vcpus)
        good, _ = interrupts.choose_cpus(facts.host, nic.node, facts.vcpus, NO_CPUS)
        numbers = " ".join(str(pid) for pid, _ in hit)
        yield Finding(
            "napi_threads",
            f"{nic.name}: {len(hit)} NAPI threads may run on CPUs {shared} of vCPUs",
            "they process the packets of the queues; the interrupts only wake them",
            f"for pid in {numbers}; do taskset -pc {cpuset.format(good)} $pid; done" if good else "",
        )


def steering_masks(facts: Facts) -> Iterator[Finding]:
    """Find RPS masks that send packets to CPUs that run vCPUs or are isolated."""
    guarded = facts.vcpus | facts.host.isolated
    for nic in uplinks(facts.host)[0]:
        masks = [mask for mask in facts.host.queues if mask.nic == nic.name and mask.queue.startswith("rx-")]
        if hit := [mask for mask in masks if mask.cpus & guarded]:
            cpus = cpuset.format(NO_CPUS.union(*(mask.cpus for mask in hit)) & guarded)
            yield Finding(
                "steering_masks",
                f"{nic.name}: RPS sends packets of {queues(hit)} to CPUs {cpus}, which run vCPUs or"
                " are isolated",
                "their softirqs run there even if the interrupts go elsewhere",
                'rps = "steer" in /etc/libvirt-tuner.toml, or'
                f" for q in /sys/class/net/{nic.name}/queues/rx-*; do echo 0 > $q/rps_cpus; done",
            )
    for name, count in sorted(facts.rfs.items()):
        accelerated = facts.features.get(name, {}).get(NTUPLE, Feature(False)).on
        yield Finding(
            "steering_masks",
            f"{name}: RFS is on for {count} queues{', in hardware (aRFS)' if accelerated else ''}",
            "it sends packets to the CPUs of the host's sockets, not of guests",
            f"for q in /sys/class/net/{name}/queues/rx-*; do echo 0 > $q/rps_flow_cnt; done",
            NOTE,
        )


NTUPLE = "ntuple-filters"


def balancers(facts: Facts) -> Iterator[Finding]:
    """Find an irqbalance or tuned that would undo the placement."""
    yield from _irqbalance(facts)
    tuned = facts.tuned
    if tuned is None:
        return
    if tuned.profile.startswith(_ISOLATING):
        missing = facts.vcpus - tuned.cpus
        if missing or not facts.vcpus:
            yield Finding(
                "balancers",
                f"tuned runs with profile {tuned.profile}, which isolates"
                f" {cpuset.format(tuned.cpus) or 'no CPU'}",
                f"it moves threads and interrupts onto CPUs {cpuset.format(missing)} of vCPUs"
                if missing
                else "the profile sets its own kernel command line and interrupt affinity",
                "set isolated_cores= in /etc/tuned/*-variables.conf, or run: tuned-adm profile virtual-host",
                WARNING if missing else NOTE,
            )


_ISOLATING = ("cpu-partitioning", "realtime")
"""Find tuned profiles that isolate CPUs and place interrupts themselves."""


def _irqbalance(facts: Facts) -> Iterator[Finding]:
    daemon = facts.irqbalance
    if daemon is None:
        return
    kept_off = daemon.cpus if daemon.cpus is not None else facts.host.isolated | facts.host.nohz_full
    if hit := facts.vcpus - kept_off:
        listed = cpuset.format(facts.vcpus | kept_off)
        yield Finding(
            "balancers",
            f"irqbalance may put interrupts on CPUs {cpuset.format(hit)} of vCPUs",
            "it may move any interrupt there at its next pass",
            f"echo IRQBALANCE_BANNED_CPULIST={listed} >> /etc/default/irqbalance"
            " && systemctl restart irqbalance",
        )
    if daemon.irqs is not None and (loose := facts.steered - daemon.irqs):
        yield Finding(
            "balancers",
            f"irqbalance does not know that it must not move interrupts {cpuset.format(loose)}",
            "it moves them back at its next pass",
            "systemctl restart libvirt-tuner",
        )
