"""Tests that libvirt runs the hook: starts and destroys a paused domain without disk or NIC."""

from __future__ import annotations

import os
from pathlib import Path

from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.libvirtd.connection import SYSTEM, Connection

NAME = "libvirt-tuner-probe"


def document(kind: str) -> str:
    """The probe domain: 16 MiB, no devices. Its policy makes the hook leave it alone."""
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
        True: it started. False: libvirt reports that the hook failed, so every domain would fail. None: it
        could not be tested. The second value is the reason.
    """
    kind = "kvm" if Path(root, "dev/kvm").exists() else "qemu"
    try:
        with Connection(uri) as conn:
            conn.start_and_destroy(document(kind))
    except ConnectionFailed as error:
        return (False if error.kind == "hook" else None), str(error)
    return True, ""
