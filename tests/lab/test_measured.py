"""What placement and steering buy, measured: one VM sends or receives while the others are suspended.

All variants of the four scenarios are measured in turn, round after round, on one hypervisor. The tuned VM
is what the installed tool makes of a bare definition; the others are what a user without it would have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

import pytest
from attrs import define, evolve, field, frozen

from tests.lab import measure, share, site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network
from tests.lab.observe import assert_as_planned, irq_cpus, pins, queue_irqs
from tests.lab.progress import step
from tests.lab.results import Measurement, Results

pytestmark = pytest.mark.measured

SECONDS = 3
CORES = "cores in use outside"
POLICY = "<tuner:policy xmlns:tuner='https://libvirt-tuner.org/policy/1' {settings}/>"
LEFT_ALONE = POLICY.format(settings="select='false'")

COMMON = """\
A VM has one vCPU and one virtio NIC (vhost, one queue) on a bridge over the NIC of node 0. One TCP flow runs
between it and an iperf3 outside the hypervisor, which uses none of its CPUs. Incoming packets are frames of
1500 bytes, as on a wire (segmentation offload is off outside). Outgoing packets may leave the VM in larger
pieces. During the flow, every emulated CPU has a fixed share of a core (the cores of the machine that
emulates, divided by 4, or all of one), so that two of them do twice the work of one."""

SEND = f"""\
{COMMON} The VM sends. *One CPU*: the domain's XML pins vCPU, emulator and vhost worker to the same CPU, and
the policy does not select the domain. This can happen if only vCPUs are pinned. It is not the state of a VM
without pins (see *defaults*). *Placed*: a definition without pins, started with virsh, placed by service and
hook. In both variants, the vCPU is on the same CPU, and the hook moved the NIC's interrupts. Only the CPUs of
emulator and vhost worker differ."""

RECEIVE = f"""\
{COMMON} The VM receives. In both variants, service and hook placed it. *IRQs on the vCPU*: the changes of the
host were undone (`libvirt-tuner undo --all`), and the NIC's queue interrupts were moved to the vCPU's CPU.
*Steered*: libvirtd was restarted, and the hook (`reconnect`) moved the interrupts away again."""

DEFAULTS = f"""\
{COMMON} *No pins*: the policy does not select the domain, and the changes of the host were undone
(`libvirt-tuner undo --all`). vCPU, emulator and vhost worker may run on all 8 CPUs, and the kernel chose the
CPUs of the interrupts. *Placed*: the same definition, placed by service and hook."""

POLL = f"""\
{COMMON} The VM sends. In both variants, the vCPU is on the same CPU, and the vhost worker on another one.
*poll-us 0*: placed by service and hook, without polling. *poll-us 200*: with `<policy poll-us="200"/>` in the
metadata. The service added busy polling to the definition."""


ALONE = """\
A VM that is alone on an idle host has no competition. Without pins, its vCPU hardly waits and seldom changes
its CPU. Emulated memory is equally fast from both nodes, and a move loses no cache. The scenarios *send*,
*receive* and *mixed* show the cost of the defaults when threads or interrupts share a CPU."""


@define
class Bench:
    """VMs on one bridge, of which one runs at a time.

    Attributes:
        lab: The hypervisor.
        network: What is outside.
        guests: By name; all started, all suspended but one.
        seat: The CPU of the tuned VM's vCPU, and of every pinned one's.
        unsteered: Where the kernel let each interrupt of the NIC go.
        steered: Where the hook put it.
        queues: Those that carry packets.
        threads: Of each VM: that of its vCPU, and its vhost worker.
        running: The one that is not suspended.
        held: Whether emulated CPUs kept out of each other's way so far (:func:`tests.lab.share.held`).
    """

    lab: Hypervisor
    network: Network
    guests: dict[str, Guest] = field(factory=dict)
    seat: int = -1
    unsteered: dict[int, str] = field(factory=dict)
    steered: dict[int, str] = field(factory=dict)
    queues: list[int] = field(factory=list)
    threads: dict[str, tuple[int, int]] = field(factory=dict)
    running: str = ""
    held: bool = True

    def set_up(self) -> None:
        """Define and start all of them; the tuned one first, by whose CPUs the others are made."""
        self.lab.bridge("br0", self.lab.nics[0], address=f"{site.address(1)}/24")
        self.unsteered = irq_cpus(self.lab, self.lab.nics[0])
        self.queues = queue_irqs(self.lab, self.lab.nics[0])
        self._define("tuned")
        self._completed("tuned", "vcpupin")
        self._define("untouched", metadata=LEFT_ALONE)
        self._boot("tuned", "untouched")
        self.seat = int(pins(self.lab, "vcpupin tuned")["0"])
        apart = self.guests["tuned"].affinity(self.threads["tuned"][1])
        self.steered = self._interrupts()
        self._define("stacked", tuning=self._pinned(emulator=str(self.seat)), metadata=LEFT_ALONE)
        poll = POLICY.format(settings="poll-us='200'")
        self._define("polled", tuning=self._pinned(emulator=apart), metadata=poll)
        self._completed("polled", "poll-us=200")
        # From here on the hook is alone; two VMs that claim one CPU would be moved apart.
        self.lab.run("systemctl stop libvirt-tuner")
        self.lab.run(
            "virsh metadata polled --uri https://libvirt-tuner.org/policy/1 --key tuner --config"
            " --set '<policy select=\"false\"/>'"
        )
        self._boot("stacked", "polled")
        assert_as_planned(self.lab, "tuned")
        seat = str(self.seat)
        everywhere = self.guests["untouched"].affinity(1)
        assert {name: self._places(name) for name in self.guests} == {
            "tuned": [seat, apart],
            "untouched": [everywhere, everywhere],
            "stacked": [seat, seat],
            "polled": [seat, apart],
        }
        assert "poll-us=200" in self.lab.output(f"tr '\\0' ' ' < /proc/{self.guests['polled'].pid}/cmdline")

    def _places(self, name: str) -> list[str]:
        """Where a VM's vCPU may run, and its vhost worker."""
        return [self.guests[name].affinity(thread) for thread in self.threads[name]]

    def _boot(self, *names: str) -> None:
        """Start VMs and suspend them; no more than two at a time, as they are made to share CPUs."""
        with step(f"{' and '.join(names)} on {self.lab.machine.name}"):
            for name in names:
                self.guests[name].start(wait=False)
            for name in names:
                self.guests[name].wait()
                (vcpu,) = self.guests[name].vcpu_threads().values()
                (worker,) = self.guests[name].vhost_threads()
                self.threads[name] = vcpu, worker
                self.guests[name].virsh("suspend")

    def _define(self, name: str, **changes: str) -> None:
        nic = Vnic(source="bridge=br0", address=f"{self.address(name)}/24")
        spec = GuestSpec(name=name, nics=(nic,), **changes)  # type: ignore[arg-type]
        self.guests[name] = self.lab.define(spec)

    def _completed(self, name: str, sign: str) -> None:
        self.lab.wait_for(
            lambda: sign in self.lab.output(f"virsh dumpxml {name} --inactive"),
            why=f"the service completes {name}",
        )

    def _pinned(self, *, emulator: str) -> str:
        vcpu = f"<vcpupin vcpu='0' cpuset='{self.seat}'/>"
        return f"  <cputune>{vcpu}<emulatorpin cpuset='{emulator}'/></cputune>\n"

    def address(self, name: str) -> str:
        """The VM's, on the lan."""
        return f"10.77.0.{100 + ['tuned', 'stacked', 'untouched', 'polled'].index(name)}"

    def undo(self) -> None:
        """Leave the host as it is without the tool."""
        if self._interrupts() == self.steered:
            self.lab.run("libvirt-tuner undo --all")
        assert self._interrupts() == self.unsteered

    def misplace(self) -> None:
        """Without the tool, and the NIC's queues interrupt the vCPU's CPU."""
        self.undo()
        self._steer(dict.fromkeys(self.queues, str(self.seat)))

    def tune(self) -> None:
        """Have libvirtd call the hook for what runs."""
        if self._interrupts() == self.steered:
            return
        # What the hook finds is what it will give back.
        self._steer({irq: self.unsteered[irq] for irq in self.queues})
        self.lab.run("systemctl restart libvirtd")
        self.lab.wait_for(
            lambda: self._interrupts() == self.steered, timeout=120, why="the hook steers again"
        )

    def _interrupts(self) -> dict[int, str]:
        files = " ".join(f"/proc/irq/{irq}/smp_affinity_list" for irq in self.unsteered)
        return dict(zip(self.unsteered, self.lab.output(f"cat {files}").split(), strict=True))

    def _steer(self, irqs: Mapping[int, str]) -> None:
        for irq, cpus in irqs.items():
            self.lab.write(f"/proc/irq/{irq}/smp_affinity_list", cpus)

    def switch(self, name: str) -> None:
        """Let one VM run."""
        if name != self.running:
            suspend = f"suspend {self.running}; " if self.running else ""
            self.lab.run(f"virsh '{suspend}resume {name}'")
            self.running = name

    def flow(self, name: str, *, reverse: bool) -> Mapping[str, float]:
        """Measure one flow from (``reverse``) or to a VM."""
        self.switch(name)
        vcpu, worker = self.threads[name]
        before = measure.sample(self.lab, (vcpu, worker))
        outside = measure.outside(self.network)
        address = self.address(name)
        with share.held(self.lab.machine) as held:
            self.held = self.held and held
            speed, cores = measure.cores_in_use(
                lambda: measure.iperf3(outside, address, reverse=reverse, seconds=SECONDS)
            )
        grown = measure.sample(self.lab, (vcpu, worker)) - before
        return {
            "Mbit/s": speed,
            "vCPU waits, ms/s": 1000 * grown.wait[vcpu] / grown.seconds,
            "vhost waits, ms/s": 1000 * grown.wait[worker] / grown.seconds,
            "vCPU migrations, 1/s": grown.migrations[vcpu] / grown.seconds,
            CORES: cores,
            "vhost sleeps, 1/s": grown.switches[worker] / grown.seconds,
            "IPIs, 1/s": grown.ipis / grown.seconds,
            **{f"NET_RX of CPU {cpu}, 1/s": n / grown.seconds for cpu, n in grown.net_rx.items()},
        }


