"""Planned against real, on a replayed host with a QEMU process."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner.domainxml.spec import DomainSpec, Numatune, Vnic
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import Book, Claim, Entry
from libvirt_tuner.hostside.status import LATER, NO_PINS, Row, readable_rows, rows
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.neighbours import noted
from libvirt_tuner.planning.plan import Plan
from libvirt_tuner.topology import Binding
from tests import hosts
from tests.unit.builders import cpus, domain
from tests.unit.trees import put

UUID = "5b1d0a52-0000-4000-8000-000000000001"
PID, STARTED = 4000, 900
THREADS = {4000: "qemu-system-x86", 4001: "CPU 0/KVM", 4002: "CPU 1/KVM", 4003: "vhost-4000"}
PINS = {4000: "16,18", 4001: "20", 4002: "22", 4003: "16"}
PLAN = Plan(
    "vm",
    UUID,
    "dedicated",
    nodes=(0,),
    vcpupin={0: cpus(20), 1: cpus(22)},
    emulatorpin=cpus(16, 18),
    vhost=(16,),
    numatune=Binding("strict", frozenset({0})),
    vcpus={0: cpus(20), 1: cpus(22)},
)
IRQ = Entry("irq", "214", "0-31", "4", holders=(UUID,))
LIVE = domain(2, numatune=Numatune(mode="strict", nodeset=frozenset({0})))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The seed's host with one QEMU that runs as planned."""
    hosts.make("seed", tmp_path)
    zeros = " ".join(["0"] * 17)
    for tid, comm in THREADS.items():
        for place in (f"proc/{PID}/task/{tid}", f"proc/{tid}"):
            put(tmp_path, f"{place}/comm", comm)
            put(tmp_path, f"{place}/stat", f"{tid} ({comm}) S 1 {zeros} {STARTED} 0 0")
            put(tmp_path, f"{place}/status", f"Name:\t{comm}\nCpus_allowed_list:\t{PINS[tid]}")
    put(tmp_path, "proc/irq/214/smp_affinity_list", "4")
    return tmp_path


@pytest.fixture
def book() -> Book:
    made = Book()
    made.claim(Claim(UUID, "vm", PID, STARTED, plan=stored.to_dict(PLAN)))
    made.changes[IRQ.key] = IRQ
    return made


def found(
    root: Path, book: Book, live: DomainSpec = LIVE, defined: DomainSpec | None = None
) -> dict[str, Row]:
    return {row.subject: row for row in rows(Sysfs(str(root)), book, UUID, live, defined)}


def differing(table: dict[str, Row]) -> list[str]:
    return [subject for subject, row in table.items() if not row.ok]


def test_all_as_planned(root: Path, book: Book) -> None:
    table = found(root, book, defined=LIVE)
    assert differing(table) == []
    assert [row.note for row in table.values() if row.note] == []
    assert (table["vcpu 1"].planned, table["vcpu 1"].real) == ("22", "22")
    assert set(table) == {"vcpu 0", "vcpu 1", "emulator", "vhost worker 0", "memory", "irq 214"}


@pytest.mark.parametrize(
    ("path", "text", "subject", "real"),
    [
        pytest.param("proc/4002/status", "Cpus_allowed_list:\t0-31", "vcpu 1", "0-31", id="vCPU"),
        pytest.param("proc/4000/status", "Cpus_allowed_list:\t16", "emulator", "16", id="emulator"),
        pytest.param("proc/4003/status", "Cpus_allowed_list:\t18", "vhost worker 0", "18", id="vhost"),
        pytest.param("proc/irq/214/smp_affinity_list", "0-31", "irq 214", "0-31", id="interrupt"),
    ],
)
def test_moved_by_somebody(root: Path, book: Book, path: str, text: str, subject: str, real: str) -> None:
    put(root, path, text)
    table = found(root, book)
    assert differing(table) == [subject]
    assert table[subject].real == real


def test_memory_that_waits_for_a_start(root: Path, book: Book) -> None:
    table = found(root, book, evolve(LIVE, numatune=Numatune()))
    assert differing(table) == ["memory"]
    assert (table["memory"].real, table["memory"].note) == ("anywhere", LATER)


def test_ring_and_mtu_that_wait_for_a_start_by_mac(root: Path, book: Book) -> None:
    one = Vnic(0, mac="52:54:00:00:00:01", type="bridge", source="br0", model="virtio")
    other = evolve(one, index=1, mac="52:54:00:00:00:02")
    live = evolve(LIVE, vnics=(one, other))
    defined = evolve(LIVE, vnics=(evolve(other, index=0, rx_queue_size=1024, mtu=1400),))
    table = found(root, book, live, defined)
    assert differing(table) == ["rx_queue_size of vNIC 1", "mtu of vNIC 1"]
    assert table["mtu of vNIC 1"] == Row("mtu of vNIC 1", "1400", "default", ok=False, note=LATER)


