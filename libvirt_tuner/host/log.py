"""Writes to the system log: to the journal with fields, else a plain line to syslog. It never waits.

glibc's syslog(3) blocks without a limit if nobody reads /dev/log, and libvirtd waits for the hook. Here a
line is dropped if the receiver does not accept it at once.

Fields (systemd.journal-fields(7)): DOMAIN, UUID and OPERATION if known, and MESSAGE_ID for the events in
:data:`EVENTS`, so that ``journalctl MESSAGE_ID=...`` does not depend on the text.
"""

from __future__ import annotations

# Not socket, which is made of it and takes much longer to import.
import _socket
import os

IDENTIFIER = "libvirt-tuner"
JOURNAL = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3)."""

EVENTS = {
    "started": "7fd1d0f1bac84e1eaa66abf5ef9dc0e3",
    "released": "98ea2c66d20b48bbb0b81a75f48cbeb5",
    "arrived": "3b9470a48ec5462e80401b8cff6a20a9",
    "settled": "d6ce8324af2345f5bc135c76fd15d546",
    "defined": "797e65b70dd44ed498d7114803b812b7",
    "problem": "9564e1073a3c48a3aca0c1731775a828",
    "fixed": "6bd2b8a5b0a14c0f8f3cf1f6d4a7e9c2",
}
"""Events and their MESSAGE_ID (128 bits, sd_journal_send(3))."""

_DAEMON = 3 << 3  # LOG_DAEMON
_LONGEST = 8192
"""Limit for the text in bytes: a larger datagram would be refused."""


def send(priority: int, text: str, *, event: str = "", root: str = "/", **fields: str) -> bool:
    """Write one line to the system log.

    Args:
        priority: One of :data:`ERROR`, :data:`WARNING`, :data:`NOTICE`, :data:`INFO`.
        text: The line; line breaks and control characters become ``?``.
        event: A key of :data:`EVENTS`, or "".
        root: Where /run and /dev are.
        fields: Further fields of the journal by their name in lower case; empty ones are left out.

    Returns:
        Whether the journal or syslog took it.
    """
    line = printable(text).encode("utf-8", "replace")[:_LONGEST]
    base = root.rstrip("/")
    return _datagram(base + JOURNAL, _entry(priority, line, event, fields)) or _datagram(
        base + SYSLOG, b"<%d>%s[%d]: %s" % (_DAEMON | priority, IDENTIFIER.encode(), os.getpid(), line)
    )


def printable(text: str) -> str:
    """Return the text on one line. Characters that are not printable (line separators, direction marks)
    become ``?``.

    Everybody who may define a domain can choose its name.
    """
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in text)


def _entry(priority: int, line: bytes, event: str, fields: dict[str, str]) -> bytes:
    """A datagram of the journal's native protocol: one ``KEY=value`` a line."""
    known = {
        "PRIORITY": str(priority),
        "SYSLOG_FACILITY": str(_DAEMON >> 3),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "SYSLOG_PID": str(os.getpid()),
        "MESSAGE_ID": EVENTS.get(event, ""),
        **{key.upper(): printable(value) for key, value in fields.items()},
    }
    head = "".join(f"{key}={value}\n" for key, value in known.items() if value)
    return head.encode("utf-8", "replace") + b"MESSAGE=" + line + b"\n"


def _datagram(address: str, data: bytes) -> bool:
    kind = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    try:
        out = _socket.socket(_socket.AF_UNIX, kind)
    except OSError:
        return False
    try:
        out.connect(address)
        out.send(data)
    except OSError:
        return False  # nobody listens, or nobody reads: there is nowhere else to say it
    finally:
        out.close()
    return True
