"""docs/json.md against what the commands print: the same keys, no more and no less, on failure too."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from attrs import fields
from click.testing import CliRunner, Result

from libvirt_tuner.cli import host, journal, listing, main, manual, measuring, placement, service
from libvirt_tuner.cli import testbed as testbeds
from libvirt_tuner.cli.session import Session
from libvirt_tuner.host import log
from libvirt_tuner.hostside import holding
from libvirt_tuner.testbed.updown import Report
from tests import samples
from tests.unit.replay import Domain, Replay

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/json.md").read_text()
SEED_XML = str(ROOT / "fixtures/domains/seed-in.xml")
SEED = str(ROOT / "fixtures/hosts/seed")
DOMAIN = (
    "<domain type='test'><name>a</name><memory>1048576</memory><vcpu>2</vcpu><os><type>hvm</type></os>"
    "<devices><interface type='bridge'><source bridge='virbr0'/><model type='virtio'/></interface></devices>"
    "</domain>"
)
SILENT = {"daemon"}
"""Commands that print no data."""

Data = Any
Rows = list[dict[str, Data]]


def sections() -> dict[str, set[str]]:
    """Documented keys by command, from the tables."""
    found: dict[str, set[str]] = {}
    for heading, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
        first = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
        keys = {key for cell in first for key in re.findall(r"`(\w+)`", cell)}
        for command in re.findall(r"`(.+?)`", heading):
            found[command] = keys
    return found


def of_main(*arguments: str) -> Data:
    done = CliRunner().invoke(main, [*arguments, "--json"])
    return json.loads(done.stdout)


def of(command: click.Command, session: Session, *arguments: str) -> Data:
    done: Result = CliRunner().invoke(command, [*arguments, "--json"], obj=session)
    return json.loads(done.stdout)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Session]:
    """libvirt's test driver with one domain, on a host of its own."""
    (tmp_path / "node.xml").write_text(f"<node>{DOMAIN}</node>")
    shutil.copytree(ROOT / "fixtures/hosts/smt-2x32", tmp_path / "host", symlinks=True)
    (tmp_path / "host/run").mkdir(exist_ok=True)
    with Session(f"test://{tmp_path}/node.xml", str(tmp_path / "host")) as made:
        yield made


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Session]:
    """A host with a domain whose interrupts were moved."""
    made = Replay.make(tmp_path / "replay")
    web = Domain("web", 1)
    made.run(web)
    holding.give(made.sysfs, holding.read_request(made.sysfs, web.xml))
    with Session("test:///default", str(made.root)) as session:
        yield session


def written(case: samples.Case, tmp_path: Path) -> str:
    samples.write(case, tmp_path / "sampled")
    return str(tmp_path / "sampled")


