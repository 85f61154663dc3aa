"""Which CPUs are isolated, and how a boot loader is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError
from libvirt_tuner.host import probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import isolate
from tests import hosts
from tests.unit import builders


def test_seed_host_isolates_what_the_planner_gives_the_vcpus() -> None:
    host = probe.topology(Sysfs(str(hosts.FIXTURES / "seed")), ())
    found = isolate.choose(host, host.cells[0], 6)
    assert cpuset.format(found.cpus) == "20,22,24,26,28,30"
    assert cpuset.format(found.emulator) == "16,18"


def test_the_same_choice_after_the_boot() -> None:
    before = builders.host(isolated=())
    first = isolate.choose(before, before.cells[0], 4)
    after = builders.host(isolated=first.cpus)
    assert isolate.choose(after, after.cells[0], 4).cpus == first.cpus
    assert not first.emulator & first.cpus


def test_siblings_are_isolated_with_the_vcpus_cpus() -> None:
    host = builders.host(threads=2)
    found = isolate.choose(host, host.cells[0], 3)
    assert len(found.vcpus) == 3
    assert found.cpus == host.siblings(found.vcpus)
    assert len(found.cpus) == 6


@pytest.mark.parametrize("count", [0, 8, 99])
def test_too_many_for_the_node(count: int) -> None:
    host = builders.host(cores=8)
    with pytest.raises(HostError, match="too few cores"):
        isolate.choose(host, host.cells[0], count)


@pytest.mark.parametrize(
    ("users", "linux", "default"),
    [
        pytest.param("", " NEW", "", id="nothing there"),
        pytest.param(
            "GRUB_CMDLINE_LINUX='console=ttyS0 isolcpus=no_hz,16,18'\nGRUB_CMDLINE_LINUX_DEFAULT='quiet'",
            "console=ttyS0 NEW", "quiet", id="replaces isolcpus",
        ),
        pytest.param(
            "GRUB_CMDLINE_LINUX='quiet'\nGRUB_CMDLINE_LINUX_DEFAULT='nohz_full=3 a isolcpus=1 b=\"c d\" *'",
            "quiet NEW", ' a b="c d" *', id="quotes and stars",
        ),
    ],
)  # fmt: skip
def test_grub_takes_the_dropin(tmp_path: Path, users: str, linux: str, default: str) -> None:
    text = isolate.grub_dropin(["NEW"], mark="mark")
    (tmp_path / "grub").write_text(users)
    (tmp_path / "ours.cfg").write_text(text)
    script = f"set -e; . {tmp_path}/grub; . {tmp_path}/ours.cfg\n"
    script += 'printf "%s\\n%s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split("\n") == [linux, default]
    assert "mark" in text


def test_grubby_removes_what_it_replaces() -> None:
    assert isolate.grubby(["isolcpus=2"]) == (
        'grubby --update-kernel=ALL --remove-args="isolcpus nohz_full irqaffinity" --args="isolcpus=2"'
    )
