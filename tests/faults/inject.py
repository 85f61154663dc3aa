"""Faults in the file operations of this process: one at a time, told apart by their number.

A shim round the functions of :mod:`os` and :mod:`fcntl` that this package calls. It counts what passes, and
has one operation fail, fall short, or be the last thing that the process does. Kernel files cannot be made to
fail otherwise: no root argument leads to an EIO.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from attrs import frozen

CALLS: dict[str, tuple[ModuleType, str]] = {
    **{
        f"os.{name}": (os, name)
        for name in (
            *("open", "read", "write", "close", "fstat", "stat", "lstat", "listdir", "readlink"),
            *("rename", "link", "unlink", "mkdir"),
        )
    },
    "fcntl.flock": (fcntl, "flock"),
}

#: What each call may answer: by open(2), read(2) and so on, and by what the kernel's own files answer.
ERRORS: dict[str, tuple[int, ...]] = {
    "os.open": (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EACCES,
        errno.EIO,
        errno.EINVAL,
        errno.ENODEV,
    ),
    "os.read": (errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENODEV),
    "os.write": (errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EPERM, errno.EBUSY, errno.ENODEV),
    "os.close": (errno.EIO,),
    "os.fstat": (errno.EIO,),
    "os.stat": (errno.EACCES, errno.EIO),
    "os.lstat": (errno.EACCES, errno.EIO),
    "os.listdir": (errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EIO),
    "os.readlink": (errno.EACCES, errno.EIO),
    "os.rename": (errno.ENOSPC, errno.ENOMEM, errno.EIO),
    "os.link": (errno.ENOSPC, errno.EIO),
    "os.unlink": (errno.EIO,),
    "os.mkdir": (errno.ENOSPC, errno.EACCES),
    "fcntl.flock": (errno.ENOLCK, errno.EINTR, errno.EWOULDBLOCK),
}
SHORT, CUT, AFTER, KILL_BEFORE, KILL_AFTER = -1, -2, -3, -4, -5
"""Other faults than errors: half of it, now or for good; an error after it was done; SIGKILL."""

OTHERS: dict[str, tuple[int, ...]] = {
    "os.read": (SHORT, CUT),
    "os.write": (SHORT, AFTER),
    "os.rename": (AFTER,),
}
KILLS = (KILL_BEFORE, KILL_AFTER)
NAMES = {SHORT: "short", CUT: "cut off", AFTER: "EIO after it was done"}


@frozen
class Operation:
    """One file operation: the call, and the path it was made on as far as that is known."""

    call: str
    path: str

    @property
    def faults(self) -> tuple[int, ...]:
        """Each fault but SIGKILL that it can have."""
        return (*ERRORS.get(self.call, ()), *OTHERS.get(self.call, ()))


class Shim:
    """Counts operations (from 0), and has some of them be faulty.

    Args:
        faults: By the number of the operation; a predicate chooses by the operation itself.
        fault: For a predicate: an errno, or one of the other faults.
    """

    def __init__(
        self, faults: Mapping[int, int] | Callable[[Operation], bool] | None = None, fault: int = 0
    ) -> None:
        self.seen: list[Operation] = []
        self._faults, self._fault = faults or {}, fault
        self._paths: dict[int, str] = {}
        self._cut: set[int] = set()
        self._kernel: set[int] = set()

    def _chosen(self, operation: Operation) -> bool:
        if callable(self._faults):
            return self._faults(operation)
        self._fault = self._faults.get(len(self.seen) - 1, 0)
        # After another fault the operation may be another than the one this was meant for.
        if self._fault in (SHORT, CUT, AFTER) and self._fault not in operation.faults:
            self._fault = errno.EIO
        return self._fault != 0

    def wrapped(self, call: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """The function that stands in for ``original``."""

        def shim(first: Any, *rest: Any, **options: Any) -> Any:
            path = self._paths.get(first, str(first)) if isinstance(first, int) else os.fsdecode(first)
            operation = Operation(call, path)
            self.seen.append(operation)
            if self._chosen(operation):
                return self._faulty(original, operation, (first, *rest), options)
            if call == "os.read" and first in self._cut:
                return b""
            return self._done(original, call, path, (first, *rest), options)

        return shim

    def _done(
        self, original: Callable[..., Any], call: str, path: str, arguments: tuple[Any, ...], options: Any
    ) -> Any:
        if call == "os.write" and arguments[0] in self._kernel:
            os.ftruncate(arguments[0], 0)
        if call != "os.open":
            return original(*arguments, **options)
        flags = arguments[1]
        # A file of the kernel's has its old value until a write has succeeded.
        kernel = flags & os.O_TRUNC and not path.startswith("ledger")
        fd = original(arguments[0], flags & ~os.O_TRUNC if kernel else flags, *arguments[2:], **options)
        self._paths[fd] = path
        self._cut.discard(fd)
        (self._kernel.add if kernel else self._kernel.discard)(fd)
        return fd

    def _faulty(
        self, original: Callable[..., Any], operation: Operation, arguments: tuple[Any, ...], options: Any
    ) -> Any:
        if self._fault == KILL_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault in (SHORT, CUT):
            return self._half(original, operation.call, *arguments)
        if self._fault in (AFTER, KILL_AFTER) or operation.call == "os.close":
            self._done(original, operation.call, operation.path, arguments, options)
        if self._fault == KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.EIO if self._fault == AFTER else self._fault
        raise OSError(number, os.strerror(number), operation.path)

    def _half(self, original: Callable[..., Any], call: str, fd: int, what: Any) -> Any:
        if call == "os.write":
            part = bytes(what[: max(1, len(what) // 2)])
            # The kernel takes "0,4" for what "0," says, too.
            return self._done(
                original, call, "", (fd, part.rstrip(b",-") if fd in self._kernel else part), {}
            )
        if self._fault == CUT:
            self._cut.add(fd)
        data = original(fd, what)
        half = data[: len(data) // 2] if self._fault == CUT else data[: max(1, len(data) // 2)]
        if self._fault == SHORT and len(half) < len(data):
            os.lseek(fd, len(half) - len(data), os.SEEK_CUR)
        return half


@contextmanager
def shimmed(shim: Shim) -> Iterator[Shim]:
    """Have all file operations of this process pass the shim."""
    originals = {call: getattr(module, name) for call, (module, name) in CALLS.items()}
    try:
        for call, (module, name) in CALLS.items():
            setattr(module, name, shim.wrapped(call, originals[call]))
        yield shim
    finally:
        for call, (module, name) in CALLS.items():
            setattr(module, name, originals[call])


@contextmanager
def failing(call: str, fault: int, name: str) -> Iterator[Shim]:
    """Have a call fail each time it is made on a file of that name (0: it reads half, then no more)."""
    shim = Shim(lambda it: it.call == call and it.path.rpartition("/")[2] == name, fault or CUT)
    with shimmed(shim):
        yield shim
