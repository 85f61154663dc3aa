"""transform as a filter between virsh and virsh, up to QEMU's command line."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.libvirtd import domains, observe
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import PROGRAM


def arguments(daemon: PrivateDaemon, option: str) -> list[str]:
    """Values of an option on the command line of web's QEMU."""
    pid = daemon.read("/run/libvirt/qemu/web.pid")
    words = daemon.read(f"/proc/{pid}/cmdline").split("\0")
    return [value for word, value in pairwise(words) if word == option]


def pipe(daemon: PrivateDaemon, options: str, *, check: bool = True) -> int:
    return daemon.run(
        "virsh dumpxml --inactive --security-info web"
        f" | {PROGRAM} transform {options} | virsh define /dev/stdin",
        check=check,
    ).returncode


@pytest.mark.parametrize(
    ("vnics", "values"),
    [
        pytest.param((domains.bridge(),), ["netdev.hostnet0.poll-us=200"], id="one NIC"),
        pytest.param(
            (domains.bridge(), domains.bridge(model="e1000e"), domains.direct()),
            ["netdev.hostnet0.poll-us=200", "netdev.hostnet2.poll-us=200"],
            id="two of three",
        ),
    ],
)
def test_poll_us_reaches_qemu(daemon: PrivateDaemon, vnics: tuple[str, ...], values: list[str]) -> None:
    daemon.define(domains.diskless("web", *vnics))
    pipe(daemon, "--rx-queue-size 1024 --poll-us 200")
    daemon.virsh("start", "web")
    assert arguments(daemon, "-set") == values
    netdevs = arguments(daemon, "-netdev")
    assert len(netdevs) == len(vnics)
    assert [netdev for netdev in netdevs if netdev.startswith("{")] == []
    assert observe.running(daemon, "web").settings.rx_queue_size == "1024"


def test_none_gives_json_netdevs_back(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web"))
    before = daemon.virsh("dumpxml", "--inactive", "web")
    pipe(daemon, "--poll-us 200")
    assert daemon.virsh("dumpxml", "--inactive", "web") != before
    pipe(daemon, "--poll-us none")
    assert daemon.virsh("dumpxml", "--inactive", "web") == before


def test_refused_document_defines_nothing(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web"))
    before = daemon.virsh("dumpxml", "--inactive", "web")
    assert pipe(daemon, "--vcpupin 7=0", check=False) != 0
    assert daemon.virsh("dumpxml", "--inactive", "web") == before


def test_queues_reach_qemu(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web", domains.bridge(), domains.bridge(model="e1000e"), vcpus=3))
    pipe(daemon, "--queues vcpus --tx-queue-size 256")
    daemon.virsh("start", "web")
    first, second = arguments(daemon, "-netdev")
    assert ("fds" in first, "fds" in second) == (True, False)
    assert any(
        '"mq":true' in device and '"tx_queue_size":256' in device for device in arguments(daemon, "-device")
    )
