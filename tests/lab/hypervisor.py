"""What scenarios hold in their hands: one emulated hypervisor, its commands, its NICs and its guests."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable

from attrs import define, field

from .channel import CommandError, Result
from .guest import Guest, GuestSpec
from .machine import BootError, Machine


@define
class Hypervisor:
    """A booted machine in which libvirtd is ready for domains of type kvm.

    Attributes:
        machine: The machine.
        nics: The kernel's names of its NICs, in the order of the setup.
    """

    machine: Machine
    nics: tuple[str, ...] = ()
    _guests: dict[str, Guest] = field(factory=dict)

    @property
    def number(self) -> int:
        """What tells it from the other one, 1 or 2."""
        return self.machine.setup.number

    @property
    def release(self) -> str:
        """Debian's code name."""
        return self.machine.setup.image.release

    def run(self, command: str, *, check: bool = True, stdin: bytes = b"", timeout: float = 120.0) -> Result:
        """Run a shell command.

        Args:
            command: What the shell is given.
            check: Insist on status 0.
            stdin: What it reads.
            timeout: Seconds; then it is killed, with all it started, and its status is 124.

        Raises:
            CommandError: It failed, and ``check`` is set.
        """
        result = self.machine.channel.run(("sh", "-c", command), stdin=stdin, timeout=timeout)
        if check and result.status:
            raise CommandError(f"{command}: status {result.status}\n{result.stdout}{result.stderr}")
        return result

    def output(self, command: str, *, timeout: float = 120.0) -> str:
        """Run a command that has to succeed, and return what it printed, without the last newline."""
        return self.run(command, timeout=timeout).stdout.rstrip("\n")

    def read(self, path: str) -> str:
        """Return a file's text, without the last newline."""
        return self.machine.channel.get(path).decode(errors="replace").rstrip("\n")

    def write(self, path: str, data: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file, with its directory."""
        self.machine.channel.put(path, data.encode() if isinstance(data, str) else data, mode=mode)

    def wait_for(self, what: Callable[[], object], *, timeout: float = 30.0, why: str = "") -> None:
        """Wait until something is so (seconds).

        Raises:
            AssertionError: It was not in time.
        """
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {why or what}"
            time.sleep(0.3)

    def ip(self, command: str) -> None:
        """Run ``ip``."""
        self.run(f"ip {command}")

    def bridge(self, name: str, nic: str, *, address: str = "") -> None:
        """Make a bridge over a NIC, with an address of its own if one is given (10.0.0.1/24)."""
        self.ip(f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        self.ip(f"link set {nic} master {name} up")
        self.ip(f"link set {name} up")
        if address:
            self.ip(f"address add {address} dev {name}")

    def define(self, spec: GuestSpec) -> Guest:
        """Define a guest, without starting it; :meth:`clean` takes it away."""
        guest = Guest(self, spec)
        xml = f"/run/lab/{spec.name}.xml"
        self.write(xml, spec.xml())
        self.run(f"virsh define {shlex.quote(xml)}")
        self._guests[spec.name] = guest
        return guest

    def clean(self) -> None:
        """Destroy and undefine every guest that was defined here."""
        for guest in self._guests.values():
            guest.remove()
        self._guests.clear()

    def wait_ready(self) -> None:
        """Wait for libvirtd, its knowledge of QEMU and KVM, and set the clock.

        Raises:
            BootError: libvirt does not offer KVM.
        """
        self.run(f"date -s @{time.time():.0f}")
        deadline = time.monotonic() + 120
        while (result := self.run("virsh domcapabilities --virttype kvm", check=False)).status:
            if time.monotonic() > deadline:
                raise BootError(f"no KVM in {self.machine.name}: {result}")
            time.sleep(1)
        self.nics = tuple(
            self._nic_named(self.machine.setup.mac(i)) for i in range(len(self.machine.setup.nics))
        )

    def _nic_named(self, mac: str) -> str:
        """The name the kernel and udev gave to a NIC."""
        return self.output(f"basename $(dirname $(grep -l {mac} /sys/class/net/*/address))")

    def reboot(self) -> None:
        """Restart it, and wait until it is ready again; guests that were defined still are."""
        self.machine.reboot()
        self.run("mkdir -p /run/lab")
        self.wait_ready()

    def close(self) -> None:
        """End the machine."""
        self.machine.close()
