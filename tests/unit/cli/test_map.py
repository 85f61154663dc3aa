"""The command map on captured hosts: text, files, JSON, lstopo, and with a plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import main
from libvirt_tuner.cli.map import map_
from libvirt_tuner.cli.session import Session
from tests import hosts, samples

SEED = hosts.FIXTURES / "seed"
DOMAIN = hosts.FIXTURES.parent / "domains" / "seed-in.xml"


def run(*words: object, **how: object) -> Result:
    return CliRunner().invoke(main, ["map", *map(str, words)], **how)  # type: ignore[arg-type]


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    samples.write(samples.CASES["seed-vhost-on-vcpu"], tmp_path / "host")
    return tmp_path / "host"


def test_text_of_a_captured_host_with_a_vm(seed: Path) -> None:
    done = run("--host", seed, "--width", 80)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "20  vCPU 5 vlinux1, vhost 0 vlinux1, isolated" in lines
    assert "30  vCPU 0 vlinux1, isolated" in lines
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


def test_a_host_without_vms_has_its_interrupts() -> None:
    done = run("--host", SEED, "--width", 200)
    assert done.exit_code == 0
    assert "IRQ 229 enp23s0f0np0, housekeeping" in done.stdout


def test_colours_where_they_are_wanted(seed: Path) -> None:
    done = CliRunner().invoke(main, ["--color", "always", "map", "--host", str(seed)])
    assert "\x1b[32m" in done.stdout


def test_the_width_of_the_terminal_counts() -> None:
    narrow = run("--host", SEED, env={"COLUMNS": "40"}).stdout.splitlines()
    wide = run("--host", SEED, env={"COLUMNS": "200"}).stdout.splitlines()
    assert max(map(len, narrow)) <= 40
    assert len(wide) < len(narrow)


def test_json_with_a_plan(seed: Path) -> None:
    done = run("--host", seed, "--xml", DOMAIN, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)

    def vcpus(which: str) -> dict[int, int]:
        cores = [core for l3 in found[which]["nodes"][0]["l3s"] for core in l3["cores"]]
        seats = [(seat["cpu"], one) for core in cores for seat in core for one in seat["tenants"]]
        return {one["number"]: cpu for cpu, one in seats if one["kind"] == "vcpu"}

    assert (vcpus("now")[0], vcpus("now")[5]) == (30, 20)
    assert vcpus("planned") == {number: 20 + 2 * number for number in range(6)}


def test_text_with_a_plan_marks_what_moves(seed: Path) -> None:
    lines = run("--host", seed, "--xml", DOMAIN, "--width", 100).stdout.splitlines()
    marked = [line.split()[1] for line in lines if line.startswith("* ")]
    assert marked == ["14", "16", "18", "20", "30", "1"]


def test_the_plan_of_a_domain_of_libvirt(tmp_path: Path) -> None:
    document = DOMAIN.read_text().replace("type='kvm'", "type='test'").replace('type="kvm"', 'type="test"')
    (tmp_path / "node.xml").write_text("<node/>")
    shutil.copytree(SEED, tmp_path / "host", symlinks=True)
    (tmp_path / "host/run").mkdir()
    with Session(f"test://{tmp_path}/node.xml", str(tmp_path / "host")) as session:
        session.connection._conn.defineXML(document)
        done = CliRunner().invoke(map_, ["--plan", "vlinux1", "--width", "100"], obj=session)
        missing = CliRunner().invoke(map_, ["--plan", "nosuch"], obj=session)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "*  20   free, isolated" in done.stdout
    assert "vCPU 0 vlinux1, isolated" in done.stdout
    assert "nosuch" in str(missing.exception)


def test_files_are_written(seed: Path, tmp_path: Path) -> None:
    svg, page = tmp_path / "host.svg", tmp_path / "host.html"
    done = run("--host", seed, "--svg", svg, "--html", page)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert svg.read_text().startswith("<?xml")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "host.html", "host.svg"]
    assert run("--host", seed, "--svg", "-").stdout == svg.read_text()


def test_a_file_that_cannot_be_written(seed: Path) -> None:
    done = run("--host", seed, "--svg", "/proc/nosuch/host.svg")
    assert done.exit_code == 1
    assert "/proc/nosuch" in done.stderr


def test_lstopo(seed: Path) -> None:
    done = run("--host", seed, "--lstopo")
    assert "name=vCPU 0 of vlinux1\ncpuset=0x40000000\nsubtype=vCPU\n\n" in done.stdout


def test_offline_cpus_are_named() -> None:
    assert "offline: CPU 7,12" in run("--host", hosts.FIXTURES / "sparse-4node").stdout.splitlines()


def test_folding_can_be_asked_for() -> None:
    assert " 5,7,9,11,13,15,17" in run("--host", SEED, "--fold", "--width", 200).stdout
    assert len(run("--host", hosts.FIXTURES / "smt-2x32", "--width", 20).stdout.splitlines()) < 60
    unfolded = run("--host", hosts.FIXTURES / "smt-2x32", "--no-fold", "--width", 80).stdout
    assert "63+127  free" in unfolded


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="text"),
        pytest.param(("--svg", "-"), id="svg"),
        pytest.param(("--html", "-"), id="html"),
        pytest.param(("--lstopo",), id="lstopo"),
    ],
)
def test_no_name_of_a_vm_is_more_than_text(words: tuple[str, ...], seed: Path) -> None:
    file = seed / "run/libvirt/qemu/vlinux1.xml"
    named = "<name>o&lt;i&gt;&amp;&#x202e;</name>"
    file.write_text(file.read_text().replace("<name>vlinux1</name>", named))
    done = run("--host", seed, *words)
    assert done.exit_code == 0
    assert "o&lt;i&gt;&amp;\\u202e" in done.stdout or (
        words in ((), ("--lstopo",)) and "o<i>&\\u202e" in done.stdout
    )
    assert "\u202e" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("--json", "--lstopo"), "cannot be used together", id="two forms"),
        pytest.param(("--json", "--svg", "x"), "cannot be used together", id="a file and JSON"),
        pytest.param(("--plan", "web", "--xml", DOMAIN), "give either", id="two plans"),
        pytest.param(("--plan", "web", "--host", SEED), "--xml FILE", id="libvirt's domain elsewhere"),
        pytest.param(("--width", "3"), "--width", id="no width"),
    ],
)
def test_a_wrong_call(words: tuple[object, ...], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
