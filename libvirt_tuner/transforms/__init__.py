"""Transforms of domain XML, one file each. Imports only lxml and attrs.

Each factory returns a :class:`Transform`. It changes bytes, str or an element, describes itself, and says
whether it may run on migrate and restore. :func:`compose` combines several into one.
"""

from __future__ import annotations

from libvirt_tuner.transforms import (
    emulatorpin as _emulatorpin,
)
from libvirt_tuner.transforms import (
    host_mtu as _host_mtu,
)
from libvirt_tuner.transforms import (
    iothreadpin as _iothreadpin,
)
from libvirt_tuner.transforms import (
    mtu as _mtu,
)
from libvirt_tuner.transforms import (
    numatune as _numatune,
)
from libvirt_tuner.transforms import (
    poll_us as _poll_us,
)
from libvirt_tuner.transforms import (
    queues as _queues,
)
from libvirt_tuner.transforms import (
    rx_queue_size as _rx_queue_size,
)
from libvirt_tuner.transforms import (
    tx_queue_size as _tx_queue_size,
)
from libvirt_tuner.transforms import (
    vcpupin as _vcpupin,
)
from libvirt_tuner.transforms._transform import (
    Chain,
    Change,
    Recordable,
    Store,
    Transform,
    compose,
    rewritten,
)
from libvirt_tuner.transforms.shapes import domain_setting, nic_setting, only_virtio, pin_setting

# Where each setting is read and written, in the order in which a plan's transforms run; they are taken back
# in the reverse of it.
STORES: dict[str, Store] = {
    "vcpupin": _vcpupin.STORE,
    "emulatorpin": _emulatorpin.STORE,
    "iothreadpin": _iothreadpin.STORE,
    "numatune": _numatune.STORE,
    "rx_queue_size": _rx_queue_size.STORE,
    "tx_queue_size": _tx_queue_size.STORE,
    "queues": _queues.STORE,
    "mtu": _mtu.STORE,
    "host_mtu": _host_mtu.STORE,
    "poll_us": _poll_us.STORE,
}
ORDER = tuple(STORES)

# After the imports above, which leave the modules under these names.
vcpupin = _vcpupin.vcpupin
emulatorpin = _emulatorpin.emulatorpin
iothreadpin = _iothreadpin.iothreadpin
numatune = _numatune.numatune
rx_queue_size = _rx_queue_size.rx_queue_size
tx_queue_size = _tx_queue_size.tx_queue_size
queues = _queues.queues
mtu = _mtu.mtu
host_mtu = _host_mtu.host_mtu
poll_us = _poll_us.poll_us

__all__ = [
    "ORDER",
    "STORES",
    "Chain",
    "Change",
    "Recordable",
    "Store",
    "Transform",
    "compose",
    "domain_setting",
    "emulatorpin",
    "host_mtu",
    "iothreadpin",
    "mtu",
    "nic_setting",
    "numatune",
    "only_virtio",
    "pin_setting",
    "poll_us",
    "queues",
    "rewritten",
    "rx_queue_size",
    "tx_queue_size",
    "vcpupin",
]
