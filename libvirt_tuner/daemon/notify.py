"""A small sd_notify(3): sends a datagram to the socket of systemd."""

from __future__ import annotations

import os
import socket

_TIMEOUT = 1.0


def notify(*assignments: str) -> bool:
    """Notify the service manager, if there is one.

    Args:
        assignments: ``READY=1``, ``STATUS=...``, ``STOPPING=1``, ``WATCHDOG=1``.

    Returns:
        Whether it was notified. The service also runs without a service manager.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(line.replace("\n", " ") for line in assignments)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A manager that does not read its socket must not block the service (unix(7): few datagrams are
            # queued).
            sender.settimeout(_TIMEOUT)
            sender.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """Return the interval in which systemd expects ``WATCHDOG=1`` (WatchdogSec=); None without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() and int(text) else None
