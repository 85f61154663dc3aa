"""``libvirt-tuner diagnose``: silent on a healthy host, and naming first what was made to hurt on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from attrs import frozen

from tests.lab import measure, share, site
from tests.lab.guest import Guest, GuestSpec, Vnic
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network
from tests.lab.observe import irq_cpus, pins, queue_irqs
from tests.lab.progress import say

ADDRESS = "10.77.0.100"
SECONDS = 3
"""Of sampling; with starting and reading twice, the answer is there within :data:`WITHIN`."""
WITHIN = 6.0
FLOWS = 40
"""Seconds of a flow: the program starts, reads the host, samples and judges meanwhile."""
SPI = 0x1001
SLOW = f"auth 'hmac(sha512)' 0x{'11' * 64} enc 'ecb(cipher_null)' ''"
"""Dear to check: the emulator has no use for the instructions of the machine's own processor."""
FLOOD = f"""\
import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ESP)
end, number = time.monotonic() + {FLOWS}, 0
while time.monotonic() < end:
    for _ in range(150):
        number += 1
        try:
            s.sendto(struct.pack("!II", {SPI}, number) + bytes(1400), ("{{address}}", 0))
        except OSError:
            pass
    time.sleep(0.005)
"""
"""ESP that fails its check: the kernel has to calculate that first, in the softirq."""
COMPUTES = "(while :; do :; done) >/dev/null 2>&1 & echo $!"
REMOTE_CPU = "1"
"""Of the node without the NIC that the VM uses."""
ANYWHERE = "0-7"
VHOST_OWNERS = "fork_from_owner_default"
KTHREADD = "2"


@frozen
class Scene:
    """A VM of one vCPU that service and hook placed."""

    lab: Hypervisor
    network: Network
    web: Guest

    @property
    def seat(self) -> str:
        """CPU of its vCPU."""
        return pins(self.lab, "vcpupin web")["0"]

    @property
    def emulators(self) -> str:
        """CPUs of its emulator."""
        return pins(self.lab, "emulatorpin web")["*"]

    @property
    def queues(self) -> list[int]:
        """Interrupts of its NIC's queues."""
        return queue_irqs(self.lab, self.lab.nics[0])

    def steered_to(self) -> set[str]:
        """Where those may go."""
        now = irq_cpus(self.lab, self.lab.nics[0])
        return {now[irq] for irq in self.queues}

    def steer(self, cpus: str) -> None:
        """Move them as irqbalance or an administrator would."""
        for irq in self.queues:
            self.lab.write(f"/proc/irq/{irq}/smp_affinity_list", cpus)

    def place(self) -> None:
        """Have the service and the hook put everything where it belongs."""
        self.lab.run("libvirt-tuner undo --all", check=False)
        self.lab.run("systemctl restart libvirtd && systemctl start libvirt-tuner")
        try:
            self.lab.wait_for(self.placed, timeout=120, why="placed")
        except AssertionError:
            say(self.lab.run("libvirt-tuner status web; libvirt-tuner log web", check=False).stdout)
            raise
        # What follows the hook would take a pin that a case sets for the user's own.
        self.lab.run("while pgrep -f '[l]ibvirt_tuner.settle' >/dev/null; do sleep 0.3; done; sleep 2")

    def placed(self) -> bool:
        """Whether all is as planned."""
        return self.lab.run("libvirt-tuner status web", check=False).status == 0

    @property
    def worker(self) -> int:
        """Its vhost worker's thread."""
        (tid,) = self.web.vhost_threads()
        return tid

    def diagnose(self) -> list[dict[str, Any]]:
        """The findings; the exit status says whether there are any."""
        before = measure.sample(self.lab)
        done = self.lab.run(f"libvirt-tuner diagnose --seconds {SECONDS} --json", check=False)
        answer = json.loads(done.stdout)
        found: list[dict[str, Any]] = answer["findings"]
        grown = measure.sample(self.lab) - before
        runs = {cpu: f"{count / grown.seconds:.0f}/s" for cpu, count in grown.net_rx.items()}
        share = {cpu: f"{spent / grown.seconds:.0%}" for cpu, spent in grown.softirq.items()}
        say(f"{grown.seconds:.1f} s in all; vCPU on {self.seat}; NET_RX {runs}; softirq {share}")
        say(f"sampled {answer['seconds']} s: " + ("; ".join(map(_said, found)) or "nothing hurts"))
        assert answer["seconds"] <= WITHIN
        assert done.status == bool(found), done.stderr
        return found

    def fix(self) -> str:
        """``diagnose --fix --yes``; what it said."""
        done = self.lab.run(f"libvirt-tuner diagnose --seconds {SECONDS} --fix --yes", check=False)
        say(done.stdout)
        return done.stdout + done.stderr

    @contextmanager
    def flow(
        self, *, reverse: bool = False, address: str = ADDRESS, options: str = ""
    ) -> Iterator[Future[float]]:
        """A TCP flow to the VM, or from it (``reverse``), that lasts longer than sampling."""
        outside = measure.outside(self.network)
        with ThreadPoolExecutor() as pool:
            flowing = pool.submit(
                measure.iperf3, outside, address, reverse=reverse, seconds=FLOWS, options=options
            )
            self.lab.run("sleep 2")
            yield flowing
            say(f"flow: {flowing.result():.0f} Mbit/s")


