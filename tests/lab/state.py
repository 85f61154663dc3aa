"""Saved states: a hypervisor that has once become ready goes on from there in seconds.

What comes of a boot is kept beside the image, by a hash of all it depends on; what a session puts on top of
it (the project, installed) in the session's own directory. A state is a disk and QEMU's migration stream.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from .channel import ChannelError
from .hypervisor import Hypervisor
from .image import locked, own_cache
from .machine import SILENCE, TRIES, BootError, Machine, Setup, fingerprint
from .network import Network
from .progress import say, step

T = TypeVar("T")


@frozen
class State:
    """A saved hypervisor.

    Attributes:
        setup: What the machine is made of.
        disk: Its root disk, an overlay on the image's.
        memory: All else; there only when it is whole.
    """

    setup: Setup
    disk: Path
    memory: Path


def ready(setup: Setup, network: Network, *, silence: float = SILENCE) -> State:
    """Return the state of a booted, ready hypervisor; one is booted if none of its kind is kept.

    A boot that hangs is done again, on a new disk.

    Args:
        setup: The machine.
        network: Where its NICs are plugged in.
        silence: Seconds without a word from the console until a boot is given up.

    Raises:
        BootError: It did not come up in :data:`TRIES` boots.
        ChannelError: The same, seen from the agent.
    """
    directory = _directory(setup)
    state = State(setup, directory / "root.qcow2", directory / "memory")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / "lock"):
        for attempt in range(1, TRIES + 1):
            if state.memory.exists():
                break
            try:
                _boot(state, network, silence)
            except (BootError, ChannelError) as error:
                if attempt == TRIES:
                    raise
                say(f"boot {attempt} of {TRIES}: {error}")
    return state


def _boot(state: State, network: Network, silence: float) -> None:
    """Boot a hypervisor on an empty disk and save it."""
    _overlay(state.disk, state.setup.image.disk)
    with _plugged_in(state.setup, network) as machine:
        with step(f"boot of {machine.name}"):
            machine.start(state.disk, snapshot=False)
            machine.wait(silence=silence)
        hypervisor = Hypervisor(machine)
        with step(f"libvirtd in {machine.name}"):
            hypervisor.wait_ready()
        _save(hypervisor, state)


def _directory(setup: Setup) -> Path:
    """Where the state after a boot is kept: with the image, or in our own cache if we may not write there."""
    kept = setup.image.directory
    if not os.access(kept, os.W_OK):
        kept = own_cache() / kept.name
    return kept / "states" / fingerprint(setup)


def resume(state: State, network: Network, *, snapshot: bool = True) -> Hypervisor:
    """Go on from a state; ``snapshot=False`` writes to its disk.

    Raises:
        BootError: It does not go on.
        ChannelError: The same, seen from the agent.
    """
    with _plugged_in(state.setup, network) as machine, step(f"{machine.name} resumed"):
        machine.start(state.disk, memory=state.memory, snapshot=snapshot)
        machine.wait(silence=30)
        hypervisor = Hypervisor(machine)
        hypervisor.wait_ready()
        return hypervisor


def fresh(setup: Setup, network: Network) -> Hypervisor:
    """Go on from the state of a ready hypervisor.

    Raises:
        BootError: It does not come up.
        ChannelError: The same, seen from the agent.
    """
    return _from_ready(setup, network, lambda base: resume(base, network))


def derive(setup: Setup, network: Network, directory: Path, change: Callable[[Hypervisor], object]) -> State:
    """Return the state of a ready hypervisor after a change was made to it, saved in a directory.

    Raises:
        BootError: It does not come up.
        ChannelError: The same, seen from the agent.
    """
    return _from_ready(setup, network, lambda base: _changed(base, network, directory, change))


def _from_ready(setup: Setup, network: Network, go_on: Callable[[State], T]) -> T:
    """Go on from a kept state; one that is of no use is thrown away and made anew, once."""
    base = ready(setup, network)
    try:
        return go_on(base)
    except (BootError, ChannelError) as error:
        say(f"the kept state is of no use: {error}")
        base.memory.unlink(missing_ok=True)
        return go_on(ready(setup, network))


def _changed(base: State, network: Network, directory: Path, change: Callable[[Hypervisor], object]) -> State:
    """Go on from a state, change it and save it elsewhere."""
    directory.mkdir(parents=True, exist_ok=True)
    state = State(base.setup, directory / "root.qcow2", directory / "memory")
    shutil.copy(base.disk, state.disk)
    hypervisor = resume(State(base.setup, state.disk, base.memory), network, snapshot=False)
    try:
        change(hypervisor)
        _save(hypervisor, state)
    finally:
        hypervisor.close()
    return state


@contextmanager
def _plugged_in(setup: Setup, network: Network) -> Iterator[Machine]:
    """A machine that is closed if it does not get as far as it should."""
    machine = Machine(setup, network)
    try:
        machine.plug_in()
        yield machine
    except BaseException:
        machine.close()
        raise


def _save(hypervisor: Hypervisor, state: State) -> None:
    """Save a hypervisor that runs on the state's disk, and end it."""
    hypervisor.run("sync")
    with step(f"state of {hypervisor.machine.name} saved"):
        part = state.memory.with_suffix(".part")
        hypervisor.machine.save(part)
        part.rename(state.memory)
    hypervisor.close()


def _overlay(disk: Path, below: Path) -> None:
    """Make an empty disk on top of another."""
    command = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(below), str(disk))
    disk.unlink(missing_ok=True)
    subprocess.run(command, check=True)
