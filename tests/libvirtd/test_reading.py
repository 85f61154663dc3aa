"""What we read in a document is what libvirt reads: the same as in what it dumps after ``virsh define``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import DomainSpec, read_spec
from tests.libvirtd.daemon import PrivateDaemon

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "fixtures" / "domains").glob("*.xml"))
SMALL = (
    "<domain type='qemu'>{}<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{}</devices></domain>"
)
NAME, MEMORY = "<name>a</name>", "<memory>65536</memory>"
NIC = "<interface type='ethernet'><mac address='52:54:00:00:00:01'/>{}</interface>"
CASES = {
    "comment in vcpu": (f"{NAME}{MEMORY}<vcpu><!-- was 8 -->4</vcpu>", ""),
    "comment in a number": (f"{NAME}{MEMORY}<vcpu>1<!-- not 1 -->2</vcpu>", ""),
    "instruction in memory": (f"{NAME}<memory unit='KiB'><?x y?>65536</memory>", ""),
    "comment in a name": (f"<name>a<!-- x -->b</name>{MEMORY}", ""),
    "comment in iothreads": (f"{NAME}{MEMORY}<iothreads><!-- 1 -->3</iothreads>", ""),
    "comment in uuid": (f"{NAME}<uuid><!-- x -->11111111-2222-3333-4444-555555555555</uuid>{MEMORY}", ""),
    "CDATA": (f"<name><![CDATA[a&b]]></name>{MEMORY}<vcpu><![CDATA[3]]></vcpu>", ""),
    "blank before numbers": (f"{NAME}<memory> 65536</memory><vcpu current=' 1'>\n 2</vcpu>", ""),
    "blanks around a name": (f"<name> a </name>{MEMORY}", ""),
    "bytes": (f"{NAME}<memory unit='b'>67108865</memory>", ""),
    "uuid without dashes": (f"{NAME}<uuid>11111111222233334444555555555555</uuid>{MEMORY}", ""),
    "surplus vcpupin": (
        f"{NAME}{MEMORY}<vcpu>2</vcpu><cputune><vcpupin vcpu='1' cpuset='0'/>"
        "<vcpupin vcpu='2' cpuset='0'/><vcpupin vcpu='9' cpuset='0'/></cputune>",
        "",
    ),
    "two cputunes": (
        f"{NAME}{MEMORY}<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='0'/></cputune>"
        "<cputune><emulatorpin cpuset='0'/></cputune>",
        "",
    ),
    "blanks in cpusets": (
        f"{NAME}{MEMORY}<vcpu cpuset=' 0 - 3 , ^2'>2</vcpu>"
        "<cputune><vcpupin vcpu=' 1' cpuset=' 0,1'/><emulatorpin cpuset='0-3, ^1'/></cputune>",
        "",
    ),
    "iothread ids": (
        f"{NAME}{MEMORY}<iothreads>3</iothreads>"
        "<iothreadids><iothread id='2'/><iothread id=' 7'/></iothreadids>"
        "<cputune><iothreadpin iothread='7' cpuset='0'/></cputune>",
        "",
    ),
    "more ids than iothreads": (
        f"{NAME}{MEMORY}<iothreads>1</iothreads>"
        "<iothreadids><iothread id='2'/><iothread id='5'/></iothreadids>",
        "",
    ),
    "blanks in a NIC": (
        NAME + MEMORY,
        NIC.format("<model type='virtio'/><driver queues=' 2' rx_queue_size=' 512'/><mtu size=' 1400'/>"),
    ),
    "MAC in capitals": (NAME + MEMORY, NIC.format("").replace("00:01", "AA:0B")),
    "numatune": (f"{NAME}{MEMORY}<numatune><memory mode='preferred' nodeset=' 0'/></numatune>", ""),
    "numatune without a mode": (f"{NAME}{MEMORY}<numatune><memory nodeset='0'/></numatune>", ""),
}


def comparable(spec: DomainSpec, like: DomainSpec) -> DomainSpec:
    """Without what libvirt gives where the document gives none."""
    vnics = tuple(
        evolve(
            vnic,
            mac=vnic.mac if other.mac else "",
            model=vnic.model if other.model else "",
            target=vnic.target if other.target else "",
        )
        for vnic, other in zip(spec.vnics, like.vnics, strict=True)
    )
    iothreads = tuple(sorted(spec.iothreads))
    return evolve(spec, uuid=spec.uuid if like.uuid else "", vnics=vnics, iothreads=iothreads, warnings=())


@pytest.fixture
def defining(daemon: PrivateDaemon) -> Iterator[PrivateDaemon]:
    yield daemon
    for uuid in daemon.virsh("list", "--all", "--uuid").split():
        daemon.virsh("undefine", uuid, "--nvram")


@pytest.mark.parametrize(
    "xml",
    [
        *(pytest.param(path.read_text(), id=path.stem) for path in FILES),
        *(pytest.param(SMALL.format(*parts), id=name) for name, parts in CASES.items()),
    ],
)
def test_what_we_read_is_what_libvirt_reads(defining: PrivateDaemon, xml: str) -> None:
    # The private libvirtd has no KVM; libvirt parses the rest of the document alike.
    given = re.sub("type=(['\"])kvm", r"type=\1qemu", xml)
    defining.define(given)
    uuid = defining.virsh("list", "--all", "--uuid").split()[0]
    dumped = read_spec(document.parse(defining.virsh("dumpxml", "--inactive", uuid)))
    ours = read_spec(document.parse(given))
    assert comparable(ours, ours) == comparable(dumped, ours)


def test_libvirt_keeps_what_a_transform_wrote_and_its_record(defining: PrivateDaemon) -> None:
    from libvirt_tuner import recorded, revert
    from libvirt_tuner.transforms import emulatorpin, rx_queue_size, vcpupin

    defining.define(re.sub("'kvm'", "'qemu'", (ROOT / "fixtures/domains/bridge-in.xml").read_text()))
    uuid = defining.virsh("list", "--all", "--uuid").split()[0]
    before = defining.virsh("dumpxml", "--inactive", uuid)
    defining.define(recorded(before, vcpupin({0: {0}}), emulatorpin({0}), rx_queue_size(1024)))
    tuned = defining.virsh("dumpxml", "--inactive", uuid)
    assert "rx_queue_size='1024'" in tuned
    assert revert(tuned) == before