def _said(finding: dict[str, Any]) -> str:
    return " | ".join(str(finding[key]) for key in ("kind", "cost", "what", "evidence", "fix"))


@pytest.fixture(scope="module")
def scene(shared_lab: Hypervisor, network: Network) -> Scene:
    lab = shared_lab
    lab.bridge("br0", lab.nics[0], address=f"{site.address(1)}/24")
    nic = Vnic(source="bridge=br0", address=f"{ADDRESS}/24")
    web = lab.define(GuestSpec(name="web", nics=(nic,)))
    lab.wait_for(lambda: "vcpupin" in web.virsh("dumpxml").stdout, why="the service completes the definition")
    web.start()
    scene = Scene(lab, network, web)
    lab.wait_for(scene.placed, why="placed")
    return scene


def test_a_healthy_host_that_idles(scene: Scene) -> None:
    assert scene.diagnose() == []


@pytest.mark.thorough
@pytest.mark.parametrize("reverse", [pytest.param(False, id="receives"), pytest.param(True, id="sends")])
def test_a_healthy_host_under_load(scene: Scene, reverse: bool) -> None:
    with scene.flow(reverse=reverse) as flowing:
        assert scene.diagnose() == []
        assert not flowing.done(), "the flow ended before it was looked at"


@contextmanager
def vhost_on_vcpu(scene: Scene) -> Iterator[None]:
    """The vhost worker on the vCPU's CPU."""
    home, worker = scene.emulators, scene.worker
    before = scene.web.affinity(worker)
    scene.lab.run(f"virsh emulatorpin web {home},{scene.seat} --live")
    scene.lab.run(f"taskset -p -c {scene.seat} {worker}")
    try:
        with scene.flow(reverse=True):
            yield
    finally:
        scene.lab.run(f"virsh emulatorpin web {home} --live && taskset -p -c {before} {worker}")


@contextmanager
def irq_on_vcpu(scene: Scene) -> Iterator[None]:
    """The NIC's queues interrupt the vCPU's CPU."""
    scene.lab.run("systemctl stop libvirt-tuner")
    scene.steer(scene.seat)
    try:
        with scene.flow():
            yield
    finally:
        scene.place()


@contextmanager
def saturated_remotely(scene: Scene) -> Iterator[None]:
    """More encrypted packets than a CPU of the other node can take: it polls, and is hardly interrupted."""
    scene.lab.run("systemctl stop libvirt-tuner")
    scene.steer(REMOTE_CPU)
    state = f"src {site.OUTSIDE} dst {site.address(1)} proto esp spi {SPI:#x}"
    scene.lab.ip(f"xfrm state add {state} mode transport {SLOW}")
    flood = FLOOD.format(address=site.address(1))
    try:
        with ThreadPoolExecutor() as pool:
            flooding = pool.submit(scene.network.run, "python3", "-c", flood)
            scene.lab.run("sleep 2")
            yield
            flooding.result()
    finally:
        scene.lab.ip("xfrm state flush")
        scene.place()


