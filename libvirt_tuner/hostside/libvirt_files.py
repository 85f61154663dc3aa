"""The files libvirt keeps of running domains under ``/run/libvirt/qemu``."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from libvirt_tuner.domainxml import document
from libvirt_tuner.errors import DomainXmlError, HostError, MissingError, TunerError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs, component

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.etree import _Element


def process_id(sysfs: Sysfs, name: str, uuid: str = "") -> int:
    """Read QEMU's process id from libvirt's file.

    Args:
        sysfs: The host.
        name: The domain's.
        uuid: The domain's. The process must be its QEMU, not a later process with the same id.

    Raises:
        MissingError: The domain does not run.
        HostError: The file holds no number, or cannot be read.
    """
    path = f"/run/libvirt/qemu/{component(name)}.pid"
    text = sysfs.read(path)
    if not text.isdecimal():
        raise HostError("no process id", where=path, value=text, expected="a number")
    if uuid and not processes.is_domains(sysfs, int(text), uuid):
        raise MissingError("another process has this id now", errno=errno.ESRCH, where=path, value=int(text))
    return int(text)


def running(sysfs: Sysfs) -> list[str]:
    """Return the names of domains for which libvirt has a pid file."""
    files = sysfs.listdir_or_empty("/run/libvirt/qemu")
    return sorted(file.removesuffix(".pid") for file in files if file.endswith(".pid"))


def written(sysfs: Sysfs) -> int:
    """When libvirt last replaced a file of a running domain: nanoseconds, 0 where there is none.

    It writes a new one and renames it (virFileRewrite), which the directory's time shows.
    """
    try:
        return os.stat(sysfs.path("/run/libvirt/qemu")).st_mtime_ns
    except OSError:
        return 0


def shapes(sysfs: Sysfs) -> dict[str, tuple[str, ...]]:
    """Return what may change in a running domain without a kernel event, by name: its vCPUs and devices.

    Domains with unreadable files are ignored.
    """
    found = {}
    for name in running(sysfs):
        with suppress(TunerError):
            domain = document.live_domain(
                document.parse_status(sysfs.read_bytes(f"/run/libvirt/qemu/{component(name)}.xml"))
            )
            found[name] = tuple(_shape(domain))
    return found


def _shape(domain: _Element) -> Iterator[str]:
    for vcpu in domain.iterfind("vcpu"):
        yield f"{vcpu.get('current')} of {vcpu.text}"
    for vcpu in domain.iterfind("vcpus/vcpu"):
        yield f"{vcpu.get('id')} {vcpu.get('enabled')}"
    for kind in ("interface", "hostdev"):
        yield f"{kind}: {len(domain.findall(f'devices/{kind}'))}"


def live_document(sysfs: Sysfs, name: str, uuid: str = "") -> bytes:
    """Read the document of a running domain from libvirt's file.

    Args:
        sysfs: The host.
        name: The domain's.
        uuid: The domain's, where it is known.

    Raises:
        MissingError: There is none.
        DomainXmlError: It cannot be read, or is another domain's.
    """
    # This serializer keeps the namespaces of parent elements.
    from lxml import etree

    path = f"/run/libvirt/qemu/{component(name)}.xml"
    domain = document.live_domain(document.parse_status(sysfs.read_bytes(path)))
    if uuid and (found := domain.findtext("uuid")) != uuid:
        raise DomainXmlError("another domain", where=path, value=found, expected=uuid)
    for vnic in domain.iterfind("devices/interface"):
        actual = vnic.find("actual")
        if actual is not None:
            _resolve(vnic, actual)
    return etree.tostring(domain)


def _resolve(vnic: _Element, actual: _Element) -> None:
    """Change an interface of a network to its actual type, as in the live document.

    Only the file in /run has both (VIR_DOMAIN_DEF_FORMAT_ACTUAL_NET in libvirt's domain_conf.c).
    """
    vnic.set("type", actual.get("type") or "network")
    source, found = vnic.find("source"), actual.find("source")
    if source is not None and found is not None:
        source.attrib.update(found.attrib)
        source.extend(list(found))
