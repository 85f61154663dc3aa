"""What can be told without a daemon that runs domains; the rest is in tests/libvirtd."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from libvirt_tuner import settle
from libvirt_tuner.errors import ConnectionFailed, TunerError
from libvirt_tuner.host import log
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import holding, reverted
from libvirt_tuner.libvirtd import live
from libvirt_tuner.libvirtd.connection import Connection, Domain
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Placement
from tests import hosts
from tests.unit.builders import cpus
from tests.unit.replay import Domain as Running
from tests.unit.replay import Replay

if TYPE_CHECKING:
    from libvirt_tuner.errors import ConnectionProblem

URI = "test:///default"
RUNNING = "6695eb01-f6a4-8304-79aa-97f2502e193f"


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


class Overtaken(Connection):
    """Somebody else changes the definition as often as we do, ``times`` times."""

    def __init__(self, uri: str, times: int = 0) -> None:
        super().__init__(uri)
        self.times, self.tried = times, 0

    def __enter__(self) -> Overtaken:
        return self

    def redefine(self, domain: Domain, *, before: str, after: str | bytes) -> bool:
        self.tried += 1
        return self.tried > self.times and super().redefine(domain, before=before, after=after)


class TestPersist:
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        hosts.make("small-8", tmp_path / "host")
        document = (
            "<domain type='test'><name>web</name><memory>65536</memory><os><type>hvm</type></os>"
            "<devices><interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>"
            "</devices></domain>"
        )
        (tmp_path / "node.xml").write_text(f"<node>{document}</node>")
        return f"test://{tmp_path}/node.xml"

    @pytest.mark.parametrize(
        ("times", "tried", "changed"),
        [
            pytest.param(0, 1, True, id="at once"),
            pytest.param(2, 3, True, id="others were faster twice"),
            pytest.param(9, 3, False, id="others are faster always"),
        ],
    )
    def test_others_change_it_too(
        self, uri: str, tmp_path: Path, times: int, tried: int, changed: bool
    ) -> None:
        with Overtaken(uri, times) as conn:
            domain = conn.lookup("web")
            settle.persist(conn, Sysfs(str(tmp_path / "host")), domain)
            assert conn.tried == tried
            assert ("vcpupin" in str(conn.definition(domain))) is changed

    def test_what_is_complete_is_not_defined_again(self, uri: str, tmp_path: Path) -> None:
        with Overtaken(uri) as conn:
            for _ in range(2):
                settle.persist(conn, Sysfs(str(tmp_path / "host")), conn.lookup("web"))
            assert conn.tried == 1

    def test_reverted_domain_is_left_alone_and_nobody_warned(
        self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        monkeypatch.setattr(log, "send", lambda _level, text, **_fields: said.append(text))
        sysfs = Sysfs(str(tmp_path / "host"))
        with Overtaken(uri) as conn:
            domain = conn.lookup("web")
            reverted.remember(sysfs, domain.uuid)
            settle.persist(conn, sysfs, domain)
            assert (conn.tried, said) == (0, [])


class TestPlanAgain:
    """The seed's host: 24 CPUs that the scheduler balances, 8 isolated ones."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Replay:
        return Replay.make(tmp_path)

    def test_those_that_ran_alone_share_with_one_too_many(self, host: Replay) -> None:
        for number in (1, 2):
            running = Running(f"vm{number}", number, vcpus=20)
            host.run(running)
            holding.give(host.sysfs, holding.read_request(host.sysfs, running.xml))
        settle._plan_again(host.sysfs)
        placements = [stored.from_dict(claim.plan) for claim in host.book.claims.values()]
        assert [each.placement for each in placements] == ["shared", "shared"]
        settle._plan_again(host.sysfs)
        assert [stored.from_dict(claim.plan) for claim in host.book.claims.values()] == placements

    def test_libvirt_away_leaves_the_plan(self, host: Replay) -> None:
        assert settle.main("", root=str(host.root), uri="nonsense:///", patience=0.1, others=True) == 0


class Refusing(Connection):
    """Pins nothing, with an error of ``kind``."""

    def __init__(self, uri: str, kind: ConnectionProblem) -> None:
        super().__init__(uri)
        self.kind = kind

    def pin_vcpu(self, domain: Domain, vcpu: int, pin: frozenset[int]) -> None:
        raise ConnectionFailed("refused on purpose", kind=self.kind)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        pytest.param("busy", True, id="another job has the domain: all is tried again"),
        pytest.param("lost", True, id="the daemon went away: all is tried again"),
        pytest.param("missing", True, id="the domain has ended: nothing more to do"),
        pytest.param("refused", False, id="one part failed: the next one follows"),
    ],
)
def test_one_part_fails(kind: ConnectionProblem, raised: bool) -> None:
    with Refusing(URI, kind) as conn:
        domain = conn.lookup("test")
        given = Placement("test", domain.uuid, "dedicated", vcpupin={0: cpus(0)})
        expected = pytest.raises(ConnectionFailed, match="on purpose") if raised else nullcontext()
        with expected:
            settle._part(domain, lambda: live.pin(conn, domain, given))
