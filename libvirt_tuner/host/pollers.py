"""CPUs of threads that never sleep and belong to no domain: poll mode drivers (PMD) of Open vSwitch with
DPDK.

Each has a thread ``pmd-cNN/id:M`` on core NN (lib/dpif-netdev.c), bound to it alone; older
versions name it ``pmdM``. Where the switch's database is read anyway, its ``pmd-cpu-mask`` and
``dpdk-lcore-mask`` count too (ovs-vswitchd.conf.db(5)).
"""

from __future__ import annotations

from collections.abc import Mapping

from libvirt_tuner import cpuset
from libvirt_tuner.errors import TunerError
from libvirt_tuner.topology import NO_CPUS, Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.host.sysfs import Sysfs

RUN = "/run/openvswitch"
_DAEMON = "ovs-vswitchd"
_PREFIX = "pmd"


def busy(sysfs: Sysfs) -> Cpus:
    """Return CPUs of poll mode driver threads; none without a running Open vSwitch."""
    if not sysfs.listdir_or_empty(RUN):
        return NO_CPUS
    pid = _pid(sysfs)
    found: set[int] = set()
    for task in sysfs.listdir_or_empty(f"/proc/{pid}/task") if pid else ():
        base = f"/proc/{pid}/task/{task}"
        name = sysfs.read_or(f"{base}/comm", "")
        if name.startswith(_PREFIX):
            found |= _bound(sysfs, base, name)
    return frozenset(found)


def configured(config: Mapping[str, str]) -> Cpus:
    """CPUs that the switch's ``other_config`` gives to its poll mode drivers and to DPDK."""
    if config.get("dpdk-init") == "false":
        return NO_CPUS
    found = NO_CPUS
    for key in ("pmd-cpu-mask", "dpdk-lcore-mask"):
        try:
            found |= cpuset.parse_mask(config.get(key, "0").strip().lower().removeprefix("0x"))
        except TunerError:
            continue  # Open vSwitch ignores it as well
    return found


def _pid(sysfs: Sysfs) -> str:
    said = sysfs.read_or(f"{RUN}/{_DAEMON}.pid", "")
    if said.isdecimal():
        return said
    numbers = (name for name in sysfs.listdir_or_empty("/proc") if name.isdecimal())
    return next((pid for pid in numbers if sysfs.read_or(f"/proc/{pid}/comm", "") == _DAEMON), "")


def _bound(sysfs: Sysfs, base: str, name: str) -> Cpus:
    """The thread's affinity, else the core in its name."""
    for line in sysfs.read_or(f"{base}/status", "").splitlines():
        key, _, value = line.partition(":")
        if key == "Cpus_allowed_list":
            try:
                return cpuset.parse(value)
            except TunerError:
                break
    core = name.removeprefix("pmd-c").partition("/")[0]
    return frozenset({int(core)}) if core.isdecimal() else NO_CPUS
