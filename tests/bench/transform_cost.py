"""Six transforms on a domain of 60 devices: against lxml alone, and against virt-xml, process by process."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lxml import etree

from libvirt_tuner import compose
from libvirt_tuner.transforms import emulatorpin, mtu, numatune, poll_us, rx_queue_size, vcpupin
from tests.bench.measure import Ratio, in_turns

DOCUMENT = Path(__file__).parents[2] / "fixtures/domains/sixty-devices-in.xml"
ROUNDS = 400
PROCESS_ROUNDS = 5
VIRT_XML = ("virt-xml", "--connect", "test:///default", "--print-xml", "--edit")
EDITS = (
    (
        "--cputune",
        "vcpupin0.vcpu=0,vcpupin0.cpuset=20,vcpupin1.vcpu=1,vcpupin1.cpuset=22,emulatorpin.cpuset=16,18",
    ),
    ("--numatune", "memory.mode=strict,memory.nodeset=0"),
    ("all", "--network", "mtu.size=1416,xpath0.set=./driver/@rx_queue_size,xpath0.value=1024"),
    ("--qemu-commandline", "-set netdev.hostnet0.poll-us=200"),
)
"""The same six settings; virt-xml edits one kind of device at a time, so that a document takes four calls."""
TRANSFORM = (
    *(str(Path(sys.executable).with_name("libvirt-tuner")), "transform"),
    *("--vcpupin", "0=20", "--vcpupin", "1=22", "--emulatorpin", "16,18", "--numatune", "0"),
    *("--rx-queue-size", "1024", "--mtu", "1416", "--poll-us", "200"),
)


def ratios() -> list[Ratio]:
    """Measure; virt-xml is part of Debian's virtinst."""
    if shutil.which("virt-xml") is None:
        raise RuntimeError("virt-xml is missing: install virtinst")
    xml = DOCUMENT.read_bytes()
    tune = compose(
        vcpupin({0: {20}, 1: {22}}),
        emulatorpin({16, 18}),
        mtu(1416, index=0),
        numatune({0}, mode="strict"),
        rx_queue_size(1024),
        poll_us(200, libvirt=(9, 0, 0), qemu=(7, 2, 0)),
    )
    if tune(xml) == xml:
        raise RuntimeError("the transforms changed nothing: nothing would be measured")
    seconds = in_turns(
        {"tune": lambda: tune(xml), "lxml": lambda: etree.tostring(etree.fromstring(xml))}, ROUNDS
    )
    inside = _cpu_seconds(lambda: tune(xml), ROUNDS)
    ours = _child_cpu_seconds(lambda: _piped(xml, [TRANSFORM]))
    theirs = _child_cpu_seconds(lambda: _piped(xml, [(*VIRT_XML, *edit) for edit in EDITS]))
    one = _child_cpu_seconds(lambda: _piped(xml, [(*VIRT_XML, *EDITS[0])]))
    return [
        Ratio(
            "compose() of six, 60 devices / lxml parse + serialise", seconds["tune"] / seconds["lxml"], 3.0
        ),
        Ratio("virt-xml, one edit / 'transform', six: a process each, CPU", one / ours, 1, at_least=True),
        Ratio("virt-xml, 4 processes / 'transform', 1: the same six, CPU", theirs / ours, 4, at_least=True),
        Ratio("virt-xml, 4 processes / compose() in this process, CPU", theirs / inside, 500, at_least=True),
    ]


def _cpu_seconds(job: Callable[[], object], rounds: int) -> float:
    began = time.process_time()
    for _ in range(rounds):
        job()
    return (time.process_time() - began) / rounds


def _child_cpu_seconds(job: Callable[[], object]) -> float:
    """CPU seconds of the processes of one job."""
    job()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(PROCESS_ROUNDS):
        job()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent / PROCESS_ROUNDS


def _piped(xml: bytes, commands: Sequence[Sequence[str]]) -> bytes:
    """The document after the commands, one after the other."""
    for command in commands:
        xml = subprocess.run(command, input=xml, check=True, stdout=subprocess.PIPE).stdout
    if b"cpuset=" not in xml or (len(commands) != 1 and b"poll-us=200" not in xml):
        raise RuntimeError(f"{commands[0][0]} did not make the change it was asked for")
    return xml
