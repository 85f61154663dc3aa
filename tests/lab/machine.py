"""One emulated hypervisor: QEMU's command line, its life, and the waiting for its boot.

TCG emulates AMD's SVM, so the KVM inside is the real one. The machine is a two-socket q35: NUMA node 0 has
the even CPUs, node 1 the odd ones, and each node has a PCI expander bus for its NICs. Every device names its
bus: one that does not lands on an expander, which QEMU refuses.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from attrs import define, field, frozen

from . import emulator
from .channel import Channel, ChannelError, Monitor
from .image import Image
from .network import Network
from .progress import say, step

CPUS = 8
NODES = 2

#: One boot in eight hangs while the kernel looks at PCI: seconds of a silent console until we believe it has.
SILENCE = 90.0
TRIES = 3

#: Another one stands still because a CPU's timer has stopped; its kernel says so, again and again.
STUCK = "timer wakeup didn't happen"

PANIC = "Kernel panic - not syncing"
OOPS = re.compile(r"\b\w[\w ]*: [0-9a-f]{4} \[#1\]|BUG: |Unable to handle")

CMDLINE = "root=/dev/vda rw console=ttyS0 mitigations=off audit=0 systemd.show_status=1"


@frozen(kw_only=True)
class Nic:
    """A network card of the machine.

    Attributes:
        node: The NUMA node its PCI bus belongs to.
        bridge: The bridge of the laboratory's network that it is plugged into.
    """

    node: int
    bridge: str


@frozen(kw_only=True)
class Setup:
    """What a machine is made of.

    Attributes:
        image: What it boots.
        number: Tells machines of one laboratory apart; in the MAC addresses and the taps' names.
        nics: Its network cards, in the order in which they are numbered.
        memory: MiB, half of it in each node.
    """

    image: Image
    number: int
    nics: tuple[Nic, ...]
    memory: int = 4096

    def mac(self, index: int) -> str:
        """Return the address of a NIC."""
        return f"52:54:00:1a:b{self.number:x}:{index:02x}"

    def tap(self, index: int) -> str:
        """Return the name of a NIC's tap in the laboratory's network."""
        return f"hv{self.number}nic{index}"


def command_line(setup: Setup, *, disk: Path, run: Path, snapshot: bool) -> tuple[str, ...]:
    """Return QEMU's arguments.

    Args:
        setup: The machine.
        disk: The root disk, raw or qcow2 by its name.
        run: Directory of the sockets and the console's log.
        snapshot: Keep the disk as it is; what is written goes away with the process.
    """
    form = "qcow2" if disk.suffix == ".qcow2" else "raw"
    words = (
        "-nodefaults -display none -machine q35 -accel tcg,thread=multi -cpu max",
        f"-smp {CPUS},sockets={NODES},cores={CPUS // NODES},threads=1 -m {setup.memory}",
        *(_node(node, setup.memory // NODES) for node in range(NODES)),
        "-mon chardev=qmp,mode=control -device isa-serial,chardev=console",
        "-device virtio-serial-pci,bus=pcie.0 -device virtserialport,chardev=agent,name=lab.agent",
        "-device virtio-blk-pci,drive=root,bus=pcie.0",
        "-snapshot" if snapshot else "",
        *(_nic(setup, index) for index in range(len(setup.nics))),
    )
    # What has a path in it is one argument, whatever the path.
    return (
        *emulator.command(),
        *("-kernel", str(setup.image.kernel), "-initrd", str(setup.image.initrd), "-append", CMDLINE),
        *("-drive", f"if=none,id=root,file={_value(disk)},format={form},cache=unsafe"),
        *("-chardev", _socket("qmp", run)),
        *("-chardev", f"{_socket('console', run)},logfile={_value(run / 'console.log')}"),
        *("-chardev", _socket("agent", run)),
        *" ".join(words).split(),
    )


def _node(node: int, memory: int) -> str:
    """A NUMA node with every second CPU, and its PCI expander bus."""
    cpus = ",".join(f"cpus={cpu}" for cpu in range(node, CPUS, NODES))
    return (
        f"-object memory-backend-ram,id=mem{node},size={memory}M "
        f"-numa node,nodeid={node},memdev=mem{node},{cpus} "
        f"-device pxb-pcie,id=pxb{node},bus_nr={0x40 * (node + 1)},numa_node={node},bus=pcie.0"
    )


def _socket(name: str, run: Path) -> str:
    """A character device behind a unix socket."""
    return f"socket,id={name},path={_value(run / name)},server=on,wait=off"


def _value(path: Path) -> str:
    """A path inside an option, where a comma ends the value unless there are two."""
    return str(path).replace(",", ",,")


def _nic(setup: Setup, index: int) -> str:
    """A NIC on a root port of its own, on its node's bus, behind a tap that is there already."""
    nic = setup.nics[index]
    tap = f"ifname={setup.tap(index)},script=no,downscript=no,vhost=off"
    return (
        f"-device pcie-root-port,id=port{index},bus=pxb{nic.node},chassis={index + 1},slot={index + 1} "
        f"-netdev tap,id=net{index},{tap} "
        f"-device virtio-net-pci,netdev=net{index},bus=port{index},mac={setup.mac(index)},romfile="
    )


