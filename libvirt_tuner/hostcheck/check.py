"""What on a host works against its VMs: facts in, findings out. Pure.

Each check is a function of :class:`Facts` in :data:`CHECKS`; it knows nothing of the others. Sources:
Documentation/networking/scaling.rst, xfrm_device.rst and segmentation-offloads.rst of the kernel,
Documentation/admin-guide/kernel-parameters.txt, ethtool(8), irqbalance(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.hostcheck.facts import NOTE, WARNING, Facts, Feature, Finding, Guest, Pause
from libvirt_tuner.hostcheck.kernel_line import SWITCHES
from libvirt_tuner.planning import interrupts
from libvirt_tuner.planning.queue_masks import queues
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, Irq, Link, Nic, Xfrm
from libvirt_tuner.uplink.budget import Budget, budget
from libvirt_tuner.uplink.path import TUNNELS, nic_of, trace


def check(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, in the order of :data:`CHECKS`; what could not be read comes last, as notes."""
    found = [finding for each in CHECKS for finding in each(facts)]
    return (
        *found,
        *(Finding("unread", text, "that part was not checked", severity=NOTE) for text in facts.unread),
    )


def uplinks(host: HostTopology) -> tuple[tuple[Nic, ...], tuple[Link, ...]]:
    """The functions that guests' packets leave by, and the bonds above them.

    Those below a bridge, bond or tunnel; every network card where there is none of these.
    """
    paths = [trace(name, host) for name, link in host.links.items() if link.kind in SWITCHES]
    names = sorted({name for path in paths for name in path.functions}) or sorted(host.nics)
    nics = [nic for name in names if (nic := nic_of(name, host))]
    bonds = [link for link in host.links.values() if link.kind == "bond" and link.lower]
    return tuple(nics), tuple(bonds)


# The kernel's command line


def skipped_parameters(facts: Facts) -> Iterator[Finding]:
    """Flags and parameters that do not mean what they seem to."""
    for skipped in facts.isolation.skipped:
        yield Finding(
            "skipped_parameters",
            f"{skipped.word}: {skipped.why}",
            "what it was meant to do is not in force",
            _isolate(facts),
        )


def partial_isolation(facts: Facts) -> Iterator[Finding]:
    """CPUs that are isolated in one way and not in another."""
    line = facts.isolation
    if bare := line.nohz - line.domain:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(bare)} are nohz_full without domain isolation",
            "the scheduler still moves other tasks there, and each brings the tick back",
            _isolate(facts),
        )
    if open_ := line.domain - line.managed_irq:
        yield Finding(
            "partial_isolation",
            f"CPUs {cpuset.format(open_)} are isolated without managed_irq",
            "interrupts the kernel places itself (NVMe, virtio-blk) may sit there, and nobody can move them",
            _isolate(facts),
        )
    default = facts.host.online if line.irqaffinity is None else line.irqaffinity
    if line.domain and (hit := line.domain & default):
        said = "no irqaffinity=" if line.irqaffinity is None else f"irqaffinity={cpuset.format(default)}"
        yield Finding(
            "partial_isolation",
            f"new interrupts may go to isolated CPUs {cpuset.format(hit)} ({said})",
            "every driver that comes up later interrupts vCPUs",
            _isolate(facts),
        )


def isolated_boot_cpu(facts: Facts) -> Iterator[Finding]:
    """CPU 0 is isolated: much of the kernel's own work has no other place."""
    line = facts.isolation
    if 0 in line.domain | line.managed_irq:
        yield Finding(
            "isolated_boot_cpu",
            "CPU 0 is isolated",
            "timekeeping, firmware and much of the kernel's own work stay there, whoever else runs on it",
            _isolate(facts),
        )


def _isolate(facts: Facts) -> str:
    """The one command that puts the whole line right: all that is isolated in some way, in every way."""
    line = facts.isolation
    listed = cpuset.format((line.domain | line.nohz | line.managed_irq or facts.vcpus) - {0})
    asked = f"--cpus {listed}" if listed else "--vcpus N"
    return f"libvirt-tuner host isolate {asked} --write && update-grub, and boot"


# Pins


