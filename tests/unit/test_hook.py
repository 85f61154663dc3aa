"""The hook as libvirtd runs it: the installed script, a process per call, on a replayed host.

Its own /dev/log, in a mount namespace, catches what it says. With a libvirtd it is tested in tests/libvirtd.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from libvirt_tuner.domainxml.document import parse
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.hostside import reverted
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.install import hook_script
from tests.measured import interpreter
from tests.unit.replay import Domain, Replay

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")

QUEUES = [*range(214, 230), *range(231, 247)]
WEB, DB, LARGE = Domain("web", 1), Domain("db", 2), Domain("large", 3, vcpus=64)
OWN_DEV = (
    "sink=$1; shift; mount -t tmpfs tmpfs /mnt && mkdir /mnt/shm && mount --bind /dev/shm /mnt/shm"
    ' && mknod -m 666 /mnt/null c 1 3 && ln -s "$sink" /mnt/log && mount --rbind /mnt /dev && exec "$@"'
)
WARNING = 4
STRICT = "[policy]\nstrict = true\n"


@frozen
class Answer:
    """What one call gave: exit status, output, and lines of the log by priority (0 to 7)."""

    status: int
    out: bytes
    err: str
    log: tuple[tuple[int, str], ...]

    @property
    def warnings(self) -> list[str]:
        return [line for priority, line in self.log if priority <= WARNING]


class Libvirtd:
    """Calls the hook of a replayed host."""

    def __init__(self, root: Path, sink: Path) -> None:
        self.host = Replay.make(root / "host")
        self._hook = root / "qemu"
        self._hook.write_text(hook_script(python=interpreter(root), root=str(self.host.root)))
        self._hook.chmod(0o755)
        self._sink = sink
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.bind(str(sink))
        self._log.setblocking(False)

    def close(self) -> None:
        self._log.close()

    def call(self, domain: Domain | str, operation: str, document: bytes | None = None) -> Answer:
        """As libvirtd would, in at most 20 seconds."""
        name = domain if isinstance(domain, str) else domain.name
        if document is None:
            document = b"" if isinstance(domain, str) else domain.xml
        hook = [str(self._hook), name, operation, "begin", "-"]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", OWN_DEV, "sh", str(self._sink), *hook],
            input=document,
            capture_output=True,
            timeout=20,
            cwd="/",
        )
        return Answer(done.returncode, done.stdout, done.stderr.decode(), tuple(self._logged()))

    def _logged(self) -> Iterator[tuple[int, str]]:
        while True:
            try:
                text = self._log.recv(65536).decode().rstrip("\0\n")
            except BlockingIOError:
                return
            found = re.match(r"<(\d+)>(.*)", text, re.DOTALL)
            assert found, text
            yield int(found[1]) % 8, found[2]

    def begin(self, domain: Domain, operation: str = "started") -> Answer:
        """It runs now."""
        self.host.run(domain)
        return self.call(domain, operation)


@pytest.fixture
def libvirtd(tmp_path: Path) -> Iterator[Libvirtd]:
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 108 bytes
        made = Libvirtd(tmp_path, Path(short) / "log")
        yield made
        made.close()


def assert_silent(answer: Answer) -> None:
    assert (answer.status, answer.out, answer.err, answer.warnings) == (0, b"", "", [])


def assert_said_once(answer: Answer) -> str:
    """The domain is not kept from starting, nothing is printed, and there is one line that says why."""
    assert (answer.status, answer.out, answer.err) == (0, b"", "")
    assert len(answer.warnings) == 1, answer.log
    assert "\n" not in answer.warnings[0]
    return answer.warnings[0]


class TestOperations:
    @pytest.mark.parametrize("operation", ["start", "stopped", "attach", "prepare", "nonsense", ""])
    def test_nothing_to_do(self, libvirtd: Libvirtd, operation: str) -> None:
        answer = libvirtd.call(WEB, operation)
        assert_silent(answer)
        assert answer.log == ()
        assert not (libvirtd.host.root / "run/libvirt-tuner").exists()

    def test_domain_that_runs(self, libvirtd: Libvirtd) -> None:
        answer = libvirtd.begin(WEB, "started")
        assert_silent(answer)
        assert len(answer.log) == 1
        assert "32 of 32 interrupts moved" in answer.log[0][1]
        assert libvirtd.host.on_vcpus(QUEUES) == []
        assert len(libvirtd.host.vcpus()) == WEB.vcpus

    def test_domain_that_ran_before_the_hook_was_installed(self, libvirtd: Libvirtd) -> None:
        before = libvirtd.host.irqs()
        answer = libvirtd.begin(WEB, "reconnect")
        assert_silent(answer)
        assert answer.log == ()
        assert libvirtd.host.irqs() == before
        assert set(libvirtd.host.book.claims) == {WEB.uuid}

    def test_reconnect_changes_nothing_that_is_right(self, libvirtd: Libvirtd) -> None:
        libvirtd.begin(WEB)
        before = libvirtd.host.irqs(), libvirtd.host.book.changes, libvirtd.host.vcpus()
        assert_silent(libvirtd.call(WEB, "reconnect"))
        assert (libvirtd.host.irqs(), libvirtd.host.book.changes, libvirtd.host.vcpus()) == before

    def test_release_gives_back(self, libvirtd: Libvirtd) -> None:
        before = libvirtd.host.irqs()
        libvirtd.begin(WEB)
        assert libvirtd.host.irqs() != before
        assert_silent(libvirtd.call(WEB, "release"))
        assert libvirtd.host.irqs() == before
        assert libvirtd.host.book.claims == {}
        assert libvirtd.host.book.changes == {}

    def test_release_needs_no_document(self, libvirtd: Libvirtd) -> None:
        before = libvirtd.host.irqs()
        libvirtd.begin(WEB)
        assert_silent(libvirtd.call("web", "release", b"<!DOCTYPE nonsense"))
        assert libvirtd.host.irqs() == before

    def test_release_of_a_domain_we_do_not_know(self, libvirtd: Libvirtd) -> None:
        libvirtd.begin(WEB)
        held = libvirtd.host.irqs()
        assert_silent(libvirtd.call(DB, "release"))
        assert libvirtd.host.irqs() == held

    def test_two_domains_share_a_card(self, libvirtd: Libvirtd) -> None:
        before = libvirtd.host.irqs()
        libvirtd.begin(WEB)
        libvirtd.begin(DB)
        libvirtd.call(WEB, "release")
        assert libvirtd.host.on_vcpus(QUEUES) == []
        libvirtd.call(DB, "release")
        assert libvirtd.host.irqs() == before

    @pytest.mark.parametrize("operation", ["migrate", "restore"])
    def test_arrival_is_pinned_for_this_host(self, libvirtd: Libvirtd, operation: str) -> None:
        before = libvirtd.host.irqs()
        answer = libvirtd.call(WEB, operation)
        assert (answer.status, answer.err, answer.warnings) == (0, "", [])
        spec = read_spec(parse(answer.out))
        assert frozenset().union(*spec.vcpupin.values()) == libvirtd.host.vcpus()
        assert [vnic.rx_queue_size for vnic in spec.vnics] == [None]  # a guest would see it
        assert libvirtd.host.irqs() == before
        again = libvirtd.call(WEB, operation, answer.out)
        assert_silent(again)

    def test_domain_that_is_not_selected_is_left_alone(self, libvirtd: Libvirtd) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", "[policy]\nselect = false\n")
        before = libvirtd.host.irqs()
        for operation in ("started", "reconnect", "migrate", "restore", "release"):
            assert_silent(libvirtd.begin(WEB, operation))
        assert libvirtd.host.irqs() == before

    def test_what_it_writes_is_root_s_alone(self, libvirtd: Libvirtd) -> None:
        libvirtd.begin(WEB)
        directory = libvirtd.host.root / "run/libvirt-tuner"
        for place in (directory, *directory.iterdir()):
            assert not place.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


class TestStrict:
    @pytest.mark.parametrize(
        "config",
        [
            pytest.param("[policy]\n  strict=true", id="indented"),
            pytest.param("policy.strict = true", id="dotted key"),
            pytest.param("policy = {strict = true}", id="inline table"),
            pytest.param("[policy]\n'strict' = true", id="quoted key"),
        ],
    )
    def test_is_seen_however_it_is_written(self, libvirtd: Libvirtd, config: str) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", f"{config}\n")
        assert libvirtd.call(LARGE, "prepare").status == 1

    def test_refuses_what_would_have_no_cpus_of_its_own(self, libvirtd: Libvirtd) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", STRICT)
        answer = libvirtd.call(LARGE, "prepare")
        assert (answer.status, answer.out) == (1, b"")
        assert "start refused (strict = true): large would not get dedicated CPUs" in answer.err
        assert answer.err.count("\n") == 1

    def test_lets_others_start(self, libvirtd: Libvirtd) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", STRICT)
        assert_silent(libvirtd.call(WEB, "prepare"))

    def test_concerns_prepare_only(self, libvirtd: Libvirtd) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", STRICT)
        for operation in ("started", "reconnect"):
            assert libvirtd.begin(LARGE, operation).status == 0

    def test_counts_the_cpus_of_running_domains(self, libvirtd: Libvirtd) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", STRICT)
        half = Domain("half", 4, vcpus=12)
        assert_silent(libvirtd.call(half, "prepare"))
        for number in (5, 6):
            libvirtd.begin(Domain(f"other-{number}", number, vcpus=12))
        assert libvirtd.call(half, "prepare").status == 1

    def test_bad_document_is_not_refused(self, libvirtd: Libvirtd) -> None:
        libvirtd.host.write("/etc/libvirt-tuner.toml", STRICT)
        assert_said_once(libvirtd.call("web", "prepare", b"<domain"))


DOCUMENTS = {
    "empty": b"",
    "cut off": WEB.xml[:200],
    "binary": bytes(range(256)) * 16,
    "another root": b"<network/>",
    "no name": b"<domain/>",
    "DTD": b'<!DOCTYPE domain [<!ENTITY a "b">]>' + WEB.xml,
    "file from outside": b'<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/shadow">]><domain><name>&a;</name></domain>',
    "pin to no CPU": WEB.xml.replace(b"<os>", b"<cputune><vcpupin vcpu='0' cpuset='x'/></cputune><os>"),
    "50 MB": WEB.xml.replace(b"<os>", b"<!--" + b"x" * 50_000_000 + b"--><os>"),
}


@pytest.mark.parametrize("operation", ["started", "migrate"])
@pytest.mark.parametrize("document", [pytest.param(text, id=name) for name, text in DOCUMENTS.items()])
def test_bad_document(libvirtd: Libvirtd, operation: str, document: bytes) -> None:
    libvirtd.host.run(WEB)
    before = libvirtd.host.irqs()
    assert operation in assert_said_once(libvirtd.call("web", operation, document))
    assert libvirtd.host.irqs() == before
    assert libvirtd.host.book.claims == {}


def no_pid_file(host: Replay) -> None:
    (host.root / "run/libvirt/qemu/web.pid").unlink()


def nonsense_in_pid_file(host: Replay) -> None:
    host.write("/run/libvirt/qemu/web.pid", "-1\n")


def ended(host: Replay) -> None:
    host.end(WEB)


def anybody_may_write_the_ledger(host: Replay) -> None:
    (host.root / "run/libvirt-tuner").mkdir(mode=0o777)
    (host.root / "run/libvirt-tuner").chmod(0o777)


def ledger_is_a_link(host: Replay) -> None:
    (host.root / "run/libvirt-tuner").symlink_to("/tmp")


@pytest.mark.parametrize(
    "spoil", [no_pid_file, nonsense_in_pid_file, ended, anybody_may_write_the_ledger, ledger_is_a_link]
)
@pytest.mark.parametrize("operation", ["started", "reconnect"])
def test_host_that_does_not_do(libvirtd: Libvirtd, spoil: Callable[[Replay], None], operation: str) -> None:
    libvirtd.host.run(WEB)
    spoil(libvirtd.host)
    before = libvirtd.host.irqs()
    assert_said_once(libvirtd.call(WEB, operation))
    assert libvirtd.host.irqs() == before


@pytest.mark.parametrize("operation", ["started", "release", "migrate"])
def test_ledger_that_somebody_holds(libvirtd: Libvirtd, operation: str) -> None:
    libvirtd.begin(WEB)
    with Ledger(libvirtd.host.sysfs).locked():
        assert_said_once(libvirtd.call(WEB, operation))


def test_irqbalance_that_others_talk_to_is_said_and_the_rest_done(libvirtd: Libvirtd) -> None:
    libvirtd.host.write("/run/irqbalance/irqbalance1.sock", "")
    with Ledger(libvirtd.host.sysfs).alone("irqbalance", 1.0):
        answer = libvirtd.begin(WEB)
    assert "irqbalance may move the interrupts back" in assert_said_once(answer)
    assert "web: started: dedicated" in answer.log[-1][1]


def test_damaged_ledger_is_begun_anew(libvirtd: Libvirtd) -> None:
    libvirtd.begin(WEB)
    libvirtd.host.write("/run/libvirt-tuner/ledger.json", '{"version": 1')
    assert "damaged" in assert_said_once(libvirtd.call(WEB, "reconnect"))
    assert set(libvirtd.host.book.claims) == {WEB.uuid}
    assert_silent(libvirtd.call(WEB, "reconnect"))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param("[policy]\nplacment = 'dedicated'\n", id="unknown key"),
        pytest.param("[policy]\nplacement = 'everywhere'\n", id="bad value"),
        pytest.param("[policy\n", id="no TOML"),
    ],
)
def test_nothing_is_tuned_while_the_config_has_a_mistake(libvirtd: Libvirtd, config: str) -> None:
    before = libvirtd.host.irqs()
    libvirtd.host.write("/etc/libvirt-tuner.toml", config)
    assert "not changed until this is fixed" in assert_said_once(libvirtd.begin(WEB))
    assert (libvirtd.host.vcpus(), libvirtd.host.irqs()) == (frozenset(), before)


def test_select_false_with_a_typo_in_another_table(libvirtd: Libvirtd) -> None:
    libvirtd.host.write("/etc/libvirt-tuner.toml", "[policy]\nselect = fasle\n")
    assert_said_once(libvirtd.begin(WEB))
    assert libvirtd.host.vcpus() == frozenset()


def test_a_mistake_made_later_leaves_what_a_running_domain_has(libvirtd: Libvirtd) -> None:
    libvirtd.begin(WEB)
    before = libvirtd.host.irqs(), libvirtd.host.book.claims
    libvirtd.host.write("/etc/libvirt-tuner.toml", "[policy\n")
    assert_said_once(libvirtd.call(WEB, "reconnect"))
    assert (libvirtd.host.irqs(), libvirtd.host.book.claims) == before


def test_a_domain_that_was_reverted_is_left_alone(libvirtd: Libvirtd) -> None:
    reverted.remember(libvirtd.host.sysfs, WEB.uuid)
    before = libvirtd.host.irqs()
    assert_silent(libvirtd.begin(WEB))
    assert (libvirtd.host.vcpus(), libvirtd.host.irqs()) == (frozenset(), before)
    reverted.forget(libvirtd.host.sysfs, WEB.uuid)
    libvirtd.begin(WEB)
    assert len(libvirtd.host.vcpus()) == WEB.vcpus


def test_nothing_is_tuned_while_metadata_have_a_mistake(libvirtd: Libvirtd) -> None:
    hostile = "<policy xmlns='https://libvirt-tuner.org/policy/1' placement='$(reboot)'/>"
    said = assert_said_once(libvirtd.begin(Domain("web", 1, metadata=hostile)))
    assert "not changed until this is fixed" in said
    assert libvirtd.host.vcpus() == frozenset()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../../etc/passwd", id="leads elsewhere"),
        pytest.param("a\nb: started: all is well", id="two lines"),
        pytest.param("$(touch /tmp/x)", id="for a shell"),
        pytest.param("-n", id="an option"),
    ],
)
def test_strange_names(libvirtd: Libvirtd, name: str) -> None:
    assert_said_once(libvirtd.call(name, "started", WEB.xml))
