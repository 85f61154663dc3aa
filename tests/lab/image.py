"""The images the laboratory boots: a stock Debian, only Debian's packages, cached by the recipe's hash.

Two layers, so that a change to our own files does not cost a debootstrap: ``base-KEY`` is the tree that
debootstrap made, ``image-KEY`` a directory with ``root.ext4``, ``vmlinuz`` and ``initrd`` built from it.
Nothing is mounted outside a private mount namespace; the file system is written by ``mke2fs -d``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

from attrs import frozen

from .progress import step

RELEASES = ("bookworm", "trixie")

#: libpam-systemd has to be named: without it polkitd stays unconfigured, and libvirtd with it.
PACKAGES = (
    *("systemd-sysv", "libpam-systemd", "udev", "dbus", "kmod", "procps", "less"),
    *(
        "iproute2",
        "iputils-ping",
        "ethtool",
        "iperf3",
        "numactl",
        "irqbalance",
        "dnsmasq-base",
        "busybox-static",
    ),
    *("python3", "python3-libvirt", "python3-lxml", "python3-attr", "python3-psutil", "python3-click"),
    *("python3-rich", "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "linux-image-amd64"),
    "apparmor",
)

#: What the first initramfs needs to reach the root disk; the distribution's own holds every driver there is.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")

#: Our own files, laid over the distribution's tree.
OVERLAY = Path(__file__).parent / "rootfs"

DISK_SIZE = "4G"

#: Seconds for which what the cache has is kept after its last use: a week.
KEPT = 7 * 24 * 3600


@frozen
class Image:
    """A built image.

    Attributes:
        directory: The cache directory it lives in.
        release: Debian's code name.
        key: The recipe's hash.
    """

    directory: Path
    release: str
    key: str

    @property
    def disk(self) -> Path:
        """The root file system, a raw ext4 image; only ever used below an overlay."""
        return self.directory / "root.ext4"

    @property
    def kernel(self) -> Path:
        """The distribution's kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initramfs, cut down to :data:`BOOT_MODULES`."""
        return self.directory / "initrd"


def cache_directory() -> Path:
    """Return where images are kept: ``$LAB_CACHE``, else :func:`own_cache`."""
    if chosen := os.environ.get("LAB_CACHE"):
        return Path(chosen).absolute()
    return own_cache()


def own_cache() -> Path:
    """Return the user's own cache, below ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libvirt-tuner-lab"


def ensure(release: str) -> Image:
    """Return the image of a Debian release, built if the cache has none of this recipe.

    Args:
        release: One of :data:`RELEASES`.

    Raises:
        PermissionError: It has to be built, and we are not root.
        RuntimeError: A command that builds it failed.
    """
    base_key, image_key = _keys(release)
    cache = cache_directory()
    image = Image(cache / f"image-{release}-{image_key}", release, image_key)
    if not image.disk.exists():
        with _building(release, cache):
            if not image.disk.exists():
                _build_image(_ensure_base(release, base_key, cache), image)
                forget_old(cache)
    _used(image.directory)
    return image


def tree(release: str) -> Path:
    """Return the directory of a Debian release as debootstrap makes it, to run programs of it from.

    Raises:
        PermissionError: It has to be built, and we are not root.
        RuntimeError: A command that builds it failed.
    """
    key = _keys(release)[0]
    cache = cache_directory()
    base = cache / f"base-{release}-{key}"
    if not base.exists():
        with _building(release, cache):
            _ensure_base(release, key, cache)
    return base


@contextmanager
def _building(release: str, cache: Path) -> Iterator[None]:
    """Hold the lock on a release, which root alone can build."""
    cache.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        raise PermissionError(f"{release} has to be built in {cache}, which takes root: make lab-image")
    with locked(cache / f"{release}.lock"):
        yield


def _used(path: Path) -> None:
    """Note that a thing is in use, as far as it is ours; see :data:`KEPT`."""
    with suppress(FileNotFoundError, PermissionError):
        os.utime(path)


def forget_old(cache: Path) -> None:
    """Remove what no laboratory has used for :data:`KEPT`: images with their states, packages, old trees.

    The trees of these recipes stay: the emulator may be run from one, by a user who cannot note it.
    """
    current = {f"base-{release}-{_keys(release)[0]}" for release in RELEASES}
    for kind in ("base", "packages", "image"):
        for directory in cache.glob(f"{kind}-*/"):
            if directory.name not in current and time.time() - directory.stat().st_mtime > KEPT:
                shutil.rmtree(directory)


def _keys(release: str) -> tuple[str, str]:
    """The hashes of the two layers; the second covers our own files as well."""
    base = hashlib.sha256(repr((release, PACKAGES)).encode())
    image = base.copy()
    image.update(repr((BOOT_MODULES, DISK_SIZE)).encode())
    for path in sorted(OVERLAY.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(OVERLAY))
            image.update(repr((name, path.read_bytes(), os.access(path, os.X_OK))).encode())
    return base.hexdigest()[:12], image.hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, so that two laboratories started at once make a thing once."""
    with path.open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def _ensure_base(release: str, key: str, cache: Path) -> Path:
    """Return the tree debootstrap makes; it appears under its name only when it is whole."""
    base = cache / f"base-{release}-{key}"
    if base.exists():
        _used(base)
        return base
    packages = cache / f"packages-{release}"
    packages.mkdir(exist_ok=True)
    _used(packages)
    mirror = _mirror()
    with step(f"debootstrap {release} (some minutes)"), _part(base) as part:
        _private(
            *(
                "debootstrap",
                "--variant=minbase",
                f"--cache-dir={packages}",
                f"--include={','.join(PACKAGES)}",
            ),
            *(release, str(part), *([mirror] if mirror else [])),
            log=cache / f"debootstrap-{release}.log",
        )
    return base


