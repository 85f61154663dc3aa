"""What a fix changed of a domain, noted and undone. libvirt's test driver has definitions; pins of a running
domain are in tests/libvirtd/test_seeing.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvirt_tuner.errors import LedgerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import DIRECTORY
from libvirt_tuner.hostside.reverted import is_reverted
from libvirt_tuner.libvirtd import fixed
from libvirt_tuner.libvirtd.connection import Connection, Domain

DOMAIN = "<domain type='test'><name>web</name><memory>8192</memory><os><type>hvm</type></os>{}</domain>"


@pytest.fixture
def host(tmp_path: Path) -> Sysfs:
    (tmp_path / "run").mkdir()
    return Sysfs(str(tmp_path))


@pytest.fixture
def conn() -> Iterator[Connection]:
    with Connection("test:///default") as made:
        yield made


@pytest.fixture
def web(conn: Connection) -> Domain:
    define(conn)
    return conn.lookup("web")


def define(conn: Connection, extra: str = "") -> None:
    uuid = (
        f"<uuid>{conn.lookup('web').uuid}</uuid>" if "web" in {each.name for each in conn.domains()} else ""
    )
    conn._conn.defineXML(DOMAIN.format(uuid + extra))


def changed(conn: Connection, host: Sysfs, web: Domain, text: str = "tuned") -> str | None:
    """The definition before a fix that changes it."""
    before = conn.definition(web)
    with fixed.noted(conn, host, web, "libvirt-tuner apply web"):
        define(conn, f"<description>{text}</description>")
    return before


def _fails_halfway(conn: Connection, host: Sysfs, web: Domain) -> None:
    with fixed.noted(conn, host, web, "x"):
        define(conn, "<description>tuned</description>")
        raise ZeroDivisionError


def undo(conn: Connection, host: Sysfs, *names: str) -> list[tuple[bool, str]]:
    outcomes, _ = fixed.undo(lambda: conn, host, names or None)
    return [(outcome.ok, str(outcome)) for outcome in outcomes]


def test_a_fix_that_changes_nothing_leaves_no_note(conn: Connection, host: Sysfs, web: Domain) -> None:
    with fixed.noted(conn, host, web, "libvirt-tuner apply web"):
        pass
    assert fixed.read(host) == []
    assert undo(conn, host) == []


def test_a_definition_is_as_before_and_left_alone(conn: Connection, host: Sysfs, web: Domain) -> None:
    before = changed(conn, host, web)
    assert undo(conn, host, "web") == [
        (
            True,
            "definition web = as before 'libvirt-tuner apply web':"
            " left alone until 'libvirt-tuner apply web'",
        )
    ]
    assert conn.definition(web) == before
    assert is_reverted(host, web.uuid)
    assert not host.exists(f"{DIRECTORY}/{fixed.FILE}")


def test_two_fixes_are_undone_newest_first(conn: Connection, host: Sysfs, web: Domain) -> None:
    before = changed(conn, host, web)
    changed(conn, host, web, "tuned again")
    assert [ok for ok, _ in undo(conn, host)] == [True, True]
    assert conn.definition(web) == before


def test_what_another_program_wrote_since_stays(conn: Connection, host: Sysfs, web: Domain) -> None:
    changed(conn, host, web)
    define(conn, "<description>by hand</description>")
    ((ok, said),) = undo(conn, host, web.uuid)
    assert ok
    assert "which another program wrote" in said
    assert "by hand" in (conn.definition(web) or "")
    assert fixed.read(host) == []


def test_a_fix_that_failed_halfway_is_noted(conn: Connection, host: Sysfs, web: Domain) -> None:
    before = conn.definition(web)
    with pytest.raises(ZeroDivisionError):
        _fails_halfway(conn, host, web)
    undo(conn, host)
    assert conn.definition(web) == before


def test_what_a_killed_fix_left_counts_as_its_own(conn: Connection, host: Sysfs, web: Domain) -> None:
    before = changed(conn, host, web)
    path = Path(host.path(f"{DIRECTORY}/{fixed.FILE}"))
    (note,) = json.loads(path.read_text())
    note["settings"][0]["after"] = None
    path.write_text(json.dumps([note]))
    assert [ok for ok, _ in undo(conn, host)] == [True]
    assert conn.definition(web) == before


def test_of_a_domain_that_is_gone_nothing_is_left(conn: Connection, host: Sysfs, web: Domain) -> None:
    changed(conn, host, web)
    conn._conn.lookupByName("web").undefine()
    assert [ok for ok, _ in undo(conn, host)] == [True]
    assert fixed.read(host) == []


def test_only_the_domains_that_were_named(conn: Connection, host: Sysfs, web: Domain) -> None:
    changed(conn, host, web)
    outcomes, known = fixed.undo(lambda: conn, host, ("db",))
    assert (outcomes, known) == ((), frozenset())
    assert len(fixed.read(host)) == 1


def test_the_notes_are_for_root_alone(conn: Connection, host: Sysfs, web: Domain) -> None:
    changed(conn, host, web)
    path = Path(host.path(f"{DIRECTORY}/{fixed.FILE}"))
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["{", "[3]", '[{"uuid": 1}]', json.dumps({"a": 1})])
def test_notes_that_cannot_be_read(text: str, conn: Connection, host: Sysfs, web: Domain) -> None:
    changed(conn, host, web)
    Path(host.path(f"{DIRECTORY}/{fixed.FILE}")).write_text(text)
    with pytest.raises(LedgerError, match=r"rm /run/libvirt-tuner/fixed.json"):
        fixed.read(host)
