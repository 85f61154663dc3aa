"""The only reader and writer of /sys, /proc and /run, below a root that is an argument.

``Sysfs()`` is this machine; ``Sysfs("fixtures/hosts/laptop")`` replays a captured one. Paths are always those
of the host itself (``/sys/class/net/eth0/mtu``), also in errors.

Import budget: os, errno and :mod:`libvirt_tuner.errors`. This file is on the hook's path.
"""

from __future__ import annotations

import errno
import os

from libvirt_tuner.errors import (
    DeniedError,
    HostError,
    MissingError,
    RejectedError,
    UnsupportedError,
)

_CHUNK = 65536
_TYPE = 0o170000  # S_IFMT, S_IFLNK and S_IFREG of stat.h
_LINK = 0o120000
_REGULAR = 0o100000
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR, errno.ESRCH})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_OFFERED = frozenset({errno.EIO, errno.EOPNOTSUPP})
_REJECTED_ADVICE = {
    errno.EINVAL: "none of the CPUs or values given is valid here; CPUs must be online",
    errno.ENOSPC: "the CPU has no interrupt vector left; choose another",
}


def component(name: str) -> str:
    """Check a name that becomes one component of a path, and return it.

    Raises:
        RejectedError: ``name`` is empty, ``.`` or ``..``, or holds a slash or NUL.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise RejectedError(
            "not a name", errno=errno.EINVAL, value=name, expected="one path component without a slash"
        )
    return name


def _is_link(path: str) -> bool:
    """Like ``os.path.islink``, in half the time: a large captured host has a thousand directories."""
    try:
        return os.lstat(path).st_mode & _TYPE == _LINK
    except OSError:
        return False


def _is_irq(path: str) -> bool:
    return path.startswith("/proc/irq/")


def gone(err: HostError) -> bool:
    """Return whether the error says that the file or process does not exist. Other errors do not tell."""
    return err.errno in (errno.ENOENT, errno.ESRCH)


def error(err: OSError, path: str, *, writing: str | None = None) -> HostError:
    """Return the typed error for an answer of the kernel.

    Args:
        err: The system call's error.
        path: The path as the host has it, or another name of the object (``thread 4711``).
        writing: The value that was being written, or None for a read.
    """
    number = err.errno or 0
    text = os.strerror(number)
    if number in _GONE:
        return MissingError(text, errno=number, where=path)
    if number in _NOT_OFFERED or (number == errno.EPERM and _is_irq(path)):
        advice = "the kernel manages this interrupt's affinity itself" if _is_irq(path) else ""
        return UnsupportedError(text, errno=number, where=path, value=writing, advice=advice)
    if number in _FORBIDDEN:
        advice = "mounted read-only" if number == errno.EROFS else "needs root"
        return DeniedError(text, errno=number, where=path, value=writing, advice=advice)
    if writing is not None:
        advice = _REJECTED_ADVICE.get(number, "")
        return RejectedError(text, errno=number, where=path, value=writing, advice=advice)
    if number == errno.EINVAL:
        # For example "speed" of a link that is down: the file exists, but the kernel has no answer.
        return UnsupportedError(text, errno=number, where=path)
    return HostError(text, errno=number, where=path)


class Sysfs:
    """Files of the host below ``root``.

    In a captured tree relative symbolic links work as in sysfs; one that leads out of the tree is
    refused (DeniedError, EXDEV), as ``openat2(2)`` does with RESOLVE_BENEATH.

    Args:
        root: ``/`` for this machine, or the directory of a captured host.
    """

    __slots__ = ("_directories", "_prefix", "root")

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.realpath(root)
        self._prefix = "" if self.root == "/" else self.root
        # Captured trees only: directory as asked for -> its real path inside the tree.
        self._directories: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Sysfs({self.root!r})"

    @property
    def live(self) -> bool:
        """Whether this is the running machine, not a captured tree."""
        return not self._prefix

    def path(self, path: str) -> str:
        """Where the file is for ``open(2)``: the path below the root.

        The last component is left as it is, links before it are followed and checked.

        Raises:
            RejectedError: ``path`` is not absolute.
            MissingError: A link on the way leads nowhere.
            DeniedError: A link leads out of the captured tree.
        """
        if not path.startswith("/") or "\0" in path:
            raise RejectedError("not an absolute path", errno=errno.EINVAL, value=path, expected="/...")
        if not self._prefix:
            return path
        directory, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            return self._inside(path)
        return f"{self._directory(directory, path)}/{name}"

    def _directory(self, directory: str, asked: str) -> str:
        """The real path of a directory of the captured tree, remembered."""
        real = self._directories.get(directory)
        if real is None:
            parent, _, name = directory.rpartition("/")
            if name in ("", ".", ".."):
                real = self._inside(directory, asked)
            else:
                # Most directories are not links: one lstat below a known parent instead of one per component.
                real = f"{self._directory(parent, asked)}/{name}"
                if _is_link(real):
                    real = self._inside(directory, asked)
            self._directories[directory] = real
        return real

    def _inside(self, path: str, asked: str = "") -> str:
        """The real path of ``path`` in the captured tree; errors name ``asked``, the path asked for."""
        try:
            real = os.path.realpath(self._prefix + path, strict=True)
        except OSError as err:
            raise error(err, asked or path) from None
        if real != self._prefix and not real.startswith(self._prefix + "/"):
            raise DeniedError(
                "a symbolic link leads out of the captured host",
                errno=errno.EXDEV,
                where=asked or path,
                value=real,
            )
        return real

    def _open(self, path: str, flags: int) -> int:
        real = self.path(path)
        if not self._prefix:
            return os.open(real, flags | os.O_CLOEXEC)
        try:
            return os.open(real, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as err:
            if err.errno != errno.ELOOP:
                raise
        return os.open(self._inside(path), flags | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read_bytes(self, path: str) -> bytes:
        """The whole file as it is.

        Raises:
            MissingError, DeniedError, UnsupportedError, HostError: By what the kernel answered.
        """
        try:
            fd = self._open(path, os.O_RDONLY)
            try:
                # procfs returns long files in pieces, so only an empty read is the end.
                data = os.read(fd, _CHUNK)
                pieces = [data]
                while data and (data := os.read(fd, _CHUNK)):
                    pieces.append(data)
                return b"".join(pieces)
            finally:
                os.close(fd)
        except OSError as err:
            raise error(err, path) from None

    def read_users(self, path: str, user: int, limit: int) -> bytes:
        """A file in a directory that another user can write to: a regular file of that user's, and no link.

        Root must not read what the user may not, wait for a FIFO, or read a device without end. Whose a
        captured file is does not matter.

        Raises:
            RejectedError: It is anything else, or longer than ``limit`` bytes.
            MissingError, DeniedError, HostError: By what the kernel answered.
        """
        try:
            fd = os.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
                owned = found.st_uid == user or not self.live
                data = os.read(fd, limit + 1) if owned and found.st_mode & _TYPE == _REGULAR else None
            finally:
                os.close(fd)
        except OSError as err:
            raise error(err, path) from None
        if data is None or len(data) > limit:
            raise RejectedError(
                "not read",
                errno=errno.EINVAL,
                where=path,
                expected=f"a file of up to {limit} bytes, of user {user}",
            )
        return data

    def read(self, path: str) -> str:
        """The file's text without white space at both ends; bytes that are not UTF-8 as ``\\xNN``.

        Raises:
            MissingError, DeniedError, UnsupportedError, HostError: By what the kernel answered.
        """
        data = self.read_bytes(path)
        # A part of "0-15" is a cpulist too. The kernel's files end with a newline; otherwise read again.
        if data and not data.endswith(b"\n") and self.read_bytes(path) != data:
            raise HostError("read in part", errno=errno.EIO, where=path)
        return data.decode("utf-8", "backslashreplace").strip()

    def read_or(self, path: str, default: str) -> str:
        """:meth:`read`, or ``default`` where the file is missing or the kernel has no answer.

        Raises:
            DeniedError, HostError: The file exists and cannot be read. That includes EIO, which does not tell
                the content.
        """
        try:
            return self.read(path)
        except MissingError:
            return default
        except UnsupportedError as err:
            if err.errno == errno.EIO:
                raise
            return default

    def write(self, path: str, text: str) -> None:
        """Write ``text`` and a newline to a file that exists, in one ``write(2)``.

        Raises:
            MissingError, DeniedError, UnsupportedError, RejectedError: By what the kernel answered.
        """
        data = text.encode() + b"\n"
        try:
            fd = self._open(path, os.O_WRONLY | os.O_TRUNC)
            try:
                done = os.write(fd, data)
            finally:
                os.close(fd)
        except OSError as err:
            raise error(err, path, writing=text) from None
        if done != len(data):
            raise RejectedError("written in part", errno=errno.EIO, where=path, value=text)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted.

        Raises:
            MissingError, DeniedError, HostError: By what the kernel answered.
        """
        try:
            return sorted(os.listdir(self._inside(path) if self._prefix else self.path(path)))
        except OSError as err:
            raise error(err, path) from None

    def listdir_or_empty(self, path: str) -> list[str]:
        """:meth:`listdir`, or no names where the directory is missing."""
        try:
            return self.listdir(path)
        except MissingError:
            return []

    def exists(self, path: str) -> bool:
        """Whether the file is there, links followed.

        Raises:
            DeniedError: A directory on the way cannot be searched, or a link leads out of the tree.
        """
        try:
            os.stat(self._inside(path) if self._prefix else self.path(path))
        except MissingError:
            return False
        except OSError as err:
            failure = error(err, path)
            if isinstance(failure, MissingError):
                return False
            raise failure from None
        return True

    def readlink(self, path: str) -> str:
        """What the symbolic link says, unresolved (``../../bus/pci/drivers/mlx5_core``).

        Raises:
            MissingError: No such link; also where the file is no link.
            DeniedError, HostError: By what the kernel answered.
        """
        try:
            return os.readlink(self.path(path))
        except OSError as err:
            if err.errno == errno.EINVAL:
                raise MissingError("not a symbolic link", errno=err.errno, where=path) from None
            raise error(err, path) from None

    def link_name(self, path: str) -> str:
        """The last component of what a symbolic link says, or "" where there is no link.

        That is how sysfs names a driver (``device/driver``) or a bus (``device/subsystem``).
        """
        try:
            return self.readlink(path).rpartition("/")[2]
        except MissingError:
            return ""

    def realpath(self, path: str) -> str:
        """The path with every link resolved, as the host has it (``/sys/devices/...``).

        Raises:
            MissingError: It does not exist.
            DeniedError: A link leads out of the captured tree, or a directory cannot be searched.
        """
        if self._prefix:
            return self._inside(path)[len(self._prefix) :] or "/"
        try:
            return os.path.realpath(self.path(path), strict=True)
        except OSError as err:
            raise error(err, path) from None
