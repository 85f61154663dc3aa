"""Write a host to a directory tree that :class:`~libvirt_tuner.host.sysfs.Sysfs` can replay anywhere.

The reader and writer of trees for ``libvirt-tuner host capture`` and ``plan --host``.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Sequence

from libvirt_tuner.errors import HostError, MissingError, RejectedError
from libvirt_tuner.host import commands, cpus, links, probe
from libvirt_tuner.host.nics import NET
from libvirt_tuner.host.sysfs import Sysfs, error
from libvirt_tuner.hostcheck import kernel_line, survey
from libvirt_tuner.hostside.ledger import DIRECTORY
from libvirt_tuner.hostside.scene import DEFINED, read_scene, sampler

_SAYS_NOTHING = frozenset({"power", "queues", "statistics"})
_MAC = re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")
# ip xfrm is asked to leave keys out. If its version cannot, they are removed here.
_KEY = re.compile(r"\b0x[0-9A-Fa-f]{16,}")
# Switch and port ids contain serial numbers or MAC addresses, and an alias may contain anything. The rest are
# keys of Open vSwitch's external_ids and options. psk is the secret of an IPsec tunnel.
_LEFT_OUT = frozenset(
    {
        "attached-mac",
        "hostname",
        "iface-id",
        "ifalias",
        "ovn-remote",
        "permaddr",
        "phys_port_id",
        "phys_switch_id",
        "psk",
        "system-id",
        "vm-id",
        "vm-uuid",
        "vfinfo_list",
    }
)
# Elements of a network's definition that are read. Addresses, DNS and DHCP hosts are not captured.
_KEPT_OF_NETWORK = frozenset({"bridge", "forward", "mtu", "name", "network"})
# Elements that say where a domain runs and what its vNICs are. The rest, such as passwords of graphics, is
# not captured.
_KEPT_OF_DOMAIN = frozenset(
    {
        *("domain", "name", "uuid", "memory", "currentMemory", "memoryBacking", "vcpu", "vcpus", "iothreads"),
        *("iothreadids", "cputune", "numatune", "cpu", "devices"),
    }
)


def capture(sysfs: Sysfs, target: str, *, samples: int = 0, pause: Callable[[], None] = lambda: None) -> int:
    """Write everything that the probe reads of a host, including all network devices, below ``target``.

    The tree holds the files of /sys and /proc that :func:`libvirt_tuner.host.probe.topology` read (CPUs,
    nodes, memory, network devices with their interrupts and queues), their symbolic links made relative;
    in ``commands`` what ``ip``, ``ovs-vsctl`` and ``ethtool`` printed; the definitions of libvirt's networks;
    and, for ``host check``, how CPUs are isolated and whether irqbalance and tuned run. Of the kernel's
    command line and of their settings only the parameters that matter here are kept.
    MAC addresses are replaced (the same by the same), switch and port ids and interface aliases left
    out. Interface names, PCI addresses, the IP addresses of tunnels' ends and the IPsec states between
    them, without keys, are kept: a replay needs them.

    Args:
        sysfs: The host; may be a captured one.
        target: An empty directory, or one that does not exist.
        samples: How many samples of the running VMs to write (``samples/1`` and so on), for ``diagnose
            --host``. They have thread names, CPU times and counters, and only the placement of the VMs'
            documents.
        pause: Called between two samples.

    Returns:
        How many files and links were written.

    Raises:
        RejectedError: ``target`` is not an empty directory.
        HostError: The host cannot be read, or the tree cannot be written.
    """
    _refuse_used(target)
    recorder = Recorder(sysfs.root)
    # Not by the recorder, which would keep a link to each PCI device.
    names = links.nameable(sysfs)
    cpus.present(recorder)
    probe.topology(recorder, [*recorder.listdir_or_empty(NET), *names], recorder.run)
    survey.record(recorder, recorder.run)
    looks = _looks(recorder, samples, pause) if samples else []
    cleaner = _Cleaner()
    try:
        count = _write(recorder, target, cleaner)
        return count + sum(
            _write(look, f"{target}/samples/{number}", cleaner) for number, look in enumerate(looks, 1)
        )
    except OSError as err:
        raise error(err, str(err.filename or target)) from None


def _looks(recorder: Recorder, samples: int, pause: Callable[[], None]) -> list[Recorder]:
    """What each look reads; what the scene reads goes to ``recorder``."""
    if recorder.exists(f"{DIRECTORY}/ledger.json"):
        recorder.read_bytes(f"{DIRECTORY}/ledger.json")
    scene, _ = read_scene(recorder, recorder.run)
    found = []
    for number in range(samples):
        if number:
            pause()
        look = Recorder(recorder.root)
        sampler(look, scene, look.run).look(memory=number > 0)
        found.append(look)
    return found


def _refuse_used(target: str) -> None:
    """Raise RejectedError unless ``target`` is an empty directory or nothing."""
    try:
        names = os.listdir(target)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise RejectedError("not a directory", errno=errno.ENOTDIR, where=target) from None
    except OSError as err:
        raise error(err, target) from None
    if names:
        raise RejectedError(
            "the directory is not empty",
            errno=errno.ENOTEMPTY,
            where=target,
            expected="an empty directory, or one that does not exist yet",
        )


class Recorder(Sysfs):
    """A host that records everything that is read from it.

    Attributes:
        files: Real path of each file to its content.
        links: Path of each symbolic link met on the way to what it says, made relative.
        names: Paths of which only the name counts.
    """

    __slots__ = ("files", "links", "names")

    def __init__(self, root: str = "/") -> None:
        super().__init__(root)
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.names: set[str] = set()

    def read_bytes(self, path: str) -> bytes:
        """As :meth:`Sysfs.read_bytes`, remembering the content."""
        data = super().read_bytes(path)
        self.files[self._followed(path)] = data
        return data

    def listdir(self, path: str) -> list[str]:
        """As :meth:`Sysfs.listdir`, remembering the links in it and names that stand for themselves."""
        names = super().listdir(path)
        real = self._followed(path)
        for name in names:
            entry = f"{real}/{name}"
            self._link(entry)
            if self._tells(real, name):
                self.names.add(entry)
        return names

    def exists(self, path: str) -> bool:
        """As :meth:`Sysfs.exists`, remembering a file that exists even if it is never read."""
        found = super().exists(path)
        if found:
            self.names.add(self._followed(path))
        return found

    def readlink(self, path: str) -> str:
        """As :meth:`Sysfs.readlink`, remembering the link."""
        target = super().readlink(path)
        directory, _, name = path.rpartition("/")
        self._link(f"{self._followed(directory)}/{name}")
        return target

    def realpath(self, path: str) -> str:
        """As :meth:`Sysfs.realpath`, remembering every link on the way."""
        real = super().realpath(path)
        self._followed(path)
        return real

    def run(self, sysfs: Sysfs, argv: Sequence[str]) -> str:
        """As :func:`libvirt_tuner.host.commands.run`, remembering the output where a replay looks for it."""
        path = f"{commands.DIRECTORY}/{commands.slug(argv)}"
        try:
            output = commands.run(sysfs, argv)
        except MissingError:
            raise  # the program is not installed; a replay then reports that too
        except HostError as err:
            self.files[f"{path}.failed"] = err.problem.encode() + b"\n"
            raise
        self.files[path] = output.encode() + b"\n"
        return output

    def _tells(self, directory: str, name: str) -> bool:
        """Return whether the probe only checks that this directory entry exists."""
        if not self.live:
            return True  # it was captured as an empty file
        if directory.endswith("/msi_irqs"):
            return True
        if name in _SAYS_NOTHING or f"{directory}/{name}" in self.links:
            return False
        return name == "tun_flags" or os.path.isdir(self.path(f"{directory}/{name}"))

    def _followed(self, path: str) -> str:
        """The real path; every link on the way is remembered."""
        real = ""
        parts = path.split("/")[::-1]
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                real = real.rpartition("/")[0]
                continue
            target = self._link(f"{real}/{part}")
            if target:
                parts += target.split("/")[::-1]
            else:
                real = f"{real}/{part}"
        return real or "/"

    def _link(self, path: str) -> str:
        """Remember ``path`` if it is a link; what it says, relative, or ""."""
        if path not in self.links:
            try:
                target = super().readlink(path)
            except HostError:
                return ""
            if target.startswith("/"):
                target = os.path.relpath(target, os.path.dirname(path))
            self.links[path] = target
        return self.links[path]


def _write(recorder: Recorder, target: str, cleaner: _Cleaner) -> int:
    os.makedirs(target, exist_ok=True)
    for path, said in recorder.links.items():
        os.makedirs(os.path.dirname(target + path), exist_ok=True)
        os.symlink(said, target + path)
    for path, data in recorder.files.items():
        _write_file(target + path, cleaner.clean(path, data))
    # An empty file, because archives and repositories lose empty directories.
    names = [path for path in recorder.names if not os.path.lexists(target + path)]
    for path in sorted(names, reverse=True):
        if not os.path.lexists(target + path):
            _write_file(target + path, b"")
    return len(recorder.links) + len(recorder.files) + len(names)


def _write_file(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)


class _Cleaner:
    """Remove what identifies the machine. The same MAC address is always replaced by the same other one."""

    def __init__(self) -> None:
        self._macs: dict[str, str] = {}

    def clean(self, path: str, data: bytes) -> bytes:
        """Return the content to write for ``path``. Files of /sys and /proc are unchanged, except the command
        line."""
        if path == survey.CMDLINE:
            return _only(data, " ", kernel_line.PARAMETERS)
        if path in survey.IRQBALANCE_SETTINGS or path.endswith("-variables.conf"):
            return _only(data, "\n", survey.SETTINGS)
        if path.endswith("/numa_maps"):
            return _only_pages(data)
        if path.startswith(("/sys/", "/proc/")):
            return data
        text = _KEY.sub("0x0", _MAC.sub(self._other, data.decode("utf-8", "backslashreplace")))
        if path.startswith(links.NETWORK_FILES):
            return _only_elements(text, "network", _KEPT_OF_NETWORK)
        if path.startswith(("/run/libvirt/qemu/", f"{DEFINED}/")) and path.endswith(".xml"):
            return _only_elements(text, "domain", _KEPT_OF_DOMAIN)
        try:
            return (json.dumps(_without_ids(json.loads(text)), indent=1) + "\n").encode()
        except ValueError:
            return text.encode()

    def _other(self, found: re.Match[str]) -> str:
        mac = found[0].lower()
        if mac not in self._macs:
            number = len(self._macs) + 1
            self._macs[mac] = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        return self._macs[mac]


def _only(data: bytes, separator: str, names: Sequence[str]) -> bytes:
    """Return the ``NAME=value`` assignments with these names. A kernel line or settings may hold anything
    else."""
    parts = data.decode("utf-8", "backslashreplace").strip().split(separator)
    kept = [part for part in parts if part.partition("=")[0].strip().replace("-", "_") in names]
    return (separator.join(kept) + "\n").encode()


def _without_ids(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_ids(each) for key, each in value.items() if key not in _LEFT_OUT}
    if isinstance(value, list):
        return [_without_ids(each) for each in value if not _is_left_out(each)]
    return value


def _is_left_out(value: object) -> bool:
    """Whether it is a pair of a map as Open vSwitch writes them: ``["hostname", "desk4"]``."""
    return isinstance(value, list) and len(value) == 2 and str(value[0]) in _LEFT_OUT


def _only_pages(data: bytes) -> bytes:
    """``numa_maps`` without the names of files: pages by node and their size."""
    kept = (
        b" ".join(field for field in line.split() if field.startswith((b"N", b"kernelpagesize_kB=")))
        for line in data.splitlines()
    )
    return b"\n".join(line for line in kept if line) + b"\n"


def _only_elements(text: str, tag: str, names: frozenset[str]) -> bytes:
    """A document of libvirt's, the root or what is below it being ``tag``, with only some of its elements."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError:
        return b""
    inner = [root] if root.tag == tag else root.findall(tag)
    for parent in {root, *inner}:
        for child in list(parent):
            if child.tag not in names:
                parent.remove(child)
    for devices in (element for each in inner for element in each.iterfind("devices")):
        for child in list(devices):
            if child.tag != "interface":
                devices.remove(child)
    return etree.tostring(root, encoding="utf-8")
