"""A harmless real call of the hook by libvirt: a paused domain without disk or NIC, started and destroyed."""

from __future__ import annotations

import os
from pathlib import Path

from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.libvirtd.connection import SYSTEM, Connection

NAME = "libvirt-tuner-probe"


def document(kind: str) -> str:
    """The probe's domain: 16 MiB, no device; the policy has the hook leave it alone."""
    policy = "<policy xmlns='https://libvirt-tuner.org/policy/1' select='false'/>"
    return (
        f"<domain type='{kind}'><name>{NAME}-{os.getpid()}</name><metadata>{policy}</metadata>"
        "<memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        "<devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )


def hook_works(uri: str = SYSTEM, root: str = "/") -> tuple[bool | None, str]:
    """Start the probe.

    Args:
        uri: libvirt's.
        root: Where /dev is.

    Returns:
        True: it started. False: libvirt says that the hook failed, and so would every domain. None: it could
        not be tried, for the reason that stands second.
    """
    kind = "kvm" if Path(root, "dev/kvm").exists() else "qemu"
    try:
        with Connection(uri) as conn:
            conn.start_and_destroy(document(kind))
    except ConnectionFailed as error:
        return (False if error.kind == "hook" else None), str(error)
    return True, ""
