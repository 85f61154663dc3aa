"""Many domains that start at once, with the policy's own default."""

from __future__ import annotations

import json
from typing import Any

from libvirt_tuner import cpuset
from tests.libvirtd import domains, nic_replay
from tests.libvirtd.daemon import PrivateDaemon
from tests.libvirtd.tuner import install

MANY = 64


def ledger(daemon: PrivateDaemon) -> dict[str, Any]:
    return dict(json.loads(daemon.read("/run/libvirt-tuner/ledger.json")))


def test_all_start_and_give_everything_back(daemon: PrivateDaemon) -> None:
    install(daemon)
    names = [f"web-{number}" for number in range(MANY)]
    for name in names:
        daemon.write(f"/run/many/{name}.xml", domains.diskless(name, domains.bridge("br1"), memory_mib=16))
    daemon.run("set -e; " + "; ".join(f"virsh -q define /run/many/{name}.xml" for name in names), timeout=120)
    # Paused, as firmware that looks for something to boot is no part of this.
    daemon.run("".join(f"virsh -q start --paused {name} & " for name in names) + "wait", timeout=300)
    assert {daemon.state(name) for name in names} == {"paused"}

    daemon.wait_for(lambda: len(ledger(daemon)["claims"]) == MANY, "a claim for each", seconds=120)
    claims = ledger(daemon)["claims"].values()
    owned = [claim for claim in claims if claim["plan"]["placement"] == "dedicated"]
    held = [cpu for claim in owned for cpu in cpuset.parse(claim["vcpus"] or "")]
    assert len(held) == len(set(held)), "no CPU is in two dedicated placements"

    daemon.run("".join(f"virsh -q destroy {name} & " for name in names) + "wait", timeout=300)
    daemon.wait_for(lambda: not ledger(daemon)["claims"], "every claim to be given back", seconds=60)
    assert ledger(daemon)["changes"] == []
    assert {daemon.irq(irq) for irq in nic_replay.IRQS} == {daemon.online}
