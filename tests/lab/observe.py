"""What virsh, the kernel and the tool itself say of a hypervisor."""

from __future__ import annotations

import json
from typing import Any

from .hypervisor import Hypervisor

UNIT = "libvirt-tuner.service"


def pins(hypervisor: Hypervisor, command: str) -> dict[str, str]:
    """The table that ``virsh vcpupin`` or ``emulatorpin`` prints: vCPU (``*``) to cpulist."""
    lines = hypervisor.output(f"virsh {command}").splitlines()[2:]
    found = (
        line.partition(":") if ":" in line else line.strip().partition(" ") for line in lines if line.strip()
    )
    return {name.strip(): cpus.strip() for name, _, cpus in found}


def irqs(hypervisor: Hypervisor, nic: str) -> dict[int, str]:
    """The MSI-X interrupts of a virtio NIC by number, with the kernel's name of each ("": not requested)."""
    function = f"$(realpath /sys/class/net/{nic}/device/..)"
    listed = hypervisor.output(
        f"for i in $(ls {function}/msi_irqs); do echo $i $(cat /sys/kernel/irq/$i/actions); done"
    )
    return {
        int(number): action for number, _, action in (line.partition(" ") for line in listed.splitlines())
    }


def queue_irqs(hypervisor: Hypervisor, nic: str) -> list[int]:
    """Those that carry packets."""
    return [irq for irq, action in irqs(hypervisor, nic).items() if "put." in action]


def irq_cpus(hypervisor: Hypervisor, nic: str) -> dict[int, str]:
    """Where each interrupt of a NIC may go."""
    numbers = irqs(hypervisor, nic)
    files = " ".join(f"/proc/irq/{number}/smp_affinity_list" for number in numbers)
    return dict(zip(numbers, hypervisor.output(f"cat {files}").split(), strict=True))


def assert_as_planned(hypervisor: Hypervisor, domain: str) -> None:
    """``libvirt-tuner status`` finds nothing that differs from the plan."""
    answer = hypervisor.run(f"libvirt-tuner status --json {domain}", check=False)
    rows = json.loads(answer.stdout)[domain]
    assert [row for row in rows if not row["ok"]] == []
    assert answer.status == 0


def ledger(hypervisor: Hypervisor) -> dict[str, Any]:
    """What the tool has noted down: ``claims``, ``changes`` and ``bans``."""
    noted: dict[str, Any] = json.loads(hypervisor.read("/run/libvirt-tuner/ledger.json"))
    return noted


def nothing_held(hypervisor: Hypervisor) -> bool:
    """Whether no domain has a claim, and no change and no ban stands."""
    noted = ledger(hypervisor)
    return not (noted["claims"] or noted["changes"] or noted["bans"])


def tuner_log(hypervisor: Hypervisor) -> str:
    """What the hook, settle and the service wrote to the system log."""
    return hypervisor.output(
        f"journalctl -q --no-pager -o cat SYSLOG_IDENTIFIER=libvirt-tuner + _SYSTEMD_UNIT={UNIT}"
    )
