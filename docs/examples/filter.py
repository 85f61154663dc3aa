"""A filter between two virsh commands that sets a larger receive ring and pins the emulator.

virsh dumpxml web --inactive --security-info | python filter.py 16,18 | virsh define /dev/stdin
"""

from __future__ import annotations

import sys

from libvirt_tuner import TunerError, compose
from libvirt_tuner.transforms import emulatorpin, rx_queue_size


def main() -> int:
    """Return the exit status: 1 if the document is refused. Then nothing is printed."""
    cpus = frozenset(int(cpu) for cpu in sys.argv[1].split(","))
    try:
        tuned = compose(emulatorpin(cpus), rx_queue_size(1024))(sys.stdin.buffer.read())
    except TunerError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(tuned)
    return 0


if __name__ == "__main__":
    sys.exit(main())
