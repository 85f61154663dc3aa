"""Makes a testbed, takes it down, and says how it is: the steps of :mod:`libvirt_tuner.testbed.steps`, done.

What was there before is noted in ``/run/libvirt-tuner/testbed.json`` before the first step, and each step
before it is made; so whatever way a run ends, ``down`` finds what there is to undo. Like /run, the kernel
forgets all of it at a reboot.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from attrs import frozen

from libvirt_tuner.errors import HostError, RejectedError, TunerError, UnsupportedError
from libvirt_tuner.host import commands, probe, xfrm
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.host.xfrm import after
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.testbed import commands as testbedcommands
from libvirt_tuner.testbed import config as testbedconfig
from libvirt_tuner.testbed import journal as testbedjournal
from libvirt_tuner.testbed import keys as testbedkeys
from libvirt_tuner.testbed import steps as testbedplan
from libvirt_tuner.testbed import survey
from libvirt_tuner.testbed.commands import NO_KEYS
from libvirt_tuner.testbed.config import NONE, Config
from libvirt_tuner.testbed.journal import JOURNAL, Journal
from libvirt_tuner.testbed.keys import Keys
from libvirt_tuner.testbed.steps import Plan, Port, Step
from libvirt_tuner.testbed.survey import NET, State
from libvirt_tuner.uplink import budget
from libvirt_tuner.uplink import path as uplink

CONFIG_FILE = "/etc/libvirt-tuner-testbed.toml"


@frozen
class Report:
    """How a testbed is.

    Attributes:
        config: What it was asked to be.
        path: From the tunnel down to the hardware.
        mtu: The largest packet that crosses whole, as the kernel's own settings have it, and why.
        mtus: Of each device, from the tunnel down.
        crypto: Who encrypts, and why.
        fingerprint: Of the keys.
        states: What the states have counted.
        errors: Counters of ``/proc/net/xfrm_stat`` that are not 0.
        missing: Steps that are not, or no more, as they were made.
    """

    config: Config
    path: str
    mtu: str
    mtus: Mapping[str, int]
    crypto: str
    fingerprint: str
    states: tuple[State, ...]
    errors: Mapping[str, int]
    missing: tuple[str, ...]


@frozen
class Made:
    """What ``up`` did: the plan, and those of its steps that were not so already."""

    plan: Plan
    steps: tuple[Step, ...]


@frozen
class _Host:
    """The host, asked whether a step is made.

    Attributes:
        sysfs: Where devices are looked up.
        journal: Tells our devices from others of their names.
    """

    sysfs: Sysfs
    journal: Journal

    def made(self, step: Step) -> bool:
        """Whether it is as the step makes it."""
        if step.kind in ("state", "policy"):
            return self._ipsec(step, whole=True)
        base = f"{NET}/{step.target}"
        if not self.sysfs.exists(base):
            return False
        if step.kind == "mtu":
            return self.sysfs.read(f"{base}/mtu") == step.value
        if step.kind == "up":
            return survey.is_up(self.sysfs, step.target)
        if step.kind == "port":
            return self.sysfs.link_name(f"{base}/master") == step.value
        if step.kind == "feature":
            return survey.features(self.sysfs, step.target).get(step.value) == "on"
        if step.kind == "address":
            return step.value in survey.addresses(
                survey.asked(self.sysfs, "address", "show", "dev", step.target)[0]
            )
        return self.ours(step)

    def ours(self, step: Step) -> bool:
        """Whether the device a ``link`` step makes is there, and is the one that was made."""
        index = self.sysfs.read_or(f"{NET}/{step.target}/ifindex", "")
        if not index or step.id not in self.journal.begun:
            return False
        # 0: killed between the note and the device; before the note there was none of that name.
        noted = self.journal.begun[step.id]
        return noted in (0, int(index)) and self._kind(step.target) == step.value

    def to_undo(self, step: Step) -> bool:
        """Whether there is something for the inverse of a step to be done to."""
        if step.kind == "link":
            return self.ours(step)
        if step.kind in ("state", "policy"):
            return self._ipsec(step, whole=False)
        if step.kind == "address":
            return self.made(step)
        return self.sysfs.exists(f"{NET}/{step.target}")

    def taken(self, step: Step) -> bool:
        """Whether something that is not ours is where a new testbed's step would put its own."""
        if step.kind == "link":
            return self.sysfs.exists(f"{NET}/{step.target}")
        return step.kind in ("state", "policy") and self._ipsec(step, whole=False)

    def _kind(self, device: str) -> str:
        facts = survey.asked(self.sysfs, "-details", "link", "show", "dev", device)
        return str(facts[0].get("linkinfo", {}).get("info_kind", "")) if facts else ""

    def _ipsec(self, step: Step, *, whole: bool) -> bool:
        """Whether the state or policy is there; ``whole``: and a state has the offload it should."""
        wanted = step.value.split()
        argv = survey.STATES if step.kind == "state" else survey.POLICIES
        for words in xfrm.entries(commands.run(self.sysfs, argv)):
            ends = [after(words, "src"), after(words, "dst")]
            if step.kind == "policy":
                if [*ends, after(words, "dport"), after(words, "dir")] == [*wanted, step.target]:
                    return True
            elif ends == wanted[:2] and after(words, "spi").endswith(f"({step.target})"):
                return not whole or wanted[2] == "-" or "offload" in words
        return False


