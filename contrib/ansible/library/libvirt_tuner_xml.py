#!/usr/bin/python3
"""An Ansible module that tunes a domain document in a file, or reverts it.

- libvirt_tuner_xml:
    path: /srv/domains/web.xml
    emulatorpin: "16,18"
    rx_queue_size: 1024
    state: present

``state: absent`` reverts. Check mode is supported. The word WANT_JSON makes Ansible pass the arguments in a
file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from libvirt_tuner import Transform, TunerError, recorded, revert
from libvirt_tuner.transforms import emulatorpin, rx_queue_size


def transforms(arguments: dict[str, Any]) -> list[Transform]:
    """What the task asks for."""
    wanted = []
    if arguments.get("emulatorpin"):
        wanted.append(emulatorpin({int(cpu) for cpu in str(arguments["emulatorpin"]).split(",")}))
    if arguments.get("rx_queue_size"):
        wanted.append(rx_queue_size(int(arguments["rx_queue_size"])))
    return wanted


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """The module's result."""
    path = Path(arguments["path"])
    before = path.read_text()
    present = arguments.get("state", "present") == "present"
    after = recorded(before, *transforms(arguments)) if present else revert(before)
    if after != before and not arguments.get("_ansible_check_mode"):
        path.write_text(after)
    return {"changed": after != before, "diff": {"before": before, "after": after}}


def main() -> int:
    """The exit status; the result is printed as JSON."""
    try:
        result = run(json.loads(Path(sys.argv[1]).read_text()))
    except (KeyError, OSError, ValueError, TunerError) as error:
        result = {"failed": True, "msg": str(error)}
    print(json.dumps(result))
    return int("failed" in result)


if __name__ == "__main__":
    sys.exit(main())
