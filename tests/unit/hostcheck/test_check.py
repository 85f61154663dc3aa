"""All checks together, on captured hosts."""

from __future__ import annotations

import pytest

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import check as hostcheck
from libvirt_tuner.hostcheck import survey
from libvirt_tuner.hostcheck.facts import NOTE, WARNING
from tests import hosts
from tests.unit.hostcheck.facts import facts

DOMAINS = hosts.FIXTURES.parent / "domains"


def test_nothing_is_found_on_a_plain_host() -> None:
    assert hostcheck.check(facts()) == ()


def test_what_was_not_read_is_a_note() -> None:
    (finding,) = hostcheck.check(facts(unread=("the program ethtool is missing",)))
    assert (finding.check, finding.severity) == ("unread", NOTE)


def judged(name: str, *documents: str) -> list[tuple[str, str]]:
    guests = [
        survey.guest(read_spec(document.parse((DOMAINS / file).read_bytes())), running=False)
        for file in documents
    ]
    found = hostcheck.check(survey.facts(Sysfs(str(hosts.FIXTURES / name)), guests))
    return [(finding.check, finding.severity) for finding in found]


def test_seed_host() -> None:
    found = judged("seed", "seed-out.xml")
    assert found == [
        ("skipped_parameters", WARNING),
        ("partial_isolation", WARNING),
        ("partial_isolation", WARNING),
        ("floating_pins", NOTE),
        ("misplaced_interrupts", WARNING),
        ("mtu_chain", WARNING),
        ("segmentation", NOTE),
    ]


def test_every_check_finds_something_on_the_misfit() -> None:
    found = {check for check, severity in judged("misfit") if severity == WARNING}
    # Without a domain nobody's vCPUs are in the way.
    assert found == {each.__name__ for each in hostcheck.CHECKS} - {
        "floating_pins",
        "shared_cpus",
        "balancers",
        # These have tests of their own.
        "isolated_boot_cpu",
        "broken_uplinks",
        "napi_threads",
        "segmentation",
    }


@pytest.mark.parametrize(
    "name", ["smt-2x32", "sparse-4node", "laptop", "small-8", "ovn", "bridge-vlan", "vf"]
)
def test_other_hosts_are_fine(name: str) -> None:
    assert judged(name) == [("unread", NOTE)]
