"""What a domain's metadata may set against the owner of the host."""

from __future__ import annotations

import pytest
from lxml import etree

from libvirt_tuner.config import policy
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.config.values import AtMost
from libvirt_tuner.domainxml.metadata import POLICY_NS


def resolved(config: str | None, attributes: str) -> tuple[Policy, list[str]]:
    element = etree.fromstring(f"<policy xmlns='{POLICY_NS}' {attributes}/>")
    effective, problems = policy.resolve("web-1", config, element)
    assert {problem.layer for problem in problems} <= {"limits"}
    return effective, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param("placement='dedicated'", Policy(placement="dedicated"), id="placement"),
        pytest.param("rx-queue-size='256'", Policy(rx_queue_size=256), id="receive ring"),
        pytest.param("tx-queue-size='256'", Policy(tx_queue_size=256), id="transmit ring"),
        pytest.param("queues='vcpus'", Policy(queues="vcpus"), id="queues"),
        pytest.param("poll-us='200'", Policy(poll_us=200), id="polling up to the bound"),
        pytest.param("mtu='1500'", Policy(mtu=1500), id="MTU up to the bound"),
        pytest.param("mtu='keep'", Policy(mtu="keep"), id="MTU kept"),
        pytest.param("select='false'", Policy(select=False), id="left alone"),
    ],
)
def test_by_default_metadata_may_set_what_concerns_the_domain_alone(
    attributes: str, expected: Policy
) -> None:
    assert resolved(None, attributes) == (expected, [])


@pytest.mark.parametrize(
    ("config", "attributes", "problem"),
    [
        pytest.param(
            "", "emulator-cpus='5-6'", "emulator-cpus may not be set in metadata", id="CPUs of others"
        ),
        pytest.param("", "emulator-cpus='1024'", "emulator-cpus may not be set", id="a whole node"),
        pytest.param(
            "",
            "housekeeping='9999'",
            "housekeeping can only be set in /etc/libvirt-tuner.toml",
            id="housekeeping",
        ),
        pytest.param("", "settle-seconds='0'", "settle-seconds can only be set in", id="settling time"),
        pytest.param("", "strict='true'", "strict can only be set in", id="strict"),
        pytest.param("", "uplink='eth9'", "uplink may not be set", id="another NIC"),
        pytest.param("[policy]\nirq = 'keep'\n", "irq='steer'", "irq may not be set", id="interrupts"),
        pytest.param("", "rps='steer'", "rps may not be set", id="RPS masks"),
        pytest.param("", "numa-memory='strict'", "numa-memory may not be set", id="memory"),
        pytest.param(
            "[policy]\nselect = false\n", "select='true'", "select may not be set", id="not selected"
        ),
        pytest.param(
            "", "poll-us='201'", "poll-us is over its limit: got 201, expected at most 200", id="polling"
        ),
        pytest.param(
            "",
            "mtu='1501'",
            "mtu is over its limit: got 1501, expected auto, keep or at most 1500 bytes",
            id="MTU upwards",
        ),
        pytest.param("", "mtu='jumbo'", "mtu is over its limit: got 'jumbo'", id="jumbo"),
        pytest.param(
            "[policy]\nmtu = 1300\n",
            "mtu='1301'",
            "mtu is over its limit: got 1301, expected keep or at most 1300 bytes",
            id="MTU above the file's",
        ),
        pytest.param("[policy]\nmtu = 1300\n", "mtu='auto'", "mtu is over its limit", id="auto may be above"),
        pytest.param(
            "[limits]\nmetadata = []\n", "placement='keep'", "placement may not be set", id="nothing"
        ),
        pytest.param("[limits]\npoll_us = 0\n", "poll-us='1'", "poll-us is over its limit", id="no polling"),
    ],
)
def test_what_is_not_allowed_is_ignored_and_reported(config: str, attributes: str, problem: str) -> None:
    unchanged = policy.for_domain("web-1", policy.load(config))
    effective, (said,) = resolved(config, attributes)
    assert effective == unchanged
    assert said.startswith(f"metadata of web-1, line 1: {problem}")
    assert "/etc/libvirt-tuner.toml" in said


def test_the_rest_of_the_metadata_stays_in_force() -> None:
    effective, problems = resolved(None, "uplink='eth9' placement='shared' housekeeping='0'")
    assert effective == Policy(placement="shared")
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("config", "attributes", "key", "value"),
    [
        pytest.param(
            "[limits]\nmetadata = ['emulator_cpus']\n",
            "emulator-cpus='5-6'",
            "emulator_cpus",
            frozenset({5, 6}),
            id="emulator CPUs",
        ),
        pytest.param(
            "[policy]\nselect = false\n[limits]\nmetadata = ['select']\n",
            "select='true'",
            "select",
            True,
            id="opting in",
        ),
        pytest.param("[policy]\nirq = 'keep'\n", "irq='keep'", "irq", "keep", id="what the file says too"),
        pytest.param("[limits]\npoll_us = 1000\n", "poll-us='1000'", "poll_us", 1000, id="a longer poll"),
        pytest.param("[policy]\npoll_us = 500\n", "poll-us='500'", "poll_us", 500, id="the file's own"),
        pytest.param("[policy]\npoll_us = 500\n", "poll-us='0'", "poll_us", None, id="no polling"),
        pytest.param("[limits]\nmtu = 9000\n", "mtu='8900'", "mtu", 8900, id="a larger MTU"),
        pytest.param("[policy]\nmtu = 'jumbo'\n", "mtu='8900'", "mtu", 8900, id="under jumbo"),
        pytest.param(
            "[policy]\nmtu = 'jumbo'\n", "mtu='jumbo'", "mtu", "jumbo", id="jumbo as the file has it"
        ),
        pytest.param("[policy]\nmtu = 1300\n", "mtu='1200'", "mtu", 1200, id="downwards"),
        pytest.param(
            "[policy]\nmtu = 'keep'\n", "mtu='auto'", "mtu", "auto", id="auto where the file keeps it"
        ),
    ],
)
def test_the_file_can_allow_more(config: str, attributes: str, key: str, value: object) -> None:
    effective, problems = resolved(config, attributes)
    assert (getattr(effective, key), problems) == (value, [])


def test_the_limits_hold_for_the_policy_of_that_domain() -> None:
    config = "[[domain]]\nmatch = 'web-*'\nmtu = 1300\n"
    assert resolved(config, "mtu='1400'")[0].mtu == 1300
    assert resolved(config.replace("web", "db"), "mtu='1400'")[0].mtu == 1400


@pytest.mark.parametrize(
    ("config", "attributes", "bounded"),
    [
        pytest.param("", "mtu='1400'", True, id="metadata alone"),
        pytest.param("[policy]\nmtu = 9000\n", "mtu='1400'", True, id="less than the file"),
        pytest.param("[policy]\nmtu = 'jumbo'\n", "mtu='9000'", True, id="under jumbo"),
        pytest.param("[policy]\nmtu = 1400\n", "mtu='1400'", False, id="the file's own"),
        pytest.param("[policy]\nmtu = 1400\n", "placement='auto'", False, id="the file's"),
    ],
)
def test_an_mtu_of_metadata_is_one_that_may_only_lower(config: str, attributes: str, bounded: bool) -> None:
    effective, problems = resolved(config, attributes)
    assert problems == []
    assert isinstance(effective.mtu, AtMost) == bounded
