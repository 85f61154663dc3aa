"""What is saved of a damaged ledger, and what is said of the rest."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from libvirt_tuner.hostside import changes, holding
from libvirt_tuner.hostside.ledger import Ledger
from tests.unit.replay import Domain, Replay

WEB, DB = Domain("web", 1), Domain("db", 2)
FILES = ("ledger.json", "ledger.json.copy")


@pytest.fixture
def host(tmp_path: Path) -> Replay:
    """Two domains run, and have been given their host side."""
    host = Replay.make(tmp_path)
    for domain in (WEB, DB):
        host.run(domain)
        holding.give(host.sysfs, holding.read_request(host.sysfs, domain.xml))
    return host


def place(host: Replay, name: str) -> Path:
    return host.root / "run/libvirt-tuner" / name


def damage(host: Replay, old: bytes, new: bytes, *names: str) -> None:
    for name in names:
        data = place(host, name).read_bytes()
        assert old in data
        place(host, name).write_bytes(data.replace(old, new, 1))


def end_all(host: Replay) -> None:
    for domain in (WEB, DB):
        host.end(domain)
    holding.sweep(host.sysfs)


def test_copy_has_all_of_it(host: Replay) -> None:
    before = host.book.claims, host.book.changes
    place(host, "ledger.json").write_bytes(b"\0" * 100)
    holding.sweep(host.sysfs)
    with Ledger(host.sysfs).locked() as book:
        assert (book.claims, book.changes) == before
        assert "its copy is used" in book.trouble
        assert book.lost == ""


@pytest.mark.parametrize("place_of", ["prior", "wanted", "vcpus", "pid"])
def test_a_changed_value_that_reads_well_is_damage_too(host: Replay, place_of: str) -> None:
    """Else a wrong value would be given back, or a CPU given twice."""
    before = host.book.claims, host.book.changes
    data = place(host, "ledger.json").read_bytes()
    found = re.search(rb'"%b":"?(\d)' % place_of.encode(), data)
    assert found
    at = found.start(1)
    place(host, "ledger.json").write_bytes(data[:at] + b"%d" % (9 - int(found[1])) + data[at + 1 :])
    book = host.book
    assert "its checksum does not match" in book.trouble
    assert (book.claims, book.changes) == before


def test_both_damaged_one_record_is_lost_and_that_is_said(host: Replay) -> None:
    before = host.irqs()
    victim = next(entry for entry in host.book.changes.values() if entry.kind == "irq")
    record = b'"target":"%b"' % victim.target.encode()
    damage(host, record, b'"target":"%b' % victim.target.encode(), *FILES)
    with Ledger(host.sysfs).locked() as book:
        assert set(book.claims) == {WEB.uuid, DB.uuid}
        assert "earlier values were recovered" in book.trouble
        assert "stay changed" in book.lost
        assert victim.key not in book.changes
        assert len(book.changes) > 10
    assert host.book.lost, "said until 'undo --all' has said it"
    end_all(host)
    now = host.irqs()
    assert [irq for irq in now if now[irq] != "0-31"] == [int(victim.target)]
    assert now[int(victim.target)] == before[int(victim.target)]


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_cut_off_no_cpu_is_given_twice(host: Replay, part: float) -> None:
    """Claims that are lost are made again from what libvirt has pinned."""
    pins = {domain: host.book.claims[domain.uuid].vcpus for domain in (WEB, DB)}
    for domain, cpus in pins.items():
        pinned = "".join(f"<vcpupin vcpu='{n}' cpuset='{cpu}'/>" for n, cpu in enumerate(sorted(cpus)))
        text = domain.xml.decode().replace("<os>", f"<cputune>{pinned}</cputune><os>")
        status = f"<domstatus state='running' pid='{domain.pid}'>{text}</domstatus>"
        host.write(f"/run/libvirt/qemu/{domain.name}.xml", status)
    for name in FILES:
        data = place(host, name).read_bytes()
        place(host, name).write_bytes(data[: int(len(data) * part)])
    third = Domain("third", 3)
    host.run(third)
    holding.give(host.sysfs, holding.read_request(host.sysfs, third.xml))
    claims = host.book.claims
    assert {domain: claims[domain.uuid].vcpus for domain in pins} == pins
    assert not claims[third.uuid].vcpus & frozenset().union(*pins.values())


def test_random_damage_never_stops_the_next_start(host: Replay) -> None:
    chance = random.Random(14)
    whole = {name: place(host, name).read_bytes() for name in FILES}
    for _ in range(150):
        for name, data in whole.items():
            bad = bytearray(data)
            for _ in range(chance.randrange(1, 20)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            place(host, name).write_bytes(bytes(bad))
        with Ledger(host.sysfs).locked() as book:
            assert set(book.claims) >= {WEB.uuid, DB.uuid}
            assert book.trouble
            for entry in book.changes.values():
                changes.KINDS[entry.kind].spelled(entry.prior)


def test_holders_that_are_no_more_hold_nothing(host: Replay) -> None:
    """Else what they changed would never be given back."""
    document = json.loads(place(host, "ledger.json").read_bytes())
    for entry in document["changes"]:
        entry["holders"] = ["5b1d0a52-0000-4000-8000-00000000dead"]
    text = json.dumps(document).encode()
    place(host, "ledger.json").write_bytes(text[:-5])
    place(host, "ledger.json.copy").write_bytes(text[:-5])
    end_all(host)
    assert set(host.irqs().values()) == {"0-31"}
