"""The cpusets of domains' cgroups, v1 and v2."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import CpusetError
from libvirt_tuner.host.cgroups import allowed
from libvirt_tuner.host.sysfs import Sysfs
from tests.unit.builders import cpus
from tests.unit.trees import put

V2, V1 = "/sys/fs/cgroup", "/sys/fs/cgroup/cpuset"


@pytest.mark.parametrize(
    ("files", "partition", "found"),
    [
        pytest.param({}, "/machine", (cpus(), cpus()), id="no cgroups"),
        pytest.param(
            {f"{V2}/machine.slice/cpuset.cpus.effective": "2-3", f"{V2}/cpuset.cpus.effective": "0-3"},
            "/machine",
            (cpus(2, 3), cpus()),
            id="v2",
        ),
        pytest.param(
            {f"{V2}/cpuset.cpus.effective": "1-3", f"{V2}/cpuset.mems.effective": "0"},
            "/machine",
            (cpus(1, 2, 3), cpus(0)),
            id="v2, the slice does not exist yet",
        ),
        pytest.param(
            {
                f"{V2}/machine.slice/cpuset.cpus.effective": "",
                f"{V2}/cpuset.cpus.effective": "0-1",
            },
            "/machine",
            (cpus(0, 1), cpus()),
            id="v2, an empty file says nothing",
        ),
        pytest.param(
            {
                f"{V2}/machine.slice/cpuset.cpus.effective": "0-3",
                f"{V2}/machine.slice/machine-a.slice/cpuset.cpus.effective": "0-2",
                f"{V2}/machine.slice/machine-a.slice/machine-a-b.slice/cpuset.cpus.effective": "1",
            },
            "/machine/a/b",
            (cpus(1), cpus()),
            id="v2, a partition of a partition",
        ),
        pytest.param(
            {f"{V1}/machine.slice/cpuset.cpus": "2", f"{V1}/machine.slice/cpuset.mems": "1"},
            "/machine",
            (cpus(2), cpus(1)),
            id="v1 with systemd",
        ),
        pytest.param(
            {f"{V1}/machine/a.partition/cpuset.effective_cpus": "3", f"{V1}/machine/cpuset.cpus": "2-3"},
            "/machine/a",
            (cpus(3), cpus()),
            id="v1 without systemd",
        ),
        pytest.param(
            {f"{V2}/vms.partition/a.b/cpuset.cpus.effective": "3"},
            "/vms/a.b",
            (cpus(3), cpus()),
            id="without systemd, another top partition, and a name with a suffix",
        ),
        pytest.param(
            {f"{V2}/vms.slice/vms-web\\x2d1.slice/cpuset.cpus.effective": "3"},
            "/vms/web-1",
            (cpus(3), cpus()),
            id="v2, a name that systemd escapes",
        ),
        pytest.param(
            {"/etc/cpuset.cpus.effective": "7", f"{V2}/cpuset.cpus.effective": "0"},
            "/../../../etc",
            (cpus(0), cpus()),
            id="a partition that leads elsewhere",
        ),
    ],
)
def test_allowed(
    tmp_path: Path, files: dict[str, str], partition: str, found: tuple[frozenset[int], frozenset[int]]
) -> None:
    for path, text in files.items():
        put(tmp_path, path, text)
    assert allowed(Sysfs(str(tmp_path)), partition) == found


def test_a_list_that_is_none(tmp_path: Path) -> None:
    put(tmp_path, f"{V2}/cpuset.cpus.effective", "x")
    with pytest.raises(CpusetError, match=r"cpuset\.cpus\.effective"):
        allowed(Sysfs(str(tmp_path)))
