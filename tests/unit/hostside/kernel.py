"""A kernel that answers writes as told, and domains that start and stop on it."""

from __future__ import annotations

import os
from pathlib import Path

from libvirt_tuner.host.sysfs import Sysfs, error
from libvirt_tuner.hostside import changes as apply
from libvirt_tuner.hostside.ledger import Claim, Entry, Ledger

PRIORS = {
    "proc/irq/45/smp_affinity_list": "0,1,2,3,4-7",
    "proc/irq/46/smp_affinity_list": "2",
    "proc/irq/47/smp_affinity_list": "3",
    "sys/class/net/vnet0/mtu": "1500",
    "sys/class/net/eth0/queues/rx-0/rps_cpus": "00000000,000000f0",
    "sys/class/net/eth0/queues/tx-0/xps_cpus": "0",
}
TO_6 = apply.irq_affinity(45, frozenset({6}))
TO_7 = apply.irq_affinity(45, frozenset({7}))
SMALLER = apply.mtu("vnet0", 1416)
STEERED = apply.rps("eth0", 0, frozenset({2, 3}))
MOVES = [apply.irq_affinity(irq, frozenset({cpu})) for irq in (45, 46, 47) for cpu in (5, 6)]


class Kernel(Sysfs):
    """A captured host whose kernel answers some writes with an errno, or takes another value."""

    def __init__(self, root: str, answers: dict[tuple[str, str], int | str] | None = None) -> None:
        super().__init__(root)
        self.answers = answers or {}

    def write(self, path: str, text: str) -> None:
        answer = self.answers.get((path, text), text)
        if isinstance(answer, int):
            raise error(OSError(answer, os.strerror(answer)), path, writing=text)
        super().write(path, answer)


def make_host(root: Path) -> Path:
    (root / "run").mkdir()
    for path, text in PRIORS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
        if "irq" in path:
            (root / path).with_name("effective_affinity_list").symlink_to("smp_affinity_list")
    (root / "sys/class/net/vnet0/ifindex").write_text("12\n")
    (root / "sys/class/net/eth0/ifindex").write_text("2\n")
    return root


def value(host: Path, change: apply.Change) -> str:
    return apply.current(Sysfs(str(host)), change)


def start(sysfs: Sysfs, uuid: str, *changes: apply.Change) -> tuple[apply.Outcome, ...]:
    with Ledger(sysfs).locked() as book:
        book.claim(Claim(uuid, uuid, pid=1))
        return apply.perform_all(sysfs, book, uuid, changes)


def stop(sysfs: Sysfs, *uuids: str) -> tuple[apply.Outcome, ...]:
    with Ledger(sysfs).locked() as book:
        return apply.give_back(sysfs, book, *uuids)


def changes(sysfs: Sysfs) -> dict[tuple[str, str], Entry]:
    return Ledger(sysfs).read().changes


def assert_as_before(host: Path) -> None:
    sysfs = Sysfs(str(host))
    for change in (TO_6, SMALLER, STEERED, *MOVES):
        kind = apply.KINDS[change.kind]
        prior = PRIORS[kind.path(change.target)[1:]]
        assert apply.current(sysfs, change) == kind.canonical(prior)
    book = Ledger(sysfs).read()
    assert (book.claims, book.changes, book.trouble) == ({}, {}, "")
