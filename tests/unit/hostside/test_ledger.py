"""The ledger: one lock, one document, nothing lost to a damaged file, a stranger or a killed process."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from libvirt_tuner.errors import LedgerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import PROVISIONAL_SECONDS, Book, Claim, Entry, Ledger
from tests.faults.inject import failing

WEB = Claim(
    uuid="uuid-web",
    name="web",
    pid=4711,
    start_time=123,
    vcpus=frozenset({20, 22}),
    emulators=frozenset({16}),
    since=1.5,
    plan={"vcpupin": {"0": "20", "1": "22"}, "reasons": ["vcpus: as there is room"]},
)
DB = Claim(uuid="uuid-db", name="db", pid=4712, vcpus=frozenset({24}), emulators=frozenset({18}))
MOVE = Entry("irq", "45", "0-31", "18", ("uuid-web",), ("2",))
MTU = Entry("mtu", "vnet0", "1500", "1416", ("uuid-web", "uuid-db"), identity="12")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def ledger(root: Path) -> Ledger:
    return Ledger(Sysfs(str(root)))


def directory(root: Path) -> Path:
    return root / "run/libvirt-tuner"


def test_reading_makes_nothing(ledger: Ledger, root: Path) -> None:
    assert ledger.read().claims == {}
    assert not directory(root).exists()


def test_what_is_saved_is_read(ledger: Ledger) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.claim(DB)
        book.bans["irqbalance1.sock"] = frozenset({45, 46})
        book.journal(MOVE, MTU)
    found = ledger.read()
    assert found.claims == {"uuid-web": WEB, "uuid-db": DB}
    assert found.changes == {MOVE.key: MOVE, MTU.key: MTU}
    assert found.bans == {"irqbalance1.sock": frozenset({45, 46})}
    assert found.trouble == ""


def test_nothing_is_saved_by_leaving(ledger: Ledger) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
    assert ledger.read().claims == {}


def test_only_the_owner_may_read(ledger: Ledger, root: Path) -> None:
    with ledger.locked() as book:
        book.save()
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory(root).iterdir()}
    assert modes == {"lock": 0o600, "ledger.json": 0o600, "ledger.json.copy": 0o600}
    assert directory(root).stat().st_mode & 0o777 == 0o700


def test_a_book_that_was_read_cannot_be_saved(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="reading only"):
        ledger.read().save()


def test_a_plan_that_is_no_json_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.save()
        book.claim(Claim("uuid-odd", "odd", plan={"cpus": frozenset({1})}))
        with pytest.raises(LedgerError, match="plan"):
            book.save()
    assert list(ledger.read().claims) == ["uuid-web"]


TEXTS = st.text(max_size=12)
CPUS = st.frozensets(st.integers(0, 1023), max_size=8)


@settings(max_examples=50, deadline=None)
@given(
    claims=st.lists(
        st.builds(
            Claim,
            uuid=TEXTS,
            name=TEXTS,
            pid=st.integers(0, 2**22),
            start_time=st.integers(0, 2**63),
            vcpus=CPUS,
            emulators=CPUS,
            since=st.floats(0, 1e9),
            plan=st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | TEXTS, max_size=3),
        ),
        max_size=4,
    ),
    entries=st.lists(
        st.builds(
            Entry,
            kind=TEXTS,
            target=TEXTS,
            prior=TEXTS,
            wanted=TEXTS,
            holders=st.lists(TEXTS, max_size=3).map(tuple),
            earlier=st.lists(TEXTS, max_size=1).map(tuple),
            identity=TEXTS,
        ),
        max_size=4,
    ),
)
def test_any_book_comes_back_as_it_was(claims: list[Claim], entries: list[Entry]) -> None:
    with TemporaryDirectory() as root:
        directory(Path(root)).parent.mkdir()
        ledger = Ledger(Sysfs(root))
        with ledger.locked() as book:
            for claim in claims:
                book.claim(claim)
            book.journal(*entries)
        found = ledger.read()
        assert (found.claims, found.changes, found.trouble) == (book.claims, book.changes, "")


def test_release_returns_what_nobody_holds() -> None:
    book = Book()
    book.claim(WEB)
    book.claim(DB)
    book.changes = {MOVE.key: MOVE, MTU.key: MTU}
    assert [entry.key for entry in book.release("uuid-web")] == [MOVE.key]
    assert book.changes[MTU.key].holders == ("uuid-db",)
    assert [entry.key for entry in book.release("uuid-db")] == [MOVE.key, MTU.key]
    assert book.claims == {}


@pytest.mark.parametrize(
    ("claim", "now", "stale"),
    [
        pytest.param(WEB, 0.0, False, id="process-there"),
        pytest.param(DB, 0.0, True, id="process-gone"),
        pytest.param(Claim("u", "n", since=100.0), 101.0, False, id="on-its-way"),
        pytest.param(Claim("u", "n", since=100.0), 101.0 + PROVISIONAL_SECONDS, True, id="never-arrived"),
        pytest.param(Claim("u", "n", since=100.0), 3.0, True, id="from-before-a-reboot"),
    ],
)
def test_stale(claim: Claim, now: float, stale: bool) -> None:
    book = Book()
    book.claim(claim)
    assert book.stale(lambda it: it.pid == WEB.pid, now=now) == ((claim,) if stale else ())


GOOD = {"version": 1, "claims": {}, "changes": [], "bans": {}}
CLAIM = {"name": "n", "pid": 1, "start_time": 1, "vcpus": "1", "emulators": "", "since": 0.0, "plan": {}}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"version": 1, "cla', id="cut-off"),
        pytest.param(b"\xff\xfe\x00", id="no-text"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(json.dumps(GOOD | {"version": 0}).encode(), id="version-0"),
        pytest.param(json.dumps(GOOD | {"claims": []}).encode(), id="claims-no-object"),
        pytest.param(json.dumps(GOOD | {"claims": {"u": CLAIM | {"pid": "1"}}}).encode(), id="pid-text"),
        pytest.param(json.dumps(GOOD | {"claims": {"u": CLAIM | {"pid": True}}}).encode(), id="pid-bool"),
        pytest.param(
            json.dumps(GOOD | {"claims": {"u": CLAIM | {"vcpus": "1-"}}}).encode(), id="bad-cpulist"
        ),
        pytest.param(json.dumps(GOOD | {"claims": {"u": 1}}).encode(), id="claim-no-object"),
        pytest.param(json.dumps(GOOD | {"changes": [{"kind": "irq"}]}).encode(), id="keys-missing"),
        pytest.param(json.dumps(GOOD | {"bans": {"s": ["4"]}}).encode(), id="ban-text"),
    ],
)
def test_damaged_is_moved_aside(ledger: Ledger, root: Path, content: bytes) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.journal(MOVE)
    (directory(root) / "ledger.json").write_bytes(content)
    assert "damaged" in ledger.read().trouble
    with ledger.locked() as book:
        assert "ledger.json.damaged" in book.trouble
        assert (book.claims, book.changes, book.lost) == ({WEB.uuid: WEB}, {MOVE.key: MOVE}, "")
    assert (directory(root) / "ledger.json.damaged").read_bytes() == content
    found = ledger.read()
    assert (found.damage, list(found.claims)) == ((), ["uuid-web"])


def test_damage_after_damage_overwrites_nothing(ledger: Ledger, root: Path) -> None:
    for content in (b"first", b"second", b"third"):
        with ledger.locked() as book:
            book.save()
        (directory(root) / "ledger.json").write_bytes(content)
    with ledger.locked():
        pass
    kept = {path.read_bytes() for path in directory(root).glob("ledger.json.damaged*")}
    assert kept == {b"first", b"second", b"third"}


def test_missing_ledger_with_its_copy_there_is_damage(ledger: Ledger, root: Path) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.save()
    (directory(root) / "ledger.json").unlink()
    assert "the file is missing" in ledger.read().trouble
    with ledger.locked() as book:
        assert list(book.claims) == [WEB.uuid]


def test_newer_version_is_an_error_and_nothing_is_touched(ledger: Ledger, root: Path) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.save()
    newer = json.dumps(GOOD | {"version": 2, "more": 1}).encode()
    (directory(root) / "ledger.json").write_bytes(newer)
    with pytest.raises(LedgerError, match="newer version"), ledger.locked():
        pass
    with pytest.raises(LedgerError, match="newer version"):
        ledger.read()
    assert (directory(root) / "ledger.json").read_bytes() == newer


def test_document_that_was_spelled_anew_is_taken(ledger: Ledger, root: Path) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.save()
    place = directory(root) / "ledger.json"
    document = json.loads(place.read_text())
    document["claims"][WEB.uuid]["name"] = "other"
    place.write_text(json.dumps(document))
    assert (ledger.read().trouble, ledger.read().claims[WEB.uuid].name) == ("", "other")


@pytest.mark.parametrize(
    ("call", "number"),
    [
        pytest.param("os.open", errno.EMFILE, id="no descriptor left"),
        pytest.param("os.open", errno.ENFILE, id="none left on the host"),
        pytest.param("os.open", errno.ENOMEM, id="no memory"),
        pytest.param("os.open", errno.EACCES, id="denied"),
        pytest.param("os.open", errno.EIO, id="I/O error"),
        pytest.param("os.read", errno.EIO, id="I/O error of a read"),
        pytest.param("os.read", 0, id="half of it"),
    ],
)
def test_an_error_is_no_damage(ledger: Ledger, root: Path, call: str, number: int) -> None:
    with ledger.locked() as book:
        book.claim(WEB)
        book.journal(MOVE)
    before = {path.name: path.read_bytes() for path in directory(root).iterdir()}
    with failing(call, number, "ledger.json"), pytest.raises(LedgerError, match=r"ledger\.json"):
        ledger.read()
    with (
        failing(call, number, "ledger.json"),
        pytest.raises(LedgerError, match=r"ledger\.json"),
        ledger.locked(),
    ):
        pass
    assert {path.name: path.read_bytes() for path in directory(root).iterdir()} == before
    assert ledger.read().claims == {WEB.uuid: WEB}


class TestArrival:
    """``virsh restore`` of a domain that runs: the hook is called before libvirt refuses."""

    ON_ITS_WAY = Claim(WEB.uuid, WEB.name, vcpus=frozenset({26}), since=100.0)

    @pytest.mark.parametrize(
        ("claims", "standing"),
        [
            pytest.param((WEB, ON_ITS_WAY), WEB, id="never replaces one with a process"),
            pytest.param((ON_ITS_WAY, WEB), WEB, id="ends with the start"),
            pytest.param(
                (ON_ITS_WAY, evolve(ON_ITS_WAY, since=200.0)), evolve(ON_ITS_WAY, since=200.0), id="again"
            ),
        ],
    )
    def test_claim(self, claims: tuple[Claim, Claim], standing: Claim) -> None:
        book = Book()
        for claim in claims:
            book.claim(claim)
        assert book.claims == {WEB.uuid: standing}

    def test_it_stands_as_long_as_its_process(self) -> None:
        book = Book()
        book.claim(self.ON_ITS_WAY)
        late = 101.0 + PROVISIONAL_SECONDS
        assert book.stale(lambda _: True, now=late) == ()
        assert book.stale(lambda _: False, now=late) == (self.ON_ITS_WAY,)


def _as_link(root: Path) -> None:
    (root / "elsewhere").mkdir(mode=0o700)
    directory(root).symlink_to("../elsewhere")


def _as_open(root: Path) -> None:
    directory(root).mkdir()
    directory(root).chmod(0o777)


def _as_strangers(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    directory(root).mkdir(mode=0o700)
    os.chown(directory(root), 65534, 65534)


def _as_file(root: Path) -> None:
    directory(root).write_text("")


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(_as_link, id="symlink"),
        pytest.param(_as_open, id="world-writable"),
        pytest.param(_as_strangers, id="somebody-else's"),
        pytest.param(_as_file, id="file"),
    ],
)
def test_a_directory_not_ours_is_refused(ledger: Ledger, root: Path, prepare: Callable[[Path], None]) -> None:
    prepare(root)
    with pytest.raises(LedgerError, match="/run/libvirt-tuner"), ledger.locked():
        pass
    with pytest.raises(LedgerError, match="/run/libvirt-tuner"):
        ledger.read()


def test_a_lock_file_that_is_a_link_is_refused(ledger: Ledger, root: Path) -> None:
    directory(root).mkdir(mode=0o700)
    (directory(root) / "lock").symlink_to(root / "target")
    with pytest.raises(LedgerError, match="lock"), ledger.locked():
        pass
    assert not (root / "target").exists()


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="/run/libvirt-tuner"), Ledger(Sysfs(str(tmp_path))).locked():
        pass


def test_the_lock_is_waited_for_until_the_limit(ledger: Ledger, root: Path) -> None:
    with ledger.locked() as book:
        book.save()
    with (directory(root) / "lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(LedgerError, match="holds the lock"), ledger.locked(timeout=0.2):
            pass
        assert 0.2 <= time.monotonic() - began < 2
        assert ledger.read().trouble == ""
    with ledger.locked(timeout=0.0):
        pass


def test_locks_of_other_names_are_independent(ledger: Ledger) -> None:
    held = pytest.raises(LedgerError, match=r"irqbalance\.lock")
    with ledger.alone("irqbalance", 0.0), ledger.locked(timeout=0.0), held, ledger.alone("irqbalance", 0.0):
        pass


def _claim_one(root: str, number: int) -> None:
    with Ledger(Sysfs(root)).locked() as book:
        taken = {cpu for claim in book.claims.values() for cpu in claim.vcpus}
        cpu = next(cpu for cpu in range(1024) if cpu not in taken)
        book.claim(Claim(f"uuid-{number}", f"vm{number}", pid=number, vcpus=frozenset({cpu})))
        book.save()


def test_concurrent_claims_never_share_a_cpu(ledger: Ledger, root: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_claim_one, args=(str(root), number)) for number in range(1, 25)]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0] * 24
    claims = ledger.read().claims.values()
    assert sorted(cpu for claim in claims for cpu in claim.vcpus) == list(range(24))
