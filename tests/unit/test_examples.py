"""The programs of docs/examples and contrib, each run as its reader would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOMAINS = ROOT / "fixtures" / "domains"
MODULE = "contrib/ansible/library/libvirt_tuner_xml.py"
BRIDGE = (DOMAINS / "bridge-in.xml").read_bytes()


def run(program: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(ROOT / program), *arguments], input=stdin, capture_output=True, check=False
    )


def test_every_example_has_its_test() -> None:
    source = Path(__file__).read_text()
    programs = [*(ROOT / "docs/examples").glob("*.py"), *(ROOT / "contrib").rglob("libvirt_tuner*.py")]
    assert len(programs) >= 6
    assert [path.name for path in programs if path.name not in source] == []


def test_filter() -> None:
    done = run("docs/examples/filter.py", "16,18", stdin=BRIDGE)
    assert b"rx_queue_size='1024'" in done.stdout
    assert b"<emulatorpin cpuset='16,18'/>" in done.stdout
    refused = run("docs/examples/filter.py", "16", stdin=b"<network/>")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"wrong root element" in refused.stderr


@pytest.mark.parametrize(
    ("annotations", "said", "changed"),
    [
        pytest.param({"tuner.example/rx-queue-size": "512"}, b"", True, id="annotated"),
        pytest.param({}, b"", False, id="not annotated"),
        pytest.param({"tuner.example/rx-queue-size": "7"}, b"bad ring size", False, id="bad annotation"),
    ],
)
def test_kubevirt_hook(annotations: dict[str, str], said: bytes, changed: bool) -> None:
    vmi = json.dumps({"metadata": {"annotations": annotations}})
    done = run("docs/examples/kubevirt_hook.py", "--vmi", vmi, "--domain", BRIDGE.decode())
    assert done.returncode == 0
    assert said in done.stderr
    assert (b"rx_queue_size='512'" in done.stdout) is changed
    assert changed or done.stdout == BRIDGE


def test_capacity() -> None:
    done = run(
        "docs/examples/capacity.py",
        str(DOMAINS / "hugepages-in.xml"),
        *(str(ROOT / "fixtures/hosts" / name) for name in ("smt-2x32", "laptop")),
    )
    assert done.stdout.decode().splitlines() == ["smt-2x32: 4 (node 0: 2, node 1: 2)", "laptop: 0 ()"]


def test_own_transform() -> None:
    tuned = run("docs/examples/own_transform.py", stdin=BRIDGE).stdout
    assert b"iommu='on'" in tuned
    assert run("docs/examples/own_transform.py", "--revert", stdin=tuned).stdout == BRIDGE


def test_bulk(tmp_path: Path) -> None:
    for case in ("bridge", "no-nic"):
        (tmp_path / f"{case}.xml").write_bytes((DOMAINS / f"{case}-in.xml").read_bytes())
    (tmp_path / "net.xml").write_text("<network/>")
    said = run("docs/examples/bulk.py", str(tmp_path)).stdout.decode().splitlines()
    assert said[0] == "bridge.xml: changed"
    assert said[1].startswith("net.xml: refused: ")
    assert said[2] == "no-nic.xml: unchanged"


def test_libvirt_tuner_xml_of_ansible(tmp_path: Path) -> None:
    document, task = tmp_path / "web.xml", tmp_path / "task.json"
    document.write_bytes(BRIDGE)

    def play(**arguments: object) -> dict[str, object]:
        task.write_text(json.dumps({"path": str(document), **arguments}))
        result: dict[str, object] = json.loads(run(MODULE, str(task)).stdout)
        return result

    wanted = {"emulatorpin": "16,18", "rx_queue_size": 1024}
    assert play(**wanted, _ansible_check_mode=True)["changed"]
    assert document.read_bytes() == BRIDGE
    assert play(**wanted)["changed"]
    assert not play(**wanted)["changed"]
    assert play(state="absent")["changed"]
    assert document.read_bytes() == BRIDGE
    assert play(rx_queue_size=7)["failed"]
    assert b"libvirt_tuner_xml" in (ROOT / MODULE).read_bytes()
