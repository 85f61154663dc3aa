"""Saved states: a hypervisor that has once become ready goes on from there in seconds.

What comes of a boot is kept beside the image, by a hash of all it depends on; what a session puts on top of
it (the project, installed) in the session's own directory. A state is a disk and QEMU's migration stream.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from .channel import ChannelError
from .hypervisor import Hypervisor
from .image import locked
from .machine import BootError, Machine, Setup, fingerprint
from .network import Network
from .progress import say, step


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


def boot(setup: Setup, network: Network) -> Hypervisor:
    """Boot a hypervisor and keep nothing of it.

    Raises:
        BootError: It does not come up.
    """
    with _plugged_in(setup, network) as machine:
        machine.boot()
        return _ready(machine)


def ready(setup: Setup, network: Network) -> State:
    """Return the state of a booted, ready hypervisor; one is booted if none of its kind is kept.

    Raises:
        BootError: It does not come up.
    """
    directory = setup.image.directory / "states" / fingerprint(setup)
    state = State(setup, directory / "root.qcow2", directory / "memory")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / "lock"):
        if not state.memory.exists():
            _overlay(state.disk, setup.image.disk)
            with _plugged_in(setup, network) as machine:
                machine.boot(state.disk, snapshot=False)
                _save(_ready(machine), state)
    return state


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


def derive(setup: Setup, network: Network, directory: Path, change: Callable[[Hypervisor], None]) -> State:
    """Return the state of a ready hypervisor after a change was made to it, saved in a directory.

    A kept state that does not go on is thrown away and made anew, once.

    Raises:
        BootError: It does not come up.
    """
    base = ready(setup, network)
    try:
        return _changed(base, network, directory, change)
    except (BootError, ChannelError) as error:
        say(f"the kept state is of no use: {error}")
        base.memory.unlink(missing_ok=True)
        return _changed(ready(setup, network), network, directory, change)


def _changed(base: State, network: Network, directory: Path, change: Callable[[Hypervisor], None]) -> State:
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


def _ready(machine: Machine) -> Hypervisor:
    """Wait for libvirtd in a machine whose agent answers."""
    hypervisor = Hypervisor(machine)
    with step(f"libvirtd in {machine.name}"):
        hypervisor.wait_ready()
    return hypervisor


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
