"""Runs a program that only reads the host, with a time limit, or replays the output on a captured host.

A captured host has one file per command under ``ROOT/commands``, named by :func:`slug`, with its standard
output. If the command failed, a file with the suffix ``.failed`` has its error line.

Import budget: os and signal; ``subprocess``, ``resource``, ``select`` and ``json`` only when a command runs.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host.sysfs import Sysfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

DIRECTORY = "/commands"
Run = Callable[[Sysfs, Sequence[str]], str]
"""Type of :func:`run`, or of a function that also keeps the output."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE = 0.2
"""Seconds to wait for a killed program."""

_MOST_BYTES = 16 * 1024 * 1024
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,=:-")


def slug(argv: Sequence[str]) -> str:
    """The name of the file that holds this command's output in a captured host.

    ``["ip", "-json", "route", "get", "fd00::2"]`` gives ``ip_-json_route_get_fd00::2``.
    """
    return "".join(char if char in _SAFE else "_" for char in " ".join(argv))[:240]


def run(sysfs: Sysfs, argv: Sequence[str], timeout: float = 2.0) -> str:
    """Run a program and return its standard output, without white space at both ends.

    It runs with ``LC_ALL=C``, an empty standard input and no shell; at the time limit its whole process group
    is killed.

    Args:
        sysfs: The host; one with a root other than ``/`` replays ``ROOT/commands`` and runs nothing.
        argv: The program, found in PATH, and its arguments.
        timeout: Seconds.

    Raises:
        MissingError: The program is not installed, or the captured host does not have this command.
        HostError: It took too long, or its exit status was not 0. The problem has the first line of its
            standard error.
    """
    if not sysfs.live:
        return _replayed(sysfs, argv)
    return _ran(argv, timeout)


def documents(text: str, argv: Sequence[str]) -> list[Any]:
    """Parse a program's JSON output: the elements of its arrays and its objects, in order.

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
    except (ValueError, RecursionError) as error:
        raise HostError(f"not JSON: {error}", where=" ".join(argv), value=text[:40]) from None
    if not all(map(_is_record, found)):
        raise HostError("unexpected records", where=" ".join(argv), value=text[:40])
    return found


_RECORDS = ("linkinfo", "info_data", "info_slave_data")
_LISTS = ("metrics", "nexthops", "addr_info")
_TYPES = {"info_kind": str, "mtu": int, "icv_len": int}
"""Fields of ip(8) that are objects, lists of objects, or of one type. Others are read as text or flags."""


def _is_record(value: object) -> bool:
    """Check that it is an object, and that its fields have the types that ip(8) gives them."""
    return (
        isinstance(value, dict)
        and all(_is_record(value[name]) for name in _RECORDS if name in value)
        and all(_are_records(value[name]) for name in _LISTS if name in value)
        and all(isinstance(value[name], kind) for name, kind in _TYPES.items() if name in value)
    )


def _are_records(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_record, value))


def _replayed(sysfs: Sysfs, argv: Sequence[str]) -> str:
    path = f"{DIRECTORY}/{slug(argv)}"
    try:
        return sysfs.read(path)
    except MissingError:
        failed = sysfs.read_or(path + ".failed", "")
    if failed:
        raise HostError(failed, where=" ".join(argv))
    raise MissingError("the captured host has no output of this command", errno=errno.ENOENT, where=path)


def _ran(argv: Sequence[str], timeout: float) -> str:
    """Run it. Raises as :func:`run` does."""
    try:
        return _output(argv, timeout)
    except OSError as failure:
        # The error may also be a lack of processes, descriptors or memory.
        kind = MissingError if failure.errno == errno.ENOENT else HostError
        raise kind(
            os.strerror(failure.errno or 0),
            errno=failure.errno or 0,
            where=argv[0],
            expected="a program in PATH",
        ) from None


def _output(argv: Sequence[str], timeout: float) -> str:
    # Imported here: it costs 4 ms that a hook without tunnels need not spend.
    import resource
    import subprocess

    where = " ".join(argv)
    environment = {"PATH": os.environ.get("PATH", _PATH), "LC_ALL": "C"}
    # Use files in memory instead of pipes: nothing has to be read while it runs, and its children cannot
    # block us.
    with open(os.memfd_create("output"), "r+b") as output, open(os.memfd_create("error"), "r+b") as error:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=error, env=environment, process_group=0
        )
        # Limit for each file it writes; SIGXFSZ ends it. Does not work for setuid programs.
        with suppress(OSError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))
        if not _ended(process.pid, timeout):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Do not wait for a program that is stuck in the kernel. subprocess collects it later.
            _ended(process.pid, _GRACE)
            process.poll()
            raise HostError(f"no answer within {timeout:g} s", errno=errno.ETIMEDOUT, where=where)
        if status := process.wait():
            first = _content(error).partition("\n")[0]
            value = status if status > 0 else 128 - status
            raise HostError(first or "failed", where=where, value=value, expected="exit status 0")
        return _content(output)


def _ended(pid: int, timeout: float) -> bool:
    """Return whether a child process ends within that many seconds. Does not reap it."""
    import select

    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(fd)


def _content(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace").strip()
