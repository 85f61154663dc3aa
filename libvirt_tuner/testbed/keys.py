"""Creates, checks and reads the key file of a testbed. Keys are never shown, logged, or put into an error.

The format, without blank lines and lines that begin with ``#``::

    server-to-client 0x<40 hexadecimal digits>
    client-to-server 0x<40 hexadecimal digits>

A key is an AES key of 16 or 32 bytes, followed by the 4 bytes of salt of RFC 4106.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping

from attrs import field, frozen

from libvirt_tuner.errors import DeniedError, HostError, MissingError, RejectedError, TunerError
from libvirt_tuner.host.sysfs import Sysfs, error
from libvirt_tuner.testbed.steps import WAYS

_SIZES = (20, 36)
_LINE = re.compile(r"([a-z-]+)\s+0x([0-9a-fA-F]+)")
_FORM = "a line 'server-to-client 0x...' and one 'client-to-server 0x...', of 40 or 72 digits each"
_LARGEST = 4096
_HEAD = "# Keys of 'libvirt-tuner testbed', the same on both hosts. For one 'up' only.\n"


@frozen
class Keys:
    """Both directions' keys.

    Attributes:
        by_way: Hexadecimal with ``0x``, by the way's name. Not in the value's ``repr``.
        fingerprint: The same on both hosts if the keys are the same. It does not reveal the keys.
    """

    by_way: Mapping[str, str] = field(repr=False)
    fingerprint: str = ""


def make(path: str) -> None:
    """Write new keys into a new file that only its owner may read.

    Raises:
        HostError: The file exists, or cannot be made.
    """
    text = _HEAD + "".join(f"{way.name} 0x{os.urandom(_SIZES[0]).hex()}\n" for way in WAYS)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise HostError(f"cannot create: {err.strerror}", errno=err.errno or 0, where=path) from None
    with open(fd, "w", encoding="ascii") as file:
        # The umask can only remove bits; set the exact mode.
        os.fchmod(fd, 0o600)
        file.write(text)


def read(path: str) -> Keys:
    """Read and check a file of keys.

    Raises:
        MissingError: It is not there.
        DeniedError: Other users may read it, or it is not ours.
        TunerError: It does not have the format above. The error has no content of the file.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, key = _parsed(line.strip(), f"{path}:{number}")
            if name in found:
                raise TunerError(
                    "the same direction twice", where=f"{path}:{number}", value=name, expected=_FORM
                )
            found[name] = key
    missing = [way.name for way in WAYS if way.name not in found]
    if missing:
        raise TunerError(f"no key {missing[0]}", where=path, expected=_FORM)
    if len({key.lower() for key in found.values()}) < len(WAYS):
        raise TunerError("both directions have the same key", where=path, expected="two keys")
    return Keys(found, _fingerprint(found))


USED = "/var/lib/libvirt-tuner/testbed-keys-used"
"""Fingerprints of used keys. The file survives a reboot, like the keys."""


def check_unused(sysfs: Sysfs, keys: Keys, path: str) -> None:
    """Refuse keys that a testbed used before.

    AES-GCM counts from the beginning with each state. The same key twice gives the same key stream twice,
    which reveals the data (RFC 4106, section 10).

    Args:
        sysfs: The host.
        keys: The keys.
        path: Of their file, for the message.

    Raises:
        RejectedError: They were used.
        HostError: That cannot be read.
    """
    if _singly(keys) & set(sysfs.read_or(USED, "").split()):
        raise RejectedError(
            "these keys were used before, and a key is for one 'up' only",
            where=path,
            value=keys.fingerprint,
            expected="new keys on both hosts",
            advice=f"rm {path}; libvirt-tuner testbed up --make-keys, and copy the file to the other host",
        )


def note_used(sysfs: Sysfs, keys: Keys) -> None:
    """Store the fingerprints of keys. Call it before the keys are used.

    Raises:
        HostError: It cannot be written.
    """
    path = sysfs.path(USED)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, "".join(f"{each}\n" for each in sorted(_singly(keys))).encode())
            # If a key were forgotten after a power failure, it could be used again.
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as err:
        raise error(err, USED, writing=keys.fingerprint) from None


def _parsed(line: str, where: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    names = [way.name for way in WAYS]
    if match is None or match[1] not in names or len(match[2]) not in [2 * size for size in _SIZES]:
        raise TunerError("not a key", where=where, expected=_FORM)
    return match[1], f"0x{match[2]}"


def _fingerprint(keys: Mapping[str, str]) -> str:
    # Keys are random and longer than the shown hash, so the hash does not help to guess them.
    import hashlib

    text = "".join(keys[way.name].lower() for way in WAYS)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _singly(keys: Keys) -> set[str]:
    """One fingerprint per key, because the two keys may be swapped."""
    import hashlib

    return {hashlib.sha256(key.lower().encode()).hexdigest()[:32] for key in keys.by_way.values()}


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise MissingError(
            "no such file",
            errno=errno.ENOENT,
            where=path,
            advice="create it on one host with 'testbed up --make-keys', and copy it to the other",
        ) from None
    except OSError as err:
        raise DeniedError(f"cannot open: {err.strerror}", errno=err.errno or 0, where=path) from None
    try:
        _check(os.fstat(fd), path)
        return os.read(fd, _LARGEST).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _check(found: os.stat_result, path: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise DeniedError("not a file", where=path)
    if mode & 0o077:
        raise DeniedError(
            "other users can read the keys",
            where=path,
            value=f"mode {mode:04o}",
            expected="mode 0600",
            advice=f"chmod 600 {path}",
        )
    if found.st_uid not in (0, os.geteuid()):
        raise DeniedError("not owned by root", where=path, value=f"uid {found.st_uid}", expected="uid 0")