# Up


def up(sysfs: Sysfs, config: Config, *, force: bool = False) -> Made:
    """Make the testbed, or what is missing of it.

    Args:
        sysfs: This machine.
        config: As :func:`libvirt_tuner.testbed.config.checked` returned it.
        force: Take devices that are in use.

    Returns:
        The plan, and the steps that had to be made.

    Raises:
        TunerError: Something is in the way, or a step failed; a testbed that was not there before is then
            undone again.
    """
    with Ledger(sysfs).alone("testbed", timeout=5.0):
        keys = testbedkeys.read(config.keys) if config.crypto != NONE else NO_KEYS
        journal = testbedjournal.load(sysfs)
        if journal is not None:
            _check_same(journal, config, keys)
            plan = testbedplan.plan(config, journal.ports)
            return Made(plan, _make(sysfs, plan, journal, keys))
        return _fresh(sysfs, config, keys, force=force)


def preview(sysfs: Sysfs, config: Config, *, force: bool = False) -> Plan:
    """The plan that :func:`up` would carry out; raises as that does before its first step."""
    journal = testbedjournal.load(sysfs)
    if journal is not None:
        _check_same(journal, config, None)
        return testbedplan.plan(config, journal.ports)
    return _planned(sysfs, Journal(config, survey.ports(sysfs, config)), force=force)


def _planned(sysfs: Sysfs, journal: Journal, *, force: bool) -> Plan:
    plan = testbedplan.plan(journal.config, journal.ports)
    host = _Host(sysfs, journal)
    for step in plan.steps:
        if host.taken(step):
            raise RejectedError(
                f"the {step.kind} exists already, and is not the testbed's",
                errno=errno.EEXIST,
                where=f"{step.kind} {step.target}",
                expected="another name in the config" if step.kind == "link" else "none (ip xfrm)",
            )
    if not force:
        _check_unused(sysfs, journal)
    return plan


def _check_same(journal: Journal, config: Config, keys: Keys | None) -> None:
    others = testbedconfig.differences(journal.config, config)
    if others:
        raise RejectedError(
            f"another testbed is up ({'; '.join(others)} is asked for)",
            where=JOURNAL,
            expected="'testbed down' first",
        )
    if keys is not None and journal.fingerprint != keys.fingerprint:
        raise RejectedError(
            "the testbed that is up has other keys", where=config.keys, expected="'testbed down' first"
        )


def _check_unused(sysfs: Sysfs, journal: Journal) -> None:
    """Refuse devices that somebody uses, and a network that is somewhere else."""
    advice = "--force takes it all the same, and 'testbed down' gives it back"
    for port in journal.ports:
        uses = _uses(sysfs, port, journal.config)
        if uses:
            raise RejectedError(
                f"is in use: {', '.join(uses)}",
                errno=errno.EBUSY,
                where=port.name,
                expected="a device that nothing uses",
                advice=advice,
            )
    elsewhere = survey.elsewhere(sysfs, journal.config)
    if elsewhere:
        raise RejectedError(
            f"{elsewhere} has an address in this network",
            errno=errno.EADDRINUSE,
            where=journal.config.local,
            expected="a network of the testbed's own (server, client)",
            advice="--force takes it all the same",
        )


def _uses(sysfs: Sysfs, port: Port, config: Config) -> list[str]:
    uses = [f"a port of {port.master}"] if port.master else []
    if any(line.split()[1] == "default" for line in port.routes):
        uses.append("carries the default route")
    own = config.local if config.bond == NONE else ""
    uses += [f"has the address {address}" for address in port.addresses if address != own]
    uppers = survey.uppers(sysfs, port.name)
    return uses + [f"has {name} on top" for name in uppers if name != port.master]


def _fresh(sysfs: Sysfs, config: Config, keys: Keys, *, force: bool) -> Made:
    """A testbed where there is none; undone again when a step fails."""
    journal = Journal(config, survey.ports(sysfs, config), keys.fingerprint)
    plan = _planned(sysfs, journal, force=force)
    if keys.fingerprint:
        testbedkeys.check_unused(sysfs, keys, config.keys)
        testbedkeys.note_used(sysfs, keys)
    testbedjournal.save(sysfs, journal)
    try:
        return Made(plan, _make(sysfs, plan, journal, keys))
    except BaseException as failure:
        problems = _undo(sysfs, plan, journal)
        if problems and isinstance(failure, TunerError):
            failure.advice = f"not undone: {'; '.join(problems)}; try 'testbed down'"
        raise


