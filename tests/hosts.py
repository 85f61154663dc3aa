"""Hosts described in a few lines and written as trees that :class:`~libvirt_tuner.host.sysfs.Sysfs` replays.

A tree holds what ``libvirt-tuner host capture`` would have written on such a machine, no more: a test
captures each tree again and compares. ``python -m tests.hosts --write`` rewrites fixtures/hosts/.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.host.xfrm import XFRM_POLICY, XFRM_STATE
from tests.host_trees import LINK_SHOW, Device, Host, IrqLine, LinkTo, Node, Port, Tree, build, read, write

#: Offered here too, for a test imports one of the two.
__all__ = [
    "LINK_SHOW",
    "Device",
    "Host",
    "IrqLine",
    "LinkTo",
    "Node",
    "Port",
    "Tree",
    "build",
    "read",
    "write",
]

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "hosts"


def mlx5(first: int, address: str, cpus: Iterable[int], affinity: str) -> tuple[IrqLine, ...]:
    """A ConnectX port's interrupts: async on the first CPU, then one completion vector per CPU."""
    cpus = list(cpus)
    names = ["mlx5_async0", *(f"mlx5_comp{n}" for n in range(len(cpus)))]
    places = [cpus[0], *cpus]
    return tuple(
        IrqLine(first + n, f"{name}@pci:{address}", affinity, str(cpu))
        for n, (name, cpu) in enumerate(zip(names, places, strict=True))
    )


def queues(first: int, name: str, cpus: Iterable[int], affinity: str) -> tuple[IrqLine, ...]:
    """Interrupts named as most Ethernet drivers do: ``ens1-TxRx-0``."""
    return tuple(IrqLine(first + n, f"{name}-TxRx-{n}", affinity, str(cpu)) for n, cpu in enumerate(cpus))


VIRBR0 = Device("virbr0", "bridge")


def seed() -> Host:
    """Two nodes, even CPUs on node 0; a bond of two ConnectX-7 ports on node 0 below a geneve tunnel.

    IRQ 229 of the active port goes to CPU 1, on the other node; IRQ 221 is where it should be.
    """
    housekeeping = range(0, 16, 2)
    active = [*housekeeping, *range(0, 14, 2), 1]
    ports = (
        ("enp23s0f0np0", "0000:17:00.0", 213, active),
        ("enp23s0f1np1", "0000:17:00.1", 230, [*active[:15], 14]),
    )
    return Host(
        nodes={
            0: Node("0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30"),
            1: Node("1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31"),
        },
        isolated="16,18,20,22,24,26,28,30",
        cmdline="isolcpus=no_hz,domain,16,18,20,22,24,26,28,30",
        ports=tuple(
            Port(name, address, "mlx5_core", 0, mlx5(first, address, cpus, "0-31"), master="bond0")
            for name, address, first, cpus in ports
        ),
        devices=(
            Device(
                "bond0",
                "bond",
                lower=("enp23s0f0np0", "enp23s0f1np1"),
                info={"mode": "active-backup", "number": 1, "active_slave": "enp23s0f0np0"},
            ),
            Device(
                "geneve0",
                "geneve",
                1450,
                info={"id": 100, "remote": "192.168.1.2", "ttl": 0, "port": 6081, "udp_csum": True},
            ),
            VIRBR0,
        ),
        routes={"192.168.1.2": ("bond0", "192.168.1.1")},
        said=esp_transport("192.168.1.1", "192.168.1.2", "bond0")
        | ethtool("enp23s0f0np0")
        | ethtool("enp23s0f1np1")
        | ethtool("bond0", pause=""),
    )


ESP_OFFLOADS = ("esp-hw-offload", "esp-tx-csum-hw-offload", "tx-esp-segmentation", "tx-gso-partial")


def ethtool(device: str, *, pause: str = "off", **features: str) -> dict[tuple[str, ...], str]:
    """What ethtool prints of a device: ESP offloads on unless said (``esp_hw_offload="off [fixed]"``)."""
    said = {name: features.get(name.replace("-", "_"), "on") for name in ESP_OFFLOADS}
    lines = [f"{name}: {value}" for name, value in said.items()]
    shown: dict[tuple[str, ...], str] = {}
    shown["ethtool", "-k", device] = "\n".join([f"Features for {device}:", "rx-checksumming: on", *lines])
    if pause:
        lines = [
            f"Pause parameters for {device}:",
            "Autonegotiate:\toff",
            f"RX:\t\t{pause}",
            f"TX:\t\t{pause}",
        ]
        shown["ethtool", "-a", device] = "\n".join(lines)
    return shown


