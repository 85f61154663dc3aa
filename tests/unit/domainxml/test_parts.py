"""Interfaces, vCPUs, iothreads and guest NUMA cells of a document, and that finding them costs no classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libvirt_tuner.domainxml import document, parts
from libvirt_tuner.errors import DomainXmlError

DOMAINS = Path(__file__).parents[3] / "fixtures" / "domains"


def test_aliases_pass_over_hostdev_and_the_users_own() -> None:
    root = document.parse((DOMAINS / "hostdev-between-in.xml").read_bytes())
    assert parts.next_aliases(root) == ["net0", "", "ua-backup", "net1"]


def test_vcpus_iothreads_and_cells_are_counted_as_libvirt_counts() -> None:
    root = document.parse(
        "<domain><vcpu current='2'>4</vcpu><iothreads>3</iothreads>"
        "<iothreadids><iothread id='2'/></iothreadids>"
        "<cpu><numa><cell cpus='0-1'/><cell id='5' cpus='2-3'/></numa></cpu></domain>"
    )
    assert (parts.vcpu_count(root), parts.vcpus_at_boot(root)) == (4, 2)
    assert parts.iothreads(root) == (1, 2, 3)
    assert parts.cell_ids(root) == (0, 5)


@pytest.mark.parametrize("vcpu", ["<vcpu>0</vcpu>", "<vcpu>16385</vcpu>", "<vcpu current='5'>4</vcpu>"])
def test_a_bad_number_of_vcpus_is_refused(vcpu: str) -> None:
    with pytest.raises(DomainXmlError, match="/domain/vcpu"):
        parts.vcpu_counts(document.parse(f"<domain>{vcpu}</domain>"))


def test_transforms_do_not_import_the_classes_of_a_whole_domain() -> None:
    code = "import sys, libvirt_tuner.transforms; sys.exit('libvirt_tuner.domainxml.spec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
