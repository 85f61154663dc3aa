"""The commands that docs/api.md has for Terraform and Vagrant, on a domain that libvirtd has defined."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.libvirtd import domains
from tests.libvirtd.daemon import PrivateDaemon

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/api.md").read_text()
COMMANDS = [
    pytest.param(r'command = "(.*)"', id="Terraform"),
    pytest.param(r'inline: "(.*)" \}', id="Vagrant"),
]


def run(daemon: PrivateDaemon, pattern: str) -> subprocess.CompletedProcess[str]:
    """The one command of the page that the pattern finds, where the examples are."""
    (command,) = re.findall(pattern, PAGE)
    here = f"cd {shlex.quote(str(ROOT / 'docs/examples'))}"
    path = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    return daemon.run(f"{here}; {path}; {command}", check=False)


@pytest.mark.parametrize("pattern", COMMANDS)
def test_a_defined_domain_is_tuned_once(daemon: PrivateDaemon, pattern: str) -> None:
    daemon.define(domains.diskless("web"))
    assert run(daemon, pattern).returncode == 0
    tuned = daemon.virsh("dumpxml", "--inactive", "web")
    assert "<emulatorpin cpuset='16,18'/>" in tuned
    assert "rx_queue_size='1024'" in tuned
    run(daemon, pattern)
    assert daemon.virsh("dumpxml", "--inactive", "web") == tuned


@pytest.mark.parametrize("pattern", COMMANDS)
def test_without_a_domain_it_fails_and_defines_nothing(daemon: PrivateDaemon, pattern: str) -> None:
    assert run(daemon, pattern).returncode != 0
    assert daemon.virsh("list", "--all", "--name") == ""
