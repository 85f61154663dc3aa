"""VMs with network traffic among VMs that compute all the time: who gains, and that nobody loses.

Each mix is measured without the tool first and with it then, in one run: the same VMs, started in the same
order. A VM of the mix either computes (in each guest a busy loop per vCPU) or has one TCP flow to an iperf3
outside the hypervisor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
from attrs import define, field, frozen

from tests.lab import measure, share, site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network
from tests.lab.progress import say, step
from tests.lab.results import Measurement, Results

pytestmark = pytest.mark.measured

SECONDS = 6
CPUS = 8
"""Of the hypervisor. Each is held to as large a share of the machine that emulates it."""
POLICY = "<tuner:policy xmlns:tuner='https://libvirt-tuner.org/policy/1' {}/>"
WITHOUT, WITH = "without", "with"

SETUP = f"""\
VMs on one bridge over the NIC of node 0: {{mix}}. The computing ones run a busy loop per vCPU. While a flow
is measured ({SECONDS} seconds each way), every emulated CPU is held to the same share of a core (the cores of
the machine that emulates, divided by {CPUS}). *Without*: the policy does not select the domains, and host
changes are taken back; *with*: the same definitions, started in the same order with the tool installed.
{{figure}}"""
FIGURES = {
    "send": "The network VM sends.",
    "receive": "The network VM receives.",
    "neighbour": "CPU time of the vCPUs of the VM that loses most, in CPUs (run time per second, schedstat).",
}


@frozen
class Mix:
    """VMs on one hypervisor.

    Attributes:
        computing: vCPUs of each VM that computes.
        network: vCPUs of each VM with a flow; the first one's is measured alone, then the second's.
        first: The network VMs start before the others.
        claim: Policy of the network VMs.
        gain: The least ratio of throughput, each way.
        loss: The least ratio of each neighbour's CPU time; None: the CPUs that were claimed may go.
    """

    computing: tuple[int, ...] = ()
    network: tuple[int, ...] = (1,)
    first: bool = False
    claim: str = ""
    gain: float = 1.0
    loss: float | None = 0.95

    @property
    def name(self) -> str:
        """As the results call it: ``4+2 computing, network VM last``."""
        own = "network VM" if len(self.network) == 1 else f"{len(self.network)} network VMs"
        own += "" if set(self.network) == {1} else f" of {self.network[0]} vCPUs"
        if not self.computing:
            return f"{own} alone"
        order = "first" if self.first else "last"
        return (
            f"{'+'.join(map(str, self.computing))} computing, {own} {order}"
            f"{', dedicated' if self.claim else ''}"
        )

    def guests(self, metadata: str, claim: str) -> list[GuestSpec]:
        """The domains in the order of their starts."""
        busy = [GuestSpec(name=f"busy{i}", vcpus=n, metadata=metadata, nics=(_nic(110 + i),))
                for i, n in enumerate(self.computing)]  # fmt: skip
        flows = [GuestSpec(name=f"net{i}", vcpus=n, metadata=claim or metadata, nics=(_nic(100 + i),))
                 for i, n in enumerate(self.network)]  # fmt: skip
        return [*flows, *busy] if self.first else [*busy, *flows]


def _nic(number: int) -> Vnic:
    return Vnic(source="bridge=br0", address=f"10.77.0.{number}/24")


MIXES = [
    Mix((4, 2), gain=1.5),
    Mix((4, 2), first=True, gain=1.5),
    Mix((2, 2, 2), gain=1.5),
    Mix((2, 2, 2), first=True, gain=1.5),
    Mix((2, 2, 2), network=(2,), gain=1.5),
    Mix((4,), network=(1, 1), gain=1.5),
    Mix((2, 2)),
    Mix(),
    Mix((8,)),
    Mix((8,), claim="placement='dedicated'", gain=2.5, loss=None),
]


@define
class Stage:
    """The VMs of a mix, running.

    Attributes:
        lab: The hypervisor.
        network: What is outside.
        mix: Which VMs.
        guests: By name.
        threads: vCPU threads of each.
        held: Whether emulated CPUs kept out of each other's way so far.
    """

    lab: Hypervisor
    network: Network
    mix: Mix
    guests: dict[str, Guest] = field(factory=dict)
    threads: dict[str, Sequence[int]] = field(factory=dict)
    held: bool = True

    def start(self, variant: str) -> None:
        """Define and start all, and let the computing ones compute."""
        alone = POLICY.format("select='false'") if variant == WITHOUT else ""
        claim = POLICY.format(self.mix.claim) if self.mix.claim and variant == WITH else ""
        with step(f"{self.mix.name}, {variant} the tool"):
            for spec in self.mix.guests(alone, claim):
                guest = self.guests[spec.name] = self.lab.define(spec)
                if variant == WITH:
                    self._wait(f"virsh dumpxml {spec.name} --inactive | grep -q rx_queue_size")
                guest.start(wait=False)
                if variant == WITH:
                    self._wait(f"libvirt-tuner status {spec.name} >/dev/null 2>&1")
            for name, guest in self.guests.items():
                guest.wait()
                self.threads[name] = [*guest.vcpu_threads().values()]
            for name, guest in self.guests.items():
                if name.startswith("busy"):
                    loop = "(while :; do :; done) >/dev/null 2>&1 &"
                    guest.run(" ".join([loop] * guest.spec.vcpus))
        if variant == WITHOUT:
            self.lab.run("libvirt-tuner undo --all", check=False)
        for name, guest in self.guests.items():
            vcpus = [guest.affinity(tid) for tid in self.threads[name]]
            others = [guest.affinity(tid) for tid in (*guest.vhost_threads(), guest.pid)]
            say(f"{name}: vCPUs {' '.join(vcpus)}; vhost worker and main thread {' '.join(others)}")

    def _wait(self, command: str) -> None:
        """Give the service some seconds; what it has not done by then is part of what is measured."""
        try:
            self.lab.wait_for(lambda: self.lab.run(command, check=False).status == 0, timeout=20)
        except AssertionError:
            say(f"not within 20 s: {command}")

    def flow(self, name: str, *, reverse: bool) -> dict[str, float]:
        """Measure one flow, and what CPU time everybody's vCPUs had meanwhile."""
        address = self.guests[name].spec.nics[0].address.partition("/")[0]
        threads = [tid for tids in self.threads.values() for tid in tids]
        before = measure.sample(self.lab, threads)
        with share.held(self.lab.machine, CPUS) as held:
            self.held = self.held and held
            speed = measure.iperf3(measure.outside(self.network), address, reverse=reverse, seconds=SECONDS)
        grown = measure.sample(self.lab, threads) - before
        ran = {
            f"CPUs of {other}": sum(grown.ran[tid] for tid in tids) / grown.seconds
            for other, tids in self.threads.items()
        }
        return {"Mbit/s": speed, **ran}

    def stop(self) -> None:
        """Destroy and undefine all."""
        self.lab.clean()
        self.guests.clear()
        self.threads.clear()


