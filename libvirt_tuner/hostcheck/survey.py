"""Reads the facts for :mod:`libvirt_tuner.hostcheck.check`, from this host or a captured one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve

from libvirt_tuner import cpuset
from libvirt_tuner.domainxml.spec import DomainSpec
from libvirt_tuner.errors import HostError, LedgerError, MissingError, TunerError
from libvirt_tuner.host import commands, probe, xfrm
from libvirt_tuner.host.commands import Run
from libvirt_tuner.host.cpus import CPU, cells
from libvirt_tuner.host.ethtool import Feature, Pause, parse_features, parse_pause
from libvirt_tuner.host.nics import NET
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import kernel_line
from libvirt_tuner.hostcheck.facts import Facts, Guest, Irqbalance, Tuned
from libvirt_tuner.hostcheck.segmentation import reason
from libvirt_tuner.hostside import irqbalance
from libvirt_tuner.hostside.ledger import Book, Ledger
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Reason
from libvirt_tuner.topology import NO_CPUS, Cpus, HostTopology, is_pci_address
from libvirt_tuner.uplink.domain import device_paths
from libvirt_tuner.uplink.path import uplinks

CMDLINE = "/proc/cmdline"
POSSIBLE = f"{CPU}/possible"
RFS = "/proc/sys/net/core/rps_sock_flow_entries"
DAEMONS = ("irqbalance", "tuned")
IRQBALANCE_SETTINGS = ("/etc/default/irqbalance", "/etc/sysconfig/irqbalance")
SETTINGS = ("IRQBALANCE_BANNED_CPULIST", "IRQBALANCE_BANNED_CPUS", "isolated_cores")
"""Settings of irqbalance and tuned that are read."""

TUNED_PROFILE = "/etc/tuned/active_profile"


def survey(sysfs: Sysfs, run: Run = commands.run) -> HostTopology:
    """The host with all its network devices and the masks of their queues.

    Raises:
        HostError: A file is missing or cannot be read.
    """
    host = probe.topology(sysfs, None, run, queues=True)
    return host if host.xfrm.states else evolve(host, xfrm=xfrm.xfrm(sysfs, run))


def possible(sysfs: Sysfs) -> Cpus:
    """Return all possible CPUs, including offline ones.

    Raises:
        HostError: The host cannot be read.
    """
    text = sysfs.read_or(POSSIBLE, "")
    if text:
        return cpuset.parse(text, where=POSSIBLE)
    return frozenset(cpu for cell in cells(sysfs) for cpu in cell.cpus)


def without_image(line: str) -> str:
    """A kernel command line without the boot loader's own first words (``BOOT_IMAGE=``, ``initrd=``)."""
    return " ".join(word for word in line.split() if not word.startswith(("BOOT_IMAGE=", "initrd=")))


def line(sysfs: Sysfs) -> kernel_line.Isolation:
    """Read the CPU isolation of this boot. Raises:
    HostError: The host cannot be read.
    """
    return kernel_line.parse(sysfs.read_or(CMDLINE, ""), last=max(possible(sysfs)))


def facts(sysfs: Sysfs, guests: Iterable[Guest] = (), run: Run = commands.run) -> Facts:
    """Read all facts for the checks. Args:
        sysfs: The host.
        guests: Domains from libvirt's documents. The ledger's claims are added.
        run: What runs programs.

    Raises:
        HostError: The host cannot be read.
    """
    unread: list[str] = []
    return _facts(sysfs, guests, _book(sysfs, unread), run, unread)


def record(recorder: Sysfs, run: Run) -> None:
    """Read what :func:`facts` reads of the host except the ledger, for a capture.

    Raises:
        HostError: The host cannot be read.
    """
    _facts(recorder, (), Book(), run, [])