def floating_pins(facts: Facts) -> Iterator[Finding]:
    """vCPUs, or an emulator, that may move over isolated CPUs: nothing moves them there."""
    isolated = facts.host.isolated
    for guest in facts.guests:
        loose = {
            vcpu: cpus for vcpu, cpus in guest.vcpupin.items() if len(cpus) > 1 and len(cpus & isolated) > 0
        }
        if loose:
            cpus = cpuset.format(NO_CPUS.union(*loose.values()) & isolated)
            yield Finding(
                "floating_pins",
                f"{guest.name}: vCPUs {cpuset.format(loose)} float over isolated CPUs {cpus}",
                "without load balancing they pile up on one of them while the others idle",
                f"libvirt-tuner apply {guest.name}, or virsh vcpupin {guest.name} VCPU CPU, one CPU for each",
            )
        if len(both := guest.emulatorpin & isolated) > 1:
            yield Finding(
                "floating_pins",
                f"{guest.name}: its emulator floats over isolated CPUs {cpuset.format(both)}",
                "nothing balances its threads there; vhost workers this tool gives a CPU each",
                severity=NOTE,
            )


def shared_cpus(facts: Facts) -> Iterator[Finding]:
    """A CPU that two running domains are pinned to."""
    running = [guest for guest in facts.guests if guest.running]
    for number, guest in enumerate(running):
        for other in running[number + 1 :]:
            if both := _own(guest) & _own(other):
                yield Finding(
                    "shared_cpus",
                    f"{guest.name} and {other.name} both have vCPUs on CPUs {cpuset.format(both)}",
                    "each waits for the other",
                    f"libvirt-tuner apply --live {other.name}",
                )


def _own(guest: Guest) -> Cpus:
    return NO_CPUS.union(*(cpus for cpus in guest.vcpupin.values() if len(cpus) == 1))


# Interrupts and masks


def misplaced_interrupts(facts: Facts) -> Iterator[Finding]:
    """Queue interrupts of an uplink on a vCPU's CPU, on an isolated one, or on another node."""
    host = facts.host
    for nic in uplinks(host)[0]:
        cell = host.cell(nic.node) if nic.node is not None else None
        sorts = (
            (facts.vcpus, "on CPUs of vCPUs", "the softirq runs there instead of the vCPU"),
            (host.isolated, "on isolated CPUs", "the next VM that is placed there shares its CPU with them"),
            (
                host.online - cell.cpus if cell and cell.cpus else NO_CPUS,
                "away from its node",
                "every packet crosses between the nodes",
            ),
        )
        rest = list(interrupts.queue_irqs(nic))
        for cpus, where, why in sorts:
            hit = [irq for irq in rest if (irq.effective or irq.affinity) & cpus and _settled(irq)]
            rest = [irq for irq in rest if irq not in hit]
            if hit:
                yield _interrupts(facts, nic, hit, where, why)


def _settled(irq: Irq) -> bool:
    """Whether it is known which CPUs take it: an idle one that may go anywhere says nothing."""
    return bool(irq.effective) or len(irq.affinity) == 1


def _interrupts(facts: Facts, nic: Nic, hit: list[Irq], where: str, why: str) -> Finding:
    numbers = " ".join(str(irq.number) for irq in hit)
    cpus = cpuset.format(NO_CPUS.union(*(irq.effective or irq.affinity for irq in hit)))
    word = "interrupt" if len(hit) == 1 else "interrupts"
    good, _ = interrupts.choose_cpus(facts.host, nic.node, facts.vcpus, NO_CPUS)
    files = f"/proc/irq/{numbers}/smp_affinity_list"
    mend = f"echo {cpuset.format(good)} > {files}"
    if len(hit) > 1:
        mend = f"for irq in {numbers}; do echo {cpuset.format(good)} > /proc/irq/$irq/smp_affinity_list; done"
    return Finding(
        "misplaced_interrupts", f"{nic.name}: {word} {numbers} {where} ({cpus})", why, mend if good else ""
    )


def steering_masks(facts: Facts) -> Iterator[Finding]:
    """RPS masks that send packets to CPUs that are vCPUs' or isolated."""
    guarded = facts.vcpus | facts.host.isolated
    for nic in uplinks(facts.host)[0]:
        masks = [mask for mask in facts.host.queues if mask.nic == nic.name and mask.queue.startswith("rx-")]
        if hit := [mask for mask in masks if mask.cpus & guarded]:
            cpus = cpuset.format(NO_CPUS.union(*(mask.cpus for mask in hit)) & guarded)
            yield Finding(
                "steering_masks",
                f"{nic.name}: RPS sends packets of {queues(hit)} to CPUs {cpus} of vCPUs or isolated",
                "their softirqs run there, whatever the interrupts' affinity is",
                'rps = "steer" in /etc/libvirt-tuner.toml, or'
                f" for q in /sys/class/net/{nic.name}/queues/rx-*; do echo 0 > $q/rps_cpus; done",
            )
    if facts.rfs_entries:
        yield Finding(
            "steering_masks",
            f"RFS is on (rps_sock_flow_entries {facts.rfs_entries}){_accelerated(facts)}",
            "it follows the host's own sockets, not those of guests",
            severity=NOTE,
        )


