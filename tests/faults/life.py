"""Random events on a replayed host; then nothing runs, and the host is byte for byte what it was."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from libvirt_tuner.hostside import changes, holding
from libvirt_tuner.hostside.ledger import Ledger
from tests.faults.campaign import twice
from tests.faults.inject import KILL_BEFORE, Shim, shimmed
from tests.faults.scene import DOMAINS, Scene
from tests.unit.replay import Domain

WHO = st.sampled_from(DOMAINS)
CONFIGS = (
    None,
    "[policy]\nirq = 'keep'\n",
    "[policy]\nplacement = 'shared'\n",
    "[policy]\nmtu = 'keep'\n",
    "[policy]\nselect = false\n",
    "[policy\n",
)
CONFIG = "/etc/libvirt-tuner.toml"
IRQS = (100, 102, 105)


class Life(RuleBasedStateMachine):
    """What happens to a host, in any order."""

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._directory = tempfile.TemporaryDirectory(dir=memory)
        self.scene = Scene(Path(self._directory.name))
        self.expected = dict(self.scene.before)
        self.online = 6

    # Domains

    @rule(domain=WHO)
    def start(self, domain: Domain) -> None:
        if domain in self.scene.running():
            return
        before = self._held()
        self.scene.start(domain)
        assert before.items() <= self._held().items(), "somebody was moved for a newcomer"

    @rule(domain=WHO, other=WHO)
    def start_pinned_to_anothers_cpu(self, domain: Domain, other: Domain) -> None:
        """Its user's pin stands; the other stays there, with a second CPU or without."""
        self.upkeep()
        before = self._held()
        if domain in self.scene.running() or not before.get(other.uuid):
            return
        self.scene.start(evolve(domain, vcpupin=(str(min(before[other.uuid])),)))
        self.upkeep()
        now = self._held()
        assert all(cpus <= now[uuid] for uuid, cpus in before.items()), "somebody was moved for a newcomer"

    @rule(domain=WHO)
    def stop(self, domain: Domain) -> None:
        """``virsh destroy``, or a migration away."""
        if domain in self.scene.running():
            self.scene.end(domain)
            assert self.scene.hook(domain, "release") == (0, b"")

    @rule(domain=WHO)
    def crash(self, domain: Domain) -> None:
        """libvirtd is away meanwhile: nobody is told."""
        self.scene.end(domain)

    @rule(domain=WHO)
    def reconnect(self, domain: Domain) -> None:
        if domain in self.scene.running():
            assert self.scene.hook(domain, "reconnect") == (0, b"")

    @rule(domain=WHO, operation=st.sampled_from(("restore", "migrate")))
    def arrive(self, domain: Domain, operation: str) -> None:
        """Of one that runs already, libvirt refuses it afterwards."""
        before = self._held()
        assert self.scene.hook(domain, operation)[0] == 0
        assert before.items() <= self._held().items()

    @rule(
        domain=WHO,
        operation=st.sampled_from(("started", "reconnect", "release", "restore")),
        at=st.integers(0, 700),
    )
    def hook_is_killed(self, domain: Domain, operation: str, at: int) -> None:
        if operation == "release":
            self.scene.end(domain)
        elif operation != "restore":
            self.scene.host.run(domain)
        child = os.fork()
        if not child:
            with shimmed(Shim({at: KILL_BEFORE})):
                self.scene.hook(domain, operation)
            os._exit(0)
        os.waitpid(child, 0)

    # The host

    @rule(irq=st.sampled_from(IRQS), cpus=st.sampled_from(("0-5", "0", "0-1")))
    def driver_spreads_an_interrupt(self, irq: int, cpus: str) -> None:
        """At a link change, or ``ethtool -L``."""
        name = f"proc/irq/{irq}/smp_affinity_list"
        now = (self.scene.host.root / name).read_bytes()
        if now != f"{cpus}\n".encode():
            self.scene.host.scatter(irq, cpus)
            self.expected[name] = f"{cpus}\n".encode()

    @rule(count=st.integers(4, 6))
    def cpus_go_offline_or_come_back(self, count: int) -> None:
        for path in ("/sys/devices/system/cpu/online", "/sys/devices/system/node/node0/cpulist"):
            if (self.scene.host.root / path[1:]).exists():
                self.scene.host.write(path, f"0-{count - 1}\n")
        self.online = count

    @rule(number=st.integers(1, 3))
    def irqbalance_starts_anew(self, number: int) -> None:
        for place in (self.scene.host.root / "run/irqbalance").glob("*"):
            place.unlink()
        self.scene.host.write(f"/run/irqbalance/irqbalance{number}.sock", "")

    @rule(text=st.sampled_from(CONFIGS))
    def config_is_changed(self, text: str | None) -> None:
        if text is None:
            (self.scene.host.root / CONFIG[1:]).unlink(missing_ok=True)
        else:
            self.scene.host.write(CONFIG, text)

    # Us

    @rule()
    def upkeep(self) -> None:
        holding.sweep(self.scene.host.sysfs)
        list(holding.give_all_again(self.scene.host.sysfs))

    @rule()
    @precondition(lambda self: not self.scene.running())
    def all_is_given_back(self) -> None:
        holding.sweep(self.scene.host.sysfs)
        assert self.scene.values() == self.expected

    @invariant()
    def no_cpu_is_given_twice(self) -> None:
        if hasattr(self, "scene"):
            assert not twice(self.scene, placement="dedicated")

    def _held(self) -> dict[str, frozenset[int]]:
        """By domains that run."""
        running = {domain.uuid for domain in self.scene.running()}
        return {uuid: claim.vcpus for uuid, claim in self.scene.host.book.claims.items() if uuid in running}

    def teardown(self) -> None:
        if not hasattr(self, "scene"):
            return
        for domain in DOMAINS:
            self.scene.end(domain)
        with Ledger(self.scene.host.sysfs).locked() as book:
            changes.give_back_all(self.scene.host.sysfs, book)
        assert self.scene.values() == self.expected
        assert (self.scene.host.book.claims, self.scene.host.book.changes) == ({}, {})
        self._directory.cleanup()


