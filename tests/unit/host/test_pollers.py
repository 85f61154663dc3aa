"""Poll mode driver threads of Open vSwitch."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.host.pollers import busy, configured
from libvirt_tuner.host.sysfs import Sysfs
from tests.unit.builders import cpus
from tests.unit.trees import Counting, put

SOCKET = {"/run/openvswitch/db.sock": ""}
DAEMON = {"/run/openvswitch/ovs-vswitchd.pid": "20", "/proc/20/comm": "ovs-vswitchd"}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param({}, cpus(), id="no Open vSwitch"),
        pytest.param(SOCKET, cpus(), id="it does not run"),
        pytest.param(DAEMON | {"/proc/20/task/20/comm": "ovs-vswitchd"}, cpus(), id="without DPDK"),
        pytest.param(DAEMON | {"/proc/20/task/21/comm": "pmd-c05/id:3"}, cpus(5), id="the core in its name"),
        pytest.param(
            DAEMON
            | {"/proc/20/task/21/comm": "pmd-c05/id:3", "/proc/20/task/21/status": "Cpus_allowed_list:\t6"},
            cpus(6),
            id="its affinity before its name",
        ),
        pytest.param(
            SOCKET
            | {"/proc/31/comm": "sh", "/proc/33/comm": "ovs-vswitchd"}
            | {"/proc/33/task/34/comm": "pmd-c128/id:9"},
            cpus(128),
            id="without the file of its process id",
        ),
        pytest.param(
            DAEMON | {"/proc/20/task/21/comm": "pmd8", "/proc/20/task/21/status": "Cpus_allowed_list:\t6"},
            cpus(6),
            id="the name of older versions",
        ),
        pytest.param(DAEMON | {"/proc/20/task/21/comm": "pmd-cx/id:3"}, cpus(), id="another name"),
    ],
)
def test_busy(tmp_path: Path, files: dict[str, str], found: frozenset[int]) -> None:
    for path, text in files.items():
        put(tmp_path, path, text)
    assert busy(Sysfs(str(tmp_path))) == found


def test_no_process_is_looked_at_without_open_vswitch(tmp_path: Path) -> None:
    put(tmp_path, "/proc/20/comm", "ovs-vswitchd")
    sysfs = Counting(str(tmp_path))
    busy(sysfs)
    assert sysfs.paths == []


@pytest.mark.parametrize(
    ("config", "found"),
    [
        pytest.param({}, cpus(), id="nothing said"),
        pytest.param({"pmd-cpu-mask": "0x82082"}, cpus(1, 7, 13, 19), id="poll mode drivers"),
        pytest.param({"pmd-cpu-mask": "6", "dpdk-lcore-mask": "0x1"}, cpus(0, 1, 2), id="and lcores"),
        pytest.param({"pmd-cpu-mask": "6", "dpdk-init": "false"}, cpus(), id="DPDK is off"),
        pytest.param({"pmd-cpu-mask": "many"}, cpus(), id="no mask"),
    ],
)
def test_configured(config: dict[str, str], found: frozenset[int]) -> None:
    assert configured(config) == found
