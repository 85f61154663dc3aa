"""Against libvirt's test driver, on a replayed host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.libvirtd import definition
from libvirt_tuner.libvirtd.connection import Connection
from libvirt_tuner.libvirtd.definition import Neighbours
from libvirt_tuner.planning.memory import OVERHEAD_KIB
from libvirt_tuner.planning.plan import Reserved

HOST = Path(__file__).parents[3] / "fixtures" / "hosts" / "laptop"
NOTHING = Reserved()
BOUND = 8192 + OVERHEAD_KIB
VERSIONS = ((9, 0, 0), (7, 2, 0))


def cpus(*ids: int) -> frozenset[int]:
    return frozenset(ids)


def document(name: str, tune: str = "") -> str:
    return (
        f"<domain type='test'><name>{name}</name><memory>8192</memory><vcpu>1</vcpu>{tune}"
        "<os><type arch='i686'>hvm</type></os></domain>"
    )


def cputune(*vcpus: str, emulator: str = "") -> str:
    pins = "".join(f"<vcpupin vcpu='{number}' cpuset='{text}'/>" for number, text in enumerate(vcpus))
    return f"<cputune>{pins}{f'<emulatorpin cpuset={emulator!r}/>' if emulator else ''}</cputune>"


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    """To a host of libvirt's test driver that has no domains and is nobody else's."""
    (tmp_path / "node.xml").write_text("<node/>")
    with Connection(f"test://{tmp_path}/node.xml") as made:
        yield made


class TestPlaced:
    @pytest.mark.parametrize(
        ("tune", "held"),
        [
            pytest.param("", Reserved(), id="not pinned"),
            pytest.param(cputune("4"), Reserved(cpus(4), cpus()), id="vCPU on one CPU"),
            pytest.param(cputune("4", emulator="2-3"), Reserved(cpus(4), cpus(2, 3)), id="emulator too"),
            pytest.param(cputune("4-7", emulator="4-7"), Reserved(), id="floats"),
        ],
    )
    def test_cpus_that_a_definition_wants_for_itself(self, tune: str, held: Reserved) -> None:
        assert definition.placed(document("a", tune)) == held

    @pytest.mark.parametrize(
        ("numatune", "held"),
        [
            pytest.param("<memory mode='strict' nodeset='1'/>", {(1, None): BOUND}, id="bound"),
            pytest.param("<memory mode='preferred' nodeset='1'/>", {(1, None): BOUND}, id="preferred"),
            pytest.param("<memory mode='strict' nodeset='0-1'/>", {}, id="one of two nodes"),
        ],
    )
    def test_memory_that_a_definition_binds(self, numatune: str, held: dict[object, int]) -> None:
        assert definition.placed(document("a", f"<numatune>{numatune}</numatune>")).memory == held

    def test_document_that_cannot_be_read(self) -> None:
        assert definition.placed("<domain><vcpupin") == Reserved()


class TestNeighbours:
    def test_all_but_one(self) -> None:
        neighbours = Neighbours()
        neighbours.note("a", document("a", cputune("4", emulator="2")))
        neighbours.note("b", document("b", cputune("5", emulator="2")))
        assert neighbours.but("a") == Reserved(cpus(5), cpus(2))
        assert neighbours.but("c") == Reserved(cpus(4, 5), cpus(2))

    def test_undefined(self) -> None:
        neighbours = Neighbours()
        neighbours.note("a", document("a", cputune("4")))
        neighbours.note("a", None)
        assert neighbours.but("b") == Reserved()

    def test_learnt_from_libvirt(self, conn: Connection) -> None:
        neighbours = Neighbours()
        neighbours.note("gone", document("gone", cputune("9")))
        conn._conn.defineXML(document("a", cputune("4")))
        neighbours.learn(conn, conn.domains())
        assert neighbours.but("") == Reserved(cpus(4), cpus())

    def test_memory_adds_up(self) -> None:
        bound = "<numatune><memory mode='strict' nodeset='0'/></numatune>"
        neighbours = Neighbours()
        for name in ("a", "b", "c"):
            neighbours.note(name, document(name, bound))
        assert neighbours.but("c").memory == {(0, None): 2 * (8192 + OVERHEAD_KIB)}


class TestComplete:
    def complete(self, conn: Connection, name: str, avoid: Reserved = NOTHING) -> str:
        done = definition.complete(conn, Sysfs(str(HOST)), conn.lookup(name), VERSIONS, avoid)
        return done.outcome if done else "transient"

    def test_missing_settings_come_in_and_then_nothing_changes(self, conn: Connection) -> None:
        conn._conn.defineXML(document("a"))
        assert self.complete(conn, "a") == "changed"
        before = conn.definition(conn.lookup("a"))
        assert "<vcpupin" in (before or "")
        assert self.complete(conn, "a") == "complete"
        assert conn.definition(conn.lookup("a")) == before

    def test_own_pins_are_left(self, conn: Connection) -> None:
        conn._conn.defineXML(document("a", cputune("0-1")))
        self.complete(conn, "a")
        assert "<vcpupin vcpu='0' cpuset='0-1'/>" in (conn.definition(conn.lookup("a")) or "")

    def test_what_others_have_is_avoided(self, conn: Connection) -> None:
        conn._conn.defineXML(document("a"))
        self.complete(conn, "a")
        first = definition.placed(conn.definition(conn.lookup("a")) or "")
        conn._conn.defineXML(document("b"))
        self.complete(conn, "b", first)
        second = definition.placed(conn.definition(conn.lookup("b")) or "")
        assert first.vcpus
        assert second.vcpus
        assert not first.vcpus & second.vcpus

    def test_transient_domain_is_left(self, conn: Connection) -> None:
        conn._conn.createXML(document("passing"), 0)
        assert self.complete(conn, "passing") == "transient"
        assert not conn.lookup("passing").persistent
