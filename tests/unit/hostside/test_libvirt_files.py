"""What libvirt says of a running domain in its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.hostside import holding, libvirt_files
from tests.unit.replay import ON_TUNNEL, Domain, Replay


@pytest.fixture
def host(tmp_path: Path) -> Replay:
    return Replay.make(tmp_path)


class TestLiveDocument:
    @pytest.mark.parametrize(
        ("vnic", "expected"),
        [
            pytest.param(ON_TUNNEL, ("direct", "geneve0"), id="as it stands"),
            pytest.param(
                "<interface type='network'><source network='lan' portid='1'/>"
                "<actual type='bridge'><source bridge='br0'/></actual><model type='virtio'/></interface>",
                ("bridge", "br0"),
                id="network with a bridge",
            ),
            pytest.param(
                "<interface type='network'><source network='pool'/>"
                "<actual type='direct'><source dev='bond0' mode='bridge'/></actual></interface>",
                ("direct", "bond0"),
                id="network with a pool of devices",
            ),
            pytest.param(
                "<interface type='network'><source network='vfs'/><actual type='hostdev' managed='yes'>"
                "<source><address type='pci' domain='0x0000' bus='0x17' slot='0x01' function='0x2'/>"
                "</source></actual></interface>",
                ("hostdev", "0000:17:01.2"),
                id="network with a pool of functions",
            ),
        ],
    )
    def test_interface_is_what_its_network_made_of_it(
        self, host: Replay, vnic: str, expected: tuple[str, str]
    ) -> None:
        domain = Domain("web", 1, vnics=vnic)
        host.run(domain)
        document = libvirt_files.live_document(host.sysfs, "web", domain.uuid)
        (found,) = holding.read_request(host.sysfs, document).spec.vnics
        assert (found.type, found.source) == expected