def _make(sysfs: Sysfs, plan: Plan, journal: Journal, keys: Keys) -> tuple[Step, ...]:
    """Make what is not made yet: note, do, look whether it is so."""
    host = _Host(sysfs, journal)
    made = []
    for step in plan.steps:
        if host.made(step):
            continue
        if host.taken(step) and not _repaired(host, step, keys):
            raise RejectedError(
                "somebody else's took the place of the testbed's",
                errno=errno.EEXIST,
                where=f"{step.kind} {step.target}",
                expected="'testbed down' first",
            )
        journal.begun[step.id] = 0
        testbedjournal.save(sysfs, journal)
        testbedcommands.run(step.do, keys, step)
        if step.kind == "link":
            journal.begun[step.id] = int(sysfs.read(f"{NET}/{step.target}/ifindex"))
            testbedjournal.save(sysfs, journal)
        _check_made(host, step)
        made.append(step)
    return tuple(made)


def _repaired(host: _Host, step: Step, keys: Keys) -> bool:
    """Take away our own state that lost its offload, so that it can be made again."""
    if step.kind != "state" or step.id not in host.journal.begun:
        return False
    testbedcommands.run(step.undo, keys, step)
    return True


def _check_made(host: _Host, step: Step) -> None:
    if host.made(step):
        return
    if step.kind == "state":
        # Where a device has no such operation, the kernel takes the state and encrypts itself
        # (xfrm_dev_state_add in net/xfrm/xfrm_device.c).
        raise UnsupportedError(
            "the kernel took the state without offload",
            where=step.value.split()[2],
            value=f"spi {step.target}",
            expected="a device that offers esp-hw-offload, or --crypto kernel",
        )
    raise RejectedError(
        f"the kernel took it and does otherwise ({step})",
        where=f"{step.kind} {step.target}",
        expected=step.value,
    )


# Down


def down(sysfs: Sysfs, *, force: bool = False) -> Config | None:
    """Undo the testbed, all that is there of it, and nothing else.

    Args:
        sysfs: This machine.
        force: Although something is attached to the tunnel or the bond.

    Returns:
        What it was, None where there was none.

    Raises:
        RejectedError: Something is attached.
        HostError: Steps could not be undone; they are tried again the next time.
    """
    with Ledger(sysfs).alone("testbed", timeout=5.0):
        journal = testbedjournal.load(sysfs)
        if journal is None:
            return None
        plan = testbedplan.plan(journal.config, journal.ports)
        if not force:
            _check_detached(sysfs, plan, journal)
        problems = _undo(sysfs, plan, journal)
    if problems:
        raise HostError("not all could be undone: " + "; ".join(problems), where=JOURNAL)
    return journal.config


def _check_detached(sysfs: Sysfs, plan: Plan, journal: Journal) -> None:
    """A VM's macvtap goes away with the tunnel it sits on."""
    host = _Host(sysfs, journal)
    for step in plan.steps:
        on_top = survey.uppers(sysfs, step.target) if step.kind == "link" and host.ours(step) else []
        if on_top:
            raise RejectedError(
                f"is in use by {', '.join(on_top)}",
                errno=errno.EBUSY,
                where=step.target,
                expected="nothing attached: shut the VMs down first",
                advice="--force takes it away all the same",
            )


def _undo(sysfs: Sysfs, plan: Plan, journal: Journal) -> list[str]:
    """Undo the steps that were begun, last first; returns what could not be, which stays in the journal."""
    host = _Host(sysfs, journal)
    problems = []
    for step in reversed(plan.steps):
        if step.id not in journal.begun:
            continue
        try:
            if step.undo and host.to_undo(step):
                testbedcommands.run(step.undo, NO_KEYS, step)
        except TunerError as error:
            problems.append(str(error))
            continue
        del journal.begun[step.id]
        testbedjournal.save(sysfs, journal)
    if not problems:
        testbedjournal.forget(sysfs)
    return problems


# Show


def show(sysfs: Sysfs) -> Report | None:
    """How the testbed is; None where there is none."""
    journal = testbedjournal.load(sysfs)
    if journal is None:
        return None
    config = journal.config
    plan = testbedplan.plan(config, journal.ports)
    host = _Host(sysfs, journal)
    topology = probe.topology(sysfs, [config.name])
    path = uplink.trace(config.name, topology)
    states = survey.parsed_states(commands.run(sysfs, survey.STATES)) if config.crypto != NONE else ()
    return Report(
        config,
        path.describe(),
        "{}: {}".format(*budget.vnic_mtu(path, topology)),
        dict(survey.mtus(sysfs, config)),
        plan.crypto,
        journal.fingerprint,
        states,
        dict(survey.xfrm_errors(sysfs)) if states else {},
        tuple(str(step) for step in plan.steps if not host.made(step)),
    )
