"""transform, as a filter: what goes in, what comes out, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import main

ROOT = Path(__file__).parents[3]
DOMAINS = ROOT / "fixtures" / "domains"
PROGRAM = str(Path(sys.executable).with_name("libvirt-tuner"))
SEED = (DOMAINS / "seed-in.xml").read_bytes()
CELLS = (DOMAINS / "guest-cells-in.xml").read_bytes()
IOTHREADS = (DOMAINS / "iothreads-in.xml").read_bytes()


def run(*arguments: str, document: bytes = SEED) -> Result:
    return CliRunner().invoke(main, ["transform", *arguments], input=document)


@pytest.mark.parametrize(
    ("arguments", "document", "expected"),
    [
        pytest.param(["--vcpupin", "0=20"], SEED, "<vcpupin vcpu='0' cpuset='20'/>", id="vcpupin"),
        pytest.param(["--emulatorpin", "16,18"], SEED, "<emulatorpin cpuset='16,18'/>", id="emulatorpin"),
        pytest.param(
            ["--iothreadpin", "1=4"], IOTHREADS, "<iothreadpin iothread='1' cpuset='4'/>", id="iothreadpin"
        ),
        pytest.param(["--numatune", "0"], SEED, "<memory mode='strict' nodeset='0'/>", id="numatune"),
        pytest.param(
            ["--numatune", "0-1", "--memnode", "1=1", "--numatune-mode", "preferred"],
            CELLS,
            "<memnode cellid='1' mode='preferred' nodeset='1'/>",
            id="memnode",
        ),
        pytest.param(["--rx-queue-size", "1024"], SEED, "rx_queue_size='1024'", id="rx-queue-size"),
        pytest.param(
            ["--tx-queue-size", "256", "--nic", "1"], SEED, "tx_queue_size='256'", id="tx-queue-size"
        ),
        pytest.param(["--queues", "vcpus", "--nic", "1"], SEED, "queues='6'", id="queues"),
        pytest.param(["--mtu", "1400", "--nic", "1"], SEED, "<mtu size='1400'/>", id="mtu of one NIC"),
        pytest.param(["--host-mtu", "1400", "--nic", "0"], SEED, "name='host_mtu'", id="host-mtu"),
        pytest.param(["--poll-us", "200"], SEED, "netdev.hostnet0.poll-us=200", id="poll-us"),
    ],
)
class TestOptions:
    def test_sets(self, arguments: list[str], document: bytes, expected: str) -> None:
        result = run(*arguments, document=document)
        assert (result.exit_code, result.stderr) == (0, "")
        assert expected in result.stdout

    def test_twice_is_once(self, arguments: list[str], document: bytes, expected: str) -> None:
        once = run(*arguments, document=document).stdout_bytes
        assert run(*arguments, document=once).stdout_bytes == once


@pytest.mark.parametrize(
    ("there", "out"),
    [
        pytest.param(["--vcpupin", "0=20"], ["--vcpupin", "none"], id="all pins"),
        pytest.param(["--vcpupin", "0=20"], ["--vcpupin", "0=none"], id="one pin"),
        pytest.param(["--emulatorpin", "16"], ["--emulatorpin", "none"], id="emulatorpin"),
        pytest.param(["--numatune", "0"], ["--numatune", "none"], id="numatune"),
        pytest.param(["--rx-queue-size", "512"], ["--rx-queue-size", "none"], id="rx-queue-size"),
        pytest.param(["--tx-queue-size", "256"], ["--tx-queue-size", "none"], id="tx-queue-size"),
        pytest.param(
            ["--queues", "2", "--nic", "1"], ["--queues", "none", "--nic", "1"], id="queues of one NIC"
        ),
        pytest.param(["--poll-us", "200"], ["--poll-us", "none"], id="poll-us"),
    ],
)
def test_none_takes_it_out(there: list[str], out: list[str]) -> None:
    tuned = run(*there).stdout_bytes
    assert tuned != SEED
    assert run(*out, document=tuned).stdout_bytes == SEED


class TestVersions:
    @pytest.mark.parametrize(
        ("libvirt", "qemu", "deleted"),
        [
            pytest.param("9.0.0", "7.2.0", True, id="JSON netdevs"),
            pytest.param("7.8.0", "7.2.0", False, id="libvirt before them"),
            pytest.param("9.0.0", "7.1.0", False, id="QEMU before them"),
        ],
    )
    def test_decide_how_poll_us_is_written(self, libvirt: str, qemu: str, deleted: bool) -> None:
        result = run("--poll-us", "200", "--libvirt", libvirt, "--qemu", qemu)
        assert ("netdev.json" in result.stdout) == deleted


class TestRefusals:
    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param([], id="nothing to do"),
            pytest.param(["--vcpupin", "20"], id="no id"),
            pytest.param(["--vcpupin", "0="], id="no CPUs"),
            pytest.param(["--vcpupin", "0=x"], id="no cpulist"),
            pytest.param(["--vcpupin", "0=99999"], id="no such id on any host"),
            pytest.param(["--vcpupin", "0=1", "--vcpupin", "0=2"], id="twice"),
            pytest.param(["--vcpupin", "none", "--vcpupin", "0=2"], id="none and one"),
            pytest.param(["--emulatorpin", ""], id="empty"),
            pytest.param(["--numatune-mode", "strict"], id="mode without nodes"),
            pytest.param(["--memnode", "0=0"], id="cell without domain"),
            pytest.param(["--nic", "0", "--vcpupin", "0=1"], id="NIC of nothing"),
            pytest.param(["--rx-queue-size", "1000"], id="no ring size"),
            pytest.param(["--rx-queue-size", "1_024"], id="Python's number"),
            pytest.param(["--mtu", "67"], id="small MTU"),
            pytest.param(["--poll-us", "200", "--libvirt", "new"], id="no version"),
            pytest.param(["--poll-us", "200", "--qemu", "2.6"], id="QEMU without it"),
            pytest.param(["--poll-us", "200", "/no/such/file"], id="no such file"),
        ],
    )
    def test_wrong_call(self, arguments: list[str]) -> None:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "document"),
        [
            pytest.param(["--vcpupin", "6=1"], SEED, id="no such vCPU"),
            pytest.param(["--nic", "9", "--poll-us", "200"], SEED, id="no such NIC"),
            pytest.param(["--mtu", "1400", "--nic", "0"], SEED, id="mtu on macvtap"),
            pytest.param(["--poll-us", "200", "--nic", "0"], b"<domain/>", id="no NIC"),
            pytest.param(["--poll-us", "200"], b"", id="empty"),
            pytest.param(["--poll-us", "200"], b"<!DOCTYPE domain><domain/>", id="DTD"),
            pytest.param(
                ["--poll-us", "200"], b"<?xml version='1.0' encoding='ISO-8859-1'?>\xe4" + SEED, id="Latin-1"
            ),
        ],
    )
    def test_document_that_cannot_be_served(self, arguments: list[str], document: bytes) -> None:
        result = run(*arguments, document=document)
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1


def test_declaration_and_other_scripts_stay() -> None:
    document = b"<?xml version='1.0' encoding='UTF-8'?>\n" + SEED.replace(b"vlinux1", "größe-π".encode(), 1)
    out = run("--vcpupin", "0=20", document=document).stdout_bytes
    assert out.startswith(b"<?xml version='1.0' encoding='UTF-8'?>\n")
    assert "größe-π".encode() in out


class TestProcess:
    def test_only_the_document_on_stdout(self) -> None:
        command = [PROGRAM, "transform", "--poll-us", "200", "--vcpupin", "0=20"]
        done = subprocess.run(command, input=SEED, capture_output=True, check=True)
        assert done.stderr == b""
        assert done.stdout.startswith(b"<domain")
        assert done.stdout.endswith(b"</domain>\n")

    def test_a_reader_that_has_had_enough(self) -> None:
        command = f"{PROGRAM} transform --vcpupin 0=20 {DOMAINS}/sixty-devices-in.xml | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
        assert done.stderr == b""

    def test_endless_input(self) -> None:
        with open("/dev/zero", "rb") as zeros:
            done = subprocess.run(
                [PROGRAM, "transform", "--poll-us", "200"], stdin=zeros, capture_output=True, check=False
            )
        assert (done.returncode, done.stdout) == (1, b"")
        assert len(done.stderr.splitlines()) == 1

    def test_full_disk(self) -> None:
        done = subprocess.run(
            ["bash", "-c", f"{PROGRAM} transform --vcpupin 0=20 >/dev/full"],
            input=SEED,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "unwanted"),
        [
            pytest.param(
                ["transform", "--vcpupin", "0=20", str(DOMAINS / "seed-in.xml")],
                {"libvirt", "rich", "psutil", "libvirt_tuner.host.probe", "libvirt_tuner.planning.planner"},
                id="transform",
            ),
            pytest.param(["--help"], {"libvirt", "rich"}, id="help"),
            pytest.param(
                ["plan", "--xml", str(DOMAINS / "seed-in.xml"), "--host", str(ROOT / "fixtures/hosts/seed")],
                {"libvirt", "rich"},
                id="plan of a file",
            ),
        ],
    )
    def test_imports_only_what_it_needs(self, arguments: list[str], unwanted: set[str]) -> None:
        code = (
            "import sys; from libvirt_tuner.cli import main\n"
            f"try: main({arguments})\n"
            f"finally: sys.stderr.write(repr({unwanted} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == "set()"
