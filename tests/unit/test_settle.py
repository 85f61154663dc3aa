"""What can be told without a daemon that runs domains; the rest is in tests/libvirtd."""

from __future__ import annotations

import time
from typing import Literal

import pytest

from libvirt_tuner import settle
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import ConnectionFailed, TunerError
from libvirt_tuner.libvirtd import live
from libvirt_tuner.libvirtd.connection import Connection
from libvirt_tuner.planning.plan import Plan

URI = "test:///default"
RUNNING = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def cpus(*ids: int) -> frozenset[int]:
    return frozenset(ids)


class TestPatiently:
    @pytest.mark.parametrize("kind", ["busy", "lost"])
    def test_tries_again(self, kind: Literal["busy", "lost"]) -> None:
        failures = [ConnectionFailed("not yet", kind=kind)] * 2

        def call() -> None:
            if failures:
                raise failures.pop()

        settle.patiently(call, time.monotonic() + 5)
        assert not failures

    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(ConnectionFailed("no", kind="refused"), id="refused"),
            pytest.param(ConnectionFailed("gone", kind="missing"), id="no such domain"),
            pytest.param(TunerError("no"), id="not libvirt's"),
        ],
    )
    def test_does_not_try_again(self, error: TunerError) -> None:
        calls = []

        def call() -> None:
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            settle.patiently(call, time.monotonic() + 5)
        assert calls == [1]

    def test_gives_up_in_time(self) -> None:
        def call() -> None:
            raise ConnectionFailed("not yet", kind="busy")

        began = time.monotonic()
        with pytest.raises(ConnectionFailed):
            settle.patiently(call, began + 0.5)
        assert time.monotonic() - began <= 0.5


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


@pytest.mark.parametrize(
    ("uuid", "uri"),
    [
        pytest.param("00000000-0000-0000-0000-000000000000", URI, id="no such domain"),
        pytest.param(RUNNING, "qemu+unix:///system?socket=/nonexistent", id="no daemon"),
        pytest.param(RUNNING, "nonsense:///", id="no such driver"),
    ],
)
def test_main_ends_with_0(uuid: str, uri: str) -> None:
    assert settle.main(uuid, uri=uri, patience=0.2) == 0
