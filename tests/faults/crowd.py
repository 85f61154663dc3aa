"""128 domains that start at once on 1,024 CPUs and 4,096 interrupts: each gets its host side in the end."""

from __future__ import annotations

import os
import time
from pathlib import Path

from attrs import frozen

from libvirt_tuner import settle
from libvirt_tuner.install import hook_script
from tests import hosts
from tests.unit.replay import Domain, Replay

BRIDGE = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>"


@frozen
class Crowd:
    """What became of it.

    Attributes:
        domains: How many started at once.
        refused: Hooks that ended with another status than 0.
        by_hook: Domains that the hook has served in time.
        untuned: Domains without a claim when ``settle`` has caught up with the others.
        twice: CPUs that two domains hold.
        slowest: Seconds the slowest hook took, on as many CPUs as this machine has.
        caught_up: Seconds until the last was served.
    """

    domains: int
    refused: int
    by_hook: int
    untuned: int
    twice: int
    slowest: float
    caught_up: float

    @property
    def wrong(self) -> bool:
        """Whether any of it may not be."""
        return bool(self.refused or self.untuned or self.twice)

    def __str__(self) -> str:
        return (
            f"{self.domains} starts at once on {os.cpu_count()} CPUs: {self.by_hook} served by the hook (the"
            f" slowest took {self.slowest:.1f} s), {self.domains - self.by_hook - self.untuned} by settle,"
            f" the last after {self.caught_up:.0f} s, {self.untuned} untuned; statuses other"
            f" than 0: {self.refused};"
            f" CPUs given twice: {self.twice}"
        )


def run(root: Path, *, count: int = 128, cpus: int = 1024, irqs: int = 4096) -> Crowd:
    """Start them; ``settle``, which the hook leaves on a real host only, is run for those it missed."""
    hosts.write(hosts.build(hosts.large(cpus=cpus, nodes=8, irqs=irqs, threads=2)), root / "host")
    host = Replay(root / "host")
    host.settle_interrupts()
    script = root / "qemu"
    script.write_text(hook_script(root=str(host.root)))
    script.chmod(0o755)
    domains = [Domain(f"vm{number}", number, BRIDGE, vcpus=4) for number in range(1, count + 1)]
    for domain in domains:
        host.run(domain)
    began = time.monotonic()
    statuses, slowest = _at_once(script, domains)
    by_hook = len(host.book.claims)
    for domain in domains:
        if domain.uuid not in host.book.claims:
            settle.catch_up(host.sysfs, domain.name, started=True)
    claims = host.book.claims.values()
    held = [cpu for claim in claims for cpu in claim.vcpus if claim.plan["placement"] == "dedicated"]
    return Crowd(
        domains=count,
        refused=sum(status != 0 for status in statuses),
        by_hook=by_hook,
        untuned=count - len(host.book.claims),
        twice=len(held) - len(set(held)),
        slowest=slowest,
        caught_up=time.monotonic() - began,
    )


def _at_once(script: Path, domains: list[Domain]) -> tuple[list[int], float]:
    """Exit statuses, and how long the slowest took."""
    began = {_started(script, domain): time.monotonic() for domain in domains}
    statuses, slowest = [], 0.0
    for _ in domains:
        pid, status = os.wait()
        statuses.append(os.waitstatus_to_exitcode(status))
        slowest = max(slowest, time.monotonic() - began[pid])
    return statuses, slowest


def _started(script: Path, domain: Domain) -> int:
    reader, writer = os.pipe()
    os.write(writer, domain.xml)
    os.close(writer)
    files = [(os.POSIX_SPAWN_DUP2, reader, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    argv = [str(script), domain.name, "started", "begin", "-"]
    pid = os.posix_spawn(str(script), argv, dict(os.environ), file_actions=files)
    os.close(reader)
    return pid
