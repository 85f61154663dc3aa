"""The testbed: by ``libvirt-tuner testbed`` as a whole, and by hand in pieces.

Either way bond, geneve, and ESP in transport mode with kernel crypto.
"""

from __future__ import annotations

import json

from .guest import Guest, GuestSpec, Vnic
from .hypervisor import Hypervisor

#: What a VM may send in one piece over geneve and ESP (transport, AES-GCM) on an underlay of 1500 bytes.
VM_MTU = 1416

#: A 20-byte key: AES-128 and the 4-byte salt of RFC 4106.
KEY = "0x" + "11" * 20
ALGORITHM = f"aead 'rfc4106(gcm(aes))' {KEY} 128"

Peers = tuple[Hypervisor, Hypervisor]
ROLES = ("server", "client")
CONFIG_FILE = "/etc/libvirt-tuner-testbed.toml"
KEY_FILE = "/etc/libvirt-tuner-testbed.keys"


def address(number: int) -> str:
    """Return the underlay address of a hypervisor."""
    return f"192.168.1.{number}"


def bond(hypervisor: Hypervisor, *, mtu: int = 1500) -> None:
    """Bond the two underlay NICs as bond0, active-backup, the first one active; with the underlay address."""
    _, first, second = hypervisor.nics
    hypervisor.ip("link add bond0 type bond mode active-backup miimon 100")
    for nic in (first, second):
        hypervisor.ip(f"link set {nic} down")
        hypervisor.ip(f"link set {nic} master bond0")
    hypervisor.ip(f"link set bond0 mtu {mtu} up")
    hypervisor.wait_for(
        lambda: hypervisor.read("/sys/class/net/bond0/bonding/mii_status") == "up", why="bond up"
    )
    activate(hypervisor, first)
    hypervisor.ip(f"address add {address(hypervisor.number)}/24 dev bond0")


def activate(hypervisor: Hypervisor, nic: str) -> None:
    """Make a NIC the bond's active slave."""
    hypervisor.ip(f"link set bond0 type bond active_slave {nic}")


def geneve(hypervisor: Hypervisor, peer: int) -> None:
    """Make geneve0 (VNI 100) to another hypervisor; its MTU is what the kernel thinks right."""
    hypervisor.ip(f"link add geneve0 type geneve id 100 remote {address(peer)} dstport 6081")
    hypervisor.ip("link set geneve0 up")


def esp(hypervisor: Hypervisor, peer: int) -> None:
    """Encrypt all that goes between two hypervisors' underlay addresses."""
    here, there = address(hypervisor.number), address(peer)
    for source, target, number in ((here, there, hypervisor.number), (there, here, peer)):
        ends, mode = f"src {source} dst {target}", f"reqid {number} mode transport"
        hypervisor.ip(f"xfrm state add {ends} proto esp spi {0x1000 + number} {mode} {ALGORITHM}")
        direction = "out" if source == here else "in"
        hypervisor.ip(f"xfrm policy add {ends} dir {direction} tmpl {ends} proto esp {mode}")


def configure(peers: Peers, **settings: object) -> None:
    """Write the tool's file, the same on both but for the role and the names of the cards."""
    for host, role in zip(peers, ROLES, strict=True):
        values = {"role": role, "devices": list(host.nics[1:]), **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        host.write(CONFIG_FILE, "\n".join(["[testbed]", *lines, ""]))


def up(peers: Peers) -> list[str]:
    """Bring up both ends, with keys that the first one makes, and return what was said."""
    said = [peers[0].output("libvirt-tuner testbed up --make-keys")]
    if peers[0].run(f"test -e {KEY_FILE}", check=False).status == 0:
        peers[1].write(KEY_FILE, peers[0].read(KEY_FILE) + "\n", mode=0o600)
    return [*said, peers[1].output("libvirt-tuner testbed up")]


def join(first: Hypervisor, second: Hypervisor) -> tuple[Guest, Guest]:
    """Bring up the testbed on both, and start a VM on each, 10.79.0.1 and 10.79.0.2, on a macvtap.

    Raises:
        AssertionError: A VM's MTU is not the one the service is to compute.
    """
    configure((first, second))
    up((first, second))
    guests = _guest(first), _guest(second)
    for guest in guests:
        guest.start(wait=False)
    for guest in guests:
        guest.wait()
        assert (mtu := guest.mtu()) == VM_MTU, f"{guest.name} came up with an MTU of {mtu}, not {VM_MTU}"
    return guests


def _guest(hypervisor: Hypervisor) -> Guest:
    """Define a VM whose NIC is a macvtap on geneve0; the service has completed its definition."""
    nic = Vnic(source="dev=geneve0", address=f"10.79.0.{hypervisor.number}/24")
    guest = hypervisor.define(GuestSpec(name=f"vm{hypervisor.number}", nics=(nic,)))
    hypervisor.wait_for(
        lambda: "host_mtu" in guest.virsh("dumpxml").stdout, why="the service completes the definition"
    )
    return guest