def misfit() -> Host:
    """Two nodes of 4 CPUs where nearly everything that ``host check`` knows is wrong.

    A bond of two ConnectX ports on node 0 below geneve below a macvtap; ESP in kernel crypto; CPUs 2-7
    tickless without domain isolation, 2-3 isolated by a second line the kernel takes in part.
    """
    ports = (("ens1f0np0", "0000:17:00.0", 40, "off"), ("ens1f1np1", "0000:17:00.1", 50, "on"))
    able = {"esp_tx_csum_hw_offload": "off"}
    dropped = {"tx_esp_segmentation": "off [requested on]", "esp_hw_offload": "off"}
    return Host(
        nodes={0: Node("0-3"), 1: Node("4-7")},
        distance=20,
        isolated="2-3",
        nohz_full="2-7",
        cmdline="isolcpus=no_hz,domain,2-3 nohz_full=2-7",
        ports=tuple(
            Port(
                name,
                address,
                "mlx5_core",
                0,
                mlx5(first, address, (0, 2, 5, 1), "0-7"),
                master="bond0",
                rps=("00", "0c", "04", "00") if first == 40 else ("00",) * 4,
                xps=("01", "02", "04", "08"),
            )
            for name, address, first, _ in ports
        ),
        devices=(
            Device(
                "bond0",
                "bond",
                lower=("ens1f0np0", "ens1f1np1"),
                info={"mode": "active-backup", "number": 1, "active_slave": "ens1f0np0"},
            ),
            Device("geneve0", "geneve", 1450, info={"id": 100, "remote": "192.168.1.2", "port": 6081}),
            VIRBR0,
        ),
        routes={"192.168.1.2": ("bond0", "192.168.1.1")},
        said=esp_transport("192.168.1.1", "192.168.1.2")
        | ethtool(ports[0][0], pause=ports[0][3], **able)
        | ethtool(ports[1][0], pause=ports[1][3])
        | ethtool("bond0", pause="", **dropped),
        files={
            "/proc/811/comm": "irqbalance",
            "/proc/812/comm": "tuned",
            "/etc/default/irqbalance": "IRQBALANCE_BANNED_CPULIST=3",
            "/etc/tuned/active_profile": "cpu-partitioning",
            "/etc/tuned/cpu-partitioning-variables.conf": "isolated_cores=3-7",
            "/proc/sys/net/core/rps_sock_flow_entries": "32768",
        },
    )


def esp_transport(here: str, there: str, offload: str = "") -> dict[tuple[str, ...], str]:
    """ESP in transport mode, AES-GCM with an ICV of 16 bytes, between two addresses for all they exchange."""
    ways = ((here, there, 10001, "out"), (there, here, 20001, "in"))
    states = []
    for src, dst, reqid, way in ways:
        spi = 300000 + reqid
        states += [
            f"src {src} dst {dst}",
            f"\tproto esp spi 0x{spi:08x}({spi}) reqid {reqid}(0x{reqid:08x}) mode transport",
            "\treplay-window 0 seq 0x00000000 flag  (0x00000000)",
            "\taead rfc4106(gcm(aes)) <<Keys hidden>> 128",
            "\tanti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000",
            *([f"\tcrypto offload parameters: dev {offload} dir {way}"] if offload else []),
            f"\tsel src {src}/32 dst {dst}/32 uid 0",
        ]
    policies = []
    for src, dst, reqid, way in (*ways, (there, here, 20001, "fwd")):
        policies += [
            f"src {src}/32 dst {dst}/32 uid 0",
            f"\tdir {way} action allow index 1 priority 0 ptype main share any flag  (0x00000000)",
            f"\ttmpl src {src} dst {dst}",
            f"\t\tproto esp spi 0x00000000(0) reqid {reqid}(0x{reqid:08x}) mode transport",
            "\t\tlevel required share any",
        ]
    return {XFRM_STATE: "\n".join(states), XFRM_POLICY: "\n".join(policies)}


def smt_2x32() -> Host:
    """Two sockets of 32 cores with two threads each: CPU n and n + 64 share a core; huge pages on both."""
    pools = {2048: (8192, 6144), 1048576: (32, 16)}
    return Host(
        nodes={
            0: Node("0-31,64-95", 262144, 196608, pools),
            1: Node("32-63,96-127", 262144, 229376, pools),
        },
        siblings=tuple((cpu, cpu + 64) for cpu in range(64)),
        ports=(
            Port(
                "ens1f0np0",
                "0000:41:00.0",
                "mlx5_core",
                0,
                mlx5(120, "0000:41:00.0", range(16), "0-127"),
                9000,
                master="br0",
            ),
            Port(
                "ens2f0np0",
                "0000:c1:00.0",
                "mlx5_core",
                1,
                mlx5(160, "0000:c1:00.0", range(32, 48), "0-127"),
                9000,
            ),
        ),
        devices=(Device("br0", "bridge", 9000, ("ens1f0np0",)), VIRBR0),
    )


