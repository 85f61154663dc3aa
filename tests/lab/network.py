"""The outside world of the emulated hypervisors: a network namespace with bridges, taps and an iperf3.

The namespace has no name and no file: it lives as long as the process that holds it, which ends when its
standard input is closed. Whatever way the laboratory ends, nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

from attrs import define, field


@define
class Network:
    """A network namespace of our own.

    Attributes:
        holder: The process whose namespace it is.
    """

    holder: subprocess.Popen[bytes] = field(factory=lambda: _hold())

    def enter(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs the given one inside the namespace, and dies with us."""
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        inside = ("nsenter", f"--target={self.holder.pid}", "--net", *user, "--")
        return ("setpriv", "--pdeathsig", "KILL", *inside, *command)

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command inside and return its output.

        Raises:
            RuntimeError: It failed.
        """
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def ip(self, command: str) -> None:
        """Run ``ip`` inside."""
        self.run("ip", *command.split())

    def add_bridge(self, name: str, *, address: str | None = None) -> None:
        """Make a bridge that the machines are plugged into, with an address of its own if one is given."""
        self.ip(f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        self.ip(f"link set {name} up")
        if address:
            self.ip(f"address add {address} dev {name}")

    def add_tap(self, name: str, bridge: str) -> None:
        """Make a tap that QEMU opens by its name, plugged into a bridge."""
        self.ip(f"tuntap add {name} mode tap vnet_hdr")
        self.ip(f"link set {name} master {bridge} up")

    def remove(self, name: str) -> None:
        """Take a link away, if it is there."""
        with contextlib.suppress(RuntimeError):
            self.ip(f"link delete {name}")

    def close(self) -> None:
        """End the namespace, with everything in it."""
        if self.holder.stdin:
            self.holder.stdin.close()
        self.holder.wait()


def _hold() -> subprocess.Popen[bytes]:
    """Start the process that is the namespace, and wait until it is one."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ("unshare", "--net", *user, "--", "sh", "-c", "ip link set lo up && echo && exec cat")
    # A session of its own keeps Ctrl-C from ending it before what lives in it.
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert holder.stdout is not None
    if not holder.stdout.readline():
        raise RuntimeError(
            "no network namespace: this takes root, or user namespaces for everybody"
            " (sysctl user.max_user_namespaces, and kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)"
        )
    return holder
