"""Values as libvirt reads them, and work that grows with the document and no faster.

tests/libvirtd/test_reading.py holds the values against a real libvirtd.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import DomainSpec, read_spec
from libvirt_tuner.errors import DomainXmlError, printable
from libvirt_tuner.transforms import (
    ORDER,
    emulatorpin,
    host_mtu,
    mtu,
    numatune,
    poll_us,
    record,
    rx_queue_size,
)

SMALL = "<domain><name>{}</name><memory>1</memory>{}</domain>"


def small(inside: str = "", name: str = "a") -> DomainSpec:
    return read_spec(document.parse(SMALL.format(name, inside)))


@pytest.mark.parametrize(
    ("vcpu", "count"),
    [
        pytest.param("<!-- was 8 -->4", 4, id="comment before"),
        pytest.param("4<!-- was 8 -->", 4, id="comment after"),
        pytest.param("1<!-- x -->6", 16, id="comment within"),
        pytest.param("<?pi 8?> 4", 4, id="instruction and blank"),
        pytest.param("<![CDATA[4]]>", 4, id="CDATA"),
        pytest.param("\n  4\n", 4, id="line ends"),
        pytest.param("<!-- none -->", 1, id="nothing but a comment"),
    ],
)
def test_comments_and_blanks_do_not_count(vcpu: str, count: int) -> None:
    assert small(f"<vcpu>{vcpu}</vcpu>").vcpus == count


def test_blanks_at_the_ends_of_a_name_are_part_of_it() -> None:
    assert small(name=" web").name == " web"
    assert small(name="we<!-- x -->b ").name == "web "


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        pytest.param("<vcpu>2</vcpu><cputune><vcpupin vcpu='2' cpuset='x'/></cputune>", "vcpu 2", id="vCPU"),
        pytest.param(
            "<cputune><iothreadpin iothread='1' cpuset='1'/></cputune>", "iothread 1", id="iothread"
        ),
    ],
)
def test_pins_of_threads_there_are_not_are_dropped_and_said(inside: str, said: str) -> None:
    spec = small(inside)
    assert not spec.vcpupin
    assert not spec.iothreadpin
    assert [said in warning for warning in spec.warnings] == [True]


@pytest.mark.parametrize("mark", ["\x1b", "\x85", "\u2028", "\u202e", "\udcff"])
def test_no_message_has_what_could_change_a_line_of_a_log(mark: str) -> None:
    error = DomainXmlError(f"bad {mark}", where=f"/domain/{mark}", value=mark)
    assert str(error).isprintable()
    assert printable("naïve") == "naïve"


@pytest.mark.parametrize(
    ("xml", "value"),
    [
        pytest.param("<domain/>".encode("utf-16"), "UTF-16", id="with a mark"),
        pytest.param("<domain/>".encode("utf-16-be"), "UTF-16", id="big-endian"),
        pytest.param("<domain/>".encode("utf-16-le"), "UTF-16", id="little-endian"),
        pytest.param(b"<?xml version='1.0' encoding='latin1'?><domain/>", "latin1", id="declared"),
    ],
)
def test_another_encoding_is_refused_by_name(xml: bytes, value: str) -> None:
    with pytest.raises(DomainXmlError) as caught:
        document.parse(xml)
    assert value in str(caught.value.value)


@pytest.mark.parametrize("name", ["ASCII", "us-ascii", "utf8", "UTF-8", "Utf-8"])
def test_utf8_by_any_name_is_read(name: str) -> None:
    assert document.parse(f"<?xml version='1.0' encoding='{name}'?><domain/>".encode()).tag == "domain"


def test_too_many_tags_are_refused_before_any_is_parsed() -> None:
    with pytest.raises(DomainXmlError, match="too many tags"):
        document.parse(b"<domain>" + b"<!---->" * document.MOST_TAGS + b"</domain>")


def tag(attributes: int, **spelled: str) -> bytes:
    form = {"equals": "=", "quote": "'", "blank": " ", **spelled}
    each = (
        f"{form['blank']}a{number}{form['equals']}{form['quote']}>{form['quote']}"
        for number in range(attributes)
    )
    return f"<domain><metadata><x{''.join(each)}/></metadata></domain>".encode()


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param({}, id="usual"),
        pytest.param({"equals": " = ", "quote": '"', "blank": "\n\t"}, id="with blanks"),
    ],
)
def test_too_many_attributes_are_refused_before_any_is_parsed(spelled: dict[str, str]) -> None:
    most = document.MOST_ATTRIBUTES
    document.parse(tag(most, **spelled))
    with pytest.raises(DomainXmlError, match="too many attributes"):
        document.parse(tag(most + 1, **spelled))


@pytest.mark.parametrize(
    "form", ["<!--x{}-->", "<?x{}?>", "<x><![CDATA[{}]]></x>", "<x>{}</x>", '<x a="{}"/>']
)
def test_what_only_looks_like_attributes_is_read(form: str) -> None:
    text = form.format(" a='b'" * 1000)
    assert len(document.parse(f"<domain>{text}</domain>".encode())) == 1


@pytest.mark.parametrize(
    "many",
    [
        pytest.param("<cputune>{}</cputune>|<vcpupin vcpu='{}' cpuset='0-16383'/>", id="vcpupin"),
        pytest.param("<numatune>{}</numatune>|<memnode cellid='{}' nodeset='0-16383'/>", id="memnode"),
        pytest.param("<cpu><numa>{}</numa></cpu>|<cell id='{}' cpus='0-16383' memory='1'/>", id="cell"),
    ],
)
def test_cpusets_that_name_too_many_are_refused_before_they_are_expanded(many: str) -> None:
    whole, each = many.split("|")
    inner = whole.format("".join(each.format(number) for number in range(129)))
    root = document.parse(f"<domain><name>a</name><memory>1</memory><vcpu>129</vcpu>{inner}</domain>")
    with pytest.raises(DomainXmlError, match="name too many CPUs"):
        read_spec(root)


NIC = (
    "<interface type='bridge'><mac address='52:54:00:00:{:02x}:{:02x}'/><model type='virtio'/>"
    "<driver name='vhost'/></interface>"
)
VHOST = " name='vhost'"
RECORD = (
    "<metadata><r:record xmlns:r='https://libvirt-tuner.org/record/1'>{}</r:record></metadata>"
    "<vcpu>{}</vcpu><devices>{}</devices>"
)


def nics(count: int) -> str:
    return "".join(NIC.format(at >> 8, at & 255) for at in range(count))


def forged(transform: str, key: str) -> Callable[[int], str]:
    setting = f"<r:setting transform='{transform}' key='{key}' value='2' was='1'/>"
    return lambda n: RECORD.format("".join(setting.format(at) for at in range(n)), n, nics(3))


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param(lambda n: f"<devices>{nics(n)}</devices>", id="NICs"),
        pytest.param(lambda n: f"<devices>{nics(n).replace(VHOST, '')}</devices>", id="NICs, bare drivers"),
        pytest.param(forged("vcpupin", "{}"), id="forged pins"),
        pytest.param(forged("mtu", "index={}"), id="forged keys by position"),
        pytest.param(forged("poll_us", "hostnet{}"), id="forged netdevs"),
        pytest.param(forged("own", "{}"), id="forged transforms"),
        pytest.param(lambda n: f"<iothreads>{n * 8}</iothreads>", id="iothreads"),
        pytest.param(lambda n: f"<vcpu cpuset='{','.join(['0-16383'] * n)}'>2</vcpu>", id="ranges"),
        pytest.param(lambda n: "<!-- x -->" * n, id="comments"),
        pytest.param(lambda n: f"<vcpu>1{'<!---->' * n}</vcpu>", id="comments in a value"),
    ],
)
def test_work_grows_with_the_document_and_no_faster(inside: Callable[[int], str]) -> None:
    few, many = (lines(SMALL.format("a", inside(count)).encode()) for count in (200, 800))
    assert many < few * 5 + 2000


def lines(xml: bytes) -> int:
    """Lines of Python run to read, tune, write and revert: a measure without a clock."""
    count = 0

    def step(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)  # type: ignore[arg-type]
    try:
        root = document.parse(xml)
        read_spec(root)
        settings = [
            emulatorpin({1}),
            numatune({0}),
            rx_queue_size(1024),
            mtu(1400),
            host_mtu(1400),
            poll_us(9),
        ]
        record.apply(root, settings, complete=ORDER)
        again = document.parse(document.serialize(root))
        record.revert(again)
        document.serialize(again)
    finally:
        sys.settrace(before)
    return count
