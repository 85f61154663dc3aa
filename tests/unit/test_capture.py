"""Hosts written down and replayed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner import capture as capture_module
from libvirt_tuner.capture import Recorder, capture
from libvirt_tuner.errors import HostError, MissingError, RejectedError
from libvirt_tuner.host import commands, probe
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostcheck import survey
from libvirt_tuner.hostside.ledger import Ledger
from libvirt_tuner.topology import HostTopology
from tests import hosts
from tests.unit.trees import small_host

SMALL = str(hosts.FIXTURES / "small-8")


def test_refuses_a_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RejectedError, match="not empty"):
        capture(Sysfs(SMALL), str(tmp_path))
    assert os.listdir(tmp_path) == ["mine"]


def test_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RejectedError, match="not a directory"):
        capture(Sysfs(SMALL), str(tmp_path / "file"))


def test_writes_nothing_when_the_host_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    with pytest.raises(MissingError):
        capture(Sysfs(str(tmp_path / "host")), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_target_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        capture(Sysfs(SMALL), str(tmp_path / "file" / "below"))


def test_an_empty_directory_and_a_new_one_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    written = capture(Sysfs(SMALL), str(tmp_path / "empty"))
    assert capture(Sysfs(SMALL), str(tmp_path / "a" / "b")) == written
    assert len(hosts.read(tmp_path / "empty")) == written


@pytest.mark.parametrize("name", list(hosts.HOSTS))
def test_fixture_hosts_are_what_their_description_says(name: str) -> None:
    assert hosts.read(hosts.FIXTURES / name) == hosts.build(hosts.HOSTS[name]())


@pytest.mark.parametrize("name", list(hosts.HOSTS))
def test_capturing_a_captured_host_gives_the_same_tree(name: str, tmp_path: Path) -> None:
    capture(Sysfs(str(hosts.FIXTURES / name)), str(tmp_path / "again"))
    assert hosts.read(tmp_path / "again") == hosts.read(hosts.FIXTURES / name)


def test_virtual_function_without_network_device_is_captured(tmp_path: Path) -> None:
    host, address = Sysfs(str(hosts.FIXTURES / "vf")), "0000:5e:00.2"
    capture(host, str(tmp_path / "again"))
    before, after = (probe.topology(root, [address]) for root in (host, Sysfs(str(tmp_path / "again"))))
    assert after.nics[address].node == 1
    assert after == before


def without_memory(topology: HostTopology) -> HostTopology:
    """Memory changes from one reading to the next."""
    return evolve(topology, cells=tuple(evolve(cell, free_kib=0, memory_kib=0) for cell in topology.cells))


def test_this_machine_replays_to_the_same_topology(tmp_path: Path) -> None:
    capture(Sysfs(), str(tmp_path / "host"))
    replayed = probe.topology(Sysfs(str(tmp_path / "host")))
    assert replayed.links
    assert without_memory(replayed) == without_memory(probe.topology(Sysfs()))
    assert all(cell.memory_kib > 0 for cell in replayed.cells)


def test_what_is_in_the_capture_of_this_machine(tmp_path: Path) -> None:
    root = tmp_path / "host"
    capture(Sysfs(), str(root))
    macs = {
        mac
        for name in Sysfs().listdir("/sys/class/net")
        if (mac := Sysfs().read_or(f"/sys/class/net/{name}/address", "")).strip("0:")
    }
    for directory, subdirectories, files in os.walk(root):
        for entry in (Path(directory, name) for name in [*files, *subdirectories]):
            if entry.is_symlink():
                target = os.path.normpath(os.path.join(directory, os.readlink(entry)))
                assert target.startswith(str(root) + "/")
            elif entry.is_file():
                assert stat.S_ISREG(entry.stat().st_mode)
                assert entry.stat().st_size < 65536
                text = entry.read_text()
                assert not [mac for mac in macs if mac in text]


def test_mac_addresses_become_others_and_stay_equal(tmp_path: Path) -> None:
    cleaner = capture_module._Cleaner()
    show = [{"ifname": "a", "address": "52:54:00:AA:bb:cc", "phys_switch_id": "ec0d", "ifalias": "desk 4"}]
    cleaned = json.loads(cleaner.clean("/commands/x", json.dumps(show).encode()))
    assert cleaned == [{"ifname": "a", "address": "02:00:00:00:00:01"}]
    assert cleaner.clean("/commands/y", b"is 52:54:00:aa:bb:cc\n") == b"is 02:00:00:00:00:01\n"
    assert cleaner.clean("/commands/y", b"is 52:54:00:aa:bb:cd\n") == b"is 02:00:00:00:00:02\n"


@pytest.mark.parametrize("text", ["fd00:11:22:33:44:55:66:77", "192.168.1.2", "0000:17:00.0", "fe80::1"])
def test_addresses_that_are_no_mac_stay(text: str) -> None:
    assert capture_module._Cleaner().clean("/commands/x", text.encode()) == text.encode()


def test_no_key_is_ever_written() -> None:
    text = "aead rfc4106(gcm(aes)) 0x00112233445566778899aabbccddeeff00112233 128 spi 0x000493e1(300001)"
    cleaned = capture_module._Cleaner().clean("/commands/x", text.encode())
    assert cleaned == b"aead rfc4106(gcm(aes)) 0x0 128 spi 0x000493e1(300001)"


def test_files_of_sysfs_are_not_touched() -> None:
    data = b"52:54:00:aa:bb:cc\n"
    assert capture_module._Cleaner().clean("/sys/x", data) == data


def test_a_command_that_failed_fails_again(tmp_path: Path) -> None:
    recorder = Recorder()
    argv = ["ip", "link", "show", "dev", "nosuch0"]
    with pytest.raises(HostError) as live:
        recorder.run(recorder, argv)
    assert list(recorder.files) == [f"/commands/{commands.slug(argv)}.failed"]
    capture_module._write(recorder, str(tmp_path / "host"), capture_module._Cleaner())
    with pytest.raises(HostError) as replayed:
        commands.run(Sysfs(str(tmp_path / "host")), argv)
    assert replayed.value.problem == live.value.problem


def test_absolute_links_become_relative(tmp_path: Path) -> None:
    recorder = Recorder()
    assert recorder.readlink("/proc/self/root") == "/"
    (path,) = [path for path in recorder.links if path.endswith("/root")]
    assert recorder.links[path] == "../.."


def test_libvirts_networks_are_captured(tmp_path: Path) -> None:
    source = tmp_path / "source"
    hosts.make("laptop", source)
    networks = source / "etc/libvirt/qemu/networks"
    networks.mkdir(parents=True)
    (networks / "default.xml").write_text(
        "<!-- by virsh --><network><name>default</name><uuid>8f2</uuid><bridge name='virbr0'/>"
        "<mac address='52:54:00:12:34:56'/><ip address='10.1.2.3'><dhcp/></ip></network>"
    )
    capture(Sysfs(str(source)), str(tmp_path / "copy"))
    topology = probe.topology(Sysfs(str(tmp_path / "copy")), ["network:default"])
    assert sorted(topology.links) == ["network:default", "virbr0"]
    copy = (tmp_path / "copy/etc/libvirt/qemu/networks/default.xml").read_text()
    assert copy == "<network><name>default</name><bridge name='virbr0'/></network>".replace("'", '"')


def test_a_network_that_is_no_xml_is_captured_empty() -> None:
    path = "/run/libvirt/network/x.xml"
    assert capture_module._Cleaner().clean(path, b"<network>") == b""


def test_open_vswitch_gives_away_neither_the_host_nor_a_secret() -> None:
    ids = [
        [
            "map",
            [["hostname", "desk4"], ["system-id", "8f2"], ["psk", "s3cret"], ["ovn-encap-ip", "10.0.0.1"]],
        ]
    ]
    cleaned = json.loads(capture_module._Cleaner().clean("/commands/x", json.dumps(ids).encode()))
    assert cleaned == [["map", [["ovn-encap-ip", "10.0.0.1"]]]]


def test_a_program_that_is_not_installed_is_missing_in_the_replay_too(tmp_path: Path) -> None:
    recorder = Recorder()
    argv = ["no-such-program-of-any-host"]
    with pytest.raises(MissingError):
        recorder.run(recorder, argv)
    assert recorder.files == {}
    with pytest.raises(MissingError):
        commands.run(Sysfs(str(tmp_path)), argv)


def test_this_machine_can_be_judged_and_captured(tmp_path: Path) -> None:
    capture(Sysfs(), str(tmp_path / "host"))
    live, replayed = (survey.facts(sysfs) for sysfs in (Sysfs(), Sysfs(str(tmp_path / "host"))))
    assert replayed.isolation == live.isolation
    assert replayed.features == live.features
    assert replayed.host.queues == live.host.queues
    assert (replayed.tuned, replayed.irqbalance is None) == (live.tuned, live.irqbalance is None)


@pytest.mark.parametrize(
    ("path", "text", "kept"),
    [
        pytest.param(
            "/proc/cmdline", "root=UUID=5 secret=x isolcpus=2-3 nohz-full=2 quiet",
            "isolcpus=2-3 nohz-full=2",
            id="kernel line",
        ),
        pytest.param(
            "/etc/default/irqbalance", "# mine\nIRQBALANCE_ARGS=--x\nIRQBALANCE_BANNED_CPUS=c",
            "IRQBALANCE_BANNED_CPUS=c", id="irqbalance",
        ),
        pytest.param("/etc/tuned/x-variables.conf", "a=b\nisolated_cores=2", "isolated_cores=2", id="tuned"),
    ],
)  # fmt: skip
def test_only_what_matters_is_captured_of_settings(path: str, text: str, kept: str) -> None:
    assert capture_module._Cleaner().clean(path, text.encode()).decode() == kept + "\n"


def test_the_ledger_is_not_captured(tmp_path: Path) -> None:
    sysfs = small_host(tmp_path)
    with Ledger(sysfs).locked() as book:
        book.save()
    capture(sysfs, str(tmp_path / "copy"))
    assert not (tmp_path / "copy/run/libvirt-tuner").exists()
    with pytest.raises(MissingError):
        Sysfs(str(tmp_path / "copy")).read("/run/libvirt-tuner/ledger.json")
