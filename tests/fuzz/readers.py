"""Every reader of text from elsewhere, and inputs that are almost what it expects.

Each reader gives a value or raises :class:`~libvirt_tuner.errors.TunerError`; whatever else it raises would
end the hook with "please report this".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner import compose, cpuset
from libvirt_tuner.config import policy
from libvirt_tuner.domainxml import document, metadata
from libvirt_tuner.errors import TunerError
from libvirt_tuner.host import ethtool, links, openvswitch, xfrm
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import ledger
from libvirt_tuner.hostside.ledger import Book
from libvirt_tuner.planning.request import read_request
from libvirt_tuner.transforms import (
    emulatorpin,
    host_mtu,
    mtu,
    numatune,
    poll_us,
    queues,
    record,
    rx_queue_size,
    tx_queue_size,
    vcpupin,
)
from tests.fuzz.grammar import libvirts

FIXTURES = Path(__file__).parents[2] / "fixtures"
SOME_XML = tuple((FIXTURES / "domains" / f"{name}-in.xml").read_text() for name in ("bridge", "comments"))
HOST = Sysfs(str(FIXTURES / "hosts/seed"))


def answering(text: str) -> Callable[..., str]:
    """Stands in for whatever runs a program: each says the same."""
    return lambda *_, **__: text


def _of_policy(text: str) -> object:
    return policy.resolve("web", text, None)


def _of_metadata(text: str) -> object:
    root = document.parse(DOMAIN.format(text))
    return policy.resolve("web", None, metadata.policy_element(root))


def _of_ledger(text: str) -> object:
    try:
        ledger.fill(book := Book(), text.encode("utf-8", "surrogatepass"))
    except ledger.DAMAGE:
        return None  # that is salvage's
    return book


def _of_ip(text: str) -> object:
    found = links.links(HOST, ["geneve0"], answering(text))
    return links.routes(HOST, found, answering(text))


TUNE = compose(
    vcpupin({0: {1}}),
    emulatorpin({2, 3}),
    numatune({0}),
    rx_queue_size(512),
    tx_queue_size(256),
    queues("vcpus"),
    mtu(1400),
    host_mtu(1400),
    poll_us(50),
)


def _tuned(text: str) -> bytes:
    """Tune a document with a record of it; a second time changes nothing, and all is taken back."""
    root = document.parse(text)
    record.apply(root, [TUNE])
    tuned = document.serialize(root)
    again = document.parse(tuned)
    assert not record.apply(again, [TUNE]), "not idempotent"
    assert document.serialize(again) == tuned
    record.revert(again)
    if "libvirt-tuner.org/record" not in text:
        assert document.serialize(again) == text.encode(), "not taken back"
    return tuned


def _of_libvirts_grammar(text: str) -> bytes:
    tuned = _tuned(text)
    grammar = libvirts()[1]
    if grammar.validate(etree.fromstring(text.encode())):
        grammar.assertValid(etree.fromstring(tuned))
    return tuned


def _of_record(text: str) -> object:
    root = document.parse(DOMAIN.format(text))
    record.revert(root)
    return document.serialize(root)


RECORD = "<r:record xmlns:r='https://libvirt-tuner.org/record/1'{}>{}</r:record>"
SETTING = "<r:setting transform='{}' key='{}' value='{}' was='{}'/>"
DOMAIN = (
    "<domain type='kvm'><name>web</name><uuid>5b1d0a52-0000-4000-8000-000000000001</uuid>"
    "<metadata>{}</metadata><memory>1048576</memory><vcpu>4</vcpu><os><type>hvm</type></os></domain>"
)
READERS: dict[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "cpulist": (cpuset.parse, ("0-3,8-11", "0-15:2/4", "0-7,^3")),
    "mask": (cpuset.parse_mask, ("00000000,000000f0", "ff", "ffffffff,ffffffff")),
    "domain": (lambda text: read_request(text, None), (*SOME_XML, DOMAIN.format(""))),
    "metadata": (
        _of_metadata,
        (
            "<p:policy xmlns:p='https://libvirt-tuner.org/policy/1' placement='shared' mtu='1400'/>",
            "<policy xmlns='https://libvirt-tuner.org/policy/1' poll-us='20' emulator-cpus='1'/>",
        ),
    ),
    "transforms": (_tuned, (*SOME_XML, DOMAIN.format(""))),
    "libvirt's grammar": (_of_libvirts_grammar, SOME_XML),
    "record": (
        _of_record,
        (
            RECORD.format("", SETTING.format("vcpupin", "0", "3", "4")),
            RECORD.format(
                " macs='52:54:00:00:00:01' kept='cputune=pair'",
                SETTING.format("numatune", "memory", "strict 0", "preferred 1")
                + SETTING.format("poll_us", "hostnet0", "50", "20"),
            ),
        ),
    ),
    "config": (
        _of_policy,
        (
            "[policy]\nplacement = 'shared'\nhousekeeping = 2\nmtu = 1400\n[limits]\npoll_us = 50\n",
            "[[domain]]\nmatch = 'web*'\nselect = false\nemulator_cpus = '0-1'\n",
        ),
    ),
    "ledger": (
        _of_ledger,
        (
            '{"version":1,"claims":{"u":{"name":"web","pid":1,"start_time":2,"vcpus":"1-2","emulators":"",'
            '"since":0.0,"plan":{}}},"changes":[{"kind":"irq","target":"45","prior":"0-3","wanted":"1",'
            '"holders":["u"],"earlier":[],"identity":""}],"bans":{"irqbalance1.sock":[4]}}',
        ),
    ),
    "ip": (
        _of_ip,
        (
            '[{"ifname":"eth0","mtu":1450,"linkinfo":{"info_kind":"geneve","info_data":{"id":7,"remote":'
            '"10.0.0.1","port":6081}},"link":"eth1","master":"br0"}]',
            '[{"dst":"10.0.0.1","dev":"eth1","prefsrc":"10.0.0.2","metrics":[{"mtu":1400}]}]',
        ),
    ),
    "xfrm": (
        lambda text: xfrm.xfrm(HOST, answering(text)),
        (
            "src 10.0.0.1 dst 10.0.0.2\n\tproto esp spi 0x00000001 reqid 1 mode transport\n"
            "\taead rfc4106(gcm(aes)) 0x00 128\n\tencap type espinudp sport 4500 dport 4500 addr 0.0.0.0\n",
            "src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 6081\n\tdir out priority 0\n"
            "\ttmpl src 0.0.0.0 dst 0.0.0.0\n\t\tproto esp reqid 1 mode transport\n",
        ),
    ),
    "ovs-vsctl": (
        lambda text: openvswitch.read(HOST, answering(text)),
        (
            '{"data":[["br-int",["set",[["uuid","a"]]]]],"headings":["name","ports"]}\n'
            '{"data":[[["uuid","a"],"p",["set",[["uuid","b"]]],["set",[]],["set",[]]]],"headings":["_uuid",'
            '"name","interfaces","bond_mode","bond_active_slave"]}\n'
            '{"data":[[["uuid","b"],"p","geneve",["map",[["remote_ip","10.0.0.1"]]],["set",[]]]],"headings":'
            '["_uuid","name","type","options","mac_in_use"]}\n'
            '{"data":[[["map",[["ovn-encap-type","geneve"]]]]],"headings":["external_ids"]}\n',
        ),
    ),
    "ethtool -k": (ethtool.parse_features, ("Features for eth0:\nesp-hw-offload: on [fixed]\nhw-tc: off\n",)),
    "ethtool -a": (
        ethtool.parse_pause,
        ("Pause parameters for eth0:\nAutonegotiate:\ton\nRX:\t\ton\nTX:\toff\n",),
    ),
}


def attempt(name: str, text: str) -> None:
    """Read one input.

    Raises:
        Exception: What the reader may not raise.
    """
    reader, _ = READERS[name]
    try:
        reader(text)
    except TunerError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one line of a log: {error}") from None


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def nearly(draw: st.DrawFn, seeds: tuple[str, ...]) -> str:
    """A seed with a few things wrong: characters, pieces, or values of other types in its JSON."""
    seed = draw(st.sampled_from(seeds))
    if draw(st.booleans()) and (document := _json(seed)) is not None:
        return json.dumps(_with(draw, document))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(seed)))
        end = draw(st.integers(start, min(len(seed), start + 24)))
        piece = draw(st.just("") | st.text(max_size=6) | st.just(seed[start:end] * 3) | st.just("9" * 400))
        seed = seed[:start] + piece + seed[end:]
    return seed


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _with(draw: st.DrawFn, value: Any) -> Any:
    """The value, with one of its parts replaced by something odd."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: _with(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _with(draw, value[at]), *value[at + 1 :]]
    return draw(ODD)


def inputs(name: str) -> st.SearchStrategy[str]:
    """Anything, and what is nearly right; of libvirt's grammar, whatever that allows."""
    if name == "libvirt's grammar":
        return st.integers(0, 2**32).map(lambda seed: libvirts()[0].document(seed))
    return st.text(max_size=200) | nearly(READERS[name][1])
