"""Which entries of the journal are about a domain."""

from __future__ import annotations

import json

import pytest

from libvirt_tuner.cli import journal
from libvirt_tuner.host import log

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def entry(text: object, **fields: object) -> str:
    return json.dumps(
        {"__REALTIME_TIMESTAMP": "1700000000000000", "PRIORITY": "6", "MESSAGE": text, **fields}
    )


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param(entry("db: started"), False, id="another domain"),
        pytest.param(entry("web-2: started"), False, id="a longer name"),
        pytest.param(entry("watching qemu:///system"), False, id="no domain"),
        pytest.param(entry("web: started: dedicated"), True, id="plain line"),
        pytest.param(entry("started: dedicated", DOMAIN="web"), True, id="field"),
        pytest.param(entry(list(b"web: \xff")), True, id="not UTF-8"),
        pytest.param(entry(None), False, id="too long"),
    ],
)
def test_by_name(line: str, named: bool) -> None:
    assert bool(list(journal.lines([line], "web"))) is named


def test_by_uuid_with_event_and_time() -> None:
    (line,) = journal.lines([entry("x", UUID=UUID, MESSAGE_ID=log.EVENTS["started"])], UUID)
    assert (line.time, line.event, line.priority) == ("2023-11-14 22:13:20+00:00", "started", 6)