def _accelerated(facts: Facts) -> str:
    """Which cards steer flows themselves (aRFS, scaling.rst), as far as it is theirs to say."""
    able = sorted(name for name, each in facts.features.items() if each.get(NTUPLE, Feature(False)).on)
    return f", accelerated (aRFS) by {', '.join(able)} where a queue has an rps_flow_cnt" if able else ""


NTUPLE = "ntuple-filters"


# Daemons


def balancers(facts: Facts) -> Iterator[Finding]:
    """irqbalance and tuned where they would undo the placement."""
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
                else "it has a kernel line and interrupt affinities of its own",
                "isolated_cores= in /etc/tuned/*-variables.conf, or tuned-adm profile virtual-host",
                WARNING if missing else NOTE,
            )


_ISOLATING = ("cpu-partitioning", "realtime")
"""tuned's profiles that isolate CPUs and place interrupts themselves."""


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
            "any device's interrupt may land there at its next pass",
            f"echo IRQBALANCE_BANNED_CPULIST={listed} >> /etc/default/irqbalance"
            " && systemctl restart irqbalance",
        )
    if daemon.irqs is not None and (loose := facts.steered - daemon.irqs):
        yield Finding(
            "balancers",
            f"irqbalance was not told to leave interrupts {cpuset.format(loose)} where this tool put them",
            "it moves them back at its next pass",
            "systemctl restart libvirt-tuner-watch",
        )


# IPsec


ESP_FEATURES = {
    "esp-hw-offload": "the CPU encrypts every packet",
    "esp-tx-csum-hw-offload": "the CPU sums every packet that the card encrypts",
    "tx-esp-segmentation": "large packets are cut before encryption, on the CPU",
    "tx-gso-partial": "large packets in a tunnel are cut on the CPU",
}
"""What an uplink can take over for ESP, and what it costs where it does not."""


def esp_features(facts: Facts) -> Iterator[Finding]:
    """ESP offloads that an uplink has and does not use, or that a bond does not pass on."""
    if not _esp(facts):
        return
    nics, bonds = uplinks(facts.host)
    for nic in nics:
        features = facts.features.get(nic.name, {})
        idle = [name for name in ESP_FEATURES if name in features and not features[name].on]
        able = [name for name in idle if not features[name].fixed]
        if able:
            yield _feature(
                nic.name, able, " ".join(["ethtool -K", nic.name, *(f"{name} on" for name in able)])
            )
        elif "esp-hw-offload" in idle:
            yield Finding(
                "esp_features",
                f"{nic.name} has no esp-hw-offload",
                ESP_FEATURES["esp-hw-offload"],
                severity=NOTE,
            )
    for bond in bonds:
        yield from _bond(facts, bond)


def _bond(facts: Facts, bond: Link) -> Iterator[Finding]:
    above = facts.features.get(bond.name)
    slaves = [facts.features[name] for name in bond.lower if name in facts.features]
    if above is None or not slaves:
        return
    lost = [
        name
        for name in ESP_FEATURES
        if all(slave.get(name, Feature(False)).on for slave in slaves)
        and not above.get(name, Feature(False)).on
    ]
    able = [name for name in lost if name in above and not above[name].fixed and not above[name].requested]
    if able:
        yield _feature(bond.name, able, " ".join(["ethtool -K", bond.name, *(f"{name} on" for name in able)]))
    if stuck := [name for name in lost if name not in able]:
        mend = f"a kernel with {_BOND_COMMITS}"
        if bond.detail.get("mode", "active-backup") != "active-backup":
            mend = f"mode active-backup: bonding passes them on in no other ({bond.detail['mode']} here)"
        yield _feature(bond.name, stuck, mend)


_BOND_COMMITS = (
    "'bonding: add ESP offload features when slaves support' and 'bonding: Correctly support GSO ESP offload'"
)
"""Changes of Linux that let a bond in mode active-backup pass on what its slaves can do."""


def _feature(device: str, names: list[str], mend: str) -> Finding:
    return Finding(
        "esp_features",
        f"{device}: {', '.join(names)} off",
        "; ".join(ESP_FEATURES[name] for name in names),
        mend,
    )


