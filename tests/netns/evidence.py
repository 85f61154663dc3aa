"""docs/tunnels.md: the bytes of each kind of tunnel, and which kernels confirmed them.

``python -m tests.netns.evidence NAME RESULTS.xml``: notes in docs/tunnels.json which cases passed in a run
of pytest (``--junitxml=RESULTS.xml``) on the kernel of that name, and writes the page anew. What the page
says of bytes comes from the code; a test holds the two equal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from attrs import frozen

from libvirt_tuner.uplink import encapsulation, kinds
from libvirt_tuner.uplink.encapsulation import Layer
from libvirt_tuner.uplink.kinds import IPV4, KINDS, UNKNOWN
from tests.netns import segments

DOCS = Path(__file__).parents[2] / "docs"
RECORD = DOCS / "tunnels.json"
PAGE = DOCS / "tunnels.md"
RELEASES = ("bookworm", "trixie")
NOBODY = "not confirmed, from the specification"
SEGMENTS = "segments at MTU "
"""Name of a case's property with what :mod:`tests.netns.segments` counted, up to the MTU."""

Runs = Mapping[str, Sequence[str]]
"""Names of kernels to the cases that passed there."""

INTRODUCTION = """\
# Tunnels: the bytes that each adds

The MTU of a guest is the MTU of the wire minus the bytes that each layer on the path adds. This page lists
these bytes for every kind of tunnel that `libvirt_tuner/uplink/kinds.py` knows. It also says on which kernels
they were confirmed. The test has two network namespaces, a cable of 1500 bytes, and the tunnel between them.
A packet of the computed size arrives in one piece. A packet that is one byte larger (with padding: one byte
more than the padding) is fragmented or refused.

An unknown kind counts {unknown} bytes, and the plan says so. If something about a tunnel is unknown, such as
the family of its outer addresses, the largest value is used, and the plan says so too. Geneve options that
flows set are counted only if Open vSwitch's OVN uses them.

Bytes are those of IP packets, as an MTU counts them. The Ethernet header of a frame and a VLAN tag on the
wire do not count. Inside a tunnel they count 14 and 4 bytes.
"""


@frozen
class Row:
    """A line of the page.

    Attributes:
        name: What it is about.
        cells: What it says of it.
        cases: Names of the tests that confirm it, without the laboratory's release.
    """

    name: str
    cells: tuple[str, ...]
    cases: tuple[str, ...] = ()


CASES: Mapping[str, tuple[str, ...]] = {
    "geneve": ("test_kind[geneve]", "test_kind[geneve-ipv6]"),
    "vxlan": ("test_kind[vxlan]", "test_kind[vxlan-ipv6]"),
    "gre": ("test_kind[gre]",),
    "gretap": ("test_kind[gretap]",),
    "ip6gre": ("test_kind[ip6gre]",),
    "ip6gretap": ("test_kind[ip6gretap]",),
    "erspan": ("test_kind[erspan-1]",),
    "ip6erspan": ("test_kind[ip6erspan-1]",),
    "ipip": ("test_kind[ipip]",),
    "sit": ("test_kind[sit]",),
    "ip6tnl": ("test_kind[ip6tnl]",),
    "bareudp": ("test_bareudp",),
    "wireguard": ("test_wireguard[IPv4]", "test_wireguard[IPv6]", "test_wireguard"),
    "macsec": ("test_macsec[with SCI]", "test_macsec"),
    "l2tpeth": ("test_l2tp",),
}
"""What confirms a kind as it is without further options; what is not here no kernel was asked about."""

NOTES = {
    "gtp": "header of version 0; that of version 1 has 12 bytes less",
    "gtpu": "Open vSwitch; with the optional fields and one extension header",
    "l2tpeth": "`ip` does not show the options of a session, so UDP, cookie and sublayer are counted",
    "wireguard": "padded to 16, but not beyond the device's own MTU",
    "stt": "old releases of Open vSwitch",
    "lisp": "old releases of Open vSwitch",
    "srv6": "Open vSwitch; 16 more for each segment",
    "hsr": "the kernel subtracts them from the device's MTU itself",
}


