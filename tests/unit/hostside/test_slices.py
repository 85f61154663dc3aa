"""The host's services kept off vCPUs' CPUs, by a systemctl that remembers what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes, slices
from libvirt_tuner.hostside.ledger import Claim, Ledger, Slice
from libvirt_tuner.topology import Cpus
from tests.unit.builders import cpus
from tests.unit.trees import put


class Systemd:
    """systemctl show and set-property, with spaces between ranges as systemd has them."""

    def __init__(self, **allowed: str) -> None:
        self.allowed = {"init.scope": "", "system.slice": "", "user.slice": ""} | {
            name.replace("_", "."): text for name, text in allowed.items()
        }
        self.told: list[str] = []
        self.deaf = False

    def __call__(self, _sysfs: Sysfs, argv: Sequence[str]) -> str:
        if argv[1] == "show":
            assert argv[2:4] == ["--property=AllowedCPUs", "--value"]
            return self.allowed[argv[4]].replace(",", " ")
        assert argv[1:3] == ["set-property", "--runtime"]
        unit, setting = argv[3:]
        self.told.append(f"{unit} {setting}")
        if not self.deaf:
            self.allowed[unit] = setting.removeprefix("AllowedCPUs=")
        return ""


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    put(tmp_path, "/sys/devices/system/cpu/online", "0-7")
    put(tmp_path, "/run/here", "")
    return Sysfs(str(tmp_path))


def place(sysfs: Sysfs, uuid: str, alone: Cpus) -> None:
    with Ledger(sysfs).locked() as book:
        book.claim(Claim(uuid, uuid, pid=1, vcpus=alone, alone=alone))
        book.save()


def stop(sysfs: Sysfs, uuid: str) -> None:
    with Ledger(sysfs).locked() as book:
        changes.give_back(sysfs, book, uuid)


def test_nobody_asks_for_it(sysfs: Sysfs) -> None:
    systemd = Systemd()
    place(sysfs, "a", cpus())
    assert slices.keep(sysfs, systemd) == ()
    assert systemd.told == []


def test_kept_off_while_such_a_domain_runs(sysfs: Sysfs) -> None:
    systemd = Systemd(user_slice="0-3")
    place(sysfs, "a", cpus(2, 3))
    assert slices.keep(sysfs, systemd) == ()
    assert systemd.allowed == {"init.scope": "0-1,4-7", "system.slice": "0-1,4-7", "user.slice": "0-1"}
    place(sysfs, "b", cpus(5))
    slices.keep(sysfs, systemd)
    assert systemd.allowed["system.slice"] == "0-1,4,6-7"
    stop(sysfs, "a")
    slices.keep(sysfs, systemd)
    assert systemd.allowed["system.slice"] == "0-4,6-7"
    stop(sysfs, "b")
    slices.keep(sysfs, systemd)
    assert systemd.allowed == Systemd(user_slice="0-3").allowed
    assert Ledger(sysfs).read().slices == {}


def test_told_once(sysfs: Sysfs) -> None:
    systemd = Systemd()
    place(sysfs, "a", cpus(2))
    slices.keep(sysfs, systemd)
    slices.keep(sysfs, systemd)
    assert len(systemd.told) == len(slices.UNITS)


def test_what_somebody_else_set_meanwhile_stays(sysfs: Sysfs) -> None:
    systemd = Systemd()
    place(sysfs, "a", cpus(2))
    slices.keep(sysfs, systemd)
    systemd.allowed["user.slice"] = "0-2"
    slices.keep(sysfs, systemd)
    assert systemd.allowed["user.slice"] == "0-1"
    systemd.allowed["system.slice"] = "7"
    stop(sysfs, "a")
    slices.keep(sysfs, systemd)
    assert systemd.allowed == {"init.scope": "", "system.slice": "7", "user.slice": "0-2"}


def test_noted_before_it_is_told(sysfs: Sysfs) -> None:
    def killed(_sysfs: Sysfs, argv: Sequence[str]) -> str:
        if argv[1] == "set-property":
            raise KeyboardInterrupt
        return ""

    place(sysfs, "a", cpus(2))
    with pytest.raises(KeyboardInterrupt):
        slices.keep(sysfs, killed)
    assert Ledger(sysfs).read().slices == {"init.scope": Slice("", "0-1,3-7", "")}
    systemd = Systemd(init_scope="0-1,3-7")
    stop(sysfs, "a")
    slices.keep(sysfs, systemd)
    assert systemd.allowed["init.scope"] == ""


def test_a_unit_without_another_cpu_stays(sysfs: Sysfs) -> None:
    systemd = Systemd(user_slice="2-3")
    place(sysfs, "a", cpus(2, 3))
    (said,) = slices.keep(sysfs, systemd)
    assert said == "user.slice: not changed: every CPU it may use runs a vCPU"
    assert systemd.allowed["user.slice"] == "2-3"


def test_what_goes_wrong_is_said(sysfs: Sysfs) -> None:
    systemd = Systemd()
    systemd.deaf = True
    place(sysfs, "a", cpus(2))
    assert len(slices.keep(sysfs, systemd)) == len(slices.UNITS)
    assert "systemd took another value" in slices.keep(sysfs, systemd)[0]


@pytest.mark.parametrize("error", [HostError("too slow"), MissingError("not installed")])
def test_no_systemd(sysfs: Sysfs, error: HostError) -> None:
    def fails(_sysfs: Sysfs, _argv: Sequence[str]) -> str:
        raise error

    place(sysfs, "a", cpus(2))
    assert str(error) in slices.keep(sysfs, fails)[0]


def test_a_claim_keeps_it(sysfs: Sysfs) -> None:
    place(sysfs, "a", cpus(2))
    (claim,) = Ledger(sysfs).read().claims.values()
    assert claim == evolve(claim, alone=cpus(2))
