"""Counts, by a tracepoint of the kernel, what a TCP flow hands to a device. Run where the namespaces are.

``tracer.py FROM TO DEVICE BYTES``: one flow from namespace to namespace, and the answer in JSON: ``pieces``,
packets handed to the device uncut (gso_size is not 0), and ``singles``. Standard library only: the laboratory
copies this file into a hypervisor.
"""

from __future__ import annotations

import ctypes
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVENT = "events/net/net_dev_start_xmit"
ADDRESS, PORT = "10.88.0.2", 5201
CLONE_NEWNET = 0x40000000


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


def count(a: str, b: str, device: str, size: int) -> dict[str, int]:
    """Send ``size`` bytes from one namespace to the other, and count at a device.

    Raises:
        Unable: The kernel cannot count.
    """
    ours = f'name == "{device}"'
    with (
        tracing() as tracer,
        counting(tracer, f"{device}-large", f"{ours} && gso_size > 0") as large,
        counting(tracer, f"{device}-small", f"{ours} && gso_size == 0") as small,
    ):
        _transfer(a, b, size)
        return {"pieces": written(large), "singles": written(small)}


def _transfer(a: str, b: str, size: int) -> None:
    """From one namespace to the other, by TCP."""
    sockets: dict[str, socket.socket] = {}
    for end in (a, b):
        # A thread of its own enters the namespace, and ends.
        thread = threading.Thread(target=_socket_in, args=(end, sockets))
        thread.start()
        thread.join()
    listener, sender = sockets[b], sockets[a]
    listener.bind((ADDRESS, PORT))
    listener.listen()
    reader = threading.Thread(target=_swallow, args=(listener,))
    reader.start()
    with listener, sender:
        sender.connect((ADDRESS, PORT))
        sender.sendall(bytes(size))
        sender.shutdown(socket.SHUT_WR)
        reader.join()


def _socket_in(name: str, sockets: dict[str, socket.socket]) -> None:
    with open(f"/run/netns/{name}") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    sockets[name] = socket.socket()


def _swallow(listener: socket.socket) -> None:
    with listener.accept()[0] as incoming:
        while incoming.recv(1 << 20):
            pass


if __name__ == "__main__":
    source, target, watched, amount = sys.argv[1:]
    print(json.dumps(count(source, target, watched, int(amount))))
