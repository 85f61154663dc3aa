"""Run inside a network namespace by the tests: ``agent.py COMMAND [ARGUMENT...]``, an answer in JSON."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libvirt_tuner.topology import HostTopology

PORT = 9
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002
BR_STATE_FORWARDING = "3"
VLAN_TAG = struct.pack("!HH", 0x8100, 5)


def plan(device: str, tags: str = "0", with_xfrm: str = "") -> dict[str, object]:
    """What the product makes of ``device``: its path and the largest MTU."""
    # Here: a packet is sent in an instant, and on an emulated machine these take a second.
    from libvirt_tuner.uplink import budget
    from libvirt_tuner.uplink.path import trace

    host = _host(device, bool(with_xfrm))
    path = trace(device, host)
    size, why = budget.vnic_mtu(path, host, tags=int(tags))
    return {"path": str(path), "size": size, "why": why, "steps": path.steps}


def host_side(device: str, size: str) -> list[tuple[str, int]]:
    """The host's MTUs once a guest on ``device`` has ``size``."""
    from libvirt_tuner.planning import mtu

    return list(mtu.host_side(device, int(size), _host(device)))


def choose(bridge: str, wanted: str) -> int | None:
    """The MTU that a guest on ``bridge`` is given under the policy ``wanted``; None: none is set."""
    from libvirt_tuner.domainxml.spec import Vnic
    from libvirt_tuner.planning import mtu
    from libvirt_tuner.uplink.path import trace

    vnic = Vnic(0, type="bridge", source=bridge, model="virtio")
    host = _host(bridge)
    choice, _ = mtu.choose(vnic, trace(bridge, host), host, wanted, libvirt=(9, 0, 0))
    return choice.size if choice else None


def _host(device: str, with_xfrm: bool = False) -> HostTopology:
    from libvirt_tuner.host import links as netprobe
    from libvirt_tuner.host import xfrm
    from libvirt_tuner.host.sysfs import Sysfs
    from libvirt_tuner.topology import HostTopology, Xfrm

    links, routes = netprobe.network(Sysfs("/"), [device])
    states = xfrm.xfrm(Sysfs("/")) if with_xfrm else Xfrm()
    return HostTopology((), (), links=links, routes=routes, xfrm=states)


def send(address: str, size: str) -> bool:
    """One UDP packet of ``size`` bytes, IP header included, that may be fragmented; False when refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(bytes(int(size) - 28), (address, PORT))
        except OSError:
            return False
    return True


def guest(tap: str, mac: str, size: str, tagged: str = "") -> bool:
    """Send from a tap as QEMU does: one IPv4 packet of ``size`` bytes to ``mac``, with a VLAN tag or none."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", tap.encode(), IFF_TAP_NO_PI))
    _wait_until_forwarding(tap)
    packet = _packet(int(size))
    ether = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("525400000001")
    frame = ether + (VLAN_TAG if tagged else b"") + struct.pack("!H", 0x0800) + packet
    try:
        return os.write(fd, frame) == len(frame)
    except OSError:
        return False
    finally:
        os.close(fd)


def _wait_until_forwarding(tap: str) -> None:
    """A tap that is opened has a carrier; the bridge hears of it later, and drops frames until then."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/sys/class/net/{tap}/brport/state") as file:
            if file.read().strip() == BR_STATE_FORWARDING:
                return
        time.sleep(0.005)
    raise TimeoutError(f"{tap} does not forward")


def _packet(size: int) -> bytes:
    source, target = socket.inet_aton("10.88.0.9"), socket.inet_aton("10.88.0.2")
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 1, 0, 64, 17, 0, source, target)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    return header + struct.pack("!HHHH", 1024, PORT, size - 20, 0) + bytes(size - 28)


COMMANDS = {"plan": plan, "host_side": host_side, "choose": choose, "send": send, "guest": guest}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))  # type: ignore[operator]
