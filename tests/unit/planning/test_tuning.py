"""From a document and a host to the tuned document."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.planning import tuning
from libvirt_tuner.planning.neighbours import Neighbour
from libvirt_tuner.planning.plan import Held, Plan
from libvirt_tuner.planning.request import plan_request, read_request, standing
from libvirt_tuner.topology import HostTopology
from tests import hosts
from tests.unit.builders import beside, cpus

SEED = (Path(__file__).parents[3] / "fixtures" / "domains" / "seed-in.xml").read_bytes()
PINS = {0: cpus(20), 1: cpus(22), 2: cpus(24), 3: cpus(26), 4: cpus(28), 5: cpus(30)}
LIBVIRT, QEMU = (9, 0, 0), (7, 2, 0)


def survey(devices: Iterable[str], partition: str = "/machine") -> HostTopology:
    return probe.topology(Sysfs(str(hosts.FIXTURES / "seed")), devices, partition=partition)


def tuned(
    xml: bytes, config: str | None = None, others: Iterable[Neighbour] = ()
) -> tuple[bytes | None, Plan]:
    request = read_request(xml, config)
    plan = plan_request(request, survey, others)
    return tuning.tune(request, plan, libvirt=LIBVIRT, qemu=QEMU), plan


class TestRequest:
    def test_mistakes_in_the_policy_are_handed_over(self) -> None:
        request = read_request(SEED, "[policy]\nnonsense = 1\n")
        assert [problem.where for problem in request.problems] == ["/etc/libvirt-tuner.toml:2"]

    def test_own_is_what_the_user_wrote(self) -> None:
        out, _ = tuned(SEED)
        assert out is not None
        request = read_request(out, None)
        assert request.spec.vcpupin == PINS
        assert request.own.vcpupin == {}

    def test_not_a_domain(self) -> None:
        with pytest.raises(DomainXmlError, match="expected <domain>"):
            read_request("<network/>", None)


class TestTune:
    def test_seed(self) -> None:
        out, plan = tuned(SEED)
        assert out is not None
        spec = read_spec(document.parse(out))
        assert (spec.vcpupin, spec.emulatorpin) == (PINS, cpus(16, 18))
        memory: dict[tuple[int, int | None], int] = {(0, None): 17039360}
        assert plan.holds == Held(cpus(20, 22, 24, 26, 28, 30), cpus(16, 18), memory)

    def test_again_changes_nothing(self) -> None:
        once, _ = tuned(SEED)
        assert once is not None
        again, _ = tuned(once)
        assert again is None

    def test_queues_and_rings(self) -> None:
        out, plan = tuned(SEED, "[policy]\nqueues = 'vcpus'\ntx_queue_size = 256\n")
        assert out is not None
        spec = read_spec(document.parse(out))
        assert [vnic.queues for vnic in spec.vnics] == [4, 6]
        assert [vnic.tx_queue_size for vnic in spec.vnics] == [256, 256]
        assert not tuning.falls_short(spec, plan)
        assert tuning.falls_short(evolve(spec, vnics=(spec.vnics[0], evolve(spec.vnics[1], queues=2))), plan)
        assert tuned(out, "[policy]\nselect = false\n")[0] == SEED

    def test_cpus_of_others_are_left_to_them(self) -> None:
        _, plan = tuned(SEED, others=beside(cpus(20, 22)))
        assert not (plan.holds.vcpus | plan.holds.emulators) & cpus(20, 22)

    def test_what_is_no_longer_wanted_is_taken_back(self) -> None:
        out, _ = tuned(SEED)
        assert out is not None
        back, _ = tuned(out, "[policy]\nselect = false\n")
        assert back == SEED


class TestArrival:
    def test_no_guest_can_see_the_change(self) -> None:
        config = "[policy]\npoll_us = 50\nqueues = 'vcpus'\ntx_queue_size = 256\n"
        request = read_request(SEED, config)
        plan = plan_request(request, survey)
        out = tuning.filter_arrival(request, plan)
        assert out is not None
        spec = read_spec(document.parse(out))
        assert spec.vcpupin == PINS
        assert [(vnic.rx_queue_size, vnic.tx_queue_size) for vnic in spec.vnics] == [(None, None)] * 2
        assert [vnic.queues for vnic in spec.vnics] == [4, None]
        assert b"host_mtu" not in out
        assert b"poll-us" not in out


class TestFallsShort:
    def test_of_everything(self) -> None:
        request = read_request(SEED, None)
        assert tuning.falls_short(request.spec, plan_request(request, survey))

    def test_of_nothing(self) -> None:
        out, plan = tuned(SEED)
        assert out is not None
        assert not tuning.falls_short(read_spec(document.parse(out)), plan)

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"vcpupin": PINS | {0: cpus(22)}}, id="a vCPU"),
            pytest.param({"emulatorpin": cpus(16)}, id="emulator"),
        ],
    )
    def test_of_one_thing(self, changes: dict[str, object]) -> None:
        out, plan = tuned(SEED)
        assert out is not None
        spec = read_spec(document.parse(out))
        assert tuning.falls_short(evolve(spec, **changes), plan)  # type: ignore[arg-type]


def test_standing_is_the_users_own_and_what_was_given() -> None:
    own = read_request(SEED, None).own
    stands = standing(evolve(own, vcpupin={0: cpus(8)}), Plan("vm", vcpupin={1: cpus(10)}))
    assert stands.vcpupin == {0: cpus(8), 1: cpus(10)}
