"""Hosts on which placing a domain once went wrong; each as administrators have reported its kind."""

from __future__ import annotations

from tests.hosts import Device, Host, LinkTo, Node, Port, Tree, build, queues

CPU = "/sys/devices/system/cpu"


def _bridge(port: str) -> tuple[Device, ...]:
    return (Device("br0", "bridge", lower=(port,)),)


def hybrid() -> Tree:
    """Eight performance cores of two threads (0-15) and sixteen efficiency cores (16-31)."""
    fast = tuple((cpu, cpu + 1) for cpu in range(0, 16, 2))
    slow = tuple((cpu,) for cpu in range(16, 32))
    irqs = queues(140, "enp4s0", range(4), "0-31")
    return build(
        Host(
            nodes={0: Node("0-31", 65536, 57344)},
            siblings=fast + slow,
            ports=(Port("enp4s0", "0000:04:00.0", "igc", -1, irqs, master="br0"),),
            devices=_bridge("enp4s0"),
            files={"/sys/devices/cpu_core/cpus": "0-15", "/sys/devices/cpu_atom/cpus": "16-31"},
        )
    )


def big_little() -> Tree:
    """Four cores of capacity 1024 after four of 446, as on Arm."""
    capacity = {f"{CPU}/cpu{cpu}/cpu_capacity": "446" if cpu < 4 else "1024" for cpu in range(8)}
    irqs = queues(40, "eth0", (0,), "0-7")
    return build(
        Host(
            nodes={0: Node("0-7", 16384, 14336)},
            ports=(Port("eth0", "0000:01:00.0", "r8169", -1, irqs, master="br0"),),
            devices=_bridge("eth0"),
            files=capacity,
        )
    )


def firmware_says() -> Tree:
    """Cores that differ by the firmware's word only: CPUs 0-7 are fast, two of them preferred."""
    perf = {cpu: 196 if cpu < 2 else 166 if cpu < 8 else 100 for cpu in range(16)}
    irqs = queues(40, "eth0", (0,), "0-15")
    return build(
        Host(
            nodes={0: Node("0-15", 16384, 14336)},
            ports=(Port("eth0", "0000:01:00.0", "r8169", -1, irqs, master="br0"),),
            devices=_bridge("eth0"),
            files={f"{CPU}/cpu{cpu}/acpi_cppc/highest_perf": str(value) for cpu, value in perf.items()},
        )
    )


def half_isolated() -> Tree:
    """isolcpus=2-7 on eight cores of two threads: the siblings 10-15 are not isolated."""
    irqs = queues(120, "eno1", (0,), "0-15")
    return build(
        Host(
            nodes={0: Node("0-15", 32768, 28672)},
            siblings=tuple((cpu, cpu + 8) for cpu in range(8)),
            isolated="2-7",
            nohz_full="2-7",
            cmdline="isolcpus=2-7 nohz_full=2-7",
            ports=(Port("eno1", "0000:00:1f.6", "e1000e", -1, irqs, master="br0"),),
            devices=_bridge("eno1"),
        )
    )


def passed_through() -> Tree:
    """Two sockets; management on node 0; a card on node 1 whose virtual function vfio-pci has."""
    function, card = "/sys/devices/pci0000:81/0000:81:02.0", "/sys/devices/pci0000:81/0000:81:00.0"
    ports = (
        Port("eno1", "0000:01:00.0", "igb", 0, queues(60, "eno1", range(8), "0-63"), master="br0"),
        Port("ens8f0", "0000:81:00.0", "ice", 1, queues(100, "ice-ens8f0", range(16, 24), "0-63")),
    )
    host = Host(
        nodes={0: Node("0-15,32-47", 131072, 122880), 1: Node("16-31,48-63", 131072, 122880)},
        siblings=tuple((cpu, cpu + 32) for cpu in range(32)),
        ports=ports,
        devices=_bridge("eno1"),
        files={f"{function}/numa_node": "1", f"{function}/class": "0x020000"},
    )
    return build(host) | {
        "/sys/bus/pci/devices/0000:81:02.0": LinkTo(function),
        f"{function}/physfn": LinkTo(card),
        f"{function}/driver": LinkTo("/sys/bus/pci/drivers/vfio-pci"),
    }


def machine_slice(version: int = 2, group: str = "/machine.slice") -> Tree:
    """One node, 16 cores of two threads; virtual machines are kept to 8-15,24-31."""
    root = "/sys/fs/cgroup" if version == 2 else "/sys/fs/cgroup/cpuset"
    name = "cpuset.cpus.effective" if version == 2 else "cpuset.effective_cpus"
    irqs = queues(90, "enp5s0", range(8), "0-31")
    return build(
        Host(
            nodes={0: Node("0-31", 65536, 57344)},
            siblings=tuple((cpu, cpu + 16) for cpu in range(16)),
            ports=(Port("enp5s0", "0000:05:00.0", "igb", -1, irqs, master="br0"),),
            devices=_bridge("enp5s0"),
            files={f"{root}/{name}": "0-31", f"{root}{group}/{name}": "8-15,24-31"},
        )
    )


def poll_mode() -> Tree:
    """Two nodes of six cores; threads of Open vSwitch's poll mode drivers on 1 and 7; most CPUs isolated."""
    tasks = {2001: "ovs-vswitchd", 2010: "pmd-c01/id:8", 2011: "pmd-c07/id:9"}
    return build(
        Host(
            nodes={
                0: Node("0-5,12-17", 131072, 65536, {1048576: (64, 56)}),
                1: Node("6-11,18-23", 131072, 65536, {1048576: (64, 56)}),
            },
            siblings=tuple((cpu, cpu + 12) for cpu in range(12)),
            isolated="1-5,7-11,13-17,19-23",
            nohz_full="1-5,7-11,13-17,19-23",
            files={
                "/run/openvswitch/db.sock": "",
                "/proc/2001/comm": "ovs-vswitchd",
                **{f"/proc/2001/task/{tid}/comm": name for tid, name in tasks.items()},
                "/proc/meminfo": "MemTotal: 268435456 kB\nMemFree: 134217728 kB\nHugepagesize: 1048576 kB",
            },
        )
    )


def caches() -> Tree:
    """One node of 24 cores with an L3 for each eight, and a card (a processor made of chiplets)."""
    shared = {
        f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list": f"{cpu // 8 * 8}-{cpu // 8 * 8 + 7}"
        for cpu in range(24)
    }
    irqs = queues(40, "eth0", (0,), "0-23")
    return build(
        Host(
            nodes={0: Node("0-23", 65536, 57344)},
            ports=(Port("eth0", "0000:01:00.0", "ice", 0, irqs, master="br0"),),
            devices=_bridge("eth0"),
            files=shared,
        )
    )


def small_nodes() -> Tree:
    """Four nodes of four cores, as with sub-NUMA clustering."""
    irqs = queues(40, "eth0", (0,), "0-15")
    return build(
        Host(
            nodes={n: Node(f"{4 * n}-{4 * n + 3}", 16384, 12288) for n in range(4)},
            ports=(Port("eth0", "0000:01:00.0", "ice", 1, irqs, master="br0"),),
            devices=_bridge("eth0"),
        )
    )