@contextmanager
def _part(whole: Path) -> Iterator[Path]:
    """The name of a tree while it is being made; it gets its own when all went well, or goes away."""
    part = whole.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        part.rename(whole)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _mirror() -> str | None:
    """Return the mirror this machine's own apt uses, ``$LAB_MIRROR`` first; None leaves it to debootstrap."""
    if chosen := os.environ.get("LAB_MIRROR"):
        return chosen
    for source in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if source.is_file():
            lines = (line for line in source.read_text().splitlines() if not line.lstrip().startswith("#"))
            if found := re.search(r"\S+://\S+/debian/?(?=\s|$)", "\n".join(lines)):
                return found.group()
    return None


def _build_image(base: Path, image: Image) -> None:
    """Lay our files over a copy of the tree and write the file system; it belongs to whose cache it is."""
    cache = image.directory.parent
    with (
        step(f"image of {image.release}"),
        tempfile.TemporaryDirectory(dir=cache, prefix="image-", suffix=".part") as scratch,
    ):
        root, part = Path(scratch) / "root", Path(scratch) / "part"
        log = cache / f"image-{image.release}.log"
        _private("cp", "-a", "--reflink=auto", str(base), str(root), log=log)
        shutil.copytree(OVERLAY, root, dirs_exist_ok=True, symlinks=True)
        modules = root / "etc/initramfs-tools/modules"
        modules.write_text("\n".join(BOOT_MODULES) + "\n")
        _private("chroot", str(root), "/usr/lib/lab/configure", log=log)
        part.mkdir()
        for name, source in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copy(max((root / "boot").glob(source)), part / name)
        disk = str(part / "root.ext4")
        _private("mke2fs", "-q", "-t", "ext4", "-d", str(root), disk, DISK_SIZE, log=log)
        owner = cache.stat()
        for path in (part, *part.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        part.rename(image.directory)


def _private(*command: str, log: Path) -> None:
    """Run a command in namespaces of its own, where what it mounts or leaves running goes away with it."""
    namespaces = ("--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork", "--kill-child")
    gone, held = os.pipe()
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                ("unshare", *namespaces, *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(held,),
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            )
    finally:
        # When we are stopped, unshare's end is not yet that of the others: they hold this pipe open.
        os.close(held)
        os.read(gone, 1)
        os.close(gone)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{command[0]} ended with {done.returncode}; {log}:\n{tail}")
