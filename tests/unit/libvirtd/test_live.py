"""Pins of a running domain, as far as libvirt's test driver has them; the rest is in tests/libvirtd."""

from __future__ import annotations

import pytest

from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.libvirtd import live
from libvirt_tuner.libvirtd.connection import Connection, Domain
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.topology import Binding

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


class Numa(Connection):
    """A host whose domain has memory on nodes, which libvirt's test driver does not have."""

    def __init__(self, *, now: str, refuses: bool = False) -> None:
        super().__init__(URI)
        self.now, self.refuses = now, refuses
        self.bound: list[frozenset[int]] = []

    def __enter__(self) -> Numa:
        return self

    def xml(self, domain: Domain, *, inactive: bool = False) -> str:
        return super().xml(domain).replace("<os>", f"{self.now}<os>", 1)

    def set_nodeset(self, domain: Domain, nodeset: frozenset[int]) -> None:
        if self.refuses:
            raise ConnectionFailed("no cpuset controller", kind="refused")
        self.bound.append(nodeset)


def memory(mode: str, nodes: str, cells: str = "") -> str:
    return f"<numatune><memory mode='{mode}' nodeset='{nodes}'/>{cells}</numatune>"


STRICT_ON_1 = Plan("test", numatune=Binding("strict", cpus(1)))


class TestBindMemory:
    @pytest.mark.parametrize(
        ("plan", "now", "bound"),
        [
            pytest.param(Plan("test"), memory("strict", "0"), [], id="no plan for it"),
            pytest.param(STRICT_ON_1, memory("strict", "1"), [], id="as planned"),
            pytest.param(STRICT_ON_1, memory("strict", "0"), [cpus(1)], id="on another node"),
            pytest.param(STRICT_ON_1, "", [cpus(1)], id="anywhere"),
        ],
    )
    def test_only_what_is_missing(self, plan: Plan, now: str, bound: list[frozenset[int]]) -> None:
        with Numa(now=now) as conn:
            assert live.bind_memory(conn, conn.lookup("test"), plan) == ""
            assert conn.bound == bound

    @pytest.mark.parametrize(
        ("plan", "now", "refuses", "why"),
        [
            pytest.param(
                STRICT_ON_1, memory("preferred", "0"), False, "cannot change the mode", id="other mode"
            ),
            pytest.param(
                Plan("test", numatune=Binding("preferred", cpus(1))), memory("preferred", "0"), False,
                "cannot change the mode", id="not strict",
            ),
            pytest.param(
                STRICT_ON_1, memory("strict", "0", "<memnode cellid='0' mode='strict' nodeset='0'/>"), False,
                "cannot change the mode", id="cell by cell",
            ),
            pytest.param(STRICT_ON_1, memory("strict", "0"), True, "no cpuset controller", id="refused"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_done_is_said(self, plan: Plan, now: str, refuses: bool, why: str) -> None:
        with Numa(now=now, refuses=refuses) as conn:
            said = live.bind_memory(conn, conn.lookup("test"), plan)
            assert conn.bound == []
        assert why in said
        assert "node 1" in said
