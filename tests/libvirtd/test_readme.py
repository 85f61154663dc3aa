"""README's commands run as they are written there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.libvirtd import domains
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import install

ROOT = Path(__file__).parents[2]
SYSTEM = ("/usr/bin/python3", "/usr/lib/python3/dist-packages/libvirt.py")

#: The machine's own /opt, /usr/local/sbin and /etc are neither seen nor changed.
SCRIPT = """\
set -eu
for directory in /opt /usr/local/sbin /usr/local/share /etc/libvirt /etc/systemd/system; do
    mkdir -p $directory
    mount -t tmpfs tmpfs $directory
done
mount -t tmpfs tmpfs /run
mkdir -p /etc/fish/completions /etc/bash_completion.d
mount -t tmpfs tmpfs /etc/fish/completions
mount -t tmpfs tmpfs /etc/bash_completion.d
"""


def blocks(holding: str) -> list[str]:
    """Lines of README's code block in which a text stands."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    (block,) = [each for language, each in found if holding in each and not language]
    return [line.split("  #")[0].strip() for line in block.splitlines()]


def on_a_terminal(line: str) -> str:
    """The line on a terminal whose user answers yes."""
    return f"printf 'y\\ny\\ny\\n' | script -qec {shlex.quote(line)} /dev/null"


def test_commands_about_a_domain(daemon: PrivateDaemon) -> None:
    install(daemon)
    daemon.define(domains.diskless("web-1", domains.bridge("br1")))
    daemon.virsh("start", "web-1")
    path = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    for line in blocks("libvirt-tuner plan web-1"):
        command = on_a_terminal(line) if line.endswith("uninstall") else line
        done = daemon.run(["sh", "-c", f"{path}; {command}"], check=False)
        # 1: something was found, or differs.
        assert done.returncode in (0, 1), f"{line}: {done.stdout}{done.stderr}"
        assert "Usage" not in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    assert not daemon.exists("/etc/libvirt/hooks/qemu")
    assert daemon.state("web-1") == "running"


def test_policy_of_one_domain(daemon: PrivateDaemon) -> None:
    daemon.define(domains.diskless("web-1", domains.bridge("br1")))
    daemon.run("\n".join(blocks("virsh metadata web-1")))
    path = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    told = daemon.run(["sh", "-c", f"{path}; libvirt-tuner config check --json"]).stdout
    settings = json.loads(told)["domains"]["web-1"]
    assert settings["placement"] == {"value": '"shared"', "from": "metadata"}
    assert settings["poll_us"] == {"value": "200", "from": "metadata"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts over /opt")
@pytest.mark.skipif(not all(map(os.path.exists, SYSTEM)), reason="no python3-libvirt of the distribution")
def test_installation_with_pip() -> None:
    lines = blocks("/opt/libvirt-tuner/bin/pip install .")
    assert lines[-1] == "libvirt-tuner install"
    script = SCRIPT + "\n".join([*lines[:-1], on_a_terminal(lines[-1]), "ls /etc/libvirt/hooks/qemu"])
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/root"),
        **{key: value for key, value in os.environ.items() if key.startswith("PIP_")},
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "/etc/libvirt/hooks/qemu"
