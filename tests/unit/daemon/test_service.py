"""The service on libvirt's test driver and a replayed host; with a daemon it is tested in tests/libvirtd."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libvirt_tuner.daemon.service import Daemon, Inbox, Task, log
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import reverted
from libvirt_tuner.libvirtd import connection
from libvirt_tuner.libvirtd.connection import Connection
from tests.unit.trees import put

URI = "test:///default"
SMALL = Path(__file__).parents[3] / "fixtures" / "hosts" / "small-8"


class TestInbox:
    def test_in_the_order_they_came(self) -> None:
        inbox = Inbox()
        tasks = [Task("domain", "b"), Task("domain", "a"), Task("stop")]
        for task in tasks:
            inbox.put(task)
        assert [inbox.take(0) for _ in tasks] == tasks

    def test_one_that_waits_is_not_put_in_twice(self) -> None:
        inbox = Inbox()
        for _ in range(3):
            inbox.put(Task("domain", "a"))
        assert inbox.take(0) == Task("domain", "a")
        assert inbox.take(0.01) is None

    def test_one_that_was_taken_may_come_again(self) -> None:
        inbox = Inbox()
        inbox.put(Task("domain", "a"))
        inbox.take(0)
        inbox.put(Task("domain", "a"))
        assert inbox.take(0) == Task("domain", "a")


def test_a_device_that_has_come_is_no_change_of_the_definition(tmp_path: Path) -> None:
    heard: list[str] = []
    daemon = Daemon(URI, Sysfs(str(tmp_path)), lambda *_, **__: None, lambda: heard.append("changed"))
    daemon._on_event(connection.Event("device", "u", "web"))
    assert heard == ["changed"]
    assert daemon.inbox.take(0.01) is None
    daemon._on_event(connection.Event("defined", "u", "web"))
    assert daemon.inbox.take(0) == Task("defined", "u")
    assert heard == ["changed"]


class Service:
    """A daemon in a thread, what it says, and a connection of its user's."""

    def __init__(self, root: Path) -> None:
        self.lines: list[tuple[str, dict[str, str]]] = []
        self.daemon = Daemon(URI, Sysfs(str(root)), self.say)
        self._thread = threading.Thread(target=self.daemon.run)
        connection.start_event_loop()
        self.user = Connection(URI)

    def say(self, _priority: int, text: str, **fields: str) -> None:
        self.lines.append((text, fields))

    @property
    def said(self) -> list[str]:
        return [text for text, _ in self.lines]

    def fields(self, text: str) -> dict[str, str]:
        """What the journal gets with the line that holds the text."""
        (found,) = [fields for line, fields in self.lines if text in line]
        return found

    def start(self) -> None:
        self._thread.start()
        self.wait_for(lambda: f"watching {URI}" in self.said)

    def stop(self) -> None:
        self.daemon.inbox.put(Task("stop"))
        if self._thread.ident:
            self._thread.join(10)
        for domain in self.user.domains():
            if domain.name != "test":
                self.user._conn.lookupByName(domain.name).undefine()
        self.user.close()
        assert not self._thread.is_alive()

    def define(self, name: str, extra: str = "") -> None:
        self.user._conn.defineXML(
            f"<domain type='test'><name>{name}</name>{extra}<memory>8192</memory><vcpu>1</vcpu>"
            "<os><type arch='i686'>hvm</type></os></domain>"
        )

    def change(self, name: str) -> None:
        """The user defines it anew."""
        uuid = self.user.lookup(name).uuid
        self.define(name, f"<uuid>{uuid}</uuid><description>changed</description>")

    def definition(self, name: str) -> str:
        return self.user.definition(self.user.lookup(name)) or ""

    def completed(self, name: str) -> bool:
        return "<vcpupin" in self.definition(name)

    def pin(self, name: str) -> str:
        return self.definition(name).partition("<vcpupin vcpu='0' cpuset='")[2].partition("'")[0]

    def quiet(self) -> None:
        """Waits until all that was put in before has been worked off."""
        self.define("sentinel", "<description>x</description>")
        self.wait_for(lambda: self.completed("sentinel"))

    def wait_for(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < end, self.said
            time.sleep(0.01)

    def times(self, name: str) -> int:
        return sum(line.startswith(f"{name}: definition changed") for line in self.said)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = Path(shutil.copytree(SMALL, tmp_path / "host", symlinks=True))
    put(made, "/etc/libvirt-tuner.toml", "[policy]\nsettle_seconds = 0")
    return made


@pytest.fixture
def service(root: Path) -> Iterator[Service]:
    made = Service(root)
    yield made
    made.stop()


def test_definition_is_completed_when_it_is_made(service: Service) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))


