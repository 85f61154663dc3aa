"""Domain documents: byte for byte back, what is read from them, and what is refused with which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.domainxml import document, spec
from libvirt_tuner.domainxml.spec import GuestCell, Numatune, read_spec
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.topology import Binding

DOMAINS = Path(__file__).parents[3] / "fixtures" / "domains"
SMALL = "<domain type='kvm'><name>a</name><memory>1024</memory>{}</domain>"


def small(inside: str = "") -> spec.DomainSpec:
    return read_spec(document.parse(SMALL.format(inside)))


@pytest.mark.parametrize("path", sorted(DOMAINS.glob("*.xml")), ids=lambda path: path.stem)
def test_no_change_gives_the_same_bytes(path: Path) -> None:
    source = path.read_bytes()
    assert document.serialize(document.parse(source)) == source
    assert read_spec(document.parse(source)).name


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(b'<?xml version="1.0"?>\n<domain/>\n', id="declaration"),
        pytest.param(b"\xef\xbb\xbf<domain/>", id="byte order mark"),
        pytest.param(b"<!-- <domain> -->\r\n<domain ></domain >\r\n<!-- end -->", id="comments around"),
        pytest.param(b"<domain a = 'x>y'  ><b></b><![CDATA[<z>]]></domain>", id="odd spelling"),
        pytest.param(b"<domain><?pi a<b?><x y='&apos;&#10;'/></domain>", id="entities and instructions"),
    ],
)
def test_odd_spelling_comes_back_around_a_change(source: bytes) -> None:
    root = document.parse(source)
    assert document.serialize(root) == source
    root.set("new", "1")
    changed = document.parse(document.serialize(root))
    assert changed.get("new") == "1"
    del changed.attrib["new"]
    assert document.serialize(changed) == source


@pytest.mark.parametrize(
    ("xml", "where"),
    [
        pytest.param("<domain><name>a</domain>", "line 1", id="malformed"),
        pytest.param("", "", id="empty"),
        pytest.param("<network/>", "/", id="another document"),
        pytest.param("<!DOCTYPE domain [<!ENTITY a 'b'>]>\n<domain>&a;</domain>", "line 1", id="entity"),
        pytest.param(
            "<?xml version='1.0'?>\n<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain/>", "line 2", id="DTD"
        ),
        pytest.param(b"\xff\xfe<\x00d\x00", "/", id="UTF-16"),
        pytest.param(b"<?xml version='1.0' encoding='latin1'?><domain/>", "line 1", id="latin 1"),
        pytest.param("<domain>" + "<a>" * 5000, "line 1", id="deep"),
        pytest.param(b" " * (16 * 1024 * 1024 + 1), "", id="huge"),
    ],
)
def test_parse_refuses(xml: str | bytes, where: str) -> None:
    with pytest.raises(DomainXmlError) as caught:
        document.parse(xml)
    assert caught.value.where.startswith(where)


def test_str_with_an_encoding_declaration_is_read() -> None:
    assert document.parse("<?xml version='1.0' encoding='UTF-8'?><domain/>").tag == "domain"


@pytest.mark.parametrize(
    ("unit", "size", "kib"),
    [
        pytest.param("b", 1025, 2, id="bytes, rounded up"),
        pytest.param("KB", 1024, 1000, id="KB"),
        pytest.param("K", 7, 7, id="K"),
        pytest.param("MiB", 2, 2048, id="MiB"),
        pytest.param("G", 1, 1048576, id="G"),
    ],
)
def test_memory_units(unit: str, size: int, kib: int) -> None:
    root = document.parse(f"<domain><name>a</name><memory unit='{unit}'>{size}</memory></domain>")
    assert read_spec(root).memory_kib == kib


def test_no_vcpu_is_one() -> None:
    assert small().vcpus == 1


def test_vcpus_that_are_enabled_one_by_one() -> None:
    each = "".join(f"<vcpu id='{n}' enabled='{word}'/>" for n, word in enumerate(("yes", "no", "yes")))
    assert small(f"<vcpu current='2'>3</vcpu><vcpus>{each}</vcpus>").enabled == {0, 2}
    assert small("<vcpu current='2'>3</vcpu>").enabled == frozenset()


def test_guest_cells_and_numatune() -> None:
    spec = read_spec(document.parse((DOMAINS / "guest-cells-out.xml").read_bytes()))
    assert spec.cells == (
        GuestCell(0, frozenset(range(4)), 4194304),
        GuestCell(1, frozenset(range(4, 8)), 4194304),
    )
    assert spec.numatune == Numatune(
        "strict",
        frozenset({0, 1}),
        "",
        {0: Binding("strict", frozenset({0})), 1: Binding("preferred", frozenset({1}))},
    )


def test_interfaces_of_every_type() -> None:
    spec = read_spec(document.parse((DOMAINS / "hostdev-between-in.xml").read_bytes()))
    assert [vnic.type for vnic in spec.vnics] == ["bridge", "hostdev", "bridge", "bridge"]
    assert spec.vnics[1].source == "0000:17:02.1"


@pytest.mark.parametrize(
    ("inside", "where"),
    [
        pytest.param("<vcpu>0</vcpu>", "/domain/vcpu", id="no vCPUs"),
        pytest.param("<vcpu>many</vcpu>", "/domain/vcpu", id="vCPUs in words"),
        pytest.param("<vcpu current='3'>2</vcpu>", "/domain/vcpu/@current", id="more online than there are"),
        pytest.param("<vcpu cpuset='x'>2</vcpu>", "/domain/vcpu/@cpuset", id="bad cpuset"),
        pytest.param(
            "<cputune><vcpupin vcpu='0' cpuset='x'/></cputune>", "/domain/cputune/vcpupin", id="bad pin"
        ),
        pytest.param(
            "<cputune><emulatorpin cpuset=''/></cputune>", "/domain/cputune/emulatorpin", id="empty"
        ),
        pytest.param(
            "<numatune><memory mode='odd' nodeset='0'/></numatune>",
            "/domain/numatune/memory/@mode",
            id="mode",
        ),
        pytest.param("<uuid>1234</uuid>", "/domain/uuid", id="uuid"),
        pytest.param(
            f"<resource><partition>{'/a' * 128}</partition></resource>",
            "/domain/resource/partition",
            id="partition that no slice can be named after",
        ),
    ],
)
def test_spec_refuses(inside: str, where: str) -> None:
    with pytest.raises(DomainXmlError) as caught:
        small(inside)
    assert caught.value.where.startswith(where)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb"])
def test_spec_refuses_a_name_that_is_a_path(name: str) -> None:
    with pytest.raises(DomainXmlError):
        read_spec(document.parse(f"<domain><name>{name}</name><memory>1</memory></domain>"))


def test_spec_refuses_a_domain_without_memory() -> None:
    with pytest.raises(DomainXmlError) as caught:
        read_spec(document.parse("<domain><name>a</name></domain>"))
    assert caught.value.where == "/domain/memory"


def test_status_gives_the_live_domain() -> None:
    status = document.parse_status(
        "<domstatus><vcpus><vcpu id='0' pid='71'/><vcpu id='1' pid='72'/></vcpus>"
        + SMALL.format("").replace("'kvm'", "'kvm' id='3'")
        + "</domstatus>"
    )
    assert read_spec(document.live_domain(status)).name == "a"


@pytest.mark.parametrize(
    ("backing", "whole", "cells"),
    [
        pytest.param("", None, [None, None], id="ordinary"),
        pytest.param("<hugepages/>", 0, [0, 0], id="the default size"),
        pytest.param("<hugepages><page size='2' unit='MiB'/></hugepages>", 2048, [2048, 2048], id="one size"),
        pytest.param(
            "<hugepages><page size='1' unit='GiB' nodeset='0'/><page size='2' unit='MiB'/></hugepages>",
            2048,
            [1 << 20, 2048],
            id="one of its own, and the rest",
        ),
        pytest.param(
            "<hugepages><page size='1' unit='GiB' nodeset='1'/></hugepages>",
            None,
            [None, 1 << 20],
            id="the rest is ordinary",
        ),
    ],
)
def test_pages_of_guest_cells(backing: str, whole: int | None, cells: list[int | None]) -> None:
    numa = "".join(f"<cell id='{n}' cpus='{n}' memory='512' unit='MiB'/>" for n in (0, 1))
    spec = read_spec(
        document.parse(
            f"<domain type='kvm'><name>vm</name><memory unit='GiB'>1</memory><vcpu>2</vcpu>"
            f"<memoryBacking>{backing}</memoryBacking><cpu><numa>{numa}</numa></cpu></domain>"
        )
    )
    assert (spec.hugepage_kib, [cell.hugepage_kib for cell in spec.cells]) == (whole, cells)
    assert sum(spec.memory_by_page.values()) == 1 << 20


def test_without_guest_cells_a_pages_nodeset_says_nothing() -> None:
    spec = read_spec(
        document.parse(
            "<domain type='kvm'><name>vm</name><memory unit='GiB'>1</memory><vcpu>2</vcpu>"
            "<memoryBacking><hugepages><page size='1' unit='GiB' nodeset='0'/></hugepages></memoryBacking>"
            "</domain>"
        )
    )
    assert spec.memory_by_page == {1 << 20: 1 << 20}
