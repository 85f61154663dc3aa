"""Every domain of a host, tuned or not, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import listing
from libvirt_tuner.cli.session import Session
from libvirt_tuner.transforms import vcpupin

XML = (
    "<domain type='test'><name>{}</name>{}<memory>65536</memory><vcpu>1</vcpu>"
    "<os><type>hvm</type></os></domain>"
)
LEFT_ALONE = "<metadata><policy xmlns='https://libvirt-tuner.org/policy/1' select='false'/></metadata>"
DOMAINS = (XML.format("plain", ""), XML.format("left", LEFT_ALONE))


def run(tmp_path: Path, *arguments: str, documents: tuple[str, ...] = DOMAINS) -> Result:
    (tmp_path / "node.xml").write_text("<node/>")
    root = tmp_path / "host"
    cpus = root / "sys/devices/system/node/node0"
    cpus.mkdir(parents=True, exist_ok=True)
    (root / "sys/devices/system/node/online").write_text("0\n")
    (cpus / "cpulist").write_text("0-7\n")
    (cpus / "meminfo").write_text("Node 0 MemTotal: 8388608 kB\nNode 0 MemFree: 4194304 kB\n")
    (cpus / "distance").write_text("10\n")
    with Session(f"test://{tmp_path}/node.xml", str(root)) as session:
        for document in documents:
            session.connection._conn.defineXML(document)
        return CliRunner().invoke(listing.list_domains, list(arguments), obj=session)


def test_table(tmp_path: Path) -> None:
    head, *rows = run(tmp_path).stdout.splitlines()
    assert head.split()[:3] == ["Id", "Name", "State"]
    assert [row.split()[1] for row in rows] == ["left", "plain"]
    assert "select = false" in rows[0]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        pytest.param(("--name",), ["left", "plain"], id="names"),
        pytest.param(("--name", "--tuned"), [], id="only tuned ones"),
    ],
)
def test_names(tmp_path: Path, arguments: tuple[str, ...], lines: list[str]) -> None:
    assert run(tmp_path, *arguments).stdout.splitlines() == lines


def test_no_header(tmp_path: Path) -> None:
    assert "State" not in run(tmp_path, "--no-header").stdout


def test_json(tmp_path: Path) -> None:
    found = {entry["name"]: entry for entry in json.loads(run(tmp_path, "--json").stdout)}
    assert (found["plain"]["state"], found["plain"]["tuned"], found["plain"]["id"]) == (
        "shut off",
        False,
        None,
    )
    assert found["plain"]["why"] == "will be tuned at its next start, or by 'libvirt-tuner apply plain'"
    assert set(found) == {"left", "plain"}


def test_pins_of_the_users_own_are_no_tuning(tmp_path: Path) -> None:
    pinned = vcpupin({0: {0}})(XML.format("pinned", ""))
    (entry,) = json.loads(run(tmp_path, "--json", documents=(pinned,)).stdout)
    assert entry["tuned"] is False
