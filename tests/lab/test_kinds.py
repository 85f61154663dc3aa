"""Tunnels on the kernels of Debian 12 and 13: the computed size crosses whole, the next one does not.

As tests/netns/test_kinds.py on the machine that runs the tests, in two network namespaces of a hypervisor;
every case there is one that can be named here.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import asdict

from tests.lab.channel import CommandError
from tests.lab.hypervisor import Hypervisor
from tests.netns import evidence, test_segments, tracer
from tests.netns import test_kinds as kinds
from tests.netns.conftest import AGENT, Namespace, Pair

INSIDE = "/run/lab/agent.py"
TRACER = "/run/lab/tracer.py"
ENDS = ("left", "right")


@pytest.fixture
def pair(shared_lab: Hypervisor) -> Iterator[Pair]:
    """Two namespaces of the hypervisor, and the agent in it."""

    def run(*argv: str) -> str:
        try:
            return shared_lab.output(shlex.join(argv))
        except CommandError as error:
            raise AssertionError(str(error)) from error

    shared_lab.write(INSIDE, AGENT.read_bytes())
    # Nothing loads it when ip asks for it.
    shared_lab.run("modprobe fou", check=False)
    for name in ENDS:
        shared_lab.run(f"ip netns add {name} && ip -netns {name} link set lo up")
    a, b = (Namespace(name, run, ("python3", INSIDE)) for name in ENDS)
    yield Pair(a, b)
    for name in ENDS:
        shared_lab.run(f"ip netns del {name}")


NAMES = ["geneve", "geneve-ipv6", "gretap", "ip6gretap", "ipip-fou", "ipip-gue"]


@pytest.mark.parametrize("name", NAMES)
def test_kind(pair: Pair, name: str) -> None:
    kinds.holds(pair, kinds.CASES[name])


def test_l2tp(pair: Pair) -> None:
    kinds.test_l2tp(pair)


def test_label_of_a_route(pair: Pair) -> None:
    kinds.test_label_of_a_route(pair)


def test_macsec(pair: Pair) -> None:
    kinds.macsec(pair, "", 1468)


def test_wireguard(pair: Pair, shared_lab: Hypervisor) -> None:
    program = shutil.which("wg")
    if program is None:
        pytest.skip("needs wg, which the image does not have")
    # It needs nothing but the C library.
    with open(program, "rb") as file:
        shared_lab.write("/usr/local/bin/wg", file.read(), mode=0o755)
    keys = []
    for name in ENDS:
        private = shared_lab.output("wg genkey")
        public = subprocess.run(("wg", "pubkey"), input=private, capture_output=True, text=True, check=True)
        shared_lab.write(f"/run/lab/{name}.key", private, mode=0o600)
        keys.append((private, public.stdout.strip(), f"/run/lab/{name}.key"))
    kinds.wireguard(pair, False, 1440, (keys[0], keys[1]))


def test_geneve_over_esp(pair: Pair) -> None:
    kinds.over_ipsec(pair, kinds.CASES["geneve"], 1416, False, "transport", *kinds.AEAD, padding=3)


@pytest.mark.parametrize("name", ["IPv6 tunnel-geneve"])
def test_over_esp(pair: Pair, name: str) -> None:
    kinds.over_ipsec(pair, kinds.CASES["geneve-ipv6"], 1356, True, "tunnel", *kinds.AEAD, padding=3)


def test_vxlan_over_ah(pair: Pair) -> None:
    crypto = kinds.auth("sha256", 128, 32)
    kinds.over_ipsec(pair, kinds.CASES["vxlan"], 1418, False, "transport", *crypto, proto="ah")


def test_headroom_keeps_large_packets_whole(
    pair: Pair, shared_lab: Hypervisor, record_testsuite_property: Callable[[str, object], None]
) -> None:
    shared_lab.write(TRACER, Path(tracer.__file__).read_bytes())

    def count(a: str, b: str, device: str, size: int) -> dict[str, int]:
        found: dict[str, int] = json.loads(shared_lab.output(f"python3 {TRACER} {a} {b} {device} {size}"))
        return found

    for mtu, counted in test_segments.compared(pair, count).items():
        record_testsuite_property(f"{evidence.SEGMENTS}{mtu}", json.dumps(asdict(counted)))