@pytest.mark.parametrize(
    ("ring", "mtu"),
    [
        pytest.param(None, None, id="the definition leaves it open"),
        pytest.param(512, 1400, id="the definition says the same"),
    ],
)
def test_no_ring_and_no_mtu_waits(root: Path, book: Book, ring: int | None, mtu: int | None) -> None:
    vnic = Vnic(0, mac="52:54:00:00:00:01", type="bridge", source="br0", model="virtio")
    live = evolve(LIVE, vnics=(evolve(vnic, rx_queue_size=512, mtu=1400),))
    assert (
        differing(found(root, book, live, evolve(LIVE, vnics=(evolve(vnic, rx_queue_size=ring, mtu=mtu),))))
        == []
    )


def test_a_cpu_that_a_user_has_pinned_another_domain_to(root: Path, book: Book) -> None:
    book.claims[UUID] = evolve(book.claims[UUID], vcpus=cpus(20, 22))
    pinned = noted(evolve(domain(1, vcpupin={0: cpus(20)}), name="db", uuid="other"))
    book.claim(Claim("other", "db", 1, 1, vcpus=cpus(20), plan=stored.to_dict(pinned)))
    shown = found(root, book)["shared CPU"]
    assert shown.ok
    assert "vcpupin of db names CPU 20, which vm has" in shown.note


class TestWithoutTheLedger:
    """What a user who is not root reads."""

    @pytest.fixture
    def seen(self, root: Path) -> Path:
        for tid in THREADS:
            put(root, f"proc/{tid}/cmdline", "sh\0")
        put(root, f"proc/{PID}/cmdline", f"qemu-system-x86_64\0-name\0vm\0-uuid\0{UUID}\0-m\0")
        return root

    def found(self, root: Path, live: DomainSpec) -> list[Row]:
        return readable_rows(Sysfs(str(root)), UUID, live, None)

    def test_nothing_pinned(self, seen: Path) -> None:
        assert self.found(seen, LIVE) == [NO_PINS]

    def test_pins_of_libvirt_against_threads(self, seen: Path) -> None:
        live = evolve(LIVE, vcpupin={0: cpus(20), 1: cpus(23)}, emulatorpin=cpus(16, 18))
        assert self.found(seen, live) == [
            Row("vcpu 0", "20", "20", ok=True),
            Row("vcpu 1", "23", "22", ok=False),
            Row("emulator", "16,18", "16,18", ok=True),
        ]

    def test_process_that_is_not_shown(self, seen: Path) -> None:
        put(seen, f"proc/{PID}/cmdline", "qemu-system-x86_64\0-uuid\0another\0")
        (row,) = self.found(seen, LIVE)
        assert (row.subject, row.ok) == ("process", False)


def test_not_seen_by_the_hook(root: Path) -> None:
    (row,) = found(root, Book()).values()
    assert not row.ok
    assert "no record of its start" in row.note


def test_process_that_has_ended(root: Path, book: Book) -> None:
    (root / "proc/4000/stat").unlink()
    assert found(root, book)["process"].real == "gone"


def test_later_process_of_the_same_id(root: Path, book: Book) -> None:
    book.claim(evolve(book.claims[UUID], start_time=STARTED - 1))
    table = found(root, book)
    assert table["process"].real == "gone"
    assert "vcpu 0" not in table


def test_thread_that_is_not_there(root: Path, book: Book) -> None:
    lost = evolve(PLAN, vcpupin={7: cpus(20)}, vcpus={7: cpus(20)})
    book.claim(evolve(book.claims[UUID], plan=stored.to_dict(lost)))
    assert found(root, book)["vcpu 7"].real == "no such thread"


def test_vcpu_that_may_still_be_plugged_in(root: Path, book: Book) -> None:
    more = evolve(PLAN, vcpupin={**PLAN.vcpupin, 2: cpus(24)})
    book.claim(evolve(book.claims[UUID], plan=stored.to_dict(more)))
    table = found(root, book, defined=LIVE)
    assert "vcpu 2" not in table
    assert differing(table) == []


def test_vcpu_that_was_plugged_in_since(root: Path, book: Book) -> None:
    before = evolve(PLAN, vcpupin={0: cpus(20)}, vcpus={0: cpus(20)})
    book.claim(evolve(book.claims[UUID], plan=stored.to_dict(before)))
    row = found(root, book)["vcpu 1"]
    assert (row.planned, row.real, row.ok) == ("", "22", False)
    assert "plugged in since" in row.note


def test_interrupt_that_has_gone(root: Path, book: Book) -> None:
    (root / "proc/irq/214/smp_affinity_list").unlink()
    table = found(root, book)
    assert differing(table) == ["irq 214"]
    assert "No such file" in table["irq 214"].real


def test_changes_for_other_domains_are_not_its_own(root: Path, book: Book) -> None:
    book.changes[IRQ.key] = IRQ._replace(holders=("another",))
    assert "irq 214" not in found(root, book)