def variants(bench: Bench) -> dict[str, Callable[[], Mapping[str, float]]]:
    """All that is measured, in an order that asks for few changes of the host."""

    def run(host: Callable[[], None], name: str, *, reverse: bool) -> Callable[[], Mapping[str, float]]:
        def one() -> Mapping[str, float]:
            host()
            return bench.flow(name, reverse=reverse)

        return one

    return {
        "untouched, sends": run(bench.undo, "untouched", reverse=True),
        "untouched, receives": run(bench.undo, "untouched", reverse=False),
        "misplaced": run(bench.misplace, "tuned", reverse=False),
        "steered": run(bench.tune, "tuned", reverse=False),
        "tuned": run(bench.tune, "tuned", reverse=True),
        "stacked": run(bench.tune, "stacked", reverse=True),
        "polled": run(bench.tune, "polled", reverse=True),
    }


@frozen
class Scenario:
    """Two of the variants, compared.

    Attributes:
        name: What the results call it.
        setup: What each variant is.
        untuned: The variant without the tool: what the results call it, and its name in :func:`variants`.
        tuned: The one with it.
        figure: What is compared.
        better: "higher" or "lower".
        target: The least ratio.
        why: What explains that it is not reached.
        least: The ratio below which the scenario fails: the target, if it is not one that is not reached.
    """

    name: str
    setup: str
    untuned: tuple[str, str]
    tuned: tuple[str, str]
    figure: str = "Mbit/s"
    better: str = "higher"
    target: float | None = None
    why: str = ""
    least: float = field()

    @least.default
    def _target_or_none(self) -> float:
        return self.target or 0.0