def _facts(sysfs: Sysfs, guests: Iterable[Guest], book: Book, run: Run, unread: list[str]) -> Facts:
    host = survey(sysfs, run)
    nics, bonds = uplinks(host)
    names = [
        *(nic.name for nic in nics if not is_pci_address(nic.name)),
        *(bond.name for bond in bonds),
    ]
    features, pause = _ethtool(sysfs, names, run, unread)
    if host.xfrm.problem:
        unread.append(f"IPsec states: {host.xfrm.problem}")
    running = daemons(sysfs)
    entries = _number(sysfs.read_or(RFS, ""))
    return Facts(
        host=host,
        isolation=line(sysfs),
        guests=_guests(book, guests),
        features=features,
        pause=pause,
        steered=frozenset(int(target) for kind, target in book.changes if kind == "irq"),
        irqbalance=_irqbalance(sysfs) if "irqbalance" in running else None,
        tuned=_tuned(sysfs) if "tuned" in running else None,
        napi=napi(sysfs, [nic.name for nic in nics if nic.threaded]),
        rfs_entries=entries,
        rfs={nic.name: count for nic in nics if entries and (count := flow_queues(sysfs, nic.name))},
        unread=tuple(unread),
    )


def flow_queues(sysfs: Sysfs, name: str) -> int:
    """Return how many queues of a card have a flow table (``rps_flow_cnt``), without which RFS is off."""
    base = f"{NET}/{name}/queues"
    counts = (sysfs.read_or(f"{base}/{queue}/rps_flow_cnt", "") for queue in sysfs.listdir_or_empty(base))
    return sum(_number(count) > 0 for count in counts)


# Domains


def _book(sysfs: Sysfs, unread: list[str]) -> Book:
    if not sysfs.exists("/run/libvirt-tuner"):
        return Book()
    try:
        return Ledger(sysfs).read()
    except LedgerError as error:
        unread.append(f"the ledger: {error}")
        return Book()


def _guests(book: Book, others: Iterable[Guest]) -> tuple[Guest, ...]:
    """Start with claims, which show the pins in force. A document adds the user's own pins."""
    found: dict[str, Guest] = {}
    for claim in book.claims.values():
        try:
            plan = stored.from_dict(claim.plan)
        except LedgerError:
            continue
        emulator = plan.emulatorpin or NO_CPUS
        pins = {vcpu: cpus for vcpu, cpus in plan.vcpupin.items() if vcpu in plan.vcpus}
        found[claim.name] = Guest(claim.name, pins, emulator, placed=bool(emulator))
    for guest in others:
        known = found.get(guest.name, Guest(guest.name))
        found[guest.name] = Guest(
            guest.name,
            {**guest.vcpupin, **known.vcpupin},
            known.emulatorpin or guest.emulatorpin,
            running=guest.running or guest.name in found,
            placed=known.placed or (guest.placed and not known.emulatorpin),
        )
    return tuple(found.values())


def guest(spec: DomainSpec, *, running: bool) -> Guest:
    """A domain's pins as its document has them; a ``<vcpu cpuset>`` counts for the vCPUs without pin."""
    pins = dict.fromkeys(range(spec.current), spec.cpuset) if spec.cpuset else {}
    placed = any(name == "emulatorpin" for name, _ in spec.recorded)
    own = {vcpu: cpus for vcpu, cpus in spec.vcpupin.items() if vcpu in spec.online}
    return Guest(spec.name, {**pins, **own}, spec.emulatorpin, running=running, placed=placed)


# Programs


def _ethtool(
    sysfs: Sysfs, names: Iterable[str], run: Run, unread: list[str]
) -> tuple[dict[str, Mapping[str, Feature]], dict[str, Pause]]:
    features: dict[str, Mapping[str, Feature]] = {}
    pause: dict[str, Pause] = {}
    for name in names:
        try:
            features[name] = parse_features(run(sysfs, ("ethtool", "-k", name)))
        except MissingError:
            unread.append("offloads and flow control: the program ethtool is missing")
            break
        except HostError as error:
            unread.append(f"offloads and flow control of {name}: {error.problem}")
            continue
        try:
            pause[name] = parse_pause(run(sysfs, ("ethtool", "-a", name)))
        except HostError:
            continue  # most virtual devices have no flow control
    return features, pause


def segmentation(
    sysfs: Sysfs, spec: DomainSpec, host: HostTopology, uplink: str = "", run: Run = commands.run
) -> tuple[Reason, ...]:
    """Where the CPU cuts the large packets of a domain's devices; nothing if that is unknown.

    Args:
        sysfs: The host.
        spec: The domain.
        host: Read for its devices.
        uplink: The policy's.
        run: What runs programs.
    """
    found = device_paths(spec, host, uplink)
    below = {name for device in found for name in device.path.steps if name in host.links}
    if not any(host.links[name].tunnel for name in below):
        return ()
    asked = sorted(name for name in below if host.links[name].kind in ("", "bond", "team"))
    features, _ = _ethtool(sysfs, asked, run, [])
    reasons = (reason(device, host, features) for device in found if device.network)
    return tuple(each for each in reasons if each is not None)


