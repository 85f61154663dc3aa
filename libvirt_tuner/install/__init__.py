"""Put the hook and the service where libvirt and systemd look for them, and take them out again.

Every file carries :data:`MARK` near its top. A file without it is somebody else's: it is never overwritten
nor removed, and where one is in the way nothing at all is written.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from libvirt_tuner import resources
from libvirt_tuner.errors import HostError
from libvirt_tuner.host import sysfs
from libvirt_tuner.install import confinement, trust

MARK = "libvirt-tuner install"
HOOK = "etc/libvirt/hooks/qemu"
HOOK_BESIDE = "etc/libvirt/hooks/qemu.d/libvirt-tuner"
UNIT = "etc/systemd/system/libvirt-tuner.service"
COMPLETIONS = {
    "bash": "etc/bash_completion.d/libvirt-tuner",
    "zsh": "usr/local/share/zsh/site-functions/_libvirt-tuner",
    "fish": "etc/fish/completions/libvirt-tuner.fish",
}
MANUALS = "usr/local/share/man"
UNIT_NAME = "libvirt-tuner.service"
OLD_UNIT = "etc/systemd/system/libvirt-tuner-watch.service"
"""What the unit was called up to 0.1; an install replaces it."""
PACKAGED_UNIT = "usr/lib/systemd/system/libvirt-tuner.service"
"""Where a distribution's package has the unit; the package has brought the manual and completion as well."""
DAEMONS = ("libvirtd", "virtqemud")
ROOT = Path("/")
_MARKED_LINES = 5


@frozen
class Done:
    """One step: what was done to which path, and what is left to do by hand ("" for nothing)."""

    what: str
    path: str
    advice: str = ""


def manual(name: str) -> str:
    """Where a manual page goes: ``libvirt-tuner.8`` into ``man8``."""
    return f"{MANUALS}/man{name[-1]}/{name}"


def hook_script(
    *, python: str = sys.executable, paths: Iterable[str] = (), root: str = "", guard: bool = False
) -> str:
    """The hook with its settings filled in.

    Args:
        python: The interpreter that runs it.
        paths: Directories for ``sys.path``; by default those that hold this package, lxml and attrs.
        root: Below which the hook finds /sys, /proc, /run and /etc; "" is this host.
        guard: It runs nothing that somebody else than root owns.
    """
    with open(resources.path("hooks/qemu"), encoding="utf-8") as file:
        text = file.read()
    settings = {
        "@PYTHON@": python,
        "@PATH@": ":".join(paths or import_paths()),
        "@ROOT@": root.rstrip("/"),
        "@GUARD@": "yes" if guard else "",
    }
    for name, value in settings.items():
        text = text.replace(name, shlex.quote(value) if value else "")
    return text


def import_paths() -> list[str]:
    """Directories the hook needs beside the standard library, in the order of ``sys.path``."""
    import attr
    import lxml

    needed = {str(Path(str(module.__file__)).parents[1]) for module in (attr, lxml)}
    needed.add(str(Path(__file__).parents[2]))
    found = [entry for entry in sys.path if entry in needed]
    return found + sorted(needed.difference(found))


def unit(program: str) -> str:
    """The service's unit.

    Args:
        program: Path of the installed ``libvirt-tuner``; quoted as systemd.service(5) asks for.
    """
    with open(resources.path("hooks/libvirt-tuner.service.in"), encoding="utf-8") as file:
        text = file.read()
    quoted = program.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text.replace("@PROGRAM@", f'"{quoted}"')


@frozen
class Intent:
    """What an installation would do.

    Attributes:
        prefix: Below which the files go.
        hook: Where the hook goes.
        beside: The user's own hook, which stays, or "".
        texts: Path below the prefix to the text of each further file.
        leftovers: Files of ours that are replaced or no longer needed.
        warnings: What keeps the hook from working, as far as it could be seen.
    """

    prefix: Path
    hook: Path
    beside: str
    texts: Mapping[str, str]
    leftovers: tuple[str, ...]
    warnings: tuple[confinement.Obstacle, ...]