DEFAULTS_SENT = Scenario(
    "defaults, send",
    f"{DEFAULTS} The VM sends.",
    ("no pins", "untouched, sends"),
    ("placed", "tuned"),
    target=1.3,
    why=ALONE,
    least=0.6,
)

SCENARIOS = [
    Scenario("send", SEND, ("one CPU", "stacked"), ("placed", "tuned"), target=1.8),
    Scenario("receive", RECEIVE, ("IRQs on the vCPU", "misplaced"), ("steered", "steered"), target=1.5),
    evolve(
        DEFAULTS_SENT,
        name="defaults, receive",
        setup=f"{DEFAULTS} The VM receives.",
        untuned=("no pins", "untouched, receives"),
        tuned=("placed", "steered"),
    ),
    DEFAULTS_SENT,
    Scenario(
        "poll-us",
        POLL,
        ("poll-us 0", "tuned"),
        ("poll-us 200", "polled"),
        figure="vhost sleeps, 1/s",
        better="lower",
    ),
]


@frozen
class Measured:
    """Every figure of every variant, the CPU of the tuned vCPU, and whether emulated CPUs were held."""

    series: Mapping[str, Mapping[str, list[float]]]
    seat: int
    held: bool


@pytest.fixture(scope="module")
def measured(shared_lab: Hypervisor, network: Network, pytestconfig: pytest.Config) -> Measured:
    """Measured once for all scenarios."""
    bench = Bench(shared_lab, network)
    network.run("ethtool", "-K", "lan", "tso", "off", "gso", "off")
    try:
        bench.set_up()
        series = measure.alternate(pytestconfig.getoption("--rounds"), variants(bench))
    finally:
        network.run("ethtool", "-K", "lan", "tso", "on", "gso", "on")
    return Measured(series, bench.seat, bench.held)