def sparse_4node() -> Host:
    """Nodes 0, 2, 5 and 8; node 5 has no memory, node 8 no CPUs; CPUs 7 and 12 are offline."""
    pairs = [(cpu, cpu + 1) for cpu in range(0, 24, 2)]
    offline = {7, 12}
    return Host(
        nodes={
            0: Node("0-6", 131072, 98304),
            2: Node("8-11,13-15", 131072, 65536),
            5: Node("16-23", 0, 0),
            8: Node("", 262144, 262144),
        },
        distance=40,
        present="0-23",
        siblings=tuple(tuple(cpu for cpu in pair if cpu not in offline) for pair in pairs),
        ports=(
            Port(
                "enP5p1s0",
                "0005:01:00.0",
                "ice",
                5,
                queues(60, "ice-enP5p1s0", range(16, 24), "0-6,8-11,13-23"),
                master="br0",
            ),
        ),
        devices=(Device("br0", "bridge", lower=("enP5p1s0",)),),
    )


def laptop() -> Host:
    """One node, 4 cores of 2 threads, Wi-Fi on PCI and Ethernet on USB."""
    return Host(
        nodes={0: Node("0-7", 16384, 8192)},
        siblings=tuple((cpu, cpu + 4) for cpu in range(4)),
        ports=(
            Port("enp0s20f0u1", "0000:00:14.0", "r8152", bus="usb", below="usb2/2-1/2-1:1.0"),
            Port(
                "wlp2s0",
                "0000:02:00.0",
                "iwlwifi",
                wlan=True,
                irqs=tuple(
                    IrqLine(130 + n, f"iwlwifi:{what}", "0-7", str(n % 8))
                    for n, what in enumerate(["default_queue", "queue_1", "queue_2", "exception"])
                ),
            ),
        ),
        devices=(VIRBR0,),
    )


def small_8() -> Host:
    """Two nodes of 4 CPUs, even CPUs on node 0, an e1000e on each, the first below a bridge."""
    return evolve(large(cpus=8, nodes=2, irqs=16, threads=1, interleaved=True), distance=20)


def large(*, cpus: int, nodes: int, irqs: int, threads: int, interleaved: bool = False) -> Host:
    """A host of any size: a ConnectX port per ``irqs / ports`` interrupts, the first below ``br0``.

    With two threads a core, CPU n and n + cpus / 2 are siblings, as on x86.
    """
    cores = cpus // threads
    per_port = max(8, min(128, irqs // nodes))
    owner = [cpu % nodes if interleaved else cpu * nodes // cores for cpu in range(cores)] * threads
    of = {node: [cpu for cpu in range(cpus) if owner[cpu] == node] for node in range(nodes)}
    everywhere = f"0-{cpus - 1}"
    ports = []
    for number in range(irqs // per_port):
        node = number % nodes
        address = f"0000:{0x10 + number:02x}:00.0"
        spread = [of[node][n % len(of[node])] for n in range(per_port - 1)]
        lines = mlx5(100 + number * per_port, address, spread, everywhere)
        master = "" if number else "br0"
        ports.append(Port(f"ens{number + 1}np0", address, "mlx5_core", node, lines, master=master))
    return Host(
        nodes={node: Node(cpuset.format(frozenset(of[node]))) for node in of},
        siblings=tuple((cpu, cpu + cores) for cpu in range(cores)) if threads == 2 else (),
        ports=tuple(ports),
        devices=(Device("br0", "bridge", lower=("ens1np0",)), VIRBR0),
    )


def make_large(target: Path, cpus: int = 1024, nodes: int = 8, irqs: int = 4096, *, threads: int = 2) -> None:
    """Write a host too large to be kept in the repository."""
    write(build(large(cpus=cpus, nodes=nodes, irqs=irqs, threads=threads)), target)


HOSTS = {
    "seed": seed,
    "smt-2x32": smt_2x32,
    "sparse-4node": sparse_4node,
    "laptop": laptop,
    "small-8": small_8,
    "misfit": misfit,
}


def make(name: str, target: Path) -> None:
    """Write one of :data:`HOSTS` below ``target``, which need not exist."""
    write(build(HOSTS[name]()), target)


def main(arguments: list[str]) -> int:
    """Rewrite fixtures/hosts/ when asked to by ``--write``."""
    if arguments != ["--write"]:
        print("usage: python -m tests.hosts --write", file=sys.stderr)
        return 2
    for name in HOSTS:
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
        make(name, FIXTURES / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