def intent(prefix: Path, texts: Mapping[str, str], *, trusted: bool = False) -> Intent:
    """Look at what is there, and change nothing.

    Args:
        prefix: Below which the files go.
        texts: Path below ``prefix`` to text, with :data:`MARK` in it.
        trusted: Root may run this program although others can change it.

    Raises:
        HostError: One of the files that are there is somebody else's, or root would run what others can
            change, or SELinux keeps libvirt from running hooks.
    """
    hook = hook_place(prefix)
    for name in texts:
        _refuse_foreign(prefix / name)
    if not trusted:
        refuse_writable(sys.executable, import_paths())
    warnings = (confinement.apparmor(prefix), confinement.selinux(f"/{hook.relative_to(prefix)}", prefix))
    known = {HOOK_BESIDE, OLD_UNIT} | {
        name for name in installed(prefix) if packaged(prefix) and name != HOOK
    }
    old = (name for name in sorted(known - texts.keys()) if prefix / name != hook)
    return Intent(
        prefix=prefix,
        hook=hook,
        beside="" if hook == prefix / HOOK else str(prefix / HOOK),
        texts=texts,
        leftovers=tuple(name for name in old if _is_ours(prefix / name)),
        warnings=tuple(filter(None, warnings)),
    )


def refuse_writable(python: str, paths: Iterable[str]) -> None:
    """Refuse what users other than root can change: libvirtd would run their code as root.

    Raises:
        HostError: The first such file, and how many more there are.
    """
    found = list(trust.writable(python, paths))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise HostError(
            f"root would run files that other users can change: {found[0]}{more}. Nothing was installed",
            where=python,
            advice="install into a directory of root's, such as /opt: see README; or give --allow-writable",
        )


def packaged(prefix: Path = ROOT) -> bool:
    """Whether a package of the distribution has brought the program, its unit, manual and completion."""
    return (prefix / PACKAGED_UNIT).exists() or (prefix / PACKAGED_UNIT.removeprefix("usr/")).exists()


def install(prefix: Path, texts: Mapping[str, str], *, trusted: bool = False) -> list[Done]:
    """Install the hook and files of ours. Call :func:`start` after it.

    Args:
        prefix, texts, trusted: As for :func:`intent`.

    Raises:
        HostError: As for :func:`intent`: then nothing was written. Or a file cannot be written.
    """
    meant = intent(prefix, texts, trusted=trusted)
    hook = [install_hook(prefix, guard=not trusted)]
    old = [done for name in meant.leftovers for done in _remove_ours(prefix, name)]
    return [*hook, *old, *(write_marked(prefix / name, text) for name, text in texts.items())]


def start(prefix: Path = ROOT) -> Done:
    """Enable the service and start it; one that runs already is of the old version, and is started anew."""
    commands = (("daemon-reload",), ("enable", UNIT_NAME), ("restart", UNIT_NAME))
    if prefix == ROOT and all(_systemd(*command) for command in commands):
        return Done("started", UNIT_NAME)
    advice = f"start it: systemctl enable --now {UNIT_NAME}, or run 'libvirt-tuner daemon'"
    return Done("not started", UNIT_NAME, advice)


def hook_place(prefix: Path) -> Path:
    """Where the hook goes: ``hooks/qemu``, or ``hooks/qemu.d`` beside one that is somebody else's.

    Raises:
        HostError: Both are somebody else's.
    """
    if _ours_to_write(prefix / HOOK):
        return prefix / HOOK
    _refuse_foreign(prefix / HOOK_BESIDE)
    return prefix / HOOK_BESIDE


