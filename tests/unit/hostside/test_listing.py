from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import listing, reverted
from libvirt_tuner.hostside.ledger import Book, Claim
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Held, Placement
from libvirt_tuner.planning.request import read_request
from tests.unit.builders import cpus

UUID = "5b1d0a52-0000-4000-8000-000000000001"
XML = (
    f"<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><memory>1024</memory><vcpu>1</vcpu>"
    "<devices/></domain>"
)


def row(
    root: Path, given: Placement | None = None, config: str | None = None, *, runs: bool = True
) -> listing.Row:
    book = Book()
    if given:
        book.claim(Claim(UUID, "web", 1, 1, plan=stored.to_dict(given)))
    return listing.row(Sysfs(str(root)), book, read_request(XML, config), "web", runs=runs)


@pytest.mark.parametrize(
    ("given", "config", "runs", "tuned", "why"),
    [
        pytest.param(Placement("web", UUID, "dedicated", (0,)), None, True, True, "", id="tuned"),
        pytest.param(Placement("web", UUID, "shared"), None, True, True, "fewer CPUs", id="shares"),
        pytest.param(Placement("web", UUID, tuned=False), None, True, False, "--live web", id="ran before"),
        pytest.param(None, None, True, False, "apply --live", id="not in the ledger"),
        pytest.param(None, None, False, False, "next start", id="does not run"),
        pytest.param(None, "[policy]\nselect = false\n", True, False, "select = false", id="not selected"),
        pytest.param(None, "[policy\n", True, False, "config check", id="a mistake in the config"),
    ],
)
def test_row(
    tmp_path: Path, given: Placement | None, config: str | None, runs: bool, tuned: bool, why: str
) -> None:
    found = row(tmp_path, given, config, runs=runs)
    assert (found.name, found.state) == ("web", "running" if runs else "shut off")
    assert found.tuned is tuned
    assert why in found.why
    assert bool(found.why) is bool(why)


def test_another_program_places_it(tmp_path: Path) -> None:
    nova = "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"
    request = read_request(XML.replace("<memory>", f"{nova}<memory>"), None)
    assert "OpenStack Nova" in listing.row(Sysfs(str(tmp_path)), Book(), request, "web", runs=True).why


def test_reverted(tmp_path: Path) -> None:
    reverted.remember(Sysfs(str(tmp_path)), UUID)
    assert "libvirt-tuner apply web" in row(tmp_path).why


def test_it_shares_a_cpu_with_a_domain_that_its_user_has_pinned(tmp_path: Path) -> None:
    here = Placement("web", UUID, "dedicated", (0,), {0: cpus(4)}, vcpus={0: cpus(4)})
    pinned = Placement("db", "other", vcpus={0: cpus(4)}, holds=Held(cpus(4)), tuned=False)
    book = Book()
    book.claim(Claim(UUID, "web", 1, 1, vcpus=cpus(4), plan=stored.to_dict(here)))
    book.claim(Claim("other", "db", 2, 2, vcpus=cpus(4), plan=stored.to_dict(pinned)))
    found = listing.row(Sysfs(str(tmp_path)), book, read_request(XML, None), "web", runs=True)
    assert found.tuned
    assert found.why.startswith("vcpupin of db names CPU 4, which web has")
