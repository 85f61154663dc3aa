"""What libvirt does with <mtu> on the host's side, and what sets the bridge right again."""

from __future__ import annotations

import json

from tests.libvirtd import domains
from tests.libvirtd.daemon import PrivateDaemon

GUEST = 1416


def mtu(daemon: PrivateDaemon, device: str) -> int:
    shown = daemon.run(["ip", "-json", "link", "show", "dev", device]).stdout
    return int(json.loads(shown)[0]["mtu"])


def test_smaller_mtu_pulls_the_bridge_down_until_the_tap_goes_back(daemon: PrivateDaemon) -> None:
    before = mtu(daemon, "br0")
    asked = domains.bridge("br0").replace("</interface>", f"<mtu size='{GUEST}'/></interface>")
    daemon.define(domains.diskless("web", asked))
    daemon.virsh("start", "web")
    tap = daemon.virsh("domiflist", "web").split()[0]
    assert (mtu(daemon, tap), mtu(daemon, "br0")) == (GUEST, GUEST)
    daemon.run(["ip", "link", "set", tap, "mtu", str(before)])
    assert mtu(daemon, "br0") == before
    assert f"<mtu size='{GUEST}'/>" in daemon.virsh("dumpxml", "web")


def test_taps_made_meanwhile_start_with_the_bridges_mtu(daemon: PrivateDaemon) -> None:
    asked = domains.bridge("br0").replace("</interface>", f"<mtu size='{GUEST}'/></interface>")
    daemon.define(domains.diskless("web", asked))
    daemon.define(domains.diskless("db"))
    daemon.virsh("start", "web")
    daemon.virsh("start", "db")
    assert mtu(daemon, daemon.virsh("domiflist", "db").split()[0]) == GUEST
