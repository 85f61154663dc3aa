"""Domain documents as a user would write them: no pins, nothing tuned."""

from __future__ import annotations


def bridge(name: str = "br0", *, model: str = "virtio") -> str:
    """A vNIC on a Linux bridge."""
    return f"<interface type='bridge'><source bridge='{name}'/><model type='{model}'/></interface>"


def direct(device: str = "enp23s0f1np1") -> str:
    """A vNIC as a macvtap on a network device."""
    source = f"<source dev='{device}' mode='bridge'/>"
    return f"<interface type='direct'>{source}<model type='virtio'/></interface>"


def diskless(
    name: str, *vnics: str, vcpus: int = 1, memory_mib: int = 64, extra: str = "", tune: str = ""
) -> str:
    """A q35 domain of type ``qemu`` without disks: its firmware finds nothing to boot, and idles.

    Args:
        name: Domain name.
        vnics: ``<interface>`` elements; one on br0 by default.
        vcpus: Number of vCPUs.
        memory_mib: Memory.
        extra: Further children of ``<devices>``.
        tune: Further children of ``<domain>``, before ``<os>``.
    """
    return f"""\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>{vcpus}</vcpu>
  {tune}
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {"".join(vnics or (bridge(),))}
    <serial type='null'/>
    <memballoon model='none'/>
    {extra}
  </devices>
</domain>
"""
