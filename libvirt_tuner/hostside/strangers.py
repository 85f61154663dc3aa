"""Running domains without a hook call: containers of libvirt's LXC driver, and QEMU of users' sessions.

The ledger has them, so that other domains do not use their CPUs. Containers are read from their document. For
QEMU of a user's session, the affinity of its vCPU threads counts, because the user could write anything into
the file. The service reads them; the hook has no time for it. Domains that a sandbox hides are not found
(``ProtectHome=`` hides ``/run/user``).
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from libvirt_tuner.domainxml import document
from libvirt_tuner.domainxml.spec import read_spec
from libvirt_tuner.errors import HostError, TunerError
from libvirt_tuner.host import processes
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.ledger import Claim
from libvirt_tuner.planning.neighbours import noted
from libvirt_tuner.planning.plan import Held, Placement
from libvirt_tuner.topology import NO_CPUS

LXC = "/run/libvirt/lxc"
SESSIONS = "/run/user"
_LONGEST = 1 << 18
"""Bytes of a document."""
_MOST = 100
"""Documents of one directory."""


def strangers(sysfs: Sysfs) -> Iterator[tuple[Claim, Placement]]:
    """Each with its process, and where it runs; what cannot be read is left out."""
    for path in _documents(sysfs, LXC):
        yield from _read(sysfs, path, "lxc")
    for user in sysfs.listdir_or_empty(SESSIONS):
        if user.isdecimal():
            for path in _documents(sysfs, f"{SESSIONS}/{user}/libvirt/qemu/run"):
                yield from _read(sysfs, path, "session", int(user))


def _documents(sysfs: Sysfs, directory: str) -> list[str]:
    try:
        names = sysfs.listdir_or_empty(directory)
    except HostError:
        return []  # a file system that only its user may look at
    return [f"{directory}/{name}" for name in names if name.endswith(".xml")][:_MOST]


def _read(sysfs: Sysfs, path: str, kind: str, user: int | None = None) -> Iterator[tuple[Claim, Placement]]:
    try:
        status = document.parse_status(sysfs.read_users(path, user or 0, _LONGEST))
        spec = read_spec(document.live_domain(status))
        pid = int(status.get("pid", "0"))
        if pid < 1 or (user is not None and processes.user(sysfs, pid) != user):
            return
        found = noted(spec) if user is None else _as_it_runs(sysfs, pid, noted(spec))
        claim = Claim(spec.uuid, f"{spec.name} ({kind})", pid, processes.process_start(sysfs, pid))
        yield claim, found
    except (TunerError, ValueError):
        return


def _as_it_runs(sysfs: Sysfs, pid: int, placement: Placement) -> Placement:
    threads = processes.threads(sysfs, pid)
    vcpus = {vcpu: processes.affinity(sysfs, tid) for vcpu, tid in threads.vcpus.items()}
    own = NO_CPUS.union(*(cpus for cpus in vcpus.values() if len(cpus) == 1))
    return evolve(placement, vcpus=vcpus, holds=Held(own))
