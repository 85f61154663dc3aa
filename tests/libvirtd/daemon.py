"""A real libvirtd in namespaces of its own, for tests, benchmarks and the demo.

    with PrivateDaemon() as daemon:
        daemon.define(domains.diskless("web"))
        daemon.virsh("start", "web")
        print(daemon.read("/proc/irq/200/smp_affinity_list"))

The machine's own libvirtd, its /etc and its interrupts are neither seen nor touched. Needs root, util-linux,
iproute2, libvirtd, virtlogd and qemu-system-x86_64. Everything inside ends with the harness, also when that
is killed: process 1 of the PID namespace reads a pipe that only the harness holds open.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.libvirtd import nic_replay
from tests.measured import SETTINGS

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("unshare", "nsenter", "ip", "mount", "libvirtd", "virtlogd", "virsh", "qemu-system-x86_64")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
for _name in ("PYTHONDONTWRITEBYTECODE", SETTINGS):
    if _name in os.environ:
        ENVIRONMENT[_name] = os.environ[_name]


LEFT_BY_HOOKS = ("/run/libvirt-tuner", "/run/recorder", "/var/lib/libvirt-tuner")


class DaemonError(AssertionError):
    """A command in the namespaces failed, or what was waited for did not come."""


def missing_programs() -> list[str]:
    """What the private daemon needs and this machine lacks; ``root`` when not root."""
    lacking = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    return lacking if os.geteuid() == 0 else [*lacking, "root"]


class PrivateDaemon:
    """The namespaces, libvirtd in them, and what can be done with them from outside.

    Args:
        replay: Make the two replayed functions of a ConnectX and the bridges on them
            (:mod:`tests.libvirtd.nic_replay`).
    """

    def __init__(self, *, replay: bool = True) -> None:
        self._replay = replay
        self._unshare: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def __enter__(self) -> PrivateDaemon:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Makes the namespaces and starts virtlogd and libvirtd in them; returns when libvirtd answers."""
        try:
            self._make_namespaces()
            self.run(["/run/sbin/virtlogd", "-d"])
            self.start_libvirtd()
        except BaseException:
            self.stop()
            raise

    def _make_namespaces(self) -> None:
        settings = json.dumps({"replay": self._replay})
        namespaces = ["unshare", "-mnpf", "--mount-proc", "--propagation", "private"]
        self._unshare = subprocess.Popen(
            [*namespaces, sys.executable, "-m", "tests.libvirtd.namespace_init", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            env=ENVIRONMENT,
            start_new_session=True,  # Ctrl-C in the terminal is the harness's to handle
        )
        assert self._unshare.stdout is not None
        assert self._unshare.stderr is not None
        if self._unshare.stdout.readline() != b"ready\n":
            raise DaemonError(f"no private namespaces: {self._unshare.stderr.read().decode()}")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text()
        self.pid = int(children)

    def stop(self) -> None:
        """Ends everything in the namespaces and the namespaces with it. Harmless when there is nothing."""
        unshare, self._unshare, self.pid = self._unshare, None, 0
        if unshare is None:
            return
        for pipe in (unshare.stdin, unshare.stdout, unshare.stderr):
            if pipe is not None:
                pipe.close()
        unshare.wait(timeout=20)

    def start_libvirtd(self) -> None:
        """Starts libvirtd as a daemon; it has read its hooks and its domains when this returns."""
        self.run(["/run/sbin/libvirtd", "-d"])

    def stop_libvirtd(self) -> None:
        """Ends libvirtd; domains run on.

        libvirtd 11.3 at times waits half a minute for a thread of its own before it ends: that is cut short.
        """
        pid = int(self.read("/run/libvirtd.pid"))
        self.run(["kill", str(pid)])
        try:
            self.wait_for(lambda: not self.exists(f"/proc/{pid}"), "the end of libvirtd", seconds=2)
        except DaemonError:
            self.run(["kill", "-9", str(pid)])
            self.wait_for(lambda: not self.exists(f"/proc/{pid}"), "the end of libvirtd")

    def restart_libvirtd(self) -> None:
        """As ``systemctl restart libvirtd``: running domains are reconnected to, hooks looked for anew."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def command(self, argv: Sequence[str]) -> list[str]:
        """``argv`` as a command line of this machine that runs inside the namespaces."""
        return ["nsenter", "--target", str(self.pid), "-m", "-n", "-p", "--", *argv]

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Starts a program in the namespaces, output on pipes; it ends with :meth:`stop` at the latest."""
        return subprocess.Popen(
            self.command(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**ENVIRONMENT, **(env or {})},
            start_new_session=True,
        )

    def run(
        self,
        argv: Sequence[str] | str,
        *,
        check: bool = True,
        timeout: float = 60,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program (or, given a string, a shell script) in the namespaces.

        Raises:
            DaemonError: On a non-zero exit with ``check``, or after ``timeout`` seconds.
        """
        words = ["sh", "-c", argv] if isinstance(argv, str) else list(argv)
        process = self.spawn(words, env=env, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise DaemonError(f"{words} did not end within {timeout} s") from error
            raise
        if check and process.returncode:
            raise DaemonError(f"{words} ended with {process.returncode}: {err}{out}")
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def virsh(self, *arguments: str, check: bool = True, stdin: str = "", timeout: float = 60) -> str:
        """Runs virsh; returns what it printed, standard error included when it failed unchecked."""
        result = self.run(["virsh", "-q", *arguments], check=check, stdin=stdin, timeout=timeout)
        return (result.stdout if not result.returncode else result.stdout + result.stderr).strip()

    def define(self, xml: str) -> None:
        """``virsh define`` of a document."""
        self.virsh("define", "/dev/stdin", stdin=xml)

    def forget(self, domain: str) -> None:
        """Destroys and undefines a domain if there is one."""
        self.virsh("destroy", domain, check=False)
        self.virsh("undefine", domain, "--managed-save", check=False)

    def clean(self) -> None:
        """Takes out every domain, hook and file that was put in since :meth:`start`."""
        for domain in self.virsh("list", "--all", "--name").split():
            self.forget(domain)
        if any(self.path("/etc/libvirt/hooks").iterdir()):
            shutil.rmtree(self.path("/etc/libvirt/hooks"))
            self.path("/etc/libvirt/hooks").mkdir()
            self.restart_libvirtd()
        self.path("/etc/libvirt-tuner.toml").unlink(missing_ok=True)
        for directory in LEFT_BY_HOOKS:
            shutil.rmtree(self.path(directory), ignore_errors=True)
        self.write("/run/syslog", "")
        for number in nic_replay.IRQS:
            self.write(f"/proc/irq/{number}/smp_affinity_list", self.online + "\n")

    @property
    def online(self) -> str:
        """The machine's online CPUs as the kernel lists them: where every replayed interrupt starts out."""
        return self.read("/sys/devices/system/cpu/online")

    def state(self, domain: str) -> str:
        """``running``, ``shut off``, ... ; libvirt's message for a domain it does not know."""
        return self.virsh("domstate", domain, check=False)

    def path(self, path: str) -> Path:
        """The path from outside. Not for absolute symbolic links: they would lead outside."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def exists(self, path: str) -> bool:
        """Whether there is such a path inside."""
        return self.path(path).exists()

    def read(self, path: str) -> str:
        """The text of a file inside, stripped."""
        return self.path(path).read_text().strip()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Writes a file inside, its directory too."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def install_hook(self, text: str, *, name: str = "qemu") -> None:
        """Puts an executable at /etc/libvirt/hooks/NAME (``qemu``, ``qemu.d/50-x``).

        libvirtd looks for hooks when it starts: :meth:`restart_libvirtd` after the first one.
        """
        self.write(f"/etc/libvirt/hooks/{name}", text, mode=0o755)

    def syslog(self) -> list[str]:
        """What was sent to /dev/log inside, a message a line, priority first (``<14>libvirt-tuner: ...``)."""
        return self.read("/run/syslog").splitlines()

    def libvirtd_log(self) -> str:
        """libvirtd's warnings and errors."""
        return self.read("/var/log/libvirt/libvirtd.log")

    def irq(self, number: int) -> str:
        """Where a replayed interrupt goes."""
        return self.read(f"/proc/irq/{number}/smp_affinity_list")

    def wait_for(self, holds: Callable[[], object], what: str, *, seconds: float = 15) -> None:
        """Waits until ``holds()`` is true.

        Raises:
            DaemonError: It was not within ``seconds``; the message carries the system log's last lines.
        """
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                log = "\n".join(self.syslog()[-20:])
                raise DaemonError(f"waited {seconds} s for {what}; system log:\n{log}")
            time.sleep(0.05)
