"""``make demo``: a VM defined and started with virsh, as ever, comes up tuned.

Runs a real libvirtd in namespaces of its own, on a replayed ConnectX. Nothing of it touches this machine's
libvirt, network or interrupts, and nothing is left behind. Ends with 1 when any line of the table is not as
promised.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from libvirt_tuner import cpuset
from tests.libvirtd import domains, nic_replay, observe
from tests.libvirtd.daemon import DaemonError, PrivateDaemon, missing_programs
from tests.libvirtd.tuner import install, running_daemon, tuner

DOMAIN = "demo"
DOCUMENT = "/run/demo.xml"
NIC = nic_replay.FUNCTIONS[1]
UNSET = "-"

# Times one start's calls of the hook, whole processes: argv is the hook, standard input the live document.
CLOCK = """\
import json, statistics, subprocess, sys, time
document = sys.stdin.buffer.read()
def once(operation):
    began = time.perf_counter()
    subprocess.run([sys.argv[1], "demo", operation, "begin", "-"], input=document, check=True)
    return (time.perf_counter() - began) * 1000
operations = "prepare", "start", "started"
print(json.dumps({name: statistics.median(once(name) for _ in range(5)) for name in operations}))
"""

console = Console(highlight=False)


@frozen
class State:
    """The domain and the NIC at one moment."""

    running: observe.Running
    irqs: dict[int, str]


@frozen
class Row:
    """One line of the table, and whether it is as promised."""

    setting: str
    before: str
    after: str
    kept: bool


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints what is done, and how long it took."""
    console.print(f"[bold]* {title}[/bold]")
    began = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - began:.2f} s[/dim]")


def main() -> int:
    """Runs the demo; 0 when every promise was kept."""
    lacking = missing_programs()
    if lacking:
        console.print(f"The demo needs {', '.join(lacking)}: see tests/setup-system")
        return 1
    with PrivateDaemon() as daemon:
        try:
            return show(daemon)
        except DaemonError as error:
            console.print(f"[red]{error}[/red]", soft_wrap=True)
            return 1


def show(daemon: PrivateDaemon) -> int:
    """The demo, in a private daemon that has just started."""
    cpus = len(cpuset.parse(daemon.online))
    if cpus < 2:
        console.print("The demo needs two CPUs: one for a vCPU, one for the rest.")
        return 1
    daemon.write(DOCUMENT, domains.diskless(DOMAIN, domains.bridge("br1"), vcpus=2 if cpus >= 4 else 1))
    console.print(f"A private libvirtd runs. There: br1 > vxlan100 > {NIC.interface}, PCI {NIC.address}.\n")
    before = without_the_tool(daemon)
    with step("libvirt-tuner install, and a restart of libvirtd"):
        console.print(indented(install(daemon)), soft_wrap=True)
    with running_daemon(daemon):
        after = with_the_tool(daemon)
        rows = promises(daemon, before, after)
        console.print(table(f"virsh start {DOMAIN}", rows))
        print_times(daemon)
        with step(f"virsh destroy {DOMAIN}"):
            daemon.virsh("destroy", DOMAIN)
        rows.append(given_back(daemon))
    console.print(table(f"virsh destroy {DOMAIN}", rows[-1:]))
    return verdict(rows)


def without_the_tool(daemon: PrivateDaemon) -> State:
    """The domain as libvirt alone starts it; then it is taken away again."""
    with step(f"Without libvirt-tuner: virsh define {DOMAIN}.xml; virsh start {DOMAIN}"):
        daemon.virsh("define", DOCUMENT)
        daemon.virsh("start", DOMAIN)
    state = observed(daemon)
    # As libvirt completes it (UUID, MAC address), so that the second definition differs by what is ours only.
    daemon.write(DOCUMENT, daemon.virsh("dumpxml", "--inactive", DOMAIN) + "\n")
    daemon.forget(DOMAIN)
    return state


def with_the_tool(daemon: PrivateDaemon) -> State:
    """The same two commands with the hook installed and the service running."""
    with step(f"With libvirt-tuner daemon running: virsh define {DOMAIN}.xml"):
        daemon.virsh("define", DOCUMENT)
        daemon.wait_for(
            lambda: observe.persistent(daemon, DOMAIN).vcpupin, "the daemon to tune the definition"
        )
    print_change(daemon)
    with step(f"virsh start {DOMAIN}"):
        daemon.virsh("start", DOMAIN)
    return observed(daemon)


def observed(daemon: PrivateDaemon) -> State:
    """What holds now."""
    irqs = {irq: daemon.irq(irq) for irq in NIC.queues}
    return State(observe.running(daemon, DOMAIN), irqs)


def print_change(daemon: PrivateDaemon) -> None:
    """What the daemon made of the definition, and why."""
    own, tuned = daemon.read(DOCUMENT), daemon.virsh("dumpxml", "--inactive", DOMAIN)
    names = f"{DOMAIN}.xml", f"virsh dumpxml {DOMAIN}"
    for line in difflib.unified_diff(own.splitlines(), tuned.splitlines(), *names, lineterm="", n=1):
        console.print(Text(f"  {line}", style="green" if line.startswith("+") else "dim"), soft_wrap=True)
    console.print(f"  libvirt-tuner plan {DOMAIN}:")
    console.print(indented(tuner(daemon, "plan", DOMAIN).stdout), soft_wrap=True)