@define
class Machine:
    """A running machine; :meth:`close` ends it.

    Attributes:
        setup: What it is made of.
        network: Where its NICs are plugged in.
        run: Directory of its sockets and its console's log.
    """

    setup: Setup
    network: Network
    run: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="lab-")))
    process: subprocess.Popen[bytes] | None = None
    _channel: Channel | None = None
    _monitor: Monitor | None = None

    @property
    def name(self) -> str:
        """What progress lines call it."""
        return f"{self.setup.image.release} hypervisor {self.setup.number}"

    @property
    def channel(self) -> Channel:
        """The agent inside."""
        assert self._channel is not None, "the machine does not run"
        return self._channel

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor."""
        if self._monitor is None:
            self._monitor = Monitor(self.run / "qmp")
        return self._monitor

    @property
    def console(self) -> Path:
        """The log of the serial console."""
        return self.run / "console.log"

    def plug_in(self) -> None:
        """Make the taps of its NICs."""
        for index, nic in enumerate(self.setup.nics):
            self.network.add_tap(self.setup.tap(index), nic.bridge)

    def start(self, disk: Path, *, snapshot: bool, memory: Path | None = None) -> None:
        """Start QEMU, without waiting for anything inside.

        Args:
            disk: The root disk.
            snapshot: Leave the disk as it is.
            memory: A saved state (:meth:`save`) to go on from instead of a boot.

        Raises:
            ChannelError: It does not open its sockets.
        """
        arguments = command_line(self.setup, disk=disk, run=self.run, snapshot=snapshot)
        incoming = ("-incoming", f"exec:cat {shlex.quote(str(memory))}") if memory else ()
        with (self.run / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen(
                self.network.enter(*arguments, *incoming),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "TMPDIR": os.environ.get("TMPDIR", "/var/tmp")},
            )
        self._channel = Channel(self.run / "agent", self.check)

    def check(self) -> None:
        """Look whether it still runs.

        Raises:
            MachineDied: Its kernel has panicked, or QEMU has ended.
        """
        if self.process is None or self.process.poll() is not None:
            said = (self.run / "qemu.log").read_text(errors="replace")
            raise MachineDied(f"{self.name}: QEMU has ended\n{said}".rstrip())
        said = self._said()
        if PANIC in said:
            oops = next((line for line in said.splitlines() if OOPS.search(line)), PANIC)
            raise MachineDied(f"{self.name}: its kernel has panicked: {oops}")

    def wait(self, *, silence: float = SILENCE, other_than: str = "") -> str:
        """Wait until the agent answers, as long as the console goes on; return the boot id.

        Args:
            silence: Seconds without a word from the console until the machine is given up.
            other_than: A boot id that does not count: that of before a reboot.

        Raises:
            BootError: It hangs, or has ended.
        """
        size, heard = -1, time.monotonic()
        before = len(self._said()) if other_than else 0
        while time.monotonic() - heard < silence:
            if self.process is None or self.process.poll() is not None:
                raise BootError(f"QEMU has ended:\n{(self.run / 'qemu.log').read_text()}")
            try:
                if (boot := self.channel.ping(timeout=min(2.0, silence))) != other_than:
                    return boot
            except ChannelError:
                pass
            said = self._said()
            if len(said) != size:
                size, heard = len(said), time.monotonic()
            if STUCK in said[before:]:
                raise BootError(f"a CPU's timer has stopped; the console ends with:\n{self.console_tail()}")
            time.sleep(0.2)
        raise BootError(f"nothing on the console for {silence:.0f} s; it ends with:\n{self.console_tail()}")

    def reboot(self) -> None:
        """Restart what runs inside, in an orderly way; a reset follows if the new boot hangs."""
        before = self.channel.ping()
        with step(f"reboot of {self.name}"):
            self.channel.run(("systemctl", "reboot"))
            for attempt in range(1, TRIES + 1):
                try:
                    self.wait(other_than=before)
                    return
                except BootError:
                    if attempt == TRIES:
                        raise
                    say(f"reboot of {self.name} hangs: reset")
                    self.monitor.execute("system_reset")

    def save(self, memory: Path) -> None:
        """Write the state of the running machine into a file, and end it; its disk is as it was left.

        Raises:
            BootError: QEMU could not.
        """
        self.monitor.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.monitor.execute("migrate", uri=f"exec:cat > {shlex.quote(str(memory))}")
        while (status := self.monitor.execute("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise BootError(f"the state could not be saved: {status}")
            time.sleep(0.2)
        self.monitor.execute("quit")
        self.kill()

    def console_tail(self, lines: int = 15) -> str:
        """Return the console's last lines."""
        return "\n".join(self._said().splitlines()[-lines:])

    def _said(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def kill(self) -> None:
        """End QEMU at once."""
        for connection in (self._channel, self._monitor):
            if connection:
                connection.close()
        self._channel = self._monitor = None
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def close(self) -> None:
        """End QEMU and remove its taps and what it wrote."""
        self.kill()
        for index in range(len(self.setup.nics)):
            self.network.remove(self.setup.tap(index))
        shutil.rmtree(self.run, ignore_errors=True)


class MachineDied(ChannelError):
    """A machine that was up is no more."""


class BootError(Exception):
    """A machine does not come up."""


def fingerprint(setup: Setup) -> str:
    """Return a hash of all that a saved state depends on: the image, QEMU's version and every argument."""
    version = emulator.version(emulator.command())
    arguments = command_line(setup, disk=setup.image.disk, run=Path("/run"), snapshot=True)
    return hashlib.sha256(repr((setup.image.key, version, arguments)).encode()).hexdigest()[:12]