def test_definitions_that_were_there_before_are_left_alone(service: Service) -> None:
    service.define("before")
    untouched = service.definition("before")
    service.start()
    service.quiet()
    assert service.definition("before") == untouched
    assert any("apply --all --dry-run" in line for line in service.said)
    service.change("before")
    service.wait_for(lambda: service.completed("before"))


def test_a_new_definition_is_left_alone_until_it_has_settled(service: Service, root: Path) -> None:
    put(root, "/etc/libvirt-tuner.toml", "[policy]\nsettle_seconds = 1")
    service.start()
    began = time.monotonic()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    assert time.monotonic() - began >= 1


def test_a_domain_that_was_reverted_is_left_alone(service: Service, root: Path) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    reverted.remember(Sysfs(str(root)), service.user.lookup("a").uuid)
    service.change("a")
    service.quiet()
    assert not service.completed("a")


def test_own_definition_does_not_set_it_off_again(service: Service) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    before = service.definition("a")
    service.quiet()
    assert service.definition("a") == before
    assert service.times("a") == 1


def test_edit_is_left_alone(service: Service) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    pin = f"vcpu='0' cpuset='{service.pin('a')}'"
    service.user._conn.defineXML(service.definition("a").replace(pin, "vcpu='0' cpuset='0-1'"))
    service.quiet()
    assert service.pin("a") == "0-1"


def test_metadata_has_it_planned_anew(service: Service) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    uri = "https://libvirt-tuner.org/policy/1"
    handle = service.user._conn.lookupByName("a")
    handle.setMetadata(2, "<policy placement='keep'/>", "tuner", uri, 0)
    service.wait_for(lambda: not service.completed("a"))


def test_domains_do_not_share_cpus_while_there_are_enough(service: Service) -> None:
    service.start()
    for name in ("a", "b"):
        service.define(name)
    service.wait_for(lambda: service.completed("a") and service.completed("b"))
    assert service.pin("a") != service.pin("b")


def test_undefined_domain_frees_its_cpus(service: Service) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    first = service.pin("a")
    service.user._conn.lookupByName("a").undefine()
    service.define("b")
    service.wait_for(lambda: service.completed("b"))
    assert service.pin("b") == first
    service.wait_for(lambda: service.times("b") > 0)
    uuid = service.user.lookup("b").uuid
    assert service.fields("b: definition changed") == {"event": "defined", "domain": "b", "uuid": uuid}


def test_document_it_cannot_serve_is_said_and_left(service: Service) -> None:
    service.start()
    service.define("..")
    before = service.definition("..")
    service.quiet()
    assert service.definition("..") == before
    uuid = service.user.lookup("..").uuid
    assert any(line.startswith("..: ") for line in service.said)
    assert service.fields("; not changed") == {"event": "problem", "domain": "..", "uuid": uuid}


def test_bad_config_is_said_once(service: Service, root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "libvirt-tuner.toml").write_text("[policy]\nplacment = 'keep'\n")
    service.start()
    service.define("a")
    service.wait_for(lambda: any("placment" in line for line in service.said))
    service.define("b")
    time.sleep(0.2)
    assert not service.completed("a")
    assert service.fields("placment")["domain"] == "a"


def test_config_is_read_again_when_told(service: Service, root: Path) -> None:
    service.start()
    service.define("a")
    service.wait_for(lambda: service.completed("a"))
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "libvirt-tuner.toml").write_text("[policy]\nplacement = 'keep'\n")
    service.daemon.inbox.put(Task("all"))
    service.wait_for(lambda: not service.completed("a"))


@pytest.mark.parametrize(
    ("journal", "line"),
    [
        pytest.param(None, "libvirt-tuner: a b\n", id="in the foreground"),
        pytest.param("8:1234", "<4>a b\n", id="to the journal"),
    ],
)
def test_log(
    journal: str | None,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if journal:
        monkeypatch.setenv("JOURNAL_STREAM", journal)
    log(4, "a\nb", root=str(tmp_path))
    assert capsys.readouterr().err == line
