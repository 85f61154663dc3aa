"""Checks whether AppArmor or SELinux keeps libvirtd from running the hook."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from libvirt_tuner.errors import HostError

APPARMOR_PROFILES = ("usr.sbin.libvirtd", "usr.sbin.virtqemud")
RUNNABLE = tuple(Path(name) for name in ("/bin", "/sbin", "/usr/bin", "/usr/sbin"))
ROOT = Path("/")

SELINUX = "sys/fs/selinux/enforce"
SELINUX_DOMAINS = ("virtqemud_t", "virtd_t")
"""SELinux types of virtqemud and libvirtd in the policy of Fedora and similar distributions."""
POLICY_MODULE = "libvirt-tuner-hook.cil"


@frozen
class Obstacle:
    """What keeps the hook from working, and the commands that fix it, one each."""

    what: str
    remedy: tuple[str, ...] = ()


Ask = Callable[[Sequence[str]], str | None]
"""Runs a command. Returns its output, or None if it is missing or failed."""


def apparmor(prefix: Path = ROOT, *, python: str = sys.executable) -> Obstacle | None:
    """Why AppArmor keeps libvirtd's hook from running its Python, and the fix; None if it does not.

    The profile lets libvirtd's children run programs in the system's directories (``/usr/bin/* PUx``, as
    libvirt ships it). A link to there is enough, as in a venv of the distribution's Python.

    Args:
        prefix: Below which ``etc/apparmor.d`` is.
        python: The hook's interpreter.
    """
    program = Path(python).resolve()
    profiles = [name for name in APPARMOR_PROFILES if (prefix / "etc/apparmor.d" / name).exists()]
    if not profiles or program.parent in RUNNABLE or not (prefix / "sys/module/apparmor").exists():
        return None
    return Obstacle(
        f"AppArmor keeps libvirtd from running {program}: allow it, or install with the system's Python",
        (
            f"echo {shlex.quote(f'{program} PUx,')} >> {prefix / 'etc/apparmor.d/local' / profiles[0]}",
            f"apparmor_parser -r {prefix / 'etc/apparmor.d' / profiles[0]}",
        ),
    )


def _ask(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def selinux(hook: str, prefix: Path = ROOT, *, ask: Ask = _ask) -> Obstacle | None:
    """Check that an enforcing SELinux lets libvirt's daemon execute the hook.

    Reported of Fedora: its policy lets virtqemud read files of type ``virt_hook_t`` but not execute them, so
    that every start fails once there is a hook.

    Args:
        hook: Path of the hook, as SELinux's file contexts know it.
        prefix: Below which ``sys/fs/selinux`` is.
        ask: Runs ``matchpathcon`` and ``sesearch``.

    Returns:
        What could not be checked, and how to; None where nothing is in the way.

    Raises:
        HostError: The policy forbids it. The advice has a policy module that allows it.
    """
    try:
        enforcing = (prefix / SELINUX).read_text(encoding="ascii").strip() == "1"
    except OSError:
        return None
    if not enforcing:
        return None
    context = ask(("matchpathcon", "-n", hook))
    label = (context or "").strip().split(":")[2:3]
    # A type that the policy lacks is no error of seinfo's: it prints "Types: 0".
    known = [name for name in SELINUX_DOMAINS if name in (ask(("seinfo", "-t", name)) or "").split()]
    rules = {name: ask(_search(name, label[0])) for name in known if label}
    if not rules or None in rules.values():
        return Obstacle(
            "SELinux is enforcing, and its policy on hooks could not be read",
            ("dnf install setools-console libselinux-utils",),
        )
    forbidden = [name for name, found in rules.items() if not found]
    if not forbidden:
        return None
    allow = " ".join(f"(allow {name} {label[0]} (file (execute execute_no_trans map)))" for name in forbidden)
    raise HostError(
        f"SELinux is enforcing and does not let {forbidden[0]} execute files of type {label[0]}:"
        " no domain would start. Nothing was installed",
        where=hook,
        advice="allow it, and install again",
        remedy=(f"echo '{allow}' > {POLICY_MODULE}", f"semodule -i {POLICY_MODULE}", "libvirt-tuner install"),
    )


def _search(domain: str, label: str) -> tuple[str, ...]:
    return ("sesearch", "-A", "-s", domain, "-t", label, "-c", "file", "-p", "execute")
