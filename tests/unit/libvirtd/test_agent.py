"""The QEMU guest agent, as its JSON: programs in a guest, and what is said where there is none."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest

from libvirt_tuner.errors import ConnectionFailed, HostError
from libvirt_tuner.libvirtd.agent import Agent


def agent(*answers: object, calls: list[Mapping[str, object]] | None = None) -> Agent:
    """An agent that gives these answers in turn; a text is an error of libvirt."""
    left = list(answers)

    def ask(call: str) -> str:
        if calls is not None:
            calls.append(json.loads(call))
        answer = left.pop(0)
        if isinstance(answer, str):
            raise ConnectionFailed(f"the guest agent: {answer}", where="domain web")
        return json.dumps({"return": answer})

    return Agent("web", ask, sleep=lambda _seconds: None)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_program_is_started_and_asked_for_until_it_has_ended() -> None:
    calls: list[Mapping[str, object]] = []
    ended = {"exited": True, "exitcode": 3, "out-data": encoded("out\n"), "err-data": encoded("h\u00e9\n")}
    web = agent({"pid": 9}, {"exited": False}, ended, calls=calls)
    assert web.run(["iperf3", "--json"], 10) == (3, "out\n", "h\u00e9\n")
    status = {"execute": "guest-exec-status", "arguments": {"pid": 9}}
    started = {"path": "iperf3", "arg": ["--json"], "capture-output": True}
    assert calls == [{"execute": "guest-exec", "arguments": started}, status, status]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param({"exited": True, "exitcode": 0}, 0, id="printed nothing"),
        pytest.param({"exited": True, "signal": 9}, 137, id="killed"),
        pytest.param({"exited": True}, 1, id="neither said"),
    ],
)
def test_how_a_program_ended(status: object, code: int) -> None:
    assert agent({"pid": 9}, status).run(["true"], 10) == (code, "", "")


def test_a_program_that_takes_too_long() -> None:
    web = agent({"pid": 9}, *[{"exited": False}] * 4)
    with pytest.raises(HostError, match=r"sleep 9 in web: took more than 2 s"):
        web.run(["sleep", "9"], 2)


@pytest.mark.parametrize(
    ("libvirt", "advice"),
    [
        pytest.param(
            "argument unsupported: QEMU guest agent is not configured",
            "org.qemu.guest_agent.0",
            id="no channel",
        ),
        pytest.param(
            "Guest agent is not responding: QEMU guest agent is not connected",
            "apt install qemu-guest-agent",
            id="no agent",
        ),
        pytest.param(
            "internal error: unable to execute QEMU agent command 'guest-exec': Command guest-exec has been"
            " disabled: the command is not allowed",
            "/etc/sysconfig/qemu-ga",
            id="guest-exec is blocked",
        ),
        pytest.param(
            "internal error: unable to execute QEMU agent command 'guest-exec': Failed to execute child"
            ' process "iperf3" (No such file or directory)',
            "apt install iperf3",
            id="no iperf3",
        ),
    ],
)
def test_what_to_do_where_it_does_not_work(libvirt: str, advice: str) -> None:
    with pytest.raises(HostError) as raised:
        agent(libvirt).run(["iperf3"], 10)
    assert libvirt in str(raised.value)
    assert advice in raised.value.advice
    assert "guest agent of web" in str(raised.value)


@pytest.mark.parametrize(
    "answer", [pytest.param([], id="a list"), pytest.param({}, id="no pid"), pytest.param(None, id="nothing")]
)
def test_an_answer_that_is_none_of_an_agent(answer: object) -> None:
    with pytest.raises(HostError, match="unexpected answer"):
        agent(answer).run(["true"], 10)


def device(*addresses: str) -> object:
    return {"name": "eth0", "ip-addresses": [{"ip-address": each} for each in addresses]}


@pytest.mark.parametrize(
    ("devices", "address"),
    [
        pytest.param([device("127.0.0.1", "::1"), device("10.0.0.2")], "10.0.0.2", id="not loopback"),
        pytest.param([device("fe80::1", "fd00::2")], "fd00::2", id="not link-local"),
        pytest.param([device("fd00::2", "10.0.0.2")], "10.0.0.2", id="IPv4 first"),
        pytest.param([{"name": "eth1"}, device("10.0.0.2")], "10.0.0.2", id="a device without"),
    ],
)
def test_the_address_that_others_reach(devices: object, address: str) -> None:
    assert agent(devices).address() == address


def test_a_guest_without_address() -> None:
    with pytest.raises(HostError, match="--to ADDRESS"):
        agent([device("127.0.0.1")]).address()


@pytest.mark.parametrize("answer", [pytest.param([{"ip-addresses": [{"ip-address": "x"}]}], id="none"),
                                    pytest.param([3], id="no device")])  # fmt: skip
def test_addresses_that_are_none(answer: object) -> None:
    with pytest.raises(HostError, match="unexpected answer"):
        agent(answer).address()
