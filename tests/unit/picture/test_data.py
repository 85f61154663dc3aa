"""The picture as JSON, and for lstopo."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from libvirt_tuner.picture import data
from libvirt_tuner.picture.host import Tenant, arrange
from tests.unit.picture import scenes


def test_json_holds_every_cpu_and_tenant() -> None:
    tenants = [*scenes.vm("web", (1,), (0,)), Tenant("vcpu", 0, "db", frozenset(range(4)))]
    picture = arrange(scenes.host(4, l3=2), tenants, offline=frozenset({7}))
    found = json.loads(json.dumps(data.to_dict(picture)))
    (node,) = found["nodes"]
    assert (node["node"], node["cpus"], node["memory_kib"]) == (0, "0-3", 64 << 20)
    assert [cache["first"] for cache in node["l3s"]] == [0, 2]
    ((emulator,), (vcpu,)) = node["l3s"][0]["cores"]
    assert (vcpu["cpu"], vcpu["is"]) == (1, "vcpu")
    assert vcpu["tenants"] == [{"kind": "vcpu", "number": 0, "of": "web", "cpus": "1", "note": ""}]
    assert [(one["kind"], one["number"]) for one in emulator["tenants"]] == [("vhost", 0), ("emulator", None)]
    assert [(one["of"], one["cpus"]) for one in found["floating"]] == [("db", "0-3")]
    assert found["offline"] == "7"


def test_lines_for_lstopo() -> None:
    tenants = [
        Tenant("vcpu", 0, "web", frozenset({70})),
        Tenant("emulator", -1, "web", frozenset({0, 33})),
        Tenant("vcpu", 1, "a\nname=x", frozenset({1})),
    ]
    lines = list(data.lstopo(arrange(scenes.host(128), tenants)))
    assert lines == [
        *("name=emulator of web", "cpuset=0x2,0x00000001", "subtype=emulator", ""),
        *("name=vCPU 1 of a\\nname=x", "cpuset=0x2", "subtype=vCPU", ""),
        *("name=vCPU 0 of web", "cpuset=0x40,0x00000000,0x00000000", "subtype=vCPU", ""),
    ]


def test_lstopo_takes_them(tmp_path: Path) -> None:
    program = shutil.which("lstopo-no-graphics")
    if program is None:
        pytest.skip("no lstopo")
    known = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    if "--misc-from" not in known.stdout:
        pytest.skip("this lstopo has no --misc-from: hwloc 2.10 has")
    tenants = [Tenant("vcpu", 3, "web", frozenset({70})), Tenant("emulator", -1, "web", frozenset({0, 1}))]
    file = tmp_path / "tenants"
    file.write_text("\n".join(data.lstopo(arrange(scenes.host(128), tenants))) + "\n")
    command = [program, "-i", "core:128 pu:1", "--misc-from", str(file), "--of", "console"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = done.stdout.partition("P#70)")[2].strip().splitlines()
    assert "vCPU 3 of web" in after[0]
    assert done.stdout.count("emulator of web") == 1
