"""The inner guest: a diskless domain of type kvm; its initramfs holds busybox, iperf3 and the drivers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from attrs import define, frozen

from .channel import ChannelError, CommandError, Result

if TYPE_CHECKING:
    from .hypervisor import Hypervisor

TEMPLATE = """\
<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu placement='static'>{vcpus}</vcpu>
{tuning}  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/var/lib/lab/vmlinuz</kernel>
    <initrd>/var/lib/lab/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off {addresses}</cmdline>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-passthrough'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
{interfaces}    <serial type='file'>
      <source path='/var/log/libvirt/qemu/{name}-console.log'/>
    </serial>
    <channel type='unix'>
      <source mode='bind' path='/run/lab/{name}.channel'/>
      <target type='virtio' name='lab.guest'/>
    </channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""

NIC_TEMPLATE = """\
    <interface type='{type}'>
      <source {source}/>
      <model type='virtio'/>
      <driver name='vhost'/>
{more}      <rom enabled='no'/>
    </interface>
"""


@frozen(kw_only=True)
class Vnic:
    """A virtio-net interface with vhost.

    Attributes:
        source: ``bridge=br0``, or ``dev=geneve0`` for a macvtap.
        address: The guest's own, with the prefix length; empty: none.
        mtu: Its ``<mtu>``, bytes; None: no such element.
    """

    source: str
    address: str = ""
    mtu: int | None = None

    def xml(self) -> str:
        """Return the interface element."""
        kind, _, name = self.source.partition("=")
        direct = kind == "dev"
        return NIC_TEMPLATE.format(
            type="direct" if direct else "bridge",
            source=f"{kind}={quoteattr(name)}" + (" mode='bridge'" if direct else ""),
            more=f"      <mtu size='{self.mtu}'/>\n" if self.mtu else "",
        )


@frozen(kw_only=True)
class GuestSpec:
    """What a domain is made of.

    Attributes:
        name: The domain's.
        nics: Its interfaces; eth0, eth1, ... inside.
        vcpus: How many.
        memory: MiB.
        tuning: Elements between ``<vcpu>`` and ``<os>``: ``<cputune>``, ``<numatune>``.
        metadata: Content of ``<metadata>``.
    """

    name: str
    nics: tuple[Vnic, ...] = ()
    vcpus: int = 1
    memory: int = 256
    tuning: str = ""
    metadata: str = ""

    def xml(self) -> str:
        """Return the domain's XML."""
        metadata = f"  <metadata>{self.metadata}</metadata>\n" if self.metadata else ""
        return TEMPLATE.format(
            name=self.name,
            memory=self.memory,
            vcpus=self.vcpus,
            tuning=metadata + self.tuning,
            addresses=" ".join(
                f"lab.addr=eth{i}={nic.address}" for i, nic in enumerate(self.nics) if nic.address
            ),
            interfaces="".join(nic.xml() for nic in self.nics),
        )


@define
class Guest:
    """A defined domain.

    Attributes:
        host: The hypervisor it is defined on.
        spec: What it was made of.
    """

    host: Hypervisor
    spec: GuestSpec

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.spec.name

    def virsh(self, command: str, *, check: bool = True, timeout: float = 120.0) -> Result:
        """Run ``virsh COMMAND DOMAIN``; what follows the first word of the command follows the domain."""
        verb, _, rest = command.partition(" ")
        return self.host.run(f"virsh {verb} {self.name} {rest}".rstrip(), check=check, timeout=timeout)

    def start(self, *, wait: bool = True) -> None:
        """Start it; ``wait`` for its Linux as well."""
        self.virsh("start")
        if wait:
            self.wait()

    def wait(self, *, timeout: float = 120.0) -> None:
        """Wait until the guest's own Linux is up (seconds)."""
        self.run("true", timeout=timeout)

    def run(self, command: str, *, timeout: float = 60.0) -> str:
        """Run a shell command inside the guest and return what it printed.

        Raises:
            CommandError: Its status was not 0, or the guest did not answer; with the console's end.
        """
        try:
            status, output = self.host.machine.channel.ask(
                f"/run/lab/{self.name}.channel", command, timeout=timeout
            )
        except ChannelError as error:
            console = self.host.run(f"tail -n 5 /var/log/libvirt/qemu/{self.name}-console.log", check=False)
            raise CommandError(f"{self.name}: {error}\n{console.stdout}") from error
        if status:
            raise CommandError(f"{self.name}: {command}: status {status}\n{output}")
        return output.rstrip("\n")

    def mtu(self, device: str = "eth0") -> int:
        """Return the MTU the guest uses (bytes)."""
        return int(self.run(f"cat /sys/class/net/{device}/mtu"))

    @property
    def pid(self) -> int:
        """The process id of its QEMU."""
        return int(self.host.read(f"/run/libvirt/qemu/{self.name}.pid"))

    def threads(self) -> dict[int, str]:
        """Return the names of QEMU's threads by their ids, vhost workers on either kernel among them."""
        pid = self.pid
        found = self.host.output(
            f"cd /proc; for t in {pid}/task/* $(pgrep -x vhost-{pid});"
            " do echo ${t##*/} $(cat $t/comm); done"
        )
        return {int(tid): name for tid, _, name in (line.partition(" ") for line in found.splitlines())}

    def vcpu_threads(self) -> dict[int, int]:
        """Return the thread of each vCPU."""
        named = ((re.fullmatch(r"CPU (\d+)/KVM", name), tid) for tid, name in self.threads().items())
        return {int(match[1]): tid for match, tid in named if match}

    def vhost_threads(self) -> list[int]:
        """Return its vhost workers, kernel threads (Linux 6.1) or threads of QEMU (6.4 and later)."""
        return sorted(tid for tid, name in self.threads().items() if name == f"vhost-{self.pid}")

    def affinity(self, tid: int) -> str:
        """Return the CPUs a thread may run on, as a list like 0-3,8."""
        return self.host.output(f"awk '/^Cpus_allowed_list/ {{ print $2 }}' /proc/{tid}/status")

    def remove(self) -> None:
        """Destroy and undefine it, whatever state it is in."""
        self.virsh("destroy", check=False)
        self.virsh("undefine --managed-save", check=False)