@frozen
class Measured:
    """Figures of both variants (``send``, ``receive``, each VM's CPUs), and whether CPUs were held."""

    series: Mapping[str, Mapping[str, list[float]]]
    held: bool


@pytest.fixture(scope="module", params=[pytest.param(mix, id=mix.name) for mix in MIXES])
def mix(request: pytest.FixtureRequest) -> Mix:
    found: Mix = request.param
    return found


@pytest.fixture(scope="module")
def bridged(shared_lab: Hypervisor, network: Network) -> Iterator[Hypervisor]:
    """Frames of 1500 bytes come in, as on a wire."""
    network.run("ethtool", "-K", "lan", "tso", "off", "gso", "off")
    shared_lab.bridge("br0", shared_lab.nics[0], address=f"{site.address(1)}/24")
    yield shared_lab
    network.run("ethtool", "-K", "lan", "tso", "on", "gso", "on")


@pytest.fixture(scope="module")
def measured(bridged: Hypervisor, network: Network, mix: Mix, pytestconfig: pytest.Config) -> Measured:
    """Both variants, one after the other: what runs cannot be changed from one to the other and back."""
    series: dict[str, dict[str, list[float]]] = {}
    held = True
    for variant in (WITHOUT, WITH):
        stage = Stage(bridged, network, mix)
        try:
            stage.start(variant)
            series[variant] = _rounds(stage, max(4, pytestconfig.getoption("--rounds") - 1))
        finally:
            stage.stop()
        held = held and stage.held
    return Measured(series, held)


def _rounds(stage: Stage, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        for name in [name for name in stage.guests if name.startswith("net")]:
            for way, reverse in (("send", True), ("receive", False)):
                figures = stage.flow(name, reverse=reverse)
                found.setdefault(way, []).append(figures.pop("Mbit/s"))
                for figure, value in figures.items():
                    found.setdefault(figure, []).append(value)
                say(f"round {number}/{rounds}, {name}, {way}: {found[way][-1]:.4g} Mbit/s, "
                    + ", ".join(f"{figure} {value:.3g}" for figure, value in figures.items()))  # fmt: skip
    return found


def worst_neighbour(series: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The figure of the computing VM that has lost most."""
    without, tuned = measure.medians(series)[WITHOUT], measure.medians(series)[WITH]
    busy = [figure for figure in tuned if figure.startswith("CPUs of busy")]
    return min(busy, key=lambda figure: tuned[figure] / without[figure])


@pytest.mark.parametrize("figure", ["send", "receive", "neighbour"])
def test_mixed(measured: Measured, results: Results, release: str, mix: Mix, figure: str) -> None:
    """With the tool the network VM gains, and no neighbour loses."""
    if figure == "neighbour" and not mix.computing:
        return
    source = worst_neighbour(measured.series) if figure == "neighbour" else figure
    target = mix.gain if figure != "neighbour" else mix.loss or _claimed(mix)
    unit = "CPUs" if figure == "neighbour" else "Mbit/s"
    done = Measurement(
        scenario=f"mixed: {mix.name}, {figure}",
        release=release,
        setup=SETUP.format(mix=mix.name, figure=FIGURES[figure]),
        series={variant: {unit: values[source]} for variant, values in measured.series.items()},
        figure=unit,
        target=target,
        note="" if measured.held else "The emulated CPUs took the cores outside from each other.",
    )
    results.add(done)
    assert done.reached or not measured.held, results.lines()


def _claimed(mix: Mix) -> float:
    """What is left to the neighbours when a CPU per vCPU and one for vhost are taken out of the host."""
    taken = sum(mix.network) + len(mix.network)
    return 0.95 * min(1.0, (CPUS - taken) / sum(mix.computing))