def esp_states(facts: Facts) -> Iterator[Finding]:
    """IPsec states that leave the crypto to the CPU although a device offers it."""
    plain = [state for state in facts.host.xfrm.states if state.proto == "esp" and not state.offload]
    if not plain:
        return
    capable = [
        name for name, features in facts.features.items() if features.get("esp-hw-offload", Feature(False)).on
    ]
    ways = ", ".join(f"{state.src} > {state.dst}" for state in plain)
    if capable:
        # A bond's states are the bond's: it hands them to the slave that is active.
        bonds = [bond.name for bond in uplinks(facts.host)[1] if {bond.name, *bond.lower} & set(capable)]
        device = (bonds or capable)[0]
        yield Finding(
            "esp_states",
            f"ESP in kernel crypto: {ways}",
            f"the CPU encrypts what {device} could",
            f"add these states again with 'offload dev {device} dir out' or 'dir in' (ip-xfrm(8))",
        )
    else:
        yield Finding(
            "esp_states", f"ESP in kernel crypto: {ways}", "no uplink here offers more", severity=NOTE
        )


def _esp(facts: Facts) -> bool:
    return any(state.proto == "esp" for state in facts.host.xfrm.states)


# Links


def flow_control(facts: Facts) -> Iterator[Finding]:
    """Pause frames: on, or different on the slaves of a bond."""
    for bond in uplinks(facts.host)[1]:
        known = {name: facts.pause[name] for name in bond.lower if name in facts.pause}
        if len(set(known.values())) > 1:
            said = ", ".join(f"{name} {_onoff(pause)}" for name, pause in known.items())
            yield Finding(
                "flow_control",
                f"{bond.name}: flow control differs between its slaves ({said})",
                "after a failover the link behaves otherwise",
                "ethtool -A DEVICE rx off tx off, the same on each",
            )
    if busy := [name for name, pause in facts.pause.items() if pause.rx or pause.tx]:
        yield Finding(
            "flow_control",
            f"flow control is on: {', '.join(sorted(busy))}",
            "one queue that falls behind stops the whole link",
            "; ".join(f"ethtool -A {name} rx off tx off" for name in sorted(busy)),
            NOTE,
        )


def _onoff(pause: Pause) -> str:
    return f"rx {'on' if pause.rx else 'off'} tx {'on' if pause.tx else 'off'}"


def broken_uplinks(facts: Facts) -> Iterator[Finding]:
    """Tunnels and bonds from which no way leads to hardware."""
    for name, link in sorted(facts.host.links.items()):
        if link.kind in (*TUNNELS, "bond", "team") and (problem := trace(name, facts.host).problem):
            yield Finding(
                "broken_uplinks",
                f"{name}: {problem}",
                "node, interrupts and MTU of what runs above it cannot follow from it",
                "mend it, or name the device that counts: uplink = in /etc/libvirt-tuner.toml",
            )


def mtu_chain(facts: Facts) -> Iterator[Finding]:
    """Devices whose MTU is larger than what crosses below them whole."""
    # IPsec that cannot be read is said by another finding; its largest is nothing to mend.
    host = evolve(facts.host, xfrm=Xfrm()) if facts.host.xfrm.problem else facts.host
    for link in host.links.values():
        if link.kind in ("", "pci", "network", "openvswitch") or link.external:
            continue
        lifted = evolve(host, links={**host.links, link.name: evolve(link, mtu=_LARGEST)})
        found = budget(trace(link.name, lifted), lifted)
        if found.size is None or found.size >= link.mtu or found.underlay == _LARGEST:
            continue
        yield Finding(
            "mtu_chain",
            f"{link.name} has an MTU of {link.mtu}, {link.mtu - found.size} more than crosses whole",
            f"larger packets are cut in two or dropped: {_without_advice(found)}",
            f"ip link set {link.name} mtu {found.size}",
        )


def _without_advice(found: Budget) -> str:
    """What the bytes go to; the command that mends it stands beside it."""
    notes = tuple(note for note in found.notes if "ip link set" not in note)
    return evolve(found, notes=notes).explain()


_LARGEST = 65535

CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    skipped_parameters,
    partial_isolation,
    isolated_boot_cpu,
    floating_pins,
    shared_cpus,
    misplaced_interrupts,
    steering_masks,
    balancers,
    esp_features,
    esp_states,
    flow_control,
    broken_uplinks,
    mtu_chain,
)
"""Every check, in the order its findings are shown."""
