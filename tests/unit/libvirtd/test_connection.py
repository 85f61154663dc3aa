"""Against libvirt's own test driver: real calls, no daemon. What needs a daemon is in tests/libvirtd."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.libvirtd import connection
from libvirt_tuner.libvirtd.connection import Connection, Event

RUNNING = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def document(name: str, extra: str = "") -> str:
    return (
        f"<domain type='test'><name>{name}</name><memory>8192</memory>"
        f"<os><type arch='i686'>hvm</type></os>{extra}</domain>"
    )


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    """To a host of libvirt's test driver that runs the domain ``test`` and is nobody else's."""
    connection.start_event_loop()
    (tmp_path / "test.xml").write_text(document("test", f"<uuid>{RUNNING}</uuid>"))
    (tmp_path / "node.xml").write_text("<node><domain file='test.xml'/></node>")
    with Connection(f"test://{tmp_path}/node.xml") as made:
        yield made


def define(conn: Connection, xml: str) -> None:
    conn._conn.defineXML(xml)


def test_domains_are_listed_by_name(conn: Connection) -> None:
    define(conn, document("b"))
    define(conn, document("a"))
    assert [domain.name for domain in conn.domains()] == ["a", "b", "test"]
    assert [domain.name for domain in conn.domains(active=True)] == ["test"]
    assert [domain.name for domain in conn.domains(active=False)] == ["a", "b"]
    assert conn.domains(persistent=False) == ()


@pytest.mark.parametrize(
    "which",
    [
        pytest.param("test", id="name"),
        pytest.param("1", id="id"),
        pytest.param(RUNNING, id="uuid"),
        pytest.param(RUNNING.replace("-", "").upper(), id="uuid in another spelling"),
    ],
)
def test_lookup_takes_what_virsh_takes(conn: Connection, which: str) -> None:
    found = conn.lookup(which)
    assert (found.name, found.uuid, found.id, found.active) == ("test", RUNNING, 1, True)


@pytest.mark.parametrize(
    "which",
    [
        pytest.param("nobody", id="name"),
        pytest.param("99", id="id"),
        pytest.param("99999999999999999999", id="number that is no id"),
        pytest.param("00000000-0000-0000-0000-000000000000", id="uuid"),
        pytest.param("", id="empty"),
    ],
)
def test_no_such_domain(conn: Connection, which: str) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        conn.lookup(which)
    assert caught.value.kind == "missing"


def test_name_of_one_domain_that_is_the_id_of_another(conn: Connection) -> None:
    define(conn, document("1"))
    with pytest.raises(ConnectionFailed, match="1 and test"):
        conn.lookup("1")


def test_redefine_replaces_what_was_read(conn: Connection) -> None:
    define(conn, document("a"))
    domain = conn.lookup("a")
    before = conn.definition(domain)
    assert before is not None
    assert conn.redefine(domain, before=before, after=before.replace("</name>", "</name><title>t</title>"))
    assert "<title>t</title>" in conn.xml(domain, inactive=True)


def test_redefine_leaves_what_somebody_else_wrote_since(conn: Connection) -> None:
    define(conn, document("a"))
    domain = conn.lookup("a")
    before = conn.definition(domain)
    assert before is not None
    define(conn, before.replace("</name>", "</name><title>theirs</title>"))
    assert not conn.redefine(
        domain, before=before, after=before.replace("</name>", "</name><title>t</title>")
    )
    assert "<title>theirs</title>" in conn.xml(domain, inactive=True)


def test_redefine_does_not_bring_back_an_undefined_domain(conn: Connection) -> None:
    define(conn, document("a"))
    domain = conn.lookup("a")
    before = conn.definition(domain)
    assert before is not None
    conn._conn.lookupByName("a").undefine()
    assert not conn.redefine(domain, before=before, after=before)
    assert [found.name for found in conn.domains()] == ["test"]


def test_redefine_keeps_the_password(conn: Connection) -> None:
    devices = "<devices><graphics type='vnc' passwd='secret'/></devices>"
    define(conn, document("a", devices))
    domain = conn.lookup("a")
    before = conn.definition(domain)
    assert before is not None
    assert conn.redefine(domain, before=before, after=before.replace("</name>", "</name><title>t</title>"))
    assert "secret" in (conn.definition(domain) or "")
    assert "secret" not in conn.xml(domain, inactive=True)


def test_transient_domain_has_no_definition(conn: Connection) -> None:
    conn._conn.createXML(document("passing"), 0)
    domain = conn.lookup("passing")
    assert not domain.persistent
    assert conn.definition(domain) is None
    assert not conn.redefine(domain, before="", after=document("passing"))
    assert not conn.lookup("passing").persistent


def test_bad_document_is_refused_with_libvirts_words(conn: Connection) -> None:
    domain = conn.lookup("test")
    before = conn.definition(domain)
    assert before is not None
    with pytest.raises(ConnectionFailed, match=r"domain test: cannot define: .+") as caught:
        conn.redefine(domain, before=before, after="<domain/>")
    assert caught.value.kind == "refused"


def test_events_say_what_was_defined_and_undefined(conn: Connection) -> None:
    seen: list[Event] = []
    both = threading.Event()

    def note(event: Event) -> None:
        seen.append(event)
        if event.kind == "undefined":
            both.set()

    conn.subscribe(note, lambda: None)
    define(conn, document("a"))
    uuid = conn.lookup("a").uuid
    conn._conn.lookupByName("a").undefine()
    assert both.wait(5)
    assert seen == [Event("defined", uuid, "a"), Event("undefined", uuid, "a")]


def test_event_of_metadata(conn: Connection) -> None:
    seen = threading.Event()
    conn.subscribe(lambda event: seen.set() if event.kind == "metadata" else None, lambda: None)
    handle = conn._conn.lookupByName("test")
    handle.setMetadata(2, "<policy placement='shared'/>", "tuner", "https://libvirt-tuner.org/policy/1", 0)
    assert seen.wait(5)


def test_versions(conn: Connection) -> None:
    libvirt, driver = conn.versions()
    assert libvirt >= (9, 0, 0)
    assert driver == (0, 0, 2)  # the test driver's own


def test_no_daemon() -> None:
    with pytest.raises(ConnectionFailed, match="/nonexistent") as caught:
        Connection("qemu+unix:///system?socket=/nonexistent")
    assert caught.value.kind == "lost"


def test_errors_are_not_printed_by_libvirt(conn: Connection, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConnectionFailed):
        conn.lookup("nobody")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("cpus", "bits"),
    [
        pytest.param(set(), "", id="none"),
        pytest.param({0}, "1", id="the first"),
        pytest.param({1, 3}, "0101", id="some"),
    ],
)
def test_cpus_for_libvirt_are_bits_up_to_the_last(cpus: set[int], bits: str) -> None:
    assert connection._cpumap(frozenset(cpus)) == tuple(bit == "1" for bit in bits)