def install_hook(prefix: Path = ROOT, *, root: str = "", guard: bool = False) -> Done:
    """Install the hook at :func:`hook_place`, and nowhere else.

    Args:
        prefix: Below which ``etc/libvirt`` is.
        root, guard: As in :func:`hook_script`.

    Raises:
        HostError: Not permitted, or both places are somebody else's.
    """
    target = hook_place(prefix)
    known = (prefix / HOOK).exists() or (prefix / HOOK_BESIDE).exists()
    replace(target, hook_script(root=root, guard=guard), mode=0o755)
    daemon = prefix == ROOT and _reload()
    advice = "" if known or daemon else "reload libvirtd: it looks for hooks when it starts"
    return Done("installed", str(target), advice)


def installed(prefix: Path = ROOT) -> list[str]:
    """Every file that an installation of this version or an older one has left, below the prefix."""
    pages = sorted((prefix / MANUALS).glob("man[58]/libvirt-tuner*"))
    names = [HOOK, HOOK_BESIDE, UNIT, OLD_UNIT, *COMPLETIONS.values()]
    names += [str(page.relative_to(prefix)) for page in pages]
    return [name for name in names if _is_ours(prefix / name)]


def uninstall(prefix: Path = ROOT) -> list[Done]:
    """Remove all that was installed; libvirtd forgets the hook by itself. Call :func:`stop` before."""
    return [done for name in installed(prefix) for done in _remove_ours(prefix, name)]


def stop() -> None:
    """Stop the service, and have the next boot not start it."""
    _systemd("disable", "--now", UNIT_NAME)


def _is_ours(target: Path) -> bool:
    return target.exists() and _ours_to_write(target)


def _remove_ours(prefix: Path, name: str) -> list[Done]:
    """Remove a file where it is there and ours; a unit is stopped first."""
    target = prefix / name
    if prefix == ROOT and name in (UNIT, OLD_UNIT) and _is_ours(target):
        _systemd("disable", "--now", target.name)
    done = remove(target)
    if done and name == HOOK_BESIDE:
        with suppress(OSError):  # hooks of others are in it
            target.parent.rmdir()
    return [done] if done else []


def _systemd(*command: str) -> bool:
    """Whether systemd runs here and did what it was asked."""
    if not Path("/run/systemd/system").is_dir():
        return False
    return subprocess.run(["systemctl", *command], check=False, capture_output=True).returncode == 0


def write_marked(target: Path, text: str) -> Done:
    """Write one of our files; ``text`` must hold :data:`MARK` near its top.

    Raises:
        HostError: The file that stands there is somebody else's, or it cannot be written.
    """
    _refuse_foreign(target)
    replace(target, text, mode=0o644)
    return Done("installed", str(target))


def remove(target: Path) -> Done | None:
    """Remove one of our files; None when it is not there, or not ours."""
    if not target.exists() or not _ours_to_write(target):
        return None
    try:
        target.unlink()
    except OSError as err:
        raise sysfs.error(err, str(target)) from None
    return Done("removed", str(target))


def _refuse_foreign(target: Path) -> None:
    if not _ours_to_write(target):
        raise HostError("this file is not ours; it was left alone", where=str(target))


def _ours_to_write(target: Path) -> bool:
    """Whether the file is ours, or there is none."""
    try:
        with target.open(encoding="utf-8", errors="replace") as file:
            return any(MARK in line for _, line in zip(range(_MARKED_LINES), file, strict=False))
    except FileNotFoundError:
        return not target.is_symlink()
    except OSError as err:
        raise sysfs.error(err, str(target)) from None


def replace(target: Path, text: str, *, mode: int) -> None:
    """Replace the file as a whole, for somebody may be about to read or run it.

    Raises:
        HostError: It cannot be written.
    """
    new = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
        new.replace(target)
    except OSError as err:
        raise sysfs.error(err, str(target)) from None


def _reload() -> bool:
    """Have the running daemon look for hooks again (SIGHUP, libvirtd(8)); whether there was one.

    A file of a daemon that was killed may name a process of somebody else's by now.
    """
    told = False
    for name in DAEMONS:
        try:
            pid = int(Path(f"/run/{name}.pid").read_text(encoding="ascii"))
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == name:
                os.kill(pid, signal.SIGHUP)
                told = True
        except (OSError, ValueError):
            continue
    return told
