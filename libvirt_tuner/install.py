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
from pathlib import Path

from attrs import frozen

from libvirt_tuner import resources
from libvirt_tuner.errors import HostError
from libvirt_tuner.host import sysfs

MARK = "libvirt-tuner install"
HOOK = "etc/libvirt/hooks/qemu"
HOOK_BESIDE = "etc/libvirt/hooks/qemu.d/libvirt-tuner"
UNIT = "etc/systemd/system/libvirt-tuner.service"
COMPLETION = "etc/bash_completion.d/libvirt-tuner"
MANUAL = "usr/local/share/man/man8/libvirt-tuner.8"
UNIT_NAME = "libvirt-tuner.service"
OLD_UNIT = "etc/systemd/system/libvirt-tuner-watch.service"
"""What the unit was called up to 0.1; an install replaces it."""
APPARMOR_PROFILES = ("usr.sbin.libvirtd", "usr.sbin.virtqemud")
RUNNABLE = tuple(Path(name) for name in ("/bin", "/sbin", "/usr/bin", "/usr/sbin"))
DAEMONS = ("libvirtd", "virtqemud")
ROOT = Path("/")
_MARKED_LINES = 5


@frozen
class Done:
    """One step: what was done to which path, and what is left to do by hand ("" for nothing)."""

    what: str
    path: str
    advice: str = ""


def hook_script(*, python: str = sys.executable, paths: Iterable[str] = (), root: str = "") -> str:
    """The hook with its settings filled in.

    Args:
        python: The interpreter that runs it.
        paths: Directories for ``sys.path``; by default those that hold this package, lxml and attrs.
        root: Below which the hook finds /sys, /proc, /run and /etc; "" is this host.
    """
    with open(resources.path("hooks/qemu"), encoding="utf-8") as file:
        text = file.read()
    settings = {
        "@PYTHON@": python,
        "@PATH@": ":".join(paths or import_paths()),
        "@ROOT@": root.rstrip("/"),
    }
    for name, value in settings.items():
        text = text.replace(name, shlex.quote(value) if value else "")
    return text


def import_paths() -> list[str]:
    """Directories the hook needs beside the standard library, in the order of ``sys.path``."""
    import attr
    import lxml

    needed = {str(Path(str(module.__file__)).parents[1]) for module in (attr, lxml)}
    needed.add(str(Path(__file__).parents[1]))
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


def install(prefix: Path, texts: Mapping[str, str]) -> list[Done]:
    """Install the hook and files of ours; below ``/`` the service is started where systemd runs.

    Args:
        prefix: Below which they go.
        texts: Path below ``prefix`` to text, with :data:`MARK` in it.

    Raises:
        HostError: One of the files that stand there is somebody else's: then nothing was written. Or one
            cannot be written.
    """
    hook_place(prefix)
    for name in texts:
        _refuse_foreign(prefix / name)
    allowed = confinement(prefix)
    hook = [install_hook(prefix), *([allowed] if allowed else [])]
    done = [
        *hook,
        *_remove_unit(prefix, OLD_UNIT),
        *(write_marked(prefix / name, text) for name, text in texts.items()),
    ]
    return done if UNIT not in texts else [*done, _start(prefix)]


def _start(prefix: Path) -> Done:
    # A service that runs already is of the old version, and is started anew.
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


def install_hook(prefix: Path = ROOT, *, root: str = "") -> Done:
    """Install the hook at :func:`hook_place`, and nowhere else.

    Args:
        prefix: Below which ``etc/libvirt`` is.
        root: As in :func:`hook_script`.

    Raises:
        HostError: Not permitted, or both places are somebody else's.
    """
    target = hook_place(prefix)
    known = (prefix / HOOK).exists() or (prefix / HOOK_BESIDE).exists()
    _write(target, hook_script(root=root), mode=0o755)
    if target != prefix / HOOK_BESIDE:
        remove(prefix / HOOK_BESIDE)
    daemon = prefix == ROOT and _reload()
    advice = "" if known or daemon else "reload libvirtd: it looks for hooks when it starts"
    return Done("installed", str(target), advice)


def confinement(prefix: Path = ROOT, *, python: str = sys.executable) -> Done | None:
    """Whether AppArmor's profile of libvirtd keeps the hook from running its Python; None when it does not.

    The profile lets libvirtd's children run what is in the system's own directories (``/usr/bin/* PUx``, as
    libvirt ships it). A link there will do: a venv made with the distribution's Python does.

    Args:
        prefix: Below which ``etc/apparmor.d`` is.
        python: The hook's interpreter.
    """
    program = Path(python).resolve()
    profiles = [name for name in APPARMOR_PROFILES if (prefix / "etc/apparmor.d" / name).exists()]
    if not profiles or program.parent in RUNNABLE or not (prefix / "sys/module/apparmor").exists():
        return None
    local = prefix / "etc/apparmor.d/local" / profiles[0]
    advice = (
        f"AppArmor keeps libvirtd from running {program}: add the line '{program} PUx,' to {local} and run"
        f" apparmor_parser -r /etc/apparmor.d/{profiles[0]}, or install with the distribution's own Python"
    )
    return Done("not allowed", str(program), advice)


def uninstall(prefix: Path = ROOT) -> list[Done]:
    """Remove all that was installed, the service stopped first; libvirtd forgets the hook by itself."""
    units = [done for name in (UNIT, OLD_UNIT) for done in _remove_unit(prefix, name)]
    found = [remove(prefix / name) for name in (HOOK, HOOK_BESIDE, COMPLETION, MANUAL)]
    return [*units, *(done for done in found if done)]


def _remove_unit(prefix: Path, name: str) -> list[Done]:
    """Stop and remove a unit of ours, where it is there."""
    target = prefix / name
    if prefix == ROOT and target.exists() and _ours_to_write(target):
        _systemd("disable", "--now", target.name)
    done = remove(target)
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
    _write(target, text, mode=0o644)
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


def _write(target: Path, text: str, *, mode: int) -> None:
    """Replace the file as a whole: libvirtd may be about to run it."""
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
