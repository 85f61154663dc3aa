"""`testbed up` and `down` on both ends of a cable, as far as this kernel allows: vxlan, no bond, no ESP."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attrs import evolve, frozen

from tests.netns.conftest import ROOT, Namespace, Pair
from tests.unit.cli.test_json import sections

ROLES = ("server", "client")
VXLAN = ("--bond", "none", "--tunnel", "vxlan", "--name", "vx0", "--crypto", "none", "--device", "cable")
#: What a testbed may leave nothing of. Lifetimes run, and a link-local address takes a second to settle.
WATCHED = (
    ("ip", "-details", "link"),
    ("ip", "address"),
    ("ip", "-4", "route", "show", "table", "all"),
    ("ip", "xfrm", "state"),
    ("ip", "xfrm", "policy"),
)


@frozen
class End:
    """A namespace with a /run of its own, in which libvirt-tuner is run."""

    namespace: Namespace
    run_directory: Path
    role: str
    path: str = os.environ.get("PATH", "")

    def tuner(self, *words: str, status: int = 0) -> str:
        done = self.popen(*words)
        text = done.communicate(timeout=60)[0].decode()
        assert done.returncode == status, text
        return text

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        """Started; each program gives way to the next, so that its id is the tool's own."""
        mounted = f'mount -t tmpfs none /var/lib && mount --bind {self.run_directory} /run && exec "$@"'
        inside = ("ip", "netns", "exec", self.namespace.name, "unshare", "--mount", "sh", "-c", mounted, "sh")
        code = "from libvirt_tuner.cli import main; main()"
        return subprocess.Popen(
            (*inside, sys.executable, "-c", code, "testbed", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": self.path, "PYTHONPATH": str(ROOT)},
        )

    def up(self, *words: str, status: int = 0) -> str:
        return self.tuner("up", "--role", self.role, *(words or VXLAN), status=status)

    def seen(self) -> str:
        name = self.namespace.name
        texts = [
            subprocess.run(("ip", "-netns", name, *words[1:]), capture_output=True, text=True).stdout
            for words in WATCHED
        ]
        return "\n".join(texts)

    def settled(self) -> str:
        """As :meth:`seen`, once nothing changes any more: duplicates are looked for, carriers come."""
        deadline = time.monotonic() + 8
        before = ""
        while time.monotonic() < deadline:
            now = self.seen()
            if now == before and "tentative" not in now:
                return now
            before = now
            time.sleep(0.3)
        return before


@pytest.fixture
def ends(pair: Pair, tmp_path: Path) -> tuple[End, End]:
    pair.a.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", pair.b.name)
    made = []
    for namespace, role in zip((pair.a, pair.b), ROLES, strict=True):
        directory = tmp_path / role
        directory.mkdir()
        made.append(End(namespace, directory, role))
    return made[0], made[1]


def ping(end: End, address: str, size: int) -> bool:
    command = ("ip", "netns", "exec", end.namespace.name, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2")
    done = subprocess.run(
        (*command, "-M", "do", "-s", str(size - 28), address), capture_output=True, text=True
    )
    return bool(re.search(r" 0% packet loss", done.stdout))


def test_both_ends_up_ping_crosses_and_nothing_is_left_behind(ends: tuple[End, End]) -> None:
    before = [end.settled() for end in ends]
    for number, end in enumerate(ends, start=1):
        assert "type vxlan id 100" in end.up()
        end.namespace.ip("address", "add", f"10.88.0.{number}/24", "dev", "vx0")
    assert ping(ends[0], "10.88.0.2", 1450)
    assert not ping(ends[0], "10.88.0.2", 1451)
    for end in ends:
        end.tuner("down")
    assert [end.settled() for end in ends] == before
    assert not list(ends[0].run_directory.glob("libvirt-tuner/*.json"))


def test_over_ipv6_on_jumbo_frames(ends: tuple[End, End]) -> None:
    before = [end.settled() for end in ends]
    options = (*VXLAN, "--mtu", "9000", "--server", "fd00::1/64", "--client", "fd00::2/64")
    for end in ends:
        end.up(*options)
    assert ends[0].namespace.mtu("vx0") == 8930
    # Sent at once: an address that still looked for duplicates would not be used.
    for number, end in enumerate(ends, start=1):
        end.namespace.ip("address", "add", f"10.88.0.{number}/24", "dev", "vx0")
    assert ping(ends[0], "10.88.0.2", 8930)
    for end in ends:
        end.tuner("down")
    assert [end.settled() for end in ends] == before


def test_twice_is_once_and_what_was_taken_away_is_made_again(ends: tuple[End, End]) -> None:
    end = ends[0]
    before = end.settled()
    end.up()
    assert "nothing to do" in end.up()
    end.namespace.ip("link", "delete", "vx0")
    assert "Missing" in end.tuner("show", status=1)
    assert "link add name vx0" in end.up()
    end.namespace.ip("link", "set", "vx0", "mtu", 1000)
    assert "link set dev vx0 mtu 1450" in end.up()
    end.tuner("down")
    assert end.settled() == before
    assert "nothing to do" in end.tuner("down")


def test_other_settings_while_it_is_up(ends: tuple[End, End]) -> None:
    ends[0].up()
    assert "vni 7, not 100" in ends[0].up(*VXLAN, "--vni", "7", status=1)


def test_port_that_was_up_with_an_address_stays_so(ends: tuple[End, End]) -> None:
    end = ends[0]
    for one in ends:
        one.namespace.ip("link", "set", "cable", "mtu", 1400, "up")
    end.namespace.ip("address", "add", "10.5.0.1/24", "dev", "cable")
    end.namespace.ip("route", "add", "default", "via", "10.5.0.9", "metric", 7)
    before = end.settled()
    said = end.up(status=1)
    assert "cable: is in use: carries the default route, has the address 10.5.0.1/24" in said
    assert end.settled() == before
    end.up(*VXLAN, "--mtu", "1500", "--force")
    assert end.namespace.mtu("cable") == 1500
    end.tuner("down")
    assert end.settled() == before


def test_its_own_address_that_was_there_stays(ends: tuple[End, End]) -> None:
    end = ends[0]
    end.namespace.ip("address", "add", "192.168.1.1/24", "dev", "cable")
    before = end.settled()
    end.up()
    end.tuner("down")
    assert end.settled() == before


def test_network_that_is_somewhere_else(ends: tuple[End, End]) -> None:
    end = ends[0]
    end.namespace.ip("link", "add", "lan", "type", "bridge")
    end.namespace.ip("address", "add", "192.168.1.77/25", "dev", "lan")
    assert "lan has an address in this network" in end.up(status=1)


def test_name_that_is_taken_is_left_alone(ends: tuple[End, End]) -> None:
    end = ends[0]
    end.namespace.ip("link", "add", "vx0", "type", "bridge")
    before = end.settled()
    assert "link vx0: the link exists already" in end.up(status=1)
    end.tuner("down")
    assert end.settled() == before


def test_device_that_took_the_place_of_ours_is_left_alone(ends: tuple[End, End]) -> None:
    end = ends[0]
    end.up()
    end.namespace.ip("link", "delete", "vx0")
    end.namespace.ip("link", "add", "vx0", "type", "vxlan", "id", 5, "remote", "10.9.9.9", "dstport", 4789)
    assert "replaced the testbed's" in end.up(status=1)
    end.tuner("down")
    assert "id 5" in end.namespace.ip("-details", "link", "show", "dev", "vx0")


def test_what_is_attached_to_the_tunnel_holds_it(ends: tuple[End, End]) -> None:
    end = ends[0]
    end.up()
    end.namespace.ip("link", "add", "br0", "type", "bridge")
    end.namespace.ip("link", "set", "vx0", "master", "br0")
    assert "vx0: is in use by br0" in end.tuner("down", status=1)
    end.tuner("down", "--force")


def test_killed_at_any_moment_down_undoes_it(ends: tuple[End, End]) -> None:
    end = ends[0]
    before = end.settled()
    journal = end.run_directory / "libvirt-tuner" / "testbed.json"
    for begun in range(5):
        started = end.popen("up", "--role", end.role, *VXLAN)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if journal.exists() and len(json.loads(journal.read_text())["begun"]) >= begun:
                break
        started.kill()
        started.communicate(timeout=10)
        end.tuner("down")
        assert end.settled() == before


KERNEL = ("--bond", "none", "--tunnel", "vxlan", "--name", "vx0", "--crypto", "kernel", "--device", "cable")


def test_keys_are_in_no_argument_and_no_message(ends: tuple[End, End], tmp_path: Path) -> None:
    log, real = tmp_path / "log", shutil.which("ip")
    spy = tmp_path / "ip"
    spy.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    spy.chmod(0o755)
    keys = tmp_path / "keys"
    end = evolve(ends[0], path=f"{tmp_path}:{ends[0].path}")
    process = end.popen("up", "--role", end.role, *KERNEL, "--keys", str(keys), "--make-keys")
    said = process.communicate(timeout=60)[0].decode()
    assert keys.stat().st_mode & 0o777 == 0o600
    assert "-batch -" in log.read_text()
    digits = [line.split()[1][2:] for line in keys.read_text().splitlines()[1:]]
    journal = end.run_directory / "libvirt-tuner" / "testbed.json"
    texts = [log.read_text(), said, journal.read_text() if journal.exists() else ""]
    assert not [key for key in digits for text in texts if key in text]


def has_esp(end: End) -> bool:
    line = f"xfrm state add src ::1 dst ::2 proto esp spi 9 aead rfc4106(gcm(aes)) 0x{'1' * 40} 128\n"
    command = ("ip", "-netns", end.namespace.name, "-batch", "-")
    return not subprocess.run(command, input=line, capture_output=True, text=True).returncode


def test_failed_step_is_undone_and_names_the_module(ends: tuple[End, End], tmp_path: Path) -> None:
    end = ends[0]
    if has_esp(end):
        pytest.skip("this kernel has ESP: tests/lab has that scenario")
    before = end.settled()
    said = end.up(*KERNEL, "--keys", str(tmp_path / "keys"), "--make-keys", status=1)
    assert "state 300001: this kernel does not support it: " in said
    assert "esp4 and gcm (CONFIG_INET_ESP, CONFIG_CRYPTO_GCM)" in said
    assert end.settled() == before
    assert not list(end.run_directory.glob("libvirt-tuner/*.json"))


def test_missing_device(ends: tuple[End, End]) -> None:
    said = ends[0].up("--device", "p9", "--device", "cable", "--crypto", "none", status=1)
    assert said == "Error: p9: no such device, expected a device that 'ip link' shows\n"


def test_config_file(ends: tuple[End, End], tmp_path: Path) -> None:
    file = tmp_path / "testbed.toml"
    file.write_text('[testbed]\nrole = "client"\ndevices = ["cable"]\nbond = "none"\ntunnel = "vxlan"\n')
    options = ("up", "--config", str(file), "--crypto", "none", "--dry-run")
    assert "address replace 192.168.1.2/24 dev cable" in ends[1].tuner(*options)
    assert "address replace 192.168.1.1/24 dev cable" in ends[0].tuner(*options, "--role", "server")
    assert not list(ends[0].run_directory.iterdir())
    file.write_text("[testbed]\nvnu = 1\n")
    assert f"Error: {file}:2: unknown key: got 'vnu'" in ends[0].tuner(*options, status=1)
    said = ends[0].tuner("up", "--config", str(tmp_path / "none"), status=1)
    assert said == f"Error: {tmp_path}/none: No such file or directory\n"
    assert "the role of this host is not set" in ends[0].tuner("up", *VXLAN, status=1)


def test_show(ends: tuple[End, End]) -> None:
    end = ends[0]
    assert "no testbed is up" in end.tuner("show", status=1)
    end.up()
    text = end.tuner("show")
    assert "vx0 (vni 100, 192.168.1.2) > cable" in text
    assert "1450: cable carries 1500" in text
    told = json.loads(end.tuner("show", "--json"))
    assert told["mtus"] == {"vx0": 1450, "cable": 1500}
    assert set(told) == sections()["testbed show"]


def test_up_as_json(ends: tuple[End, End]) -> None:
    told = json.loads(ends[0].up(*VXLAN, "--dry-run", "--json"))
    assert set(told) == sections()["testbed up"]
    assert told["steps"]