@contextmanager
def remote_vcpu(scene: Scene) -> Iterator[None]:
    """The vCPU on the other node."""
    seat = scene.seat
    scene.lab.run(f"virsh vcpupin web 0 {REMOTE_CPU} --live")
    try:
        with scene.flow(reverse=True):
            yield
    finally:
        scene.lab.run(f"virsh vcpupin web 0 {seat} --live")


@contextmanager
def two_vms_on_one_cpu(scene: Scene) -> Iterator[None]:
    """A VM that computes, on the vCPU's CPU."""
    guest = scene.lab.define(GuestSpec(name="burner"))
    try:
        guest.start()
        guest.run(COMPUTES)
        scene.lab.run(f"virsh vcpupin burner 0 {scene.seat} --live")
        with scene.flow(reverse=True):
            yield
    finally:
        guest.remove()


@contextmanager
def neighbour(scene: Scene) -> Iterator[None]:
    """A process of the host that computes on the vCPU's CPU."""
    pid = scene.lab.output(f"taskset -c {scene.seat} sh -c '{COMPUTES}'")
    try:
        with scene.flow(reverse=True):
            yield
    finally:
        scene.lab.run(f"kill {pid}")


@contextmanager
def no_headroom(scene: Scene) -> Iterator[None]:
    """Another VM on VXLAN with an MTU that leaves no room for the headers, and without path MTU discovery."""
    lab, network = scene.lab, scene.network
    lab.ip(f"address add 10.78.0.1/24 dev {lab.nics[1]}")
    network.ip("address add 10.78.0.2/24 dev underlay")
    tunnel = "link add tunnel0 mtu 1500 type vxlan id 100 dstport 4789 remote 10.78.0"
    lab.ip(f"{tunnel}.2")
    network.ip(f"{tunnel}.1")
    network.ip("address add 10.79.0.1/24 dev tunnel0")
    network.ip("link set tunnel0 up")
    lab.ip(f"link set {lab.nics[1]} up")
    lab.bridge("br1", "tunnel0")
    nic = Vnic(source="bridge=br1", address="10.79.0.100/24", mtu=1500)
    guest = lab.define(GuestSpec(name="tight", nics=(nic,)))
    try:
        guest.start()
        guest.run("echo 1 > /proc/sys/net/ipv4/ip_no_pmtu_disc && iperf3 -s -p 5202 -D")
        with scene.flow(reverse=True, address="10.79.0.100", options="-p 5202"):
            yield
    finally:
        guest.remove()
        network.remove("tunnel0")
        network.ip("address delete 10.78.0.2/24 dev underlay")
        lab.ip("link delete br1")
        lab.ip("link delete tunnel0")


@contextmanager
def moved_back(scene: Scene) -> Iterator[None]:
    """Something moves interrupts back while the service does not look."""
    scene.lab.run("systemctl stop libvirt-tuner && systemctl restart irqbalance")
    scene.lab.run(f"(sleep 3; {_steering(scene)}) >/dev/null 2>&1 &")
    try:
        yield
    finally:
        scene.place()


def _steering(scene: Scene) -> str:
    return "; ".join(f"echo {ANYWHERE} > /proc/irq/{irq}/smp_affinity_list" for irq in scene.queues)


