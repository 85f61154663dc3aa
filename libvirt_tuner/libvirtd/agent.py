"""Runs programs in a guest by the QEMU guest agent, and asks it for the guest's addresses.

Source: qga/qapi-schema.json of QEMU (guest-exec, guest-exec-status, guest-network-get-interfaces).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import time
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from libvirt_tuner.errors import ConnectionFailed, HostError

PAUSE = 0.5
"""Seconds between two questions whether a program has ended."""

Ask = Callable[[str], str]
"""Sends the agent one command and returns its answer, both as JSON.

Raises:
    ConnectionFailed: There is no agent, or it refuses.
"""

_ADVICE = {
    "not configured": "add <channel> org.qemu.guest_agent.0 with 'virsh edit {name}', and start it again",
    "disabled": "remove guest-exec from the blocked RPCs of qemu-ga in the guest (/etc/sysconfig/qemu-ga)",
    "not allowed": "remove guest-exec from the blocked RPCs of qemu-ga in the guest (/etc/sysconfig/qemu-ga)",
    "Failed to execute child": "install it in the guest: apt install {program}",
}
_NO_ANSWER = "in the guest: apt install qemu-guest-agent; without an agent use --to ADDRESS or --command LINE"


@frozen
class Agent:
    """The agent of one guest.

    Attributes:
        name: The domain's.
        ask: What reaches it.
        sleep: What waits.
    """

    name: str
    ask: Ask
    sleep: Callable[[float], object] = time.sleep

    def run(self, argv: Sequence[str], seconds: float) -> tuple[int, str, str]:
        """Run a program and wait until it ends.

        Args:
            argv: The program, found in the agent's PATH, and its arguments.
            seconds: How long it may take. The agent cannot end it.

        Returns:
            Its exit status (128 and the signal's number if a signal ended it), standard output and error.

        Raises:
            HostError: The guest has no agent or not that program, or it took too long.
        """
        pid = self.start(argv, capture=True)
        for _ in range(max(int(seconds / PAUSE), 1)):
            status = self._answer("guest-exec-status", {"pid": pid}, argv[0])
            if isinstance(status, dict) and status.get("exited"):
                return _code(status), _text(status, "out-data"), _text(status, "err-data")
            self.sleep(PAUSE)
        raise HostError(f"took more than {seconds:g} s", where=f"{' '.join(argv)} in {self.name}")

    def start(self, argv: Sequence[str], *, capture: bool = False) -> int:
        """Start a program; return its process id in the guest. Raises as :meth:`run`."""
        call = {"path": argv[0], "arg": list(argv[1:]), "capture-output": capture}
        started = self._answer("guest-exec", call, argv[0])
        pid = started.get("pid") if isinstance(started, dict) else None
        if not isinstance(pid, int):
            raise self._unexpected(started)
        return pid

    def address(self) -> str:
        """An address of the guest that others can reach, IPv4 first.

        Raises:
            HostError: There is no agent, or it knows of none.
        """
        answer = self._answer("guest-network-get-interfaces", {}, "")
        try:
            found = [
                ipaddress.ip_address(each["ip-address"])
                for device in (answer if isinstance(answer, list) else ())
                for each in device.get("ip-addresses", ())
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._unexpected(answer) from None
        usable = [each for each in found if not (each.is_loopback or each.is_link_local)]
        if not usable:
            raise HostError("the guest has no address", where=self.name, advice="give it by --to ADDRESS")
        return str(min(usable, key=lambda each: each.version))

    def _answer(self, command: str, arguments: Mapping[str, object], program: str) -> object:
        call = json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})
        try:
            text = self.ask(call)
        except ConnectionFailed as err:
            advice = next((said for sign, said in _ADVICE.items() if sign in err.problem), _NO_ANSWER)
            raise HostError(
                err.problem,
                where=f"guest agent of {self.name}",
                advice=advice.format(name=self.name, program=program),
            ) from None
        try:
            answer: dict[str, object] = json.loads(text)
            return answer["return"]
        except (ValueError, TypeError, KeyError):
            raise self._unexpected(text) from None

    def _unexpected(self, value: object) -> HostError:
        return HostError("unexpected answer", where=f"guest agent of {self.name}", value=value)


def _code(status: Mapping[str, object]) -> int:
    code, signal = status.get("exitcode"), status.get("signal")
    if isinstance(code, int):
        return code
    return 128 + signal if isinstance(signal, int) else 1


def _text(status: Mapping[str, object], key: str) -> str:
    try:
        return base64.b64decode(str(status.get(key, "")), validate=True).decode(errors="replace")
    except binascii.Error:
        return ""