def explore(*, lives: int, events: int) -> None:
    """Have hypothesis look for events, up to so many in a row, after which something is wrong."""
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=lives,
            stateful_step_count=events,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def live(*, events: int, seed: int) -> Counter[str]:
    """So many random events in one life, each of which does something; what happened is counted.

    hypothesis prefers short lives and few kinds of events in each, as they are easier to understand.
    """
    chance = random.Random(seed)
    life = Life()
    life.begin()
    happened: Counter[str] = Counter()
    try:
        for _ in range(events):
            name, event = chance.choice(_possible(life, chance))
            event()
            life.no_cpu_is_given_twice()
            happened[name] += 1
    finally:
        life.teardown()
    return happened


def _possible(life: Life, chance: random.Random) -> list[tuple[str, Callable[[], object]]]:
    """What can happen now, each to one of those that it can happen to."""
    running = life.scene.running()
    stopped = [domain for domain in DOMAINS if domain not in running]
    who, at = chance.choice(DOMAINS), chance.randrange(700)
    operation = chance.choice(("started", "reconnect", "release", "restore"))
    found: list[tuple[str, Callable[[], object]]] = [
        ("restore", lambda: life.arrive(domain=who, operation="restore")),
        ("migrate", lambda: life.arrive(domain=who, operation="migrate")),
        ("hook killed", lambda: life.hook_is_killed(domain=who, operation=operation, at=at)),
        (
            "interrupt spread",
            lambda: life.driver_spreads_an_interrupt(
                irq=chance.choice(IRQS), cpus=chance.choice(("0-5", "0", "0-1"))
            ),
        ),
        ("CPUs on- or offline", lambda: life.cpus_go_offline_or_come_back(count=chance.randint(4, 6))),
        ("irqbalance", lambda: life.irqbalance_starts_anew(number=chance.randint(1, 3))),
        ("configuration", lambda: life.config_is_changed(text=chance.choice(CONFIGS))),
        ("upkeep", life.upkeep),
    ]
    if stopped:
        found += [("start", lambda: life.start(domain=chance.choice(stopped)))] * 3
    if running:
        found += [("stop", lambda: life.stop(domain=chance.choice(running)))] * 2
        found += [
            (
                "start, pinned to another's CPU",
                lambda: life.start_pinned_to_anothers_cpu(
                    domain=chance.choice(stopped or running), other=chance.choice(running)
                ),
            ),
            ("crash", lambda: life.crash(domain=chance.choice(running))),
            ("reconnect", lambda: life.reconnect(domain=chance.choice(running))),
        ]
    else:
        found += [("all given back", life.all_is_given_back)] * 3
    return found
