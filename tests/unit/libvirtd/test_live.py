"""Pins of a running domain, as far as libvirt's test driver has them; the rest is in tests/libvirtd."""

from __future__ import annotations

import pytest

from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.libvirtd import live
from libvirt_tuner.libvirtd.connection import Connection
from libvirt_tuner.planning.plan import Plan

URI = "test:///default"


def cpus(*ids: int) -> frozenset[int]:
    return frozenset(ids)


class TestPins:
    PLAN = Plan(
        "web-1",
        vcpupin={0: cpus(20), 1: cpus(22)},
        emulatorpin=cpus(16, 18),
        iothreadpin={1: cpus(16, 18)},
    )

    @pytest.mark.parametrize(
        ("spec", "missing"),
        [
            pytest.param(
                DomainSpec(
                    "web-1",
                    vcpupin={0: cpus(20), 1: cpus(22)},
                    emulatorpin=cpus(16, 18),
                    iothreadpin={1: cpus(16, 18)},
                ),
                [],
                id="nothing is missing",
            ),
            pytest.param(
                DomainSpec("web-1"),
                [
                    ("pin_vcpu", 0, cpus(20)),
                    ("pin_vcpu", 1, cpus(22)),
                    ("pin_emulator", cpus(16, 18)),
                    ("pin_iothread", 1, cpus(16, 18)),
                ],
                id="all is missing",
            ),
            pytest.param(
                DomainSpec("web-1", vcpupin={0: cpus(20), 1: cpus(24)}, emulatorpin=cpus(16)),
                [
                    ("pin_vcpu", 1, cpus(22)),
                    ("pin_emulator", cpus(16, 18)),
                    ("pin_iothread", 1, cpus(16, 18)),
                ],
                id="elsewhere",
            ),
        ],
    )
    def test_only_what_is_missing(self, spec: DomainSpec, missing: list[tuple[object, ...]]) -> None:
        with Connection(URI) as conn:
            domain = conn.lookup("test")
            calls = live.pins(conn, domain, spec, self.PLAN)
            assert [(call.func.__name__, *call.args[1:]) for call in calls] == missing

    def test_refused_pin_is_raised_after_all_were_tried(self) -> None:
        with Connection(URI) as conn, pytest.raises(ConnectionFailed, match="iothread 1") as caught:
            live.pin(conn, conn.lookup("test"), self.PLAN)
        assert caught.value.kind in ("refused", "unsupported")
