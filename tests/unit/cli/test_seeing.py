"""The commands diagnose and irqs, on captured samples and on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner import capture
from libvirt_tuner.cli import main
from libvirt_tuner.host.sysfs import Sysfs
from tests import hosts, samples


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    samples.write(samples.CASES["seed-remote-irq"], tmp_path / "host")
    return tmp_path / "host"


def test_diagnose_prints_finding_evidence_and_command(seed: Path) -> None:
    done = run("diagnose", "--host", seed)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "1. ksoftirqd/1 is saturated on node 1; enp23s0f0np0 is on node 0",
        "     kind:     ksoftirqd-remote",
        "     cost:     0.99 CPUs",
        "     culprit:  IRQ 229 of enp23s0f0np0",
        "     evidence: ksoftirqd/1 ran 98.7 %; interrupts on CPU 1: IRQ 229: 50; NET_RX on CPU 1: 30000/s",
        "     based on: times from the scheduler (schedstat): exact; kernel counters: exact",
        "     libvirt-tuner irqs --set 229 2",
    ]


def test_diagnose_as_json(seed: Path) -> None:
    done = run("diagnose", "vlinux1", "--host", seed, "--json")
    data = json.loads(done.stdout)
    assert data["seconds"] == 5.0
    assert [(each["kind"], each["cpus"]) for each in data["findings"]] == [("ksoftirqd-remote", "1")]


def test_a_healthy_host_has_status_0(tmp_path: Path) -> None:
    samples.write(samples.HEALTHY, tmp_path / "host")
    done = run("diagnose", "--host", tmp_path / "host")
    assert (done.exit_code, done.stdout) == (0, "no problem found: 1 VM, 5.0 s sampled\n")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        pytest.param(("nosuch",), 1, "nosuch: not running", id="a VM that does not run"),
        pytest.param(("--fix",), 2, "cannot be used with --host", id="fix a captured host"),
        pytest.param(("--yes",), 2, "--yes needs --fix", id="yes to nothing"),
        pytest.param(("--seconds", 0), 2, "0.0", id="no time at all"),
    ],
)
def test_a_wrong_call_of_diagnose(words: tuple[object, ...], status: int, said: str, seed: Path) -> None:
    done = run("diagnose", *words, "--host", seed)
    assert done.exit_code == status
    assert said in done.stderr


def test_a_captured_host_without_samples_says_how_to_capture_them() -> None:
    done = run("diagnose", "--host", hosts.FIXTURES / "seed")
    assert done.exit_code == 1
    assert "host capture --samples 2" in done.stderr


def test_a_capture_of_samples_is_diagnosed_alike(seed: Path, tmp_path: Path) -> None:
    """Each look is captured from its own root, as on a machine whose time goes on."""
    again = tmp_path / "again"
    capture.capture(Sysfs(str(merged(seed, tmp_path / "now"))), str(again), samples=2)
    assert "passwd" not in "".join(path.read_text() for path in again.rglob("vlinux1.xml"))
    done = run("diagnose", "--host", again)
    assert done.stderr == ""
    assert done.stdout.startswith("no problem found: 1 VM, 0.0 s sampled")


def merged(host: Path, target: Path) -> Path:
    """A host with the files of its second sample in their own places."""
    import shutil

    shutil.copytree(host, target, symlinks=True)
    shutil.copytree(target / "samples" / "2", target, symlinks=True, dirs_exist_ok=True)
    document = target / "run/libvirt/qemu/vlinux1.xml"
    graphics = "<graphics type='vnc' passwd='secret'/></devices>"
    document.write_text(document.read_text().replace("</devices>", graphics))
    return target


def test_irqs_count_per_interrupt_and_per_cpu(seed: Path) -> None:
    done = run("irqs", "--host", seed, "--uplink", "enp23s0f0np0")
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1][:7] == ["221", "enp23s0f0np0", "mlx5_comp7@pci:0000:17:00.0", "406290", "81258", "0", "0"]
    assert "229  enp23s0f0np0  mlx5_comp15@pci:0000:17:00.0  50" in done.stdout
    assert "1 (card: 0)  ksoftirqd/1 (101) 98.7 %" in done.stdout


def test_irqs_of_a_card_that_is_not_there(seed: Path) -> None:
    done = run("irqs", "--host", seed, "--uplink", "eth7")
    assert done.exit_code == 1
    assert "eth7" in done.stderr
    assert "enp23s0f0np0" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("229", "4096"), "not an online CPU", id="a CPU that is not there"),
        pytest.param(("x", "0"), "--set IRQS", id="no number"),
        pytest.param(("229", ""), "--set CPUS", id="no CPU"),
    ],
)
def test_a_wrong_set(words: tuple[str, str], said: str) -> None:
    done = run("irqs", "--set", *words)
    assert done.exit_code == 1
    assert said in done.stderr
