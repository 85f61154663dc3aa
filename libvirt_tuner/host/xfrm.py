"""Reads the kernel's IPsec states and policies from the text output of ``ip xfrm``.

Keys are never kept: ``ip`` is asked to omit them, and keys that an older one prints are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from libvirt_tuner.errors import HostError, MissingError
from libvirt_tuner.host import commands
from libvirt_tuner.host.commands import Run
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.topology import Xfrm, XfrmPolicy, XfrmState, XfrmTemplate

XFRM_STATE = ("ip", "-s", "xfrm", "state", "list", "nokeys")
XFRM_POLICY = ("ip", "-s", "xfrm", "policy", "list")
_CHECKED = ("auth-trunc", "aead")


def xfrm(sysfs: Sysfs, run: Run = commands.run) -> Xfrm:
    """The kernel's IPsec states and policies.

    Returns:
        Empty with :attr:`~libvirt_tuner.topology.Xfrm.problem` where they cannot be read.
    """
    try:
        policies = _policies(run(sysfs, XFRM_POLICY))
        # States without a policy add no bytes.
        states = _states(run(sysfs, XFRM_STATE)) if policies else ()
    except MissingError:
        return Xfrm(problem="the program ip is missing" if sysfs.live else "")
    except HostError as error:
        return Xfrm(problem=error.problem)
    return Xfrm(states, policies)


def _blocks(text: str) -> Iterable[list[list[str]]]:
    """Entries of ip's text: each begins at the left margin; lines as words."""
    block: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith("src ") and block:
            yield block
            block = []
        if line.strip():
            block.append(line.split())
    if block:
        yield block


def _facts(words: Sequence[str]) -> dict[str, str]:
    """``src A dst B proto udp`` as a mapping; of a word given twice the first counts."""
    return dict(reversed(list(pairwise(words))))


def integer(text: str) -> int:
    """Parse ``10001(0x00002711)``, ``0x29`` or ``10001``; 0 for other text."""
    word = text.partition("(")[0]
    try:
        return int(word, 0)
    except ValueError:
        return 0


def _states(text: str) -> tuple[XfrmState, ...]:
    return tuple(_state(block) for block in _blocks(text) if block[0][0] == "src")


def _state(block: Sequence[Sequence[str]]) -> XfrmState:
    head = _facts(block[0])
    found: dict[str, str] = {}
    algorithms: dict[str, str] = {}
    icv: int | None = None
    for words in block[1:]:
        if words[0] in ("auth", "auth-trunc", "enc", "aead") and len(words) > 1:
            # auth repeats auth-trunc's hash. The key follows the name, so only the end is read.
            algorithms.setdefault(words[0][:4], words[1])
            if words[0] in _CHECKED and len(words) > 3 and words[-1].isdecimal():
                icv = int(words[-1])
        elif words[0] in ("proto", "encap"):
            found = {**_facts(words), **found}
        elif words[:3] == ["crypto", "offload", "parameters:"]:
            found = {**_facts(words[3:]), **found}
    order = [algorithms[kind] for kind in ("aead", "enc", "auth") if kind in algorithms]
    return XfrmState(
        head.get("src", ""),
        head.get("dst", ""),
        proto=found.get("proto", "esp"),
        reqid=integer(found.get("reqid", "0")),
        mode=found.get("mode", ""),
        algorithms=tuple(order),
        icv_bits=icv,
        encap=found.get("type", ""),
        offload=found.get("dev", ""),
        direction=found.get("dir", ""),
    )


def _policies(text: str) -> tuple[XfrmPolicy, ...]:
    # Per-socket policies ("socket in action allow ...") have no direction of their own and no template.
    blocks = (block for block in _blocks(text) if block[0][0] == "src")
    return tuple(policy for policy in map(_policy, blocks) if policy.direction)


def _policy(block: Sequence[Sequence[str]]) -> XfrmPolicy:
    head = _facts(block[0])
    facts: dict[str, str] = {}
    templates = []
    for place, words in enumerate(block[1:], start=1):
        if words[0] == "tmpl":
            following = block[place + 1] if place + 1 < len(block) else []
            templates.append(_template(words, following))
        elif words[0] in ("dir", "if_id", "mark"):
            facts = {**_facts(words), **facts}
    return XfrmPolicy(
        head.get("src", ""),
        head.get("dst", ""),
        direction=facts.get("dir", ""),
        proto=head.get("proto", ""),
        dport=integer(head["dport"]) if "dport" in head else None,
        sport=integer(head["sport"]) if "sport" in head else None,
        priority=integer(facts.get("priority", "0")),
        if_id=integer(facts.get("if_id", "0")),
        narrow="dev" in head or "mark" in facts,
        block=facts.get("action") == "block",
        templates=tuple(templates),
    )


def _template(words: Sequence[str], following: Sequence[str]) -> XfrmTemplate:
    ends = _facts(words)
    facts = _facts(following)
    return XfrmTemplate(
        ends.get("src", ""),
        ends.get("dst", ""),
        proto=facts.get("proto", "esp"),
        reqid=integer(facts.get("reqid", "0")),
        mode=facts.get("mode", "transport"),
    )


def entries(text: str) -> Iterator[list[str]]:
    """The states or policies of ip's text, each as its words; keys that an old ip prints left out."""
    for block in _blocks(text):
        yield [
            word for words in block if words[0] not in ("aead", "auth", "auth-trunc", "enc") for word in words
        ]


def after(words: Sequence[str], name: str) -> str:
    """The word after ``name``, "" where there is none."""
    return next((value for word, value in pairwise(words) if word == name), "")
