"""Your own transform, ``<driver iommu='on'>``, composed and recorded with one of the package.

python own_transform.py < in.xml > out.xml; python own_transform.py --revert < out.xml
"""

from __future__ import annotations

import sys

from libvirt_tuner import Transform, recorded, revert
from libvirt_tuner.transforms import emulatorpin, nic_setting


def iommu(value: str | None, *, mac: str | None = None) -> Transform:
    """Let virtio NICs use the guest's IOMMU: ``on`` or ``off``. None removes the setting."""
    return nic_setting("iommu", "driver", "iommu", value, mac=mac)


def main() -> None:
    """Tune standard input, or revert it."""
    xml = sys.stdin.buffer.read()
    if "--revert" in sys.argv:
        result = revert(xml, others=[iommu(None)])
    else:
        result = recorded(xml, emulatorpin({16, 18}), iommu("on"))
    sys.stdout.buffer.write(result)


if __name__ == "__main__":
    main()
