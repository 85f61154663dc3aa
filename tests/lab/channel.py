"""The host's ends of a machine's two sockets: the agent inside, and QEMU's own monitor."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from attrs import frozen

LOOK = 2.0
"""Seconds between two looks at whether the machine still runs, while its agent is waited for."""


class ChannelError(Exception):
    """The agent did not answer, or could not do what it was asked."""


class CommandError(AssertionError):
    """A command inside ended with a status other than 0."""


@frozen
class Result:
    """What a command did.

    Attributes:
        argv: The command.
        status: Its exit status; negative for a signal, 124 when its time was up.
        stdout: What it printed.
        stderr: What it complained of.
    """

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        """The command with all it said, for messages of failed assertions."""
        return f"{' '.join(self.argv)}: status {self.status}\n{self.stdout}{self.stderr}"


def connect(path: Path, *, timeout: float = 10.0, check: Callable[[], None] = lambda: None) -> socket.socket:
    """Connect to a socket that QEMU is about to open (seconds); ``check`` raises when it never will.

    Raises:
        ChannelError: It was not there in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            connection.close()
            check()
            if time.monotonic() > deadline:
                raise ChannelError(f"{path}: {error}") from error
            time.sleep(0.05)


class Channel:
    """Requests to the agent of ``rootfs/usr/lib/lab/agent``; may be used from several threads at once."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        """Connect; ``check`` raises when there is nothing to wait for any more."""
        self._socket = connect(path, check=check)
        self._check = check
        self._ids = itertools.count(time.time_ns())
        self._waiting: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._sending = threading.Lock()
        threading.Thread(target=self._receive, daemon=True).start()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def run(self, argv: tuple[str, ...], *, stdin: bytes = b"", timeout: float = 120.0) -> Result:
        """Run a command inside and return what it did; its time (seconds) is watched over inside."""
        answer = self._request(
            {"op": "run", "argv": argv, "input": base64.b64encode(stdin).decode(), "timeout": timeout},
            timeout + 60,
        )
        out, err = (base64.b64decode(answer[name]).decode(errors="replace") for name in ("stdout", "stderr"))
        return Result(argv, answer["status"], out, err)

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file inside, with its directory."""
        self._request({"op": "put", "path": path, "data": base64.b64encode(data).decode(), "mode": mode})

    def get(self, path: str) -> bytes:
        """Read a file inside."""
        return base64.b64decode(self._request({"op": "get", "path": path})["data"])

    def ask(self, path: str, command: str, *, timeout: float = 60.0) -> tuple[int, str]:
        """Run a shell command in an inner guest behind a unix socket; return its status and output."""
        token = str(next(self._ids))
        line = f"{token} {base64.b64encode(command.encode()).decode()}"
        request = {"op": "ask", "path": path, "line": line, "token": token, "timeout": timeout}
        _, status, output = self._request(request, timeout + 30)["line"].split(" ")
        return int(status), base64.b64decode(output).decode(errors="replace")

    def ping(self, *, timeout: float = 5.0) -> str:
        """Return the kernel's boot id, which tells one boot from the next."""
        return str(self._request({"op": "ping"}, timeout)["boot"])

    def _request(self, request: dict[str, Any], timeout: float = 120.0) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        number = next(self._ids)
        queue: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._waiting[number] = queue
        body = json.dumps({"id": number, **request}).encode()
        try:
            with self._sending:
                self._socket.sendall(struct.pack("!I", len(body)) + body)
            answer = self._await(queue, timeout)
        except (Empty, OSError) as error:
            raise ChannelError(f"the agent gave no answer to {request['op']} in {timeout:.0f} s") from error
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise ChannelError(f"{request['op']}: {answer['error']}")
        return answer

    def _await(self, queue: SimpleQueue[dict[str, Any]], timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return queue.get(timeout=max(0.0, min(LOOK, deadline - time.monotonic())))
            except Empty:
                self._check()
                if time.monotonic() >= deadline:
                    raise

    def _receive(self) -> None:
        """Hand each answer to whoever waits for it; one nobody waits for any more is dropped."""
        try:
            with self._socket.makefile("rb") as stream:
                while header := stream.read(4):
                    answer = json.loads(stream.read(struct.unpack("!I", header)[0]))
                    if queue := self._waiting.get(answer["id"]):
                        queue.put(answer)
        except (OSError, ValueError):
            return


class Monitor:
    """QEMU's machine protocol: one command at a time, events passed over."""

    def __init__(self, path: Path) -> None:
        self._socket = connect(path)
        self._stream = self._socket.makefile("rb")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def close(self) -> None:
        """Let go of the socket."""
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result.

        Raises:
            ChannelError: QEMU refused it, or has ended.
        """
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while line := self._stream.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise ChannelError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise ChannelError(f"{command}: QEMU has ended")
