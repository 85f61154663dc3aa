"""What a pipe gets, what a terminal gets, and what JSON says."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from libvirt_tuner.cli import render
from libvirt_tuner.hostcheck.facts import Finding
from libvirt_tuner.hostside.status import Row
from libvirt_tuner.libvirtd.definition import Completion
from libvirt_tuner.planning.plan import IrqMove, Plan, Reason
from tests.unit.builders import cpus

ROOT = Path(__file__).parents[3]
WHY = "because " + "it is so and not otherwise " * 20
PLAN = Plan(
    "web",
    placement="dedicated",
    vcpupin={0: cpus(20)},
    irqs=tuple(IrqMove(irq, "p0", cpus(irq % 2 * 2), "q") for irq in (100, 101, 102)),
    reasons=(Reason("vcpus", "20 on node 0", "one core per vCPU"), Reason("memory", "strict", WHY.strip())),
)
IN_PLACE = [Row(f"irq {number}", "2", "2", ok=True, irq=number) for number in range(100, 164)]
MOVED = Row("irq 7", "2", "0-31", ok=False, note="moved", irq=7)


def test_plan_in_a_pipe_is_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_plan(PLAN)
    assert capsys.readouterr().out.splitlines() == [
        "web: dedicated",
        "  vcpus       20 on node 0 - one core per vCPU",
        f"  memory      strict - {WHY.strip()}",
        "  IRQs of p0  CPU 0: 100,102; CPU 2: 101",
    ]


def test_status_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_status({"web": [Row("vcpu 0", "20", "20", ok=True), *IN_PLACE, MOVED]})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["web"],
        ["what", "planned", "real"],
        ["vcpu", "0", "20", "20", "ok"],
        ["irqs", "64", "steered", "in", "place", "ok"],
        ["irq", "7", "2", "0-31", "differs", "-", "moved"],
    ]


def test_a_plan_without_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_plan(Plan("web"))
    assert capsys.readouterr().out == "web: keep\n"


def test_no_name_says_anything_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A domain's name may have C1 control characters and direction marks, a process's name any byte."""
    odd = "a\x1b[2Jb\x9b\u202ec"
    render.print_plan(Plan(odd, reasons=(Reason(odd, odd, odd),)))
    render.print_status({odd: [Row(odd, "1", "2", ok=False, note=odd)]})
    render.print_findings([Finding("check", odd, odd, odd)])
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def in_terminal(columns: int, *arguments: str) -> str:
    """What the command shows in a terminal of that width."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    program = str(Path(sys.executable).with_name("libvirt-tuner"))
    with subprocess.Popen([program, *arguments], stdout=terminal, stderr=terminal, env=environment):
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(main, 65536):
                shown += chunk
        except OSError:
            pass  # Linux answers EIO once the last writer has closed
    os.close(main)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_plan_in_a_terminal_fits(columns: int) -> None:
    document, host = ROOT / "fixtures/domains/seed-in.xml", ROOT / "fixtures/hosts/seed"
    shown = in_terminal(columns, "plan", "--xml", str(document), "--host", str(host))
    assert max(map(len, shown.splitlines())) <= columns
    assert "20,22,24,26,28,30 on node 0" in shown
    assert "CPU 0: 214,222" in shown


def test_plan_as_json() -> None:
    data = json.loads(json.dumps(render.plan_data(PLAN)))
    assert data["vcpupin"] == {"0": "20"}
    assert data["irqs"][0] == {"irq": 100, "nic": "p0", "action": "q", "cpus": "0"}
    assert data["reasons"][0] == {"subject": "vcpus", "decision": "20 on node 0", "why": "one core per vCPU"}


def test_status_as_json_has_every_interrupt() -> None:
    data = render.status_data({"web": [*IN_PLACE, MOVED]})
    assert isinstance(data["web"], list)
    assert len(data["web"]) == 65
    assert data["web"][-1] == {
        "subject": "irq 7",
        "planned": "2",
        "real": "0-31",
        "ok": False,
        "note": "moved",
    }


@pytest.mark.parametrize("quote", ["'", '"'])
def test_diff_hides_passwords(quote: str) -> None:
    before = f"<graphics passwd={quote}secret{quote}/>\n"
    text = render.diff(Completion("proposed", before, before + "<more/>\n", Plan("web")))
    assert "secret" not in text
    assert text.splitlines()[:2] == ["--- web.xml", "+++ web.xml (tuned)"]


def test_no_change_no_diff() -> None:
    assert render.diff(Completion("complete", "<a/>\n", "<a/>\n", Plan("web"))) == ""
