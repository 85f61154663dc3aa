"""Runs a program that only reads the host, with a time limit; or replays what a captured host said.

A captured host has one file per command under ``ROOT/commands``, named by :func:`slug`: its standard
output, or, in a file of that name with ``.failed``, the one line it failed with.

Import budget: os, select, signal, time, and ``json`` once there is JSON to read. ``subprocess`` is not among
them: importing it takes 10 ms, half of what the hook may take.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host.sysfs import Sysfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/commands"
Run = Callable[[Sysfs, Sequence[str]], str]
"""What runs a program: :func:`run`, or something that also keeps the answer."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIECE = 65536
_PAUSE = 0.002
_MOST_BYTES = 16 * 1024 * 1024
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,=:-")


def slug(argv: Sequence[str]) -> str:
    """The name of the file that holds this command's output in a captured host.

    ``["ip", "-json", "route", "get", "fd00::2"]`` gives ``ip_-json_route_get_fd00::2``.
    """
    return "".join(char if char in _SAFE else "_" for char in " ".join(argv))[:240]


def run(sysfs: Sysfs, argv: Sequence[str], timeout: float = 2.0) -> str:
    """The standard output of a program, without white space at both ends.

    It runs with ``LC_ALL=C``, an empty standard input and no shell; at the time limit it and all it
    started in its process group are killed.

    Args:
        sysfs: The host; one with a root other than ``/`` replays ``ROOT/commands`` and runs nothing.
        argv: The program, found in PATH, and its arguments.
        timeout: Seconds.

    Raises:
        MissingError: The program is not installed, or the captured host does not have this command.
        HostError: It took too long, or ended with another status than 0; the problem has the first
            line of its standard error.
    """
    if not sysfs.live:
        return _replayed(sysfs, argv)
    return _decoded(_ran(argv, timeout))


def documents(text: str, argv: Sequence[str]) -> list[Any]:
    """What a program said in JSON: the elements of its arrays and its objects, one after the other.

    Raises:
        HostError: It is neither.
    """
    import json

    decoder = json.JSONDecoder()
    found: list[Any] = []
    at = 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            found.extend(value if isinstance(value, list) else [value])
            while at < len(text) and text[at].isspace():
                at += 1
    except ValueError as error:
        raise HostError(f"not JSON: {error}", where=" ".join(argv), value=text[:40]) from None
    return found


def _replayed(sysfs: Sysfs, argv: Sequence[str]) -> str:
    path = f"{DIRECTORY}/{slug(argv)}"
    try:
        return sysfs.read(path)
    except MissingError:
        failed = sysfs.read_or(path + ".failed", "")
    if failed:
        raise HostError(failed, where=" ".join(argv))
    raise MissingError("the captured host has no output of this command", errno=errno.ENOENT, where=path)


def _ran(argv: Sequence[str], timeout: float) -> bytes:
    """Run, collect, wait. Raises as :func:`run` does."""
    where = " ".join(argv)
    deadline = time.monotonic() + timeout
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    try:
        try:
            pid = _spawned(argv, out_end, err_end)
        finally:
            os.close(out_end)
            os.close(err_end)
        output, complaint = _collected(pid, (out, err), deadline)
        status = _status(pid, deadline)
    finally:
        os.close(out)
        os.close(err)
    if output is None or status is None:
        raise HostError(f"no answer within {timeout:g} s", errno=errno.ETIMEDOUT, where=where)
    if status:
        first = _decoded(complaint or b"").partition("\n")[0]
        raise HostError(first or "failed", where=where, value=status, expected="exit status 0")
    return output


def _spawned(argv: Sequence[str], out: int, err: int) -> int:
    """Start the program in a process group of its own."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
    ]
    environment = {"PATH": os.environ.get("PATH", _PATH), "LC_ALL": "C"}
    try:
        return os.posix_spawnp(argv[0], list(argv), environment, file_actions=actions, setpgroup=0)
    except OSError as failure:
        text = os.strerror(failure.errno or 0)
        kind = MissingError if failure.errno == errno.ENOENT else HostError
        raise kind(text, errno=failure.errno or 0, where=argv[0], expected="a program in PATH") from None


def _collected(pid: int, pipes: tuple[int, int], deadline: float) -> tuple[bytes | None, bytes | None]:
    """Both pipes to their end, or (None, None) when time or the size limit ran out and all was killed."""
    data = dict.fromkeys(pipes, b"")
    poll = select.poll()
    for fd in pipes:
        poll.register(fd, select.POLLIN)
    waiting = set(pipes)
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0 or sum(map(len, data.values())) > _MOST_BYTES:
            _kill(pid)
            return None, None
        for fd, _ in poll.poll(left * 1000):
            piece = os.read(fd, _PIECE)
            data[fd] += piece
            if not piece:
                poll.unregister(fd)
                waiting.discard(fd)
    return data[pipes[0]], data[pipes[1]]


def _status(pid: int, deadline: float) -> int | None:
    """Exit status (128 and more for a signal), or None when it had to be killed."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if time.monotonic() > deadline:
            _kill(pid)
            os.waitpid(pid, 0)
            return None
        time.sleep(_PAUSE)


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It ended between the time limit and here.
        return


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace").strip()
