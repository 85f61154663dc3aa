"""The commands host check and host isolate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import main
from libvirt_tuner.install import MARK
from tests import hosts

DROPIN = "etc/default/grub.d/libvirt-tuner.cfg"
DOMAINS = hosts.FIXTURES.parent / "domains"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["host", *map(str, words)])


def on(name: str) -> tuple[str, Path]:
    return "--host", hosts.FIXTURES / name


def test_check_of_a_fine_host_says_so_with_status_0() -> None:
    done = run("check", *on("laptop"))
    assert done.exit_code == 0
    assert done.stdout == (
        "note: offloads and flow control: the program ethtool is missing: this part was not checked\n"
    )


def test_check_names_what_hurts_the_seed_and_what_mends_it() -> None:
    done = run("check", *on("seed"), "--xml", DOMAINS / "seed-out.xml")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("warning: no_hz: the kernel skips this flag; isolcpus has nohz, domain")
    assert "    echo 0,2,4,6,8,10,12,14 > /proc/irq/229/smp_affinity_list" in lines
    assert "    ip link set geneve0 mtu 1416" in lines
    assert any(line.startswith("note: vlinux1: its emulator may run on") for line in lines)


def test_check_as_json() -> None:
    done = run("check", *on("seed"), "--json")
    found = json.loads(done.stdout)
    assert {entry["check"] for entry in found} >= {"skipped_parameters", "mtu_chain"}
    assert set(found[0]) == {"check", "severity", "what", "why", "fix"}


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        pytest.param(
            "seed", ("--vcpus", 6),
            "isolcpus=nohz,domain,managed_irq,20,22,24,26,28,30 nohz_full=20,22,24,26,28,30"
            " irqaffinity=0-19,21,23,25,27,29,31",
            id="seed, by the uplink's node",
        ),
        pytest.param(
            "seed", ("--vcpus", 2, "--node", 1),
            "isolcpus=nohz,domain,managed_irq,9,11 nohz_full=9,11 irqaffinity=0-8,10,12-31",
            id="another node",
        ),
        pytest.param(
            "smt-2x32", ("--vcpus", 2, "--uplink", "ens2f0np0"),
            "isolcpus=nohz,domain,managed_irq,37-38,101-102 nohz_full=37-38,101-102"
            " irqaffinity=0-36,39-100,103-127",
            id="another uplink, with siblings",
        ),
        pytest.param(
            "small-8", ("--cpus", "6-7"),
            "isolcpus=nohz,domain,managed_irq,6-7 nohz_full=6-7 irqaffinity=0-5", id="just these",
        ),
    ],
)  # fmt: skip
def test_isolate_prints_the_line(name: str, words: tuple[object, ...], line: str) -> None:
    done = run("isolate", *words, *on(name))
    assert (done.exit_code, done.stdout) == (0, line + "\n")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        pytest.param((), 2, "--cpus CPULIST or --vcpus N", id="neither"),
        pytest.param(("--cpus", "2", "--vcpus", "2"), 2, "give either --cpus", id="both"),
        pytest.param(("--vcpus", "0"), 2, "--vcpus", id="none"),
        pytest.param(("--cpus", "a"), 2, "not a cpulist", id="no list"),
        pytest.param(("--vcpus", "2", "--node", "7"), 2, "has nodes 0-1", id="no such node"),
        pytest.param(("--cpus", "0-3"), 1, "CPU 0 stays with the kernel", id="CPU 0"),
        pytest.param(("--cpus", "40"), 1, "no such CPU", id="no such CPU"),
        pytest.param(("--vcpus", "64"), 1, "too few cores", id="too many"),
    ],
)
def test_isolate_refuses(words: tuple[str, ...], status: int, said: str) -> None:
    done = run("isolate", *words, *on("seed"))
    assert done.exit_code == status
    assert said in done.stderr
    assert done.stdout == ""


def test_isolate_keeps_what_else_is_on_the_line(tmp_path: Path) -> None:
    hosts.make("small-8", tmp_path / "host")
    (tmp_path / "host/proc/cmdline").write_text("BOOT_IMAGE=/vmlinuz root=/dev/sda1 isolcpus=2 quiet\n")
    done = run("isolate", "--cpus", "6", "--host", tmp_path / "host")
    assert done.stdout == (
        "root=/dev/sda1 quiet isolcpus=nohz,domain,managed_irq,6 nohz_full=6 irqaffinity=0-5,7\n"
    )


def test_write_and_remove_the_dropin(tmp_path: Path) -> None:
    (tmp_path / DROPIN).parent.mkdir(parents=True)
    done = run("isolate", "--cpus", "6", *on("small-8"), "--write", "--prefix", tmp_path)
    assert done.exit_code == 0
    assert "update-grub" in done.stdout
    text = (tmp_path / DROPIN).read_text()
    assert MARK in text
    assert "isolcpus=nohz,domain,managed_irq,6 nohz_full=6" in text
    again = run("isolate", "--cpus", "5-6", *on("small-8"), "--write", "--prefix", tmp_path)
    assert again.exit_code == 0
    assert run("isolate", "--remove", "--prefix", tmp_path).exit_code == 0
    assert not (tmp_path / DROPIN).exists()
    assert run("isolate", "--remove", "--prefix", tmp_path).exit_code == 1


def test_somebody_elses_dropin_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / DROPIN).parent.mkdir(parents=True)
    (tmp_path / DROPIN).write_text("mine\n")
    done = run("isolate", "--cpus", "6", *on("small-8"), "--write", "--prefix", tmp_path)
    assert done.exit_code == 1
    assert "not a file of libvirt-tuner" in done.stderr
    assert run("isolate", "--remove", "--prefix", tmp_path).exit_code == 1
    assert (tmp_path / DROPIN).read_text() == "mine\n"


def test_without_dropins_the_command_for_it_is_said(tmp_path: Path) -> None:
    done = run("isolate", "--cpus", "6", *on("small-8"), "--write", "--prefix", tmp_path)
    assert done.exit_code == 1
    assert 'grubby --update-kernel=ALL --remove-args="isolcpus nohz_full irqaffinity"' in done.stderr
    assert list(tmp_path.iterdir()) == []
