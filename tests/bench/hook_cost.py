"""The hook as libvirtd runs it, whole processes, on replayed hosts of 8 and 1,024 CPUs."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests import hosts
from tests.bench.measure import Ratio, each_round, in_turns, medians

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
AGAINST_ROUNDS = 120
WORSE = 1.03
"""How much worse than the other commit the hook's ratios may be."""
ROOT = Path(__file__).parents[2]
SCRIPT = (
    "import sys; from libvirt_tuner.install import hook_script; print(hook_script(root=sys.argv[1]), end='')"
)


@frozen
class Hook:
    """The hook of one tree, installed for a small and a large host."""

    small: Path
    large: Path

    @classmethod
    def installed(cls, tree: Path, work: Path) -> Hook:
        """Make both hosts in ``work``, which does not exist, and install the hook of ``tree`` for them."""
        found = cls(work / "small", work / "large")
        hosts.make("small-8", found.small)
        hosts.make_large(found.large)
        # As installed: without it the first round would compile.
        subprocess.run([sys.executable, "-m", "compileall", "-q", tree / "libvirt_tuner"], check=True)
        for root in (found.small, found.large):
            _run_domain(root)
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, str(root)],
                cwd=tree,
                check=True,
                capture_output=True,
                text=True,
            )
            if str(tree) not in done.stdout:
                raise RuntimeError(f"the hook does not run from {tree}")
            root.with_suffix(".hook").write_text(done.stdout)
            root.with_suffix(".hook").chmod(0o755)
        return found

    def jobs(self, name: str) -> dict[str, Callable[[], None]]:
        """What is measured, by ``name`` and what it is."""
        return {
            f"{name} prepare": lambda: _call(self.small, "prepare"),
            f"{name} start": lambda: _call(self.small, "start"),
            f"{name} started": lambda: _call(self.small, "started"),
            f"{name} large": lambda: _call(self.large, "started"),
        }


def ratios(work: Path, against: str = "") -> list[Ratio]:
    """Measure.

    Args:
        work: An empty directory.
        against: A commit of this repository; its hook is measured in turn with this tree's.
    """
    bare = [sys.executable, "-I", "-S", "-c", "pass"]
    jobs: dict[str, Callable[[], object]] = {"bare": lambda: subprocess.run(bare, check=True)}
    jobs |= Hook.installed(ROOT, work / "this").jobs("this")
    if not against:
        return _ratios(in_turns(jobs, ROUNDS), "this")
    with _worktree(against, work / "tree") as tree:
        jobs |= Hook.installed(tree, work / "other").jobs("other")
        taken = each_round(jobs, AGAINST_ROUNDS)
    # Compared round by round: the machine's own changes of speed are larger than what is looked for.
    ours, theirs = ([_ratios(times, name) for times in taken] for name in ("this", "other"))
    compared = [
        Ratio(
            f"{ones[0].what}, / that of {against}",
            statistics.median(one.value / other.value for one, other in zip(ones, others, strict=True)),
            WORSE,
        )
        for ones, others in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    ]
    return [*_ratios(medians(taken), "this"), *compared]


def _ratios(seconds: dict[str, float], name: str) -> list[Ratio]:
    prepare, start, started, large = (
        seconds[f"{name} {what}"] for what in ("prepare", "start", "started", "large")
    )
    bare, whole = seconds["bare"], prepare + start + started
    return [
        Ratio("hook: prepare + start + started / 3 x bare python", whole / (3 * bare), 3.5),
        Ratio("hook: an op with nothing to do / bare python", start / bare, 1.5),
        Ratio("hook: 1,024 CPUs, 4,096 IRQs / 8 CPUs", large / started, 2.0),
    ]


@contextmanager
def _worktree(commit: str, directory: Path) -> Iterator[Path]:
    """A checkout of another commit of this repository."""
    git = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(directory), commit], check=True)
    try:
        yield directory
    finally:
        subprocess.run([*git, "remove", "--force", str(directory)], check=True)


def _run_domain(root: Path) -> None:
    """Have a QEMU run on a replayed host."""
    for path, text in {
        "run/libvirt/qemu/web.pid": f"{PID}\n",
        f"proc/{PID}/stat": f"{PID} (qemu-system-x86) S {' '.join(['1'] * 50)}\n",
        f"proc/{PID}/task/{PID}/comm": "qemu-system-x86\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def _call(root: Path, operation: str) -> None:
    """One call; before ``started`` the ledger is emptied, so that each round does the work of the first."""
    if operation == "started":
        shutil.rmtree(root / "run/libvirt-tuner", ignore_errors=True)
    command = [str(root.with_suffix(".hook")), "web", operation, "begin", "-"]
    subprocess.run(command, input=DOMAIN.encode(), check=True)
    if operation == "started" and not (root / "run/libvirt-tuner/ledger.json").exists():
        raise RuntimeError("the hook did nothing: see the system log")