def _options() -> list[Row]:
    """Parts that a kind may have or not, as the code counts them."""

    def added(kind: str, with_it: Mapping[str, object], without: Mapping[str, object] | None = None) -> int:
        parts = (kinds.extras(kind, data) for data in (with_it, without or {}))
        more, less = (sum(size for _, size in each) for each in parts)
        return more - less

    bare = {"ip6_tnl_f_ign_encap_limit": True}
    return [
        Row("VXLAN: group policy (gbp)", (str(added("vxlan", {"gbp": True})),), ("test_kind[vxlan-gbp]",)),
        Row("Geneve: `innerprotoinherit`, no Ethernet inside", ("-14",), ("test_kind[geneve-no-ethernet]",)),
        Row(
            "Geneve: options, 8 bytes for OVN's",
            ("their size",),
        ),
        Row(
            "GRE: a key",
            (str(added("gre", {"okey": "1"})),),
            ("test_kind[gre-key]", "test_kind[gretap-key]"),
        ),
        Row(
            "GRE: key, checksum and sequence number",
            (str(added("gre", {"okey": "1", "ocsum": True, "oseq": True})),),
            ("test_kind[gre-key-csum-seq]",),
        ),
        Row("ERSPAN: version 0", (str(added("erspan", {"erspan_ver": 0})),), ("test_kind[erspan-0]",)),
        Row("ERSPAN: version 2", (str(added("erspan", {"erspan_ver": 2})),), ("test_kind[erspan-2]",)),
        Row(
            "over IPv6: `encaplimit none`",
            (str(added("ip6gre", bare)),),
            (
                "test_kind[ip6gre-no-limit]",
                "test_kind[ip6gretap-no-limit]",
                "test_kind[ip6tnl-no-limit]",
            ),
        ),
        Row(
            "IP in IP: `encap fou`",
            (str(added("ipip", {"encap": {"type": "fou"}})),),
            ("test_kind[ipip-fou]",),
        ),
        Row(
            "IP in IP: `encap gue`",
            (str(added("ipip", {"encap": {"type": "gue"}})),),
            ("test_kind[ipip-gue]",),
        ),
        # The kernel lets no one set the MTU that would show it.
        Row("MACsec: without SCI", (str(added("macsec", {"inc_sci": False})),)),
    ]


def _layers() -> list[Row]:
    """IPsec and labels."""

    def esp(*names: str, icv: int, mode: str = "transport", ipv6: bool = False, nat: bool = False) -> Layer:
        return encapsulation.esp(names, icv, mode=mode, ipv6=ipv6, nat=nat)

    gcm, cbc = "rfc4106(gcm(aes))", "cbc(aes)"
    found: list[tuple[str, Layer, tuple[str, ...]]] = [
        (
            "ESP, transport, AES-GCM with an ICV of 16",
            esp(gcm, icv=128),
            (
                *(f"test_over_esp[IPv{n} transport-{kind}]" for n in (4, 6) for kind in ("geneve", "vxlan")),
                "test_geneve_over_esp",
            ),
        ),
        (
            "the same, tunnel mode over IPv4",
            esp(gcm, icv=128, mode="tunnel"),
            tuple(f"test_over_esp[IPv4 tunnel-{kind}]" for kind in ("geneve", "vxlan")),
        ),
        (
            "the same, tunnel mode over IPv6",
            esp(gcm, icv=128, mode="tunnel", ipv6=True),
            tuple(f"test_over_esp[IPv6 tunnel-{kind}]" for kind in ("geneve", "vxlan")),
        ),
        ("the same, transport, NAT traversal", esp(gcm, icv=128, nat=True), ()),
        (
            "ESP, transport, AES-GCM with an ICV of 8",
            esp(gcm, icv=64),
            ("test_crypto_of_esp[AES-GCM, ICV of 8 bytes]",),
        ),
        (
            "ESP, transport, AES-CBC and SHA-256-128",
            esp(cbc, "hmac(sha256)", icv=128),
            ("test_crypto_of_esp[AES-CBC and SHA-256]",),
        ),
        (
            "ESP, transport, AES-CBC and SHA-1-96",
            esp(cbc, "hmac(sha1)", icv=96),
            ("test_crypto_of_esp[AES-CBC and SHA-1]",),
        ),
        (
            "ESP, transport, no cipher, SHA-256-128",
            esp("ecb(cipher_null)", "hmac(sha256)", icv=128),
            ("test_crypto_of_esp[no cipher]",),
        ),
        (
            "AH, transport, SHA-256-128",
            encapsulation.ah(128),
            (
                "test_over_ah[IPv4 SHA-256, padded to 8]",
                "test_over_ah[IPv6 SHA-256]",
                "test_vxlan_over_ah",
            ),
        ),
        ("AH, transport, SHA-1-96", encapsulation.ah(96), ("test_over_ah[IPv4 SHA-1]",)),
        ("an MPLS label of a route", encapsulation.mpls(1), ("test_label_of_a_route",)),
        ("a VLAN tag inside a tunnel", encapsulation.vlan(), ("test_tag_of_the_switch_in_vxlan",)),
    ]
    return [
        Row(name, (str(layer.least), f"to {layer.block}" if layer.block > 1 else ""), cases)
        for name, layer, cases in found
    ]


