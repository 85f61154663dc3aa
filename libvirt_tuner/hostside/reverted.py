"""Reverted domains: the hook and the service leave them alone until ``apply``.

They are stored outside the documents, in ``/var/lib/libvirt-tuner/reverted``: an empty file for each UUID.
"""

from __future__ import annotations

import os
from contextlib import suppress

from libvirt_tuner.errors import HostError
from libvirt_tuner.host.sysfs import Sysfs, component

DIRECTORY = "/var/lib/libvirt-tuner/reverted"


def is_reverted(sysfs: Sysfs, uuid: str) -> bool:
    """Return whether the domain was reverted."""
    return bool(uuid) and sysfs.exists(f"{DIRECTORY}/{component(uuid)}")


def remember(sysfs: Sysfs, uuid: str) -> None:
    """Leave the domain alone from now on.

    Raises:
        HostError: That cannot be written down.
    """
    path = sysfs.path(f"{DIRECTORY}/{component(uuid)}")
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    except OSError as err:
        raise HostError(
            f"cannot write: {err.strerror}", where=f"{DIRECTORY}/{uuid}", errno=err.errno or 0
        ) from None


def forget(sysfs: Sysfs, uuid: str) -> None:
    """Tune the domain again.

    Raises:
        HostError: That cannot be written down.
    """
    try:
        with suppress(FileNotFoundError):
            os.unlink(sysfs.path(f"{DIRECTORY}/{component(uuid)}"))
    except OSError as err:
        raise HostError(
            f"cannot remove: {err.strerror}", where=f"{DIRECTORY}/{uuid}", errno=err.errno or 0
        ) from None
