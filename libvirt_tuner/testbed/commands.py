"""Runs the commands of a testbed's steps. ``ip`` gets keys only through its standard input."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby

from libvirt_tuner.errors import DeniedError, HostError, MissingError, RejectedError, UnsupportedError
from libvirt_tuner.testbed import steps
from libvirt_tuner.testbed.keys import Keys
from libvirt_tuner.testbed.steps import WAYS, Command, Step

NO_KEYS = Keys({})

_TIMEOUT = 20.0
#: Messages of ip if the kernel lacks something, in lower case.
_LACKING = ("unknown device type", "not supported", "not found", "not implemented")


def run(words: Iterable[Command], keys: Keys, step: Step) -> None:
    """Run a step's commands in order; those of ip together, through the standard input of one.

    Raises:
        HostError: A command failed. The error has its message without keys.
    """
    for batched, group in groupby(words, key=lambda command: command[0] == "ip" and command[1][0] != "-"):
        if batched:
            lines = [" ".join(command[1:]) for command in group]
            _one(("ip", "-batch", "-"), _filled("\n".join(lines) + "\n", keys), keys, step)
            continue
        for command in group:
            # Creating the bond shows whether the bonding driver exists.
            with suppress(*([HostError] if command[0] == "modprobe" else [])):
                _one(command, "", keys, step)


def _filled(text: str, keys: Keys) -> str:
    for way in WAYS:
        text = text.replace(steps.placeholder(way), keys.by_way.get(way.name, ""))
    return text


def _one(argv: Command, text: str, keys: Keys, step: Step) -> None:
    where = f"{step.kind} {step.target}"
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise MissingError(
            "no such program", errno=errno.ENOENT, where=argv[0], expected="a program in PATH"
        ) from None
    except subprocess.TimeoutExpired:
        raise HostError(
            f"no answer of {argv[0]} within {_TIMEOUT:g} s", errno=errno.ETIMEDOUT, where=where
        ) from None
    if done.returncode:
        raise _failure(_without_keys(done.stderr.decode("utf-8", "backslashreplace"), keys), where, step)


def _without_keys(text: str, keys: Keys) -> str:
    for key in keys.by_way.values():
        text = text.replace(key, "(key)").replace(key[2:], "(key)")
    return text


def _failure(said: str, where: str, step: Step) -> HostError:
    """Return the typed error for an error message of ip, tc or ethtool."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("Command failed")]
    first = lines[0] if lines else "failed"
    first = first.removeprefix("RTNETLINK answers: ").removeprefix("Error: ").strip().rstrip(".")
    lower = first.lower()
    if "not permitted" in lower or "permission denied" in lower:
        return DeniedError(first, errno=errno.EPERM, where=where, advice="needs root")
    if step.needs and any(words in lower for words in _LACKING):
        return UnsupportedError(
            f"this kernel does not support it: {first}",
            errno=errno.EOPNOTSUPP,
            where=where,
            expected=step.needs,
        )
    return RejectedError(first, where=where, value=str(step))
