"""Two network namespaces with a cable between them, gone after the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[2]
AGENT = Path(__file__).with_name("agent.py")


Run = Callable[..., str]
"""Runs a program and returns what it printed; AssertionError where it failed."""


def _run(*argv: str) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


@frozen
class Namespace:
    """One end.

    Attributes:
        name: As ``ip netns`` has it.
        run: Runs programs on the machine that has it: this one, or one of the laboratory.
        agent: The command of ``agent.py`` there.
    """

    name: str
    run: Run = _run
    agent: tuple[str, ...] = (sys.executable, str(AGENT))

    def ip(self, *words: object) -> str:
        return self.run("ip", "-netns", self.name, *map(str, words))

    def execute(self, *argv: str) -> str:
        """Another program in here."""
        return self.run("ip", "netns", "exec", self.name, *argv)

    def ask(self, *words: object) -> Any:
        """The answer of ``agent.py`` run in here."""
        return json.loads(self.execute(*self.agent, *map(str, words)))

    def counters(self) -> dict[str, int]:
        """Fragments made and received (IPv4 and IPv6), and datagrams that came whole to a closed port."""
        lines = [
            line.split() for line in self.execute("cat", "/proc/net/snmp", "/proc/net/snmp6").splitlines()
        ]
        pairs = [words for words in lines if words[0].endswith(":")]
        found = {words[0]: int(words[1]) for words in lines if not words[0].endswith(":")}
        for names, values in zip(pairs[::2], pairs[1::2], strict=True):
            kind = names[0].removesuffix(":")
            found |= {f"{kind}{name}": int(n) for name, n in zip(names[1:], values[1:], strict=True)}
        return {
            "made": found["IpFragCreates"] + found["Ip6FragCreates"],
            "received": found["IpReasmReqds"] + found["Ip6ReasmReqds"],
            "whole": found["UdpNoPorts"],
        }

    def mtu(self, device: str) -> int:
        return int(json.loads(self.ip("-json", "link", "show", "dev", device))[0]["mtu"])

    def mac(self, device: str) -> str:
        return str(json.loads(self.ip("-json", "link", "show", "dev", device))[0]["address"])


@frozen
class Pair:
    """Both ends; ``cable`` (a veth) in each, 10.77.0.1 and .2, fd77::1 and ::2."""

    a: Namespace
    b: Namespace

    def cable(self, mtu: int) -> None:
        self.a.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.b.name)
        for number, end in enumerate((self.a, self.b), start=1):
            end.ip("link", "set", "cable", "mtu", mtu, "up")
            end.ip("addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            end.ip("addr", "add", f"fd77::{number}/64", "dev", "cable", "nodad")

    def vxlan(self, *, ipv6: bool) -> None:
        """``vx0`` at both ends, with an MTU no smaller than anything sent; 10.88.0.1 and .2."""
        prefix = "fd77::" if ipv6 else "10.77.0."
        for number, end in enumerate((self.a, self.b), start=1):
            far = f"{prefix}{3 - number}"
            end.ip("link", "add", "vx0", "type", "vxlan", "id", 42, "remote", far, "dstport", 4789)
            end.ip("link", "set", "vx0", "mtu", 12000, "up")
            end.ip("addr", "add", f"10.88.0.{number}/24", "dev", "vx0")

    def sent(self, end: Namespace, *words: object) -> dict[str, int]:
        """What sending did to the counters: fragments made and received, datagrams that came whole.

        Waits a second for the datagram, unless it was refused."""
        before = self._counters()
        deadline = time.monotonic() + (1 if end.ask(*words) else 0)
        while True:
            grown = {key: value - before[key] for key, value in self._counters().items()}
            if grown["whole"] or time.monotonic() > deadline:
                return grown

    def warm(self, *words: object) -> None:
        """Send until one comes through: the first wait for neighbours to answer and bridges to learn."""
        for _ in range(50):
            if self.sent(self.a, *words)["whole"]:
                return
        raise AssertionError(f"nothing comes through: {words}")

    def _counters(self) -> dict[str, int]:
        here, there = self.a.counters(), self.b.counters()
        return {"made": here["made"], "received": there["received"], "whole": there["whole"]}


@pytest.fixture
def wireguard_keys(tmp_path: Path) -> Callable[[], tuple[str, str, str]]:
    """Makes a key pair: the private key, the public one, and the private one's file."""
    if shutil.which("wg") is None:
        pytest.skip("needs wg")

    def make() -> tuple[str, str, str]:
        private = _run("wg", "genkey").strip()
        done = subprocess.run(("wg", "pubkey"), input=private, capture_output=True, text=True, check=True)
        file = tmp_path / f"key{len(list(tmp_path.iterdir()))}"
        file.write_text(private)
        return private, done.stdout.strip(), str(file)

    return make


@pytest.fixture
def pair() -> Iterator[Pair]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    ends = [Namespace(f"tuner-test-{os.getpid()}-{side}") for side in "ab"]
    made = []
    try:
        for end in ends:
            _run("ip", "netns", "add", end.name)
            made.append(end.name)
            end.ip("link", "set", "lo", "up")
        yield Pair(*ends)
    finally:
        for name in made:
            _run("ip", "netns", "del", name)