def indented(text: str) -> str:
    """Text of a program, two columns in."""
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def promises(daemon: PrivateDaemon, before: State, after: State) -> list[Row]:
    """Each setting before and after."""
    old, new = before.running, after.running
    node = nic_replay.first_node()
    near = node_cpus(daemon, node)
    vcpus = frozenset().union(*(cpuset.parse(cpus) for cpus in new.vcpus.values()))
    return [
        *vcpu_rows(old, new, near),
        Row(
            "emulatorpin",
            old.settings.emulatorpin or UNSET,
            new.settings.emulatorpin or UNSET,
            new.settings.emulatorpin == new.emulator and not cpuset.parse(new.emulator) & vcpus,
        ),
        Row(
            "numatune",
            old.settings.numatune or UNSET,
            new.settings.numatune or UNSET,
            new.settings.numatune in (f"strict {node}", f"preferred {node}"),
        ),
        Row(
            "rx_queue_size",
            old.settings.rx_queue_size,
            new.settings.rx_queue_size,
            new.settings.rx_queue_size == "1024",
        ),
        Row(
            "guest MTU",
            old.settings.mtu or "1500 (guest's own)",
            new.settings.mtu or UNSET,
            new.settings.mtu == new.tap_mtu == str(nic_replay.VXLAN_MTU),
        ),
        *irq_rows(before.irqs, after.irqs, vcpus),
    ]


def vcpu_rows(old: observe.Running, new: observe.Running, near: frozenset[int]) -> list[Row]:
    """Each vCPU on one CPU of the NIC's node, by the document and by the scheduler."""
    rows = []
    for vcpu, cpus in sorted(new.vcpus.items()):
        alone = len(cpuset.parse(cpus)) == 1 and list(new.vcpus.values()).count(cpus) == 1
        kept = alone and cpuset.parse(cpus) <= near and new.settings.vcpupin.get(vcpu) == cpus
        rows.append(Row(f"vcpupin {vcpu}", f"{UNSET} (runs on {old.vcpus[vcpu]})", cpus, kept))
    return rows


def irq_rows(before: dict[int, str], after: dict[int, str], vcpus: frozenset[int]) -> list[Row]:
    """Each interrupt off the vCPUs' CPUs."""
    return [
        Row(f"irq {irq} of {NIC.interface}", before[irq], after[irq], not cpuset.parse(after[irq]) & vcpus)
        for irq in before
    ]


def node_cpus(daemon: PrivateDaemon, node: str) -> frozenset[int]:
    """CPUs of a NUMA node; all on a kernel without NUMA."""
    path = f"/sys/devices/system/node/node{node}/cpulist"
    return cpuset.parse(daemon.read(path) if daemon.exists(path) else daemon.online)


def given_back(daemon: PrivateDaemon) -> Row:
    """Every interrupt where it was when the demo began."""
    now = {daemon.irq(irq) for irq in NIC.irqs}
    return Row("interrupts given back", daemon.online, " ".join(sorted(now)), now == {daemon.online})


def table(title: str, rows: list[Row]) -> Table:
    """Before and after, side by side."""
    drawn = Table(title=title, title_justify="left")
    for heading in ("setting", "before", "after", "as promised"):
        drawn.add_column(heading)
    for row in rows:
        drawn.add_row(
            row.setting, row.before, row.after, "[green]yes[/green]" if row.kept else "[red]NO[/red]"
        )
    return drawn


def print_times(daemon: PrivateDaemon) -> None:
    """How long the hook took, by its own log and as whole processes run once more by hand."""
    own = re.findall(r"demo: started: .* (\d+) ms", "\n".join(daemon.syslog()))
    hooks = daemon.path("/etc/libvirt/hooks")
    hook = next(path for path in sorted(hooks.rglob("*")) if path.is_file() and "libvirt" in path.read_text())
    inside = f"/etc/libvirt/hooks/{hook.relative_to(hooks)}"
    live = daemon.virsh("dumpxml", DOMAIN)
    times = json.loads(daemon.run([sys.executable, "-c", CLOCK, inside], stdin=live).stdout)
    shown = ", ".join(f"{operation} {milliseconds:.0f} ms" for operation, milliseconds in times.items())
    console.print(f"The hook took {own[-1] if own else '?'} ms for this start by its own log.")
    console.print(f"As whole processes ({inside}, median of five): {shown}.\n")


def verdict(rows: list[Row]) -> int:
    """Says what was not kept."""
    broken = [row.setting for row in rows if not row.kept]
    if broken:
        console.print(f"[red]Not as promised: {', '.join(broken)}[/red]")
        return 1
    console.print("[green]All as promised, by nothing but virsh define and virsh start.[/green]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
