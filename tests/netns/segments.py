"""What headroom leaves in one piece: counted at the device below a tunnel, by a tracepoint of the kernel.

``python -m tests.netns.segments NAME`` measures on the running kernel and notes it, under that name, for
docs/tunnels.md.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.netns.conftest import Namespace, Pair

RECORD = Path(__file__).parents[2] / "docs" / "segments.json"
EVENT = "events/net/net_dev_start_xmit"
PORT = 5201
BYTES = 20_000_000


@frozen
class Counted:
    """Of one flow of :data:`BYTES` bytes.

    Attributes:
        pieces: Packets that reached the device below the tunnel uncut (gso_size is not 0).
        singles: Packets that reached it cut.
        fragments: IPv4 fragments made of them.
    """

    pieces: int
    singles: int
    fragments: int


class Unable(Exception):
    """This kernel, or this place, has no such tracepoint."""


@contextmanager
def tracing() -> Iterator[Path]:
    """The kernel's tracer, mounted in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="tracing-") as text:
        done = subprocess.run(("mount", "-t", "tracefs", "none", text), capture_output=True, text=True)
        if done.returncode:
            raise Unable(done.stderr)
        try:
            yield Path(text)
        finally:
            subprocess.run(("umount", text), check=True)


@contextmanager
def counting(tracer: Path, name: str, condition: str) -> Iterator[Path]:
    """An instance of the tracer that notes packets handed to a device, those of a condition."""
    instance = tracer / "instances" / name
    try:
        instance.mkdir()
    except OSError as error:
        raise Unable(str(error)) from error
    try:
        event = instance / EVENT
        if not event.is_dir():
            raise Unable(f"no {event}")
        (event / "filter").write_text(f"{condition}\n")
        (event / "enable").write_text("1\n")
        yield instance
    finally:
        instance.rmdir()


def written(instance: Path) -> int:
    """How many packets it has noted."""
    (instance / EVENT / "enable").write_text("0\n")
    with open(instance / "trace") as file:
        for line in file:
            if found := re.search(r"entries-written: \d+/(\d+)", line):
                return int(found[1])
    raise Unable("no count in the trace")


def flow(pair: Pair, mtu: int, device: str) -> Counted:
    """Send :data:`BYTES` through a tunnel of that MTU, and count at the device below it.

    Raises:
        Unable: The kernel cannot count.
    """
    for end in (pair.a, pair.b):
        end.ip("link", "set", "vx0", "mtu", mtu)
        # As a guest that hears nothing of the tunnel: a sender here would learn of it after some packets.
        end.ip("route", "replace", "10.88.0.0/24", "dev", "vx0", "mtu", "lock", mtu)
    before = pair.a.counters()["made"]
    ours = f'name == "{device}"'
    with (
        tracing() as tracer,
        counting(tracer, f"{device}-large", f"{ours} && gso_size > 0") as large,
        counting(tracer, f"{device}-small", f"{ours} && gso_size == 0") as small,
    ):
        _transfer(pair.a, pair.b)
        pieces, singles = written(large), written(small)
    return Counted(pieces, singles, pair.a.counters()["made"] - before)


def _transfer(a: Namespace, b: Namespace) -> None:
    """From one namespace to the other, by TCP."""
    sockets: dict[str, socket.socket] = {}
    for end in (a, b):
        # A thread of its own enters the namespace, and ends.
        thread = threading.Thread(target=_socket_in, args=(end.name, sockets))
        thread.start()
        thread.join()
    listener, sender = sockets[b.name], sockets[a.name]
    listener.bind(("10.88.0.2", PORT))
    listener.listen()
    reader = threading.Thread(target=_swallow, args=(listener,))
    reader.start()
    with listener, sender:
        sender.connect(("10.88.0.2", PORT))
        sender.sendall(bytes(BYTES))
        sender.shutdown(socket.SHUT_WR)
        reader.join()


def _socket_in(name: str, sockets: dict[str, socket.socket]) -> None:
    with open(f"/run/netns/{name}") as namespace:
        _setns(namespace.fileno())
    sockets[name] = socket.socket()


def _setns(fd: int) -> None:
    import ctypes

    clone_newnet = 0x40000000
    if ctypes.CDLL(None, use_errno=True).setns(fd, clone_newnet):
        raise OSError(ctypes.get_errno(), "setns")


def _swallow(listener: socket.socket) -> None:
    with listener.accept()[0] as incoming:
        while incoming.recv(1 << 20):
            pass


def tunnel(pair: Pair) -> str:
    """VXLAN on a cable of 1500 bytes; the name of the cable's near end, which nothing else here has."""
    pair.cable(1500)
    pair.vxlan(ipv6=False)
    device = f"cut{os.getpid()}"
    pair.a.ip("link", "set", "cable", "down")
    pair.a.ip("link", "set", "cable", "name", device)
    pair.a.ip("link", "set", device, "up")
    pair.warm("send", "10.88.0.2", 100)
    return device


def main(arguments: list[str]) -> None:
    """Measure, and note it."""
    (name,) = arguments
    ends = [Namespace(f"tuner-cut-{os.getpid()}-{side}") for side in "ab"]
    made = []
    try:
        for end in ends:
            end.run("ip", "netns", "add", end.name)
            made.append(end)
            end.ip("link", "set", "lo", "up")
        pair = Pair(*ends)
        device = tunnel(pair)
        found = {str(mtu): vars_of(flow(pair, mtu, device)) for mtu in (1500, 1450)}
    finally:
        for end in made:
            end.run("ip", "netns", "del", end.name)
    runs = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    RECORD.write_text(json.dumps({**runs, name: found}, indent=1) + "\n")


def vars_of(counted: Counted) -> dict[str, int]:
    """As JSON has it."""
    return {"pieces": counted.pieces, "singles": counted.singles, "fragments": counted.fragments}


if __name__ == "__main__":
    main(sys.argv[1:])
