"""The example policies do what their titles say, on hosts of their kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from libvirt_tuner import cpuset
from libvirt_tuner.config import policy
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.planning.request import read_request
from libvirt_tuner.planning.sequence import in_order
from libvirt_tuner.topology import Cpus, HostTopology

ROOT = Path(__file__).parents[2]
POLICIES = sorted((ROOT / "docs/examples/policies").glob("*.toml"))
HOSTS = ROOT / "fixtures/hosts"
DOMAIN = (
    "<domain type='kvm'><name>{name}</name><uuid>00000000-0000-4000-8000-{number:012d}</uuid>"
    "<memory unit='GiB'>1</memory><vcpu>{vcpus}</vcpu><os><type>hvm</type></os><devices>"
    "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface></devices></domain>"
)


def plans(name: str, host: Path, *domains: str, vcpus: int = 4) -> list[Plan]:
    """Domains under an example policy, as if started in this order."""
    text = (ROOT / f"docs/examples/policies/{name}.toml").read_text()
    documents = (DOMAIN.format(name=each, number=n, vcpus=vcpus) for n, each in enumerate(domains))
    requests = [read_request(document, text) for document in documents]
    assert not any(request.problems for request in requests)

    def survey(devices: Iterable[str], partition: str) -> HostTopology:
        return probe.topology(Sysfs(str(host)), devices, queues=True, partition=partition)

    return in_order(requests, survey, ())


def of_vcpus(plan: Plan) -> Cpus:
    return frozenset().union(*plan.vcpupin.values())


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.stem)
def test_it_is_valid(file: Path) -> None:
    assert policy.load(file.read_text(), str(file)).layers


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(("router-1", "web", "db"), id="started first"),
        pytest.param(("web", "router-1", "db"), id="started after a VM that shares"),
    ],
)
def test_a_network_appliance_has_cpus_of_its_own(order: tuple[str, ...]) -> None:
    made = dict(zip(order, plans("network-appliance", HOSTS / "smt-2x32", *order), strict=True))
    assert {name: plan.placement for name, plan in made.items()} == {
        "router-1": "dedicated",
        "web": "shared",
        "db": "shared",
    }
    router = made["router-1"]
    assert router.emulatorpin is not None
    own = of_vcpus(router) | router.emulatorpin
    assert not own & (of_vcpus(made["web"]) | of_vcpus(made["db"]))
    assert router.irqs
    assert len(of_vcpus(router)) == 4
    assert len(router.emulatorpin) == 2


def test_real_time_has_the_isolated_cpus(tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(HOSTS / "small-8", host, symlinks=True)
    (host / "sys/devices/system/cpu/isolated").write_text("2-7\n")
    web, real_time = plans("real-time", host, "web", "rt-1", vcpus=2)
    isolated = cpuset.parse("2-7")
    assert (real_time.placement, len(of_vcpus(real_time))) == ("dedicated", 2)
    assert of_vcpus(real_time) <= isolated
    assert real_time.emulatorpin is not None
    assert not (real_time.emulatorpin | of_vcpus(web)) & isolated
    assert real_time.numatune is not None
    assert real_time.numatune.mode == "strict"


def test_real_time_refuses_to_start_without_cpus() -> None:
    text = (ROOT / "docs/examples/policies/real-time.toml").read_text()
    found = {name: policy.resolve(name, text, None)[0] for name in ("rt-1", "web")}
    assert (found["rt-1"].strict, found["web"].strict) == (True, False)


def test_an_overcommitted_host_shares_all_its_cpus() -> None:
    made = plans("overcommitted", HOSTS / "small-8", *"abcdef")
    assert {plan.placement for plan in made} == {"shared"}
    assert [plan for plan in made if plan.irqs] == []
    first, *_, last = made
    assert of_vcpus(first) == cpuset.parse("0,2,4,6")  # the card's node
    assert of_vcpus(last) in (frozenset(), cpuset.parse("0-7"))


def test_polled_cpus_run_no_vm() -> None:
    made = plans("ovs-dpdk", HOSTS / "ovs-dpdk", "nfv-1", "nfv-2")
    for plan in made:
        assert plan.placement == "dedicated"
        assert not of_vcpus(plan) & cpuset.parse("0,1,12,13")
        assert (plan.irqs, plan.mtus) == ((), ())


def test_one_vm_only() -> None:
    one, other = plans("one-vm", HOSTS / "small-8", "web-1", "web-2")
    assert one.placement == "dedicated"
    assert (other.vcpupin, other.emulatorpin, other.irqs, other.mtus) == ({}, None, (), ())
