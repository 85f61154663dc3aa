"""Print how many VMs of a kind fit on each captured host, with their own CPUs and memory.

python capacity.py vm.xml HOST_DIRECTORY...   (directories from 'libvirt-tuner host capture')
"""

from __future__ import annotations

import sys
from pathlib import Path

from libvirt_tuner import HostTopology, Plan, plan, read_host


def fitting(host: HostTopology, xml: bytes) -> list[Plan]:
    """Return the plans of the VMs that fit. Each is planned next to the ones before it."""
    held: list[Plan] = []
    while True:
        made = plan(host, xml, others=held)
        has_memory = made.numatune is not None and made.numatune.mode == "strict"
        if made.placement != "dedicated" or not has_memory:
            return held
        held.append(made)


def main() -> None:
    """Print a line for each host."""
    xml = Path(sys.argv[1]).read_bytes()
    for directory in sys.argv[2:]:
        plans = fitting(read_host(directory), xml)
        nodes = [made.nodes[0] for made in plans if made.nodes]
        by_node = ", ".join(f"node {node}: {nodes.count(node)}" for node in sorted(set(nodes)))
        print(f"{Path(directory).name}: {len(plans)} ({by_node})")


if __name__ == "__main__":
    main()
