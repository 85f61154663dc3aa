"""Running a benchmark, and being told to end; a VM that is tuned and untuned: libvirtd/test_measure."""

from __future__ import annotations

import base64
import json
import os
import signal

import pytest

from libvirt_tuner import measuring
from libvirt_tuner.errors import HostError
from libvirt_tuner.libvirtd.agent import Agent


def test_what_a_command_prints() -> None:
    assert measuring.run("echo one; echo two", 5) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("""echo '{"error": "no route"}'; exit 1""", "failed: no route", id="iperf3"),
        pytest.param("echo why >&2; exit 3", "failed: why", id="standard error"),
        pytest.param("exit 3", "failed: exit status 3", id="nothing said"),
    ],
)
def test_why_a_command_failed(line: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        measuring.run(line, 5)


def test_a_command_that_takes_too_long() -> None:
    with pytest.raises(HostError, match="took more than"):
        measuring.run("exec sleep 10", 0.05)


class Guest:
    """A guest agent, as far as one program is concerned: it has ended at the third question."""

    def __init__(self, **status: object) -> None:
        self.calls: list[dict[str, object]] = []
        self.status = status
        self.left = 2

    def __call__(self, text: str) -> str:
        call = json.loads(text)
        self.calls.append(call)
        if call["execute"] == "guest-exec":
            return json.dumps({"return": {"pid": 7}})
        self.left -= 1
        return json.dumps(
            {"return": {"exited": False} if self.left >= 0 else {"exited": True, **self.status}}
        )

    def agent(self, name: str) -> Agent:
        return Agent(name, self, sleep=lambda _seconds: None)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_client_in_one_guest_and_a_server_in_another() -> None:
    web, db = Guest(**{"exitcode": 0, "out-data": encoded('{"end": {}}')}), Guest()
    said = measuring.in_guest(web.agent("web"), ["iperf3", "--client", "10.0.0.2"], 70, db.agent("db"))
    assert said == '{"end": {}}'
    assert db.calls == [
        {
            "execute": "guest-exec",
            "arguments": {
                "path": "timeout",
                "arg": ["70", "iperf3", "--server", "--one-off"],
                "capture-output": False,
            },
        }
    ]


def test_a_program_that_fails_in_a_guest_says_why() -> None:
    web = Guest(**{"exitcode": 1, "out-data": encoded('{"error": "unable to connect"}')})
    with pytest.raises(HostError, match=r"iperf3 -c x in web: failed: unable to connect"):
        measuring.in_guest(web.agent("web"), ["iperf3", "-c", "x"], 10)


@pytest.mark.parametrize("number", measuring.ENDING)
def test_a_signal_is_an_error_within_and_as_before_after(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(measuring.Ended, match=number.name), measuring.ending():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_putting_back_is_not_cut_off() -> None:
    with measuring.ending(), measuring.deaf():
        os.kill(os.getpid(), signal.SIGTERM)
