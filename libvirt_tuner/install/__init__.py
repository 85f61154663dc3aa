"""Installs and removes the hook and the service.

Every file has :data:`MARK` near its top. A file without it is not ours: it is never overwritten
or removed. If one is in the way, nothing is written.
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
from libvirt_tuner.host import files, sysfs
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
"""The unit's name up to 0.1. An install replaces it."""
PACKAGED_UNIT = "usr/lib/systemd/system/libvirt-tuner.service"
"""The unit of a distribution's package. The package also has the manual pages and completion."""
DAEMONS = ("libvirtd", "virtqemud")
ROOT = Path("/")
_MARKED_LINES = 5


@frozen
class Done:
    """One step: what was done to which path, and what must be done by hand ("": nothing)."""

    what: str
    path: str
    advice: str = ""


def manual(name: str) -> str:
    """Return the path of a manual page: ``libvirt-tuner.8`` goes to ``man8``."""
    return f"{MANUALS}/man{name[-1]}/{name}"


def hook_script(
    *, python: str = sys.executable, paths: Iterable[str] = (), root: str = "", guard: bool = False
) -> str:
    """Return the hook script with its settings.

    Args:
        python: The interpreter that runs it.
        paths: Directories for ``sys.path``; by default those that hold this package, lxml and attrs.
        root: Directory with /sys, /proc, /run and /etc for the hook; "": this host.
        guard: Whether it refuses to run files of users other than root.
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
    """Return directories that the hook needs besides the standard library, in order of ``sys.path``."""
    import attr
    import lxml

    needed = {str(Path(str(module.__file__)).parents[1]) for module in (attr, lxml)}
    needed.add(str(Path(__file__).parents[2]))
    found = [entry for entry in sys.path if entry in needed]
    return found + sorted(needed.difference(found))


def unit(program: str) -> str:
    """The service's unit.

    Args:
        program: Path of the installed ``libvirt-tuner``. It is quoted for systemd.service(5).
    """
    with open(resources.path("hooks/libvirt-tuner.service.in"), encoding="utf-8") as file:
        text = file.read()
    quoted = program.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text.replace("@PROGRAM@", f'"{quoted}"')


@frozen
class Intent:
    """The plan of an installation.

    Attributes:
        prefix: Below which the files go.
        hook: Where the hook goes.
        beside: The user's own hook, which stays, or "".
        texts: Path below the prefix to the text of each further file.
        leftovers: Old files of ours that are no longer needed.
        warnings: Known reasons why the hook would not work.
    """

    prefix: Path
    hook: Path
    beside: str
    texts: Mapping[str, str]
    leftovers: tuple[str, ...]
    warnings: tuple[confinement.Obstacle, ...]


def intent(prefix: Path, texts: Mapping[str, str], *, trusted: bool = False) -> Intent:
    """Return the plan of an installation. Changes nothing.

    Args:
        prefix: Below which the files go.
        texts: Path below ``prefix`` to text, with :data:`MARK` in it.
        trusted: Whether to install although other users can change the program.

    Raises:
        HostError: A file there is not ours, other users can change the program, or SELinux keeps
            libvirt from running hooks.
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
    """Refuse if users other than root can change the program, because libvirtd runs it as root.

    Raises:
        HostError: The first such file, and the number of others.
    """
    found = list(trust.writable(python, paths))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise HostError(
            f"root would run files that other users can change: {found[0]}{more}. Nothing was installed",
            where=python,
            advice="install into a directory that only root can change, such as /opt (see README),"
            " or give --allow-writable",
        )


def packaged(prefix: Path = ROOT) -> bool:
    """Return whether the program was installed by a package of the distribution."""
    return (prefix / PACKAGED_UNIT).exists() or (prefix / PACKAGED_UNIT.removeprefix("usr/")).exists()


def install(prefix: Path, texts: Mapping[str, str], *, trusted: bool = False) -> list[Done]:
    """Install the hook and files of ours. Call :func:`start` after it.

    Args:
        prefix, texts, trusted: As for :func:`intent`.

    Raises:
        HostError: As for :func:`intent` (nothing was written then), or a file cannot be written.
    """
    meant = intent(prefix, texts, trusted=trusted)
    hook = [install_hook(prefix, guard=not trusted)]
    old = [done for name in meant.leftovers for done in _remove_ours(prefix, name)]
    return [*hook, *old, *(write_marked(prefix / name, text) for name, text in texts.items())]


