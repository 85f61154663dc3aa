"""Runs the steps of :mod:`libvirt_tuner.testbed.steps`: sets a testbed up, takes it down, and shows it.

The earlier state is noted in ``/run/libvirt-tuner/testbed.json`` before the first step, and each step before
it runs. So ``down`` can undo everything, however ``up`` ended. After a reboot, /run and the kernel's settings
are gone.
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
    """The state of a testbed.

    Attributes:
        config: Its configuration.
        path: From the tunnel down to the hardware.
        mtu: The largest packet without fragmentation, according to the kernel's settings, and why.
        mtus: MTU of each device, from the tunnel down.
        crypto: Who encrypts, and why.
        fingerprint: Of the keys.
        states: Counters of the states.
        errors: Counters of ``/proc/net/xfrm_stat`` that are not 0.
        missing: Steps that are missing or were undone.
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
    """Result of ``up``: the plan, and the steps that it made."""

    plan: Plan
    steps: tuple[Step, ...]


@frozen
class _Host:
    """Checks on the host whether a step is made.

    Attributes:
        sysfs: The host.
        journal: Distinguishes our devices from others with the same names.
    """

    sysfs: Sysfs
    journal: Journal

    def made(self, step: Step) -> bool:
        """Return whether the step is made."""
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
        """Return whether the device of a ``link`` step exists and is ours."""
        index = self.sysfs.read_or(f"{NET}/{step.target}/ifindex", "")
        if not index or step.id not in self.journal.begun:
            return False
        # 0: the process was killed after the note. There was no such device before, so this one is ours.
        noted = self.journal.begun[step.id]
        return noted in (0, int(index)) and self._kind(step.target) == step.value

    def to_undo(self, step: Step) -> bool:
        """Return whether there is something to undo for a step."""
        if step.kind == "link":
            return self.ours(step)
        if step.kind in ("state", "policy"):
            return self._ipsec(step, whole=False)
        if step.kind == "address":
            return self.made(step)
        return self.sysfs.exists(f"{NET}/{step.target}")

    def taken(self, step: Step) -> bool:
        """Return whether something else is in the place of a new testbed's step."""
        if step.kind == "link":
            return self.sysfs.exists(f"{NET}/{step.target}")
        return step.kind in ("state", "policy") and self._ipsec(step, whole=False)

    def _kind(self, device: str) -> str:
        facts = survey.asked(self.sysfs, "-details", "link", "show", "dev", device)
        return str(facts[0].get("linkinfo", {}).get("info_kind", "")) if facts else ""

    def _ipsec(self, step: Step, *, whole: bool) -> bool:
        """Return whether the state or policy exists; ``whole``: and a state has the planned offload."""
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
    """Set up the testbed, or its missing parts.

    Args:
        sysfs: This machine.
        config: As :func:`libvirt_tuner.testbed.config.checked` returned it.
        force: Use devices that are in use.

    Returns:
        The plan, and the steps that were made.

    Raises:
        TunerError: Something is in the way, or a step failed. A new testbed is then undone.
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
    """Return the plan of :func:`up`. Raises the same errors as its checks."""
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
                f"the {step.kind} exists already and does not belong to the testbed",
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
            f"another testbed is up (wanted: {'; '.join(others)})",
            where=JOURNAL,
            expected="run 'libvirt-tuner testbed down' first",
        )
    if keys is not None and journal.fingerprint != keys.fingerprint:
        raise RejectedError(
            "the testbed that is up has other keys",
            where=config.keys,
            expected="run 'libvirt-tuner testbed down' first",
        )


def _check_unused(sysfs: Sysfs, journal: Journal) -> None:
    """Refuse devices that are in use, and a network that another device uses."""
    advice = "--force uses it anyway; 'libvirt-tuner testbed down' restores it"
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
            expected="a network that only the testbed uses (server, client)",
            advice="--force uses it anyway",
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
    """Set up a new testbed. Undo it if a step fails."""
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
            failure.advice = f"not undone: {'; '.join(problems)}; run 'libvirt-tuner testbed down'"
        raise


def _make(sysfs: Sysfs, plan: Plan, journal: Journal, keys: Keys) -> tuple[Step, ...]:
    """Make missing steps: note, run, verify."""
    host = _Host(sysfs, journal)
    made = []
    for step in plan.steps:
        if host.made(step):
            continue
        if host.taken(step) and not _repaired(host, step, keys):
            raise RejectedError(
                "another program replaced the testbed's",
                errno=errno.EEXIST,
                where=f"{step.kind} {step.target}",
                expected="run 'libvirt-tuner testbed down' first",
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
    """Remove our own state without its offload, so that it can be made again."""
    if step.kind != "state" or step.id not in host.journal.begun:
        return False
    testbedcommands.run(step.undo, keys, step)
    return True


def _check_made(host: _Host, step: Step) -> None:
    if host.made(step):
        return
    if step.kind == "state":
        # If a device has no such operation, the kernel accepts the state and encrypts in software
        # (xfrm_dev_state_add in net/xfrm/xfrm_device.c).
        raise UnsupportedError(
            "the kernel added the state without offload",
            where=step.value.split()[2],
            value=f"spi {step.target}",
            expected="a device that offers esp-hw-offload, or --crypto kernel",
        )
    raise RejectedError(
        f"the kernel accepted the value but did not apply it ({step})",
        where=f"{step.kind} {step.target}",
        expected=step.value,
    )


# Down


def down(sysfs: Sysfs, *, force: bool = False) -> Config | None:
    """Undo the testbed, and nothing else.

    Args:
        sysfs: This machine.
        force: Continue even if something is attached to the tunnel or the bond.

    Returns:
        The earlier state; None if there was no testbed.

    Raises:
        RejectedError: Something is attached.
        HostError: Steps could not be undone. The next call tries again.
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
    """A VM's macvtap is removed with its tunnel."""
    host = _Host(sysfs, journal)
    for step in plan.steps:
        on_top = survey.uppers(sysfs, step.target) if step.kind == "link" and host.ours(step) else []
        if on_top:
            raise RejectedError(
                f"is in use by {', '.join(on_top)}",
                errno=errno.EBUSY,
                where=step.target,
                expected="nothing attached; shut the VMs down first",
                advice="--force removes it anyway",
            )


def _undo(sysfs: Sysfs, plan: Plan, journal: Journal) -> list[str]:
    """Undo the begun steps, last first. Returns those that failed, which stay in the journal."""
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
    """Return the state of the testbed; None if there is none."""
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