@pytest.mark.parametrize("scenario", [pytest.param(one, id=one.name) for one in SCENARIOS])
def test_measured(measured: Measured, results: Results, release: str, scenario: Scenario) -> None:
    done = Measurement(
        scenario=scenario.name,
        release=release,
        setup=scenario.setup,
        series={name: measured.series[variant] for name, variant in (scenario.untuned, scenario.tuned)},
        figure=scenario.figure,
        better=scenario.better,
        target=scenario.target,
        seat=measured.seat,
    )
    undisturbed = measured.held and not crowded(done)
    results.add(evolve(done, note=" ".join(notes(done, scenario, undisturbed=undisturbed))))
    assert done.ratio >= scenario.least or not undisturbed, results.lines()


def crowded(measurement: Measurement) -> bool:
    """Whether the emulating machine had no core to spare, as with others' work on it."""
    used = [figures[CORES] for figures in measure.medians(measurement.series).values()]
    return max(used) > 0.9 * (os.cpu_count() or 1)


def notes(measurement: Measurement, scenario: Scenario, *, undisturbed: bool) -> Iterator[str]:
    """What has to be known with the figures."""
    untuned, tuned = measure.medians(measurement.series).values()
    speed, waits = "Mbit/s", "vCPU waits, ms/s"
    if not undisturbed:
        yield "The emulated CPUs competed for the cores outside, so these figures mean nothing."
    if not measurement.reached:
        yield (
            f"{measurement.ratio:.2f}, target {measurement.target:g}. The vCPU waited {untuned[waits]:.0f}"
            f" ms of each second without the tool, {tuned[waits]:.0f} ms with it; of {os.cpu_count()} cores"
            f" outside {untuned[CORES]:.2f} were in use without it, {tuned[CORES]:.2f} with it."
        )
        yield scenario.why
    if measurement.figure != speed:
        yield f"Throughput with the tool is {tuned[speed] / untuned[speed]:.2f} times that without."