def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journalctl that has one line to tell."""
    fields = {"__REALTIME_TIMESTAMP": "1", "MESSAGE_ID": log.EVENTS["started"], "MESSAGE": "a: started"}
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(fields)}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


class TestKeys:
    """What each command prints has the documented keys."""

    @pytest.mark.parametrize(
        ("command", "arguments", "rows"),
        [
            pytest.param("plan", ("--xml", SEED_XML, "--host", SEED), lambda data: [data], id="plan"),
            pytest.param(
                "plan", ("--xml", SEED_XML, "--xml", SEED_XML, "--host", SEED), list, id="plan of several"
            ),
            pytest.param("config check", ("--xml", SEED_XML), lambda data: [data], id="config check"),
            pytest.param("host check", ("--host", SEED), list, id="host check"),
            pytest.param(
                "host isolate", ("--host", SEED, "--vcpus", "6"), lambda data: [data], id="host isolate"
            ),
            pytest.param("map", ("--host", SEED), lambda data: [data], id="map"),
            pytest.param(
                "map", ("--host", SEED, "--xml", SEED_XML), lambda data: [*data.values()], id="maps"
            ),
            pytest.param("transform", (SEED_XML, "--poll-us", "200"), lambda data: [data], id="transform"),
            pytest.param(
                "install", ("--dry-run", "--allow-writable"), lambda data: [data], id="install --dry-run"
            ),
            pytest.param("uninstall", ("--dry-run",), lambda data: [data], id="uninstall --dry-run"),
        ],
    )
    def test_of_the_command_line(
        self, command: str, arguments: tuple[str, ...], rows: Callable[[Data], Rows]
    ) -> None:
        found = rows(of_main("-c", "test:///default", *command.split(), *arguments))
        assert found
        assert [set(row) for row in found] == [sections()[command]] * len(found)

    @pytest.mark.parametrize(
        ("command", "rows"),
        [
            pytest.param("diagnose", lambda data: data["findings"], id="diagnose"),
            pytest.param("irqs", list, id="irqs"),
        ],
    )
    def test_of_samples(self, command: str, rows: Callable[[Data], Rows], tmp_path: Path) -> None:
        data = of_main(command, "--host", written(samples.CASES["seed-remote-irq"], tmp_path))
        found = rows(data)
        assert found
        assert {key for row in found for key in row} == sections()[command]
        assert command != "diagnose" or set(data) == {"seconds", "findings"}

    def test_of_a_measurement(self) -> None:
        series = {"untuned": {"result": [1.0]}, "tuned": {"result": [2.0]}}
        assert set(measuring.data("a", "x", series)) == sections()["measure"]

    def test_of_definitions(self, node: Session) -> None:
        told = [
            of(placement.diff, node, "a"),
            *of(placement.apply, node, "a"),
            *of(placement.revert, node, "a"),
        ]
        assert {key for row in told for key in row} == sections()["diff"]

    def test_of_domains(self, node: Session) -> None:
        (row,) = of(listing.list_domains, node)
        assert set(row) == sections()["list"]
        (line,) = of(service.status, node)["a"]
        assert set(line) == sections()["status"]

    def test_of_changes(self, replay: Session) -> None:
        told = of(host.undo, replay, "--all")
        assert told
        assert {key for row in told for key in row} == sections()["undo"] == sections()["irqs --set"]

    def test_of_the_journal(self, node: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        entry(tmp_path, monkeypatch)
        (line,) = of(journal.log, node, "a")
        assert set(line) == sections()["log"]

    def test_of_a_capture(self, replay: Session, tmp_path: Path) -> None:
        assert set(of(host.capture, replay, str(tmp_path / "copy"))) == sections()["host capture"]

    def test_of_the_testbed(self, replay: Session) -> None:
        assert set(of(testbeds.down, replay)) == sections()["testbed down"]
        assert {field.name for field in fields(Report)} == sections()["testbed show"]


def names() -> Iterator[str]:
    """Every command that prints."""
    for context in manual.commands(click.Context(main, info_name="libvirt-tuner")):
        name = " ".join(context.command_path.split()[1:])
        if name not in SILENT:
            yield name


NAMES = list(names())


@pytest.mark.parametrize("name", NAMES)
def test_every_command_that_prints_is_documented(name: str) -> None:
    assert sections()[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_call_is_an_object_with_error(name: str) -> None:
    done = CliRunner().invoke(main, [*name.split(), "--json", "--no-such-option"])
    assert done.exit_code == 2
    assert "--no-such-option" in json.loads(done.stdout)["error"]
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("diff", "nosuch"), "nosuch", id="diff"),
        pytest.param(("apply", "nosuch"), "nosuch", id="apply"),
        pytest.param(("revert", "nosuch"), "nosuch", id="revert"),
        pytest.param(("status", "nosuch"), "nosuch", id="status"),
        pytest.param(("plan", "nosuch"), "nosuch", id="plan"),
        pytest.param(("diagnose", "nosuch", "--host", "{host}"), "nosuch", id="diagnose"),
        pytest.param(("irqs", "--uplink", "nosuch", "--host", "{host}"), "nosuch", id="irqs"),
        pytest.param(("irqs", "--set", "x", "0"), "cpulist", id="irqs --set"),
        pytest.param(("measure", "nosuch", "--command", "echo 1"), "nosuch", id="measure"),
        pytest.param(("transform", "--mtu", "1400", "--nic", "nosuch", SEED_XML), "nosuch", id="transform"),
        pytest.param(("host", "capture", "/proc/nosuch"), "/proc/nosuch", id="host capture"),
        pytest.param(("host", "isolate", "--remove", "--prefix", "/nosuch"), "/nosuch", id="host isolate"),
        pytest.param(("testbed", "up", "--config", "/nosuch"), "/nosuch", id="testbed up"),
    ],
)
def test_failure_is_an_object_with_error(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    made = written(samples.HEALTHY, tmp_path) if "{host}" in arguments else ""
    words = [word.format(host=made) for word in arguments]
    done = CliRunner().invoke(main, ["-c", "test:///default", *words, "--json"])
    assert done.exit_code == 1
    assert said in json.loads(done.stdout)["error"]


def test_no_testbed_is_an_error(replay: Session) -> None:
    done = CliRunner().invoke(testbeds.show, ["--json"], obj=replay)
    assert "no testbed is up" in str(done.exception)


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_json_asks_nothing(command: str) -> None:
    done = CliRunner().invoke(main, ["-c", "test:///default", command, "--json"])
    assert done.exit_code == 2
    assert "--yes" in json.loads(done.stdout)["error"]


def test_uninstall_tells_what_it_could_not_do() -> None:
    done = CliRunner().invoke(main, ["-c", "test:///nosuch", "uninstall", "--dry-run", "--json"])
    assert done.exit_code == 1
    assert [row["domain"] for row in json.loads(done.stdout)["failures"]] == ["revert"]