def _kinds() -> list[Row]:
    """The table of the code."""
    rows = []
    for kind, row in KINDS.items():
        extras = kinds.extras(kind, {})
        four, six = (encapsulation.tunnel(kind, ipv6=ipv6, extras=extras) for ipv6 in (False, True))
        fixed = row.outer is not None
        over_four = "" if fixed and row.outer != IPV4 and row.outer else str(four.least)
        over_six = "" if row.outer == IPV4 else str(six.least)
        made = ", ".join(part for part in six.parts if not part.startswith("IPv"))
        note = f" ({NOTES[kind]})" if kind in NOTES else ""
        rows.append(Row(f"`{kind}`", (over_four, over_six, made + note), CASES.get(kind, ())))
    return rows


def confirmed(row: Row, runs: Runs) -> str:
    """Which kernels confirmed a row."""
    return ", ".join(name for name, passed in runs.items() if set(row.cases) & set(passed)) or NOBODY


def page(runs: Runs, cuts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """The page's text.

    Args:
        runs: What passed.
        cuts: What :mod:`tests.netns.segments` counted: kernel, MTU, figure.
    """
    head = [INTRODUCTION.format(unknown=UNKNOWN)]
    asked = [f"- {name}: {len(passed)} cases" for name, passed in runs.items()]
    head.append("\n".join(["Kernels that ran the test, and the cases that passed:", "", *asked]) + "\n")
    tables = (
        ("Kinds", ("kind", "over IPv4", "over IPv6", "parts", "confirmed by"), _kinds()),
        ("Options of a kind", ("part", "bytes", "confirmed by"), _options()),
        ("IPsec and labels", ("layer", "bytes", "padding", "confirmed by"), _layers()),
    )
    for title, heading, rows in tables:
        lines = [f"## {title}", "", *_table(heading, rows, runs)]
        head.append("\n".join(lines) + "\n")
    head += [_cuts(cuts), LAST]
    return "\n".join(head)


CUTS = """\
## What headroom leaves in one piece

A guest sends large packets of up to 64 KiB. They reach the device below a tunnel in one piece, so that the
card can cut them into segments. If the segments do not fit into the tunnel, the kernel cuts the packet
earlier, and each segment becomes two fragments. The table shows a TCP flow of {bytes} bytes over VXLAN on a
cable of 1500 bytes. The tracepoint `net:net_dev_start_xmit` counted the packets at the cable, which accepts
large packets in tunnels like such a card.
"""


def _cuts(cuts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    heading = ("kernel", "MTU", "large packets uncut", "packets cut before", "fragments")
    lines = [heading, ["---"] * len(heading)]
    for name, sizes in cuts.items():
        lines += [
            (name, size, *(str(found[key]) for key in ("pieces", "singles", "fragments")))
            for size, found in sizes.items()
        ]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([CUTS.format(bytes=f"{segments.BYTES:,}"), *table, ""])


LAST = """\
## Try it on your kernel

`make test` tests every kind that the running kernel has (`tests/netns/test_kinds.py`), and skips the others.
`python -m tests.netns.kernel` runs the tests in user-mode Linux (Debian's package `user-mode-linux`).
`make lab ARGS='-k test_kinds'` runs them in an emulated hypervisor. To add a run to this page, write it with
`--junitxml=FILE`, then run `python -m tests.netns.evidence NAME FILE`.
"""


def _table(heading: Sequence[str], rows: Iterable[Row], runs: Runs) -> list[str]:
    lines = [heading, ["---"] * len(heading)]
    lines += [(row.name, *row.cells, confirmed(row, runs)) for row in rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def passed(text: str) -> list[str]:
    """The cases that passed, of a JUnit file, without the laboratory's release."""
    found = []
    for case in ElementTree.fromstring(text).iter("testcase"):
        if not any(case.find(word) is not None for word in ("failure", "error", "skipped")):
            found.append(plain(str(case.get("name"))))
    return sorted(dict.fromkeys(found))


def counted(text: str) -> dict[int, segments.Counted]:
    """What cases counted of segments, by MTU, of a JUnit file."""
    found = {}
    for each in ElementTree.fromstring(text).iter("property"):
        name = str(each.get("name"))
        if name.startswith(SEGMENTS):
            found[int(name[len(SEGMENTS) :])] = segments.Counted(**json.loads(str(each.get("value"))))
    return found


def plain(name: str) -> str:
    """``test_kind[bookworm-geneve]`` is ``test_kind[geneve]``, ``test_macsec[trixie]`` is ``test_macsec``."""
    name = re.sub(rf"\[(?:{'|'.join(RELEASES)})\]$", "", name)
    return re.sub(rf"\[(?:{'|'.join(RELEASES)})-", "[", name)


def main(arguments: Sequence[str]) -> None:
    """Note a run, and write the page."""
    name, *files = arguments
    runs = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    texts = [Path(file).read_text() for file in files]
    runs[name] = sorted({case for text in texts for case in passed(text)})
    for text in texts:
        if cuts := counted(text):
            segments.note(name, cuts)
    RECORD.write_text(json.dumps(runs, indent=1) + "\n")
    PAGE.write_text(page(runs, json.loads(segments.RECORD.read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
