"""Who is on which CPU, on captured samples, and with a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.domainxml.document import parse
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import occupants
from libvirt_tuner.hostside.scene import read_scene
from libvirt_tuner.picture.host import Tenant
from libvirt_tuner.planning.plan import IrqMove, Plan
from tests import samples

KVM = (
    "<domain type='kvm'><name>web</name><memory unit='GiB'>1</memory><vcpu>2</vcpu><iothreads>1</iothreads>"
    "<cputune><iothreadpin iothread='1' cpuset='9'/></cputune><devices>"
    "<interface type='bridge'><source bridge='br0'/><model type='virtio'/><driver queues='2'/></interface>"
    "<interface type='bridge'><source bridge='br0'/><model type='e1000e'/></interface></devices></domain>"
)


def cpus(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    samples.write(samples.CASES["seed-vhost-on-vcpu"], tmp_path / "host")
    return tmp_path / "host"


def test_threads_are_where_the_kernel_lets_them_run(host: Path) -> None:
    scene, _ = read_scene(Sysfs(str(host)), every_card=True)
    found, troubles = occupants.threads(Sysfs(str(host / "samples/2")), scene)
    assert troubles == []
    places = {(one.kind, one.number): one.cpus for one in found}
    assert places["vcpu", 5] == cpus(20)
    assert places["vhost", 0] == cpus(16, 18, 20)
    assert places["emulator", -1] == cpus(16, 18)
    assert len(places) == 6 + 5 + 1
    notes = {one.number: one.note for one in found if one.kind == "vhost"}
    assert (notes[0], notes[3], notes[4]) == ("macvtap0 queue 0", "macvtap0 queue 3", "vNIC 1 queue 0")


def test_a_vm_that_stopped_meanwhile_is_left_out(host: Path) -> None:
    scene, _ = read_scene(Sysfs(str(host)))
    assert occupants.threads(Sysfs(str(host)), scene) == ([], [])


def test_what_cannot_be_read_is_told(host: Path) -> None:
    scene, _ = read_scene(Sysfs(str(host)))
    (host / "samples/1/proc/2001/status").write_text("Name: qemu\n")
    found, troubles = occupants.threads(Sysfs(str(host / "samples/1")), scene)
    assert found == []
    (trouble,) = troubles
    assert trouble.startswith("vlinux1: ")
    assert "Cpus_allowed_list" in trouble


def test_a_plan_puts_threads_where_it_says() -> None:
    plan = Plan(
        "web",
        vcpupin={0: cpus(4)},
        vcpus={0: cpus(4), 1: cpus(7)},
        emulatorpin=cpus(2, 3),
        vhost=(2, 3),
        irqs=(IrqMove(40, "eth0", cpus(1)),),
    )
    found = {(one.kind, one.number): one.cpus for one in occupants.planned(plan, read_spec(parse(KVM)))}
    assert found == {
        ("vcpu", 0): cpus(4),
        ("vcpu", 1): cpus(7),
        ("iothread", 1): cpus(9),
        ("vhost", 0): cpus(2),
        ("vhost", 1): cpus(3),
        ("emulator", -1): cpus(2, 3),
    }
    assert occupants.moved(plan) == {40: cpus(1)}


def test_a_plan_with_more_queues_has_more_workers() -> None:
    plan = Plan("web", driver={"queues": (4, (0,))}, emulatorpin=cpus(2))
    workers = [one for one in occupants.planned(plan, read_spec(parse(KVM))) if one.kind == "vhost"]
    assert [(one.number, one.cpus) for one in workers] == [(number, cpus(2)) for number in range(4)]


def test_others_stay() -> None:
    scene = [
        Tenant("vcpu", 0, "web", cpus(1)),
        Tenant("vcpu", 0, "db", cpus(2)),
        Tenant("irq", 9, "web", cpus(2)),
    ]
    assert occupants.without(scene, "web") == scene[1:]
