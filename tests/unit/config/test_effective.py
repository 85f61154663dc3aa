"""Each setting with the layer that it comes from."""

from __future__ import annotations

import pytest
from lxml import etree

from libvirt_tuner.config import policy
from libvirt_tuner.config.effective import effective
from libvirt_tuner.domainxml.metadata import POLICY_NS

CONFIG = """\
[policy]
placement = "shared"
mtu = 1400

[[domain]]
match = "web-*"
mtu = 1300

[[domain]]
match = "*-1"
irq = "keep"
"""


@pytest.mark.parametrize(
    ("name", "attributes", "origins"),
    [
        pytest.param("db", "", {"placement": "[policy]", "mtu": "[policy]"}, id="all domains"),
        pytest.param("web-2", "", {"placement": "[policy]", "mtu": "[[domain]] web-*"}, id="one pattern"),
        pytest.param(
            "web-1",
            "mtu='1200' uplink='eth0'",
            {"placement": "[policy]", "mtu": "metadata", "irq": "[[domain]] *-1"},
            id="metadata, but not what it may not set",
        ),
        pytest.param("db", "mtu='1'", {"placement": "[policy]", "mtu": "[policy]"}, id="bad metadata"),
    ],
)
def test_the_layer_that_wins_is_named(name: str, attributes: str, origins: dict[str, str]) -> None:
    element = etree.fromstring(f"<policy xmlns='{POLICY_NS}' {attributes}/>")
    found = effective(name, policy.load(CONFIG), element)
    assert found.origins == origins
    expected, problems = policy.resolve(name, CONFIG, element)
    assert (found.policy, list(map(str, found.problems))) == (expected, list(map(str, problems)))


def test_without_layers_everything_is_built_in() -> None:
    found = effective("web-1", policy.Config(), None)
    assert (found.policy, found.origins, found.problems) == (policy.Policy(), {}, ())
