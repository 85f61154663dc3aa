"""The laboratory's floor plan: which hypervisors there are, and what they are plugged into.

Two bridges outside: ``lan`` (10.77.0.0/24, where the outside iperf3 is 10.77.0.1) and ``underlay``, which
joins the bonds of the hypervisors and has no address outside. Each hypervisor has three NICs:

===== ============ ================ ==========================================
index bridge       node (1st, 2nd)  for
===== ============ ================ ==========================================
0     ``lan``      0, 1             bridges and macvtap to the outside
1     ``underlay`` 0, 1             first port of a bond
2     ``underlay`` 1, 0             second port of a bond
===== ============ ================ ==========================================
"""

from __future__ import annotations

from .image import Image
from .machine import Nic, Setup
from .network import Network

OUTSIDE = "10.77.0.1"


def outside() -> Network:
    """Make the network."""
    network = Network()
    network.add_bridge("lan", address=f"{OUTSIDE}/24")
    network.add_bridge("underlay")
    return network


def hypervisor(image: Image, number: int) -> Setup:
    """Return the setup of a hypervisor, 1 or 2."""
    near = (number - 1) % 2
    nics = (Nic(node=near, bridge="lan"), *(Nic(node=node, bridge="underlay") for node in (near, 1 - near)))
    return Setup(image=image, number=number, nics=nics)


def address(number: int) -> str:
    """Return the address of a hypervisor on the lan."""
    return f"10.77.0.{10 * number}"
