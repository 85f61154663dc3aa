"""``python -m tests.lab``: images, and a prompt inside a hypervisor."""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import struct
import sys
import tempfile
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import emulator, image, measure, overlay, project, site, state
from .channel import connect
from .hypervisor import Hypervisor
from .progress import say, step, unwind_when_stopped

ESCAPE = b"\x1d"


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    images = commands.add_parser("image", help="build what is not in the cache: images, and an emulator")
    images.add_argument("release", nargs="+", choices=image.RELEASES)
    shell = commands.add_parser("shell", help="a prompt in a hypervisor with the project installed")
    shell.add_argument("release", choices=image.RELEASES)
    testbed = commands.add_parser("testbed", help="two hypervisors, joined, and a VM on each")
    testbed.add_argument("release", choices=image.RELEASES)
    arguments = parser.parse_args()
    unwind_when_stopped()
    if arguments.command == "image":
        return _images(arguments.release)
    if arguments.command == "shell":
        _shell(arguments.release)
    else:
        _testbed(arguments.release)
    return 0


def _images(releases: list[str]) -> int:
    """See to it that images and emulator are there; the status is 1 where that takes root."""
    try:
        for release in releases:
            say(f"{release}: {image.ensure(release).directory}")
        say(f"emulator: {emulator.release()}, {emulator.command()[0]}")
    except PermissionError as error:
        say(str(error))
        return 1
    return 0


@contextmanager
def _hypervisors(release: str, count: int) -> Iterator[list[Hypervisor]]:
    """Hypervisors with the project installed; gone at the end."""
    network = site.outside()
    running: list[Hypervisor] = []
    try:
        with tempfile.TemporaryDirectory(prefix="lab-", dir="/var/tmp") as scratch:
            package = project.build_package()
            for number in range(1, count + 1):
                setup = site.hypervisor(image.ensure(release), number)
                directory = Path(scratch) / str(number)
                kept = state.derive(setup, network, directory, lambda hv: project.install(hv, package))
                running.append(state.resume(kept, network))
            yield running
    finally:
        for hypervisor in running:
            hypervisor.close()
        network.close()


def _shell(release: str) -> None:
    """Bring up a hypervisor and connect this terminal to its console."""
    with _hypervisors(release, 1) as (hypervisor,):
        _attach(hypervisor)


def _testbed(release: str) -> None:
    """Bring up two, joined, with a VM on each; measure from VM to VM; a prompt on the first."""
    with _hypervisors(release, 2) as (first, second):
        with step("libvirt-tuner testbed up on both, and a VM on each"):
            guest, _ = overlay.join(first, second)
        say(f"vm1 to vm2: {measure.iperf3(guest.run, '10.79.0.2'):.0f} Mbit/s")
        if sys.stdin.isatty():
            _attach(first)


def _attach(hypervisor: Hypervisor) -> None:
    """Copy between this terminal and the serial console until Ctrl-] or the end of either."""
    say("Ctrl-] leaves; the machine, and all it wrote, goes away with that")
    if sys.stdin.isatty():
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
        hypervisor.run(f"stty -F /dev/ttyS0 rows {rows} cols {columns}")
    console = connect(hypervisor.machine.run / "console")
    console.sendall(b"\n")
    before = termios.tcgetattr(0) if sys.stdin.isatty() else None
    try:
        if before:
            tty.setraw(0)
        while True:
            ready, _, _ = select.select([0, console.fileno()], [], [])
            if 0 in ready:
                typed = os.read(0, 1024)
                if ESCAPE in typed or not typed:
                    return
                console.sendall(typed)
            if console.fileno() in ready:
                if not (printed := console.recv(65536)):
                    return
                os.write(1, printed)
    finally:
        if before:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