def start(prefix: Path = ROOT) -> Done:
    """Enable the service and start it. A running one is restarted, because it has the old version."""
    commands = (("daemon-reload",), ("enable", UNIT_NAME), ("restart", UNIT_NAME))
    if prefix == ROOT and all(_systemd(*command) for command in commands):
        return Done("started", UNIT_NAME)
    advice = f"start it: systemctl enable --now {UNIT_NAME}, or run 'libvirt-tuner daemon'"
    return Done("not started", UNIT_NAME, advice)


def hook_place(prefix: Path) -> Path:
    """Return the path of the hook: ``hooks/qemu``, or below ``hooks/qemu.d`` if the user has a hook.

    Raises:
        HostError: Both files belong to another program.
    """
    if _ours_to_write(prefix / HOOK):
        return prefix / HOOK
    _refuse_foreign(prefix / HOOK_BESIDE)
    return prefix / HOOK_BESIDE


def install_hook(prefix: Path = ROOT, *, root: str = "", guard: bool = False) -> Done:
    """Install only the hook, at :func:`hook_place`.

    Args:
        prefix: Below which ``etc/libvirt`` is.
        root, guard: As in :func:`hook_script`.

    Raises:
        HostError: Not permitted, or both files belong to another program.
    """
    target = hook_place(prefix)
    known = (prefix / HOOK).exists() or (prefix / HOOK_BESIDE).exists()
    files.replace(target, hook_script(root=root, guard=guard), mode=0o755)
    daemon = prefix == ROOT and _reload()
    advice = "" if known or daemon else "reload libvirtd: it looks for hooks when it starts"
    return Done("installed", str(target), advice)


def installed(prefix: Path = ROOT) -> list[str]:
    """Return every installed file of this or an older version below the prefix."""
    pages = sorted((prefix / MANUALS).glob("man[58]/libvirt-tuner*"))
    names = [HOOK, HOOK_BESIDE, UNIT, OLD_UNIT, *COMPLETIONS.values()]
    names += [str(page.relative_to(prefix)) for page in pages]
    return [name for name in names if _is_ours(prefix / name)]


def uninstall(prefix: Path = ROOT) -> list[Done]:
    """Remove all installed files. libvirtd notices that itself. Call :func:`stop` first."""
    return [done for name in installed(prefix) for done in _remove_ours(prefix, name)]


def stop() -> None:
    """Stop and disable the service."""
    _systemd("disable", "--now", UNIT_NAME)


def _is_ours(target: Path) -> bool:
    return target.exists() and _ours_to_write(target)


def _remove_ours(prefix: Path, name: str) -> list[Done]:
    """Remove a file if it exists and is ours. A unit is stopped first."""
    target = prefix / name
    if prefix == ROOT and name in (UNIT, OLD_UNIT) and _is_ours(target):
        _systemd("disable", "--now", target.name)
    done = remove(target)
    if done and name == HOOK_BESIDE:
        with suppress(OSError):  # it has other hooks
            target.parent.rmdir()
    return [done] if done else []


def _systemd(*command: str) -> bool:
    """Run systemctl. Returns whether systemd runs here and succeeded."""
    if not Path("/run/systemd/system").is_dir():
        return False
    return subprocess.run(["systemctl", *command], check=False, capture_output=True).returncode == 0


def write_marked(target: Path, text: str) -> Done:
    """Write one of our files; ``text`` must hold :data:`MARK` near its top.

    Raises:
        HostError: An existing file belongs to another program, or the file cannot be written.
    """
    _refuse_foreign(target)
    files.replace(target, text, mode=0o644)
    return Done("installed", str(target))


def remove(target: Path) -> Done | None:
    """Remove one of our files. Returns None if it is missing or not ours."""
    if not target.exists() or not _ours_to_write(target):
        return None
    try:
        target.unlink()
    except OSError as err:
        raise sysfs.error(err, str(target)) from None
    return Done("removed", str(target))


def _refuse_foreign(target: Path) -> None:
    if not _ours_to_write(target):
        raise HostError("not changed: this is not a file of libvirt-tuner", where=str(target))


def _ours_to_write(target: Path) -> bool:
    """Return whether the file is ours or missing."""
    try:
        with target.open(encoding="utf-8", errors="replace") as file:
            return any(MARK in line for _, line in zip(range(_MARKED_LINES), file, strict=False))
    except FileNotFoundError:
        return not target.is_symlink()
    except OSError as err:
        raise sysfs.error(err, str(target)) from None


def _reload() -> bool:
    """Make the running libvirtd look for hooks again (SIGHUP, libvirtd(8)). Returns whether one runs.

    The pid file of a killed libvirtd may have the id of another process.
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