Made = Callable[[Scene], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("made", "kind", "culprit", "command"),
    [
        pytest.param(vhost_on_vcpu, "vhost-on-vcpu", "vhost worker 0 of web", "taskset -p -c ", id="a"),
        pytest.param(irq_on_vcpu, "irq-on-vcpu", "IRQ", "libvirt-tuner irqs --set ", id="b"),
        pytest.param(saturated_remotely, "ksoftirqd-remote", "IRQ", "libvirt-tuner irqs --set ", id="c"),
        pytest.param(remote_vcpu, "remote-node", "the pins of web", "libvirt-tuner apply --live web", id="d"),
        pytest.param(
            two_vms_on_one_cpu, "vms-share-cpu", "of burner", "libvirt-tuner apply --live burner", id="e"
        ),
        pytest.param(neighbour, "neighbour", "sh (", "taskset -a -p -c ", id="g"),
        pytest.param(
            no_headroom, "fragments", "the MTU of vNIC 0 of tight", "libvirt-tuner apply tight", id="h"
        ),
        pytest.param(moved_back, "moved-back", "irqbalance", "libvirt-tuner irqs --set ", id="k"),
    ],
)
@pytest.mark.thorough
def test_what_was_made_to_hurt_is_named_first(
    scene: Scene, made: Made, kind: str, culprit: str, command: str
) -> None:
    with made(scene):
        first, *_ = scene.diagnose()
    assert first["kind"] == kind
    assert culprit in first["culprit"]
    assert first["fix"].startswith(command)
    if not scene.placed():
        say(scene.lab.run("libvirt-tuner status web", check=False).stdout)
        scene.place()


@pytest.mark.thorough
def test_a_fix_moves_the_worker_and_undo_moves_it_back(scene: Scene) -> None:
    with vhost_on_vcpu(scene):
        made = scene.web.affinity(scene.worker)
        assert "done: taskset" in scene.fix()
        assert scene.web.affinity(scene.worker) in scene.emulators
        scene.lab.run("libvirt-tuner undo web")
        assert scene.web.affinity(scene.worker) == made
    scene.place()


@pytest.mark.thorough
def test_a_fix_moves_interrupts_and_undo_moves_them_back(scene: Scene) -> None:
    home = scene.steered_to()
    with irq_on_vcpu(scene):
        assert "done: libvirt-tuner irqs --set" in scene.fix()
        assert scene.steered_to() == home
        scene.lab.run("libvirt-tuner undo web")
        assert scene.steered_to() == {scene.seat}


@pytest.mark.thorough
def test_a_worker_that_is_a_kernel_thread_is_named_and_moved(scene: Scene) -> None:
    """Debian 13's kernel starts vhost workers as threads of QEMU, or as Linux before 6.4 did."""
    lab = scene.lab
    if VHOST_OWNERS not in lab.output("modinfo -F parm vhost"):
        pytest.skip("this kernel has one kind of vhost worker only")
    try:
        _restart(scene, "0")
        assert lab.output(f"ps -o ppid= -p {scene.worker}").strip() == KTHREADD
        assert scene.diagnose() == []
        with vhost_on_vcpu(scene):
            first, *_ = scene.diagnose()
            assert first["kind"] == "vhost-on-vcpu"
            assert "done: taskset" in scene.fix()
            assert scene.web.affinity(scene.worker) in scene.emulators
    finally:
        _restart(scene, "1")


def _restart(scene: Scene, owned: str) -> None:
    """Start it anew, with vhost workers owned by QEMU (1) or by the kernel (0)."""
    scene.web.virsh("destroy", check=False)
    scene.lab.run(f"modprobe -r vhost_net vhost && modprobe vhost {VHOST_OWNERS}={owned}")
    scene.web.start()
    scene.place()


@pytest.mark.measured
@pytest.mark.parametrize(
    ("made", "reverse"), [pytest.param(vhost_on_vcpu, True, id="a"), pytest.param(irq_on_vcpu, False, id="b")]
)
def test_a_fix_brings_the_throughput_back(
    scene: Scene, made: Made, reverse: bool, pytestconfig: pytest.Config
) -> None:
    def speed() -> dict[str, float]:
        with share.held(scene.lab.machine):
            outside = measure.outside(scene.network)
            return {"Mbit/s": measure.iperf3(outside, ADDRESS, reverse=reverse, seconds=3)}

    def fixed() -> dict[str, float]:
        with made(scene):
            scene.fix()
            scene.lab.run(f"sleep {FLOWS}")
            return speed()

    series = measure.alternate(pytestconfig.getoption("--rounds"), {"tuned": speed, "fixed": fixed})
    medians = measure.medians(series)
    ratio = medians["fixed"]["Mbit/s"] / medians["tuned"]["Mbit/s"]
    say(f"fixed / tuned: {ratio:.2f}")
    assert ratio >= 0.9