# Daemons


def daemons(sysfs: Sysfs) -> frozenset[str]:
    """Which of :data:`DAEMONS` run."""
    found = set()
    for pid in _processes() if sysfs.live else sorted(filter(str.isdecimal, sysfs.listdir_or_empty("/proc"))):
        # Also read through sysfs, so that a capture contains the file.
        name = sysfs.read_or(f"/proc/{pid}/comm", "")
        if name in DAEMONS:
            found.add(name)
    return frozenset(found)


def _processes() -> Iterator[str]:
    """Ids of processes that look like one of :data:`DAEMONS`."""
    # Imported here: only a check of the running host needs it, and the import is slow.
    import psutil

    for process in psutil.process_iter(["name"]):
        if process.info["name"] in DAEMONS:
            yield str(process.pid)


_NAPI = "napi/"


def napi(sysfs: Sysfs, names: Iterable[str]) -> dict[str, tuple[tuple[int, Cpus], ...]]:
    """Threads ``napi/NAME-ID`` of the cards named, with the CPUs each may run on.

    The kernel keeps 15 bytes of a thread's name: of a long name of a card only the beginning tells.
    """
    wanted = {f"{_NAPI}{name}-"[:15]: name for name in names}
    found: dict[str, list[tuple[int, Cpus]]] = {}
    for pid in _napi_processes(sysfs) if wanted else ():
        comm = sysfs.read_or(f"/proc/{pid}/comm", "")
        name = next((name for begin, name in wanted.items() if comm.startswith(begin)), None)
        for line in sysfs.read_or(f"/proc/{pid}/status", "").splitlines() if name else ():
            key, _, value = line.partition(":")
            if key == "Cpus_allowed_list":
                found.setdefault(str(name), []).append(
                    (int(pid), cpuset.parse(value.strip(), where=f"/proc/{pid}/status"))
                )
    return {name: tuple(threads) for name, threads in found.items()}


def _napi_processes(sysfs: Sysfs) -> Iterable[str]:
    """Ids of processes that may be such threads."""
    if not sysfs.live:
        return sorted(filter(str.isdecimal, sysfs.listdir_or_empty("/proc")), key=int)
    import psutil

    named = psutil.process_iter(["name"])
    return [str(each.pid) for each in named if (each.info["name"] or "").startswith(_NAPI)]


def _irqbalance(sysfs: Sysfs) -> Irqbalance:
    cpus: Cpus | None = None
    for path in IRQBALANCE_SETTINGS:
        said = assignments(sysfs.read_or(path, ""))
        try:
            if text := said.get("IRQBALANCE_BANNED_CPULIST"):
                cpus = cpuset.parse(text, where=path)
            elif text := said.get("IRQBALANCE_BANNED_CPUS"):
                cpus = cpuset.parse_mask(text, where=path)
        except ValueError:
            cpus = NO_CPUS
    return Irqbalance(cpus, _banned(sysfs))


def _banned(sysfs: Sysfs) -> frozenset[int] | None:
    for name in irqbalance.sockets(sysfs) if sysfs.live else ():
        try:
            return irqbalance.setup(sysfs, name)
        except (ConnectionRefusedError, TunerError):
            continue  # a killed one leaves its socket
    return None


def assignments(text: str) -> dict[str, str]:
    """``NAME=value`` lines of a shell-like settings file."""
    found = {}
    for entry in text.splitlines():
        name, sign, value = entry.strip().partition("=")
        if sign and not name.startswith("#"):
            found[name.strip()] = value.strip().strip("\"'")
    return found


def _tuned(sysfs: Sysfs) -> Tuned:
    profile = sysfs.read_or(TUNED_PROFILE, "")
    for name in profile.split():
        path = f"/etc/tuned/{name}-variables.conf" if "/" not in name else ""
        text = assignments(sysfs.read_or(path, "")).get("isolated_cores", "") if path else ""
        try:
            if text:
                return Tuned(profile, cpuset.parse(text, where=path))
        except ValueError:
            continue  # a function of tuned (${f:...}); its CPUs are unknown
    return Tuned(profile)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
