"""The hook as libvirtd runs it, whole processes, on replayed hosts of 8 and 1,024 CPUs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from libvirt_tuner.install import hook_script
from tests import hosts
from tests.bench.measure import Ratio, in_turns

DOMAIN = """\
<domain type='kvm' id='1'>
  <name>web</name>
  <uuid>5b1d0a52-0000-4000-8000-000000000001</uuid>
  <memory unit='KiB'>4194304</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='br0'/>
      <target dev='vnet0'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>
  </devices>
</domain>
"""
PID = 4242
ROUNDS = 40


def ratios(work: Path) -> list[Ratio]:
    """Measure in ``work``, an empty directory."""
    small = _host(work / "small", lambda root: hosts.make("small-8", root))
    large = _host(work / "large", hosts.make_large)
    bare = [sys.executable, "-I", "-S", "-c", "pass"]
    seconds = in_turns(
        {
            "bare": lambda: subprocess.run(bare, check=True),
            "prepare": lambda: _call(small, "prepare"),
            "start": lambda: _call(small, "start"),
            "started": lambda: _call(small, "started"),
            "large": lambda: _call(large, "started"),
        },
        ROUNDS,
    )
    start = seconds["prepare"] + seconds["start"] + seconds["started"]
    return [
        Ratio("hook: prepare + start + started / 3 x bare python", start / (3 * seconds["bare"]), 3.5),
        Ratio("hook: an op with nothing to do / bare python", seconds["start"] / seconds["bare"], 1.5),
        Ratio("hook: 1,024 CPUs, 4,096 IRQs / 8 CPUs", seconds["large"] / seconds["started"], 2.0),
    ]


def _host(root: Path, make: Callable[[Path], object]) -> Path:
    """A replayed host with one QEMU, and the hook installed for it."""
    make(root)
    for path, text in {
        "run/libvirt/qemu/web.pid": f"{PID}\n",
        f"proc/{PID}/stat": f"{PID} (qemu-system-x86) S {' '.join(['1'] * 50)}\n",
        f"proc/{PID}/task/{PID}/comm": "qemu-system-x86\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    hook = root.with_suffix(".hook")
    hook.write_text(hook_script(root=str(root)))
    hook.chmod(0o755)
    return root


def _call(root: Path, operation: str) -> None:
    """One call; before ``started`` the ledger is emptied, so that each round does the work of the first."""
    if operation == "started":
        shutil.rmtree(root / "run/libvirt-tuner", ignore_errors=True)
    command = [str(root.with_suffix(".hook")), "web", operation, "begin", "-"]
    subprocess.run(command, input=DOMAIN.encode(), check=True)
    if operation == "started" and not (root / "run/libvirt-tuner/ledger.json").exists():
        raise RuntimeError("the hook did nothing: see the system log")
