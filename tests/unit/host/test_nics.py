"""Network devices and their interrupts, on hosts described in tests/hosts.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import DeniedError, MissingError, RejectedError
from libvirt_tuner.host import nics
from libvirt_tuner.host.nics import function_node, irqs, is_hardware
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import NO_CPUS, QueueMask
from tests import hosts
from tests.unit.trees import put, small_host


def host(name: str) -> Sysfs:
    return Sysfs(str(hosts.FIXTURES / name))


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_names_that_are_no_names(name: str) -> None:
    for use in (nics.nic, is_hardware, irqs, function_node):
        with pytest.raises(RejectedError):
            use(host("laptop"), name)


def test_a_driver_link_that_leads_out_is_only_a_name_and_a_device_link_is_refused(tmp_path: Path) -> None:
    hosts.make("small-8", tmp_path / "host")
    device = tmp_path / "host/sys/devices/pci0000:10/0000:10:00.0/net/ens1np0/device"
    device.unlink()
    device.symlink_to("/etc")
    with pytest.raises(DeniedError):
        nics.nic(Sysfs(str(tmp_path / "host")), "ens1np0")


def test_the_ports_of_the_seed() -> None:
    found = nics.nics(host("seed"))
    assert list(found) == ["enp23s0f0np0", "enp23s0f1np1"]
    active = found["enp23s0f0np0"]
    assert (active.address, active.node, active.driver) == ("0000:17:00.0", 0, "mlx5_core")
    assert [irq.number for irq in active.irqs] == list(range(213, 230))
    by_number = {irq.number: irq for irq in active.irqs}
    assert by_number[213].action == "mlx5_async0@pci:0000:17:00.0"
    assert by_number[229].action == "mlx5_comp15@pci:0000:17:00.0"
    assert by_number[229].effective == {1}
    assert by_number[221].effective == {14}
    assert by_number[229].affinity == frozenset(range(32))


def test_usb_has_no_address_and_no_interrupts() -> None:
    nic = nics.nic(host("laptop"), "enp0s20f0u1")
    assert (nic.address, nic.node, nic.driver, nic.irqs) == ("", None, "r8152", ())


def test_the_pci_function_of_virtio_is_its_parent(tmp_path: Path) -> None:
    irq = hosts.IrqLine(37, "virtio2-input.0", "0-3", "1")
    port = hosts.Port("eth0", "0000:00:03.0", "virtio_net", 1, (irq,), bus="virtio", below="virtio2")
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(port,))), tmp_path)
    nic = nics.nic(Sysfs(str(tmp_path)), "eth0")
    assert (nic.address, nic.node, nic.driver) == ("0000:00:03.0", 1, "virtio_net")
    assert [(irq.number, irq.action, sorted(irq.effective)) for irq in nic.irqs] == [
        (37, "virtio2-input.0", [1])
    ]


@pytest.mark.parametrize(
    ("own", "numbers"),
    [
        pytest.param(True, [41], id="its own interrupts, since Linux 6.11"),
        pytest.param(False, [40], id="before: those of the function"),
    ],
)
def test_subfunction_is_on_its_function(tmp_path: Path, own: bool, numbers: list[int]) -> None:
    irq = hosts.IrqLine(40, "mlx5_comp0@pci:0000:03:00.0", "0-3", "1")
    place = {"bus": "auxiliary", "below": "mlx5_core.sf.4"}
    port = hosts.Port("p0s1", "0000:03:00.0", "mlx5_core.sf", 1, (irq,), **place)  # type: ignore[arg-type]
    tree = hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(port,)))
    if own:
        tree["/sys/devices/pci0000:03/0000:03:00.0/mlx5_core.sf.4/irqs/41"] = ""
    tree["/sys/devices/pci0000:03/0000:03:00.0/mlx5_core.sf.4/net/p0s1/threaded"] = "1"
    hosts.write(tree, tmp_path)
    nic = nics.nic(Sysfs(str(tmp_path)), "p0s1")
    assert (nic.address, nic.node, nic.threaded) == ("0000:03:00.0", 1, True)
    assert [irq.number for irq in nic.irqs] == numbers


def test_virtual_and_missing_devices_are_no_nics() -> None:
    assert nics.nics(host("laptop"), ["virbr0", "nothing", "network:default", "/dev/vhost-vdpa-0"]) == {}
    assert not is_hardware(host("laptop"), "virbr0")
    with pytest.raises(MissingError):
        nics.nic(host("laptop"), "virbr0")


def test_a_function_without_network_device() -> None:
    found = nics.nics(host("seed"), ["0000:17:00.1", "0000:ff:00.0"])
    assert list(found) == ["0000:17:00.1"]
    assert (found["0000:17:00.1"].node, len(found["0000:17:00.1"].irqs)) == (0, 17)


def test_sr_iov(tmp_path: Path) -> None:
    pf = hosts.Port("ens1", "0000:17:00.0", "ice", 1)
    vf = hosts.Port("ens1v0", "0000:17:01.0", "iavf", 1, physfn="0000:17:00.0")
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(pf, vf))), tmp_path)
    sysfs = Sysfs(str(tmp_path))
    assert function_node(sysfs, "0000:17:01.0") == 1
    put(tmp_path, "sys/bus/pci/devices/0000:17:01.0/numa_node", "-1")
    assert function_node(sysfs, "0000:17:01.0") == 1, "the physical function's"
    with pytest.raises(MissingError):
        function_node(sysfs, "0000:99:00.0")


def test_a_legacy_interrupt_and_an_action_from_procfs(tmp_path: Path) -> None:
    port = hosts.Port("ens1", "0000:17:00.0", "8139cp", 0)
    hosts.write(hosts.build(hosts.Host({0: hosts.Node("0-3")}, ports=(port,))), tmp_path)
    put(tmp_path, "sys/bus/pci/devices/0000:17:00.0/irq", "11")
    assert nics.nic(Sysfs(str(tmp_path)), "ens1").irqs == ()
    put(tmp_path, "proc/irq/11/smp_affinity_list", "0-3")
    (tmp_path / "proc/irq/11/ens1").mkdir()
    (irq,) = nics.nic(Sysfs(str(tmp_path)), "ens1").irqs
    assert (irq.number, irq.action, irq.effective) == (11, "ens1", NO_CPUS)
    assert irq.affinity == {0, 1, 2, 3}


def test_queue_masks(tmp_path: Path) -> None:
    base = "sys__class__net__ens1np0__queues"
    files = {f"{base}__rx-10__rps_cpus": "ff", f"{base}__rx-2__rps_cpus": "0", f"{base}__tx-0__none": ""}
    assert nics.queue_masks(small_host(tmp_path, **files), "ens1np0") == (
        QueueMask("ens1np0", "rx-2"),
        QueueMask("ens1np0", "rx-10", frozenset(range(8))),
    )
