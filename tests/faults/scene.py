"""A replayed host that three domains come and go on, and what the hook, the daemon and ``undo`` do there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from attrs import frozen

from libvirt_tuner import hook, settle
from libvirt_tuner.errors import TunerError
from libvirt_tuner.hostside import changes, holding
from libvirt_tuner.hostside.ledger import Ledger
from tests import hosts
from tests.unit.replay import Domain, Replay

MACVTAP = (
    "<interface type='direct'><source dev='ens1np0' mode='bridge'/><target dev='macvtap{}'/>"
    "<model type='virtio'/></interface>"
)
MTU = "<policy xmlns='https://libvirt-tuner.org/policy/1' mtu='1400'/>"
DOMAINS = tuple(
    Domain(name, number, MACVTAP.format(number), vcpus=1, metadata=MTU)
    for number, name in enumerate("abc", 1)
)
POSITIONS = {"first": 0, "middle": 1, "last": 2}


class Scene:
    """The host, put back between two tries as it was when :meth:`keep` was called.

    Args:
        root: An empty directory.
    """

    def __init__(self, root: Path) -> None:
        hosts.write(hosts.build(hosts.large(cpus=6, nodes=1, irqs=8, threads=1)), root)
        self.host = Replay(root)
        self.host.settle_interrupts()
        for domain in DOMAINS:
            self._macvtap(domain.number)
        patterns = ("proc/irq/*/smp_affinity_list", "sys/class/net/*/mtu")
        self._changeable = [place for pattern in patterns for place in self.host.root.glob(pattern)]
        self.before = self.values()
        self._kept: dict[Path, bytes] = {}

    def _macvtap(self, number: int) -> None:
        name = f"macvtap{number}"
        for file, text in (
            ("mtu", "1500"),
            ("ifindex", str(20 + number)),
            (f"macvtap/tap{number}/dev", "1:2"),
        ):
            self.host.write(f"/sys/devices/virtual/net/{name}/{file}", text + "\n")
        base = self.host.root / "sys/devices/virtual/net" / name
        (base / "lower_ens1np0").symlink_to("../../../../class/net/ens1np0")
        (self.host.root / "sys/class/net" / name).symlink_to(f"../../devices/virtual/net/{name}")

    def values(self) -> dict[str, bytes]:
        """Each file that this tool may change, byte for byte."""
        return {str(place.relative_to(self.host.root)): place.read_bytes() for place in self._changeable}

    def _files(self) -> Iterator[Path]:
        yield from self._changeable
        for directory in ("run", *(f"proc/{domain.pid}" for domain in DOMAINS)):
            for base, _, names in os.walk(self.host.root / directory):
                yield from (Path(base, name) for name in names)

    def keep(self) -> None:
        """Remember all that changes."""
        self._kept = {place: place.read_bytes() for place in self._files()}

    def reset(self) -> None:
        """Put back all that :meth:`keep` remembers, and nothing else."""
        if not any(place.parent.name == "libvirt-tuner" for place in self._kept):
            shutil.rmtree(self.host.root / "run/libvirt-tuner", ignore_errors=True)
        for place in set(self._files()) - set(self._kept):
            place.unlink()
        for place, data in self._kept.items():
            if place.is_file() and place.read_bytes() == data:
                continue
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            place.write_bytes(data)

    def digest(self) -> bytes:
        """Stands for all that changes, apart from times."""
        found = sha256()
        for place in sorted(self._files()):
            data = place.read_bytes()
            if place.parent.name == "libvirt-tuner":
                data = re.sub(rb'"(since|check)":[^,]*,', b"", data)
            found.update(b"%s\0%s\0" % (bytes(place), data))
        return found.digest()

    def hook(self, domain: Domain, operation: str) -> tuple[int, bytes]:
        """The hook in this process: its exit status and its output."""
        with _standard_streams(domain.xml) as out:
            status = hook.main(
                ["qemu", domain.name, operation, "begin", "-"], root=str(self.host.root), limit=60
            )
        return status, out.read()

    def start(self, domain: Domain) -> None:
        """It runs, and the hook is told."""
        self.host.run(domain)
        self.hook(domain, "started")

    def end(self, domain: Domain) -> None:
        """It has ended, and nobody is told."""
        (self.host.root / f"proc/{domain.pid}/stat").unlink(missing_ok=True)
        for suffix in ("pid", "xml"):
            (self.host.root / f"run/libvirt/qemu/{domain.name}.{suffix}").unlink(missing_ok=True)

    def running(self) -> list[Domain]:
        """Those that run."""
        return [domain for domain in DOMAINS if (self.host.root / f"proc/{domain.pid}/stat").exists()]


_CLOSE = os.close
"""The call itself, whatever shim stands in for it."""


@contextmanager
def _standard_streams(text: bytes) -> Iterator[_Output]:
    """Files in memory in the place of standard input and output, by calls that no shim counts."""
    into, out = os.memfd_create("stdin"), os.memfd_create("stdout")
    kept = os.dup(0), os.dup(1)
    os.pwrite(into, text, 0)
    os.dup2(into, 0)
    os.dup2(out, 1)
    found = _Output()
    try:
        yield found
    finally:
        for fd, original in enumerate(kept):
            os.dup2(original, fd)
        found.data = os.pread(out, 1 << 24, 0)
        for fd in (into, out, *kept):
            _CLOSE(fd)


class _Output:
    data = b""

    def read(self) -> bytes:
        return self.data


@frozen
class Event:
    """Something that happens on the host, and what is called for it.

    Attributes:
        name: Of the operation.
        prepare: Brings the host to where it happens.
        happen: The operation: exit status and output.
        arrives: Its output is a document, or nothing; else nothing.
        positions: Names of :data:`POSITIONS` where it makes a difference.
    """

    name: str
    prepare: Callable[[Scene, Domain], None]
    happen: Callable[[Scene, Domain], tuple[int, bytes]]
    arrives: bool = False
    positions: tuple[str, ...] = tuple(POSITIONS)


def _others(scene: Scene, domain: Domain) -> None:
    """Those that come before it run."""
    for other in DOMAINS[: DOMAINS.index(domain)]:
        scene.start(other)


def _begins(scene: Scene, domain: Domain) -> None:
    _others(scene, domain)
    scene.host.run(domain)


def _all_run(scene: Scene, domain: Domain) -> None:
    for each in DOMAINS:
        scene.start(each)


def _has_ended(scene: Scene, domain: Domain) -> None:
    _all_run(scene, domain)
    scene.end(domain)


def _scattered(scene: Scene, domain: Domain) -> None:
    """A driver has spread its interrupts anew."""
    _all_run(scene, domain)
    for name, value in scene.before.items():
        if name.startswith("proc/irq/"):
            (scene.host.root / name).write_bytes(value)


def _quietly(part: Callable[[], object]) -> tuple[int, bytes]:
    """An operation that reports by exceptions of this package, and by no other."""
    try:
        part()
    except TunerError:
        return 0, b""
    return 0, b""


def _upkeep(scene: Scene, _: Domain) -> tuple[int, bytes]:
    def act() -> None:
        holding.sweep(scene.host.sysfs)
        list(holding.give_all_again(scene.host.sysfs))

    return _quietly(act)


def _undo(scene: Scene, domain: Domain | None) -> tuple[int, bytes]:
    def undo() -> None:
        with Ledger(scene.host.sysfs).locked() as book:
            if domain is None:
                changes.give_back_all(scene.host.sysfs, book)
            else:
                changes.give_back(scene.host.sysfs, book, domain.uuid)

    return _quietly(undo)


EVENTS = (
    Event("started", _begins, lambda scene, domain: scene.hook(domain, "started")),
    Event("reconnect", _all_run, lambda scene, domain: scene.hook(domain, "reconnect")),
    Event("release", _has_ended, lambda scene, domain: scene.hook(domain, "release")),
    Event("restore", _others, lambda scene, domain: scene.hook(domain, "restore"), arrives=True),
    Event(
        "restore of a running one",
        _all_run,
        lambda scene, domain: scene.hook(domain, "restore"),
        arrives=True,
    ),
    Event("migrate", _others, lambda scene, domain: scene.hook(domain, "migrate"), arrives=True),
    Event(
        "settle",
        _begins,
        lambda scene, it: _quietly(lambda: settle.catch_up(scene.host.sysfs, it.name, started=True)),
    ),
    Event("upkeep", _scattered, _upkeep, positions=("middle",)),
    Event("undo", _all_run, _undo),
    Event("undo --all", _all_run, lambda scene, _: _undo(scene, None), positions=("middle",)),
)
