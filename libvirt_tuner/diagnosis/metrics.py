"""Two samples of a host as metrics in Prometheus' text format, for node_exporter's textfile collector. Pure.

Format: Prometheus' documentation, "Exposition formats" (text-based, version 0.0.4). HELP and TYPE come once,
before all samples of a metric. In the value of a label, backslash, quote and line feed are escaped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import frozen

from libvirt_tuner.diagnosis.finding import Finding
from libvirt_tuner.diagnosis.nodes import home_nodes
from libvirt_tuner.diagnosis.sample import NS, Interval, Role, Task

Labels = Mapping[str, str]
PREFIX = "libvirt_tuner_"
_ROLES: tuple[Role, ...] = ("vcpu", "vhost", "emulator", "iothread")
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}


@frozen
class Family:
    """A metric: its name without :data:`PREFIX`, its type, what it is, and its samples."""

    name: str
    type: Literal["gauge", "counter"]
    help: str
    samples: Sequence[tuple[Labels, float]]


@frozen
class Standing:
    """A running domain compared with its plan.

    Attributes:
        name, uuid: The domain's.
        placement: ``dedicated``, ``shared`` or ``keep``; "" where it was not placed.
        nodes: Host NUMA nodes it was placed on.
        tuned: Whether it runs with settings of this tool.
        differences: Rows of ``status`` in which planned and real differ.
    """

    name: str
    uuid: str = ""
    placement: str = ""
    nodes: tuple[int, ...] = ()
    tuned: bool = False
    differences: int = 0


def families(look: Interval, found: Iterable[Finding], standings: Iterable[Standing]) -> Iterator[Family]:
    """All metrics of the running domains.

    Args:
        look: Two samples; counters are those of the second one.
        found: The findings.
        standings: The running domains.
    """
    standings, found = tuple(standings), tuple(found)
    yield Family(
        "domain_info",
        "gauge",
        "Placement of a running domain, as labels. The value is always 1.",
        [(_info(one), 1) for one in standings],
    )
    yield Family(
        "status_differences",
        "gauge",
        "Rows of libvirt-tuner status in which the planned and the real value differ.",
        [({"domain": one.name}, one.differences) for one in standings],
    )
    yield from _threads(look)
    yield Family(
        "memory_bytes",
        "gauge",
        "Memory of the VM's process on a NUMA node.",
        [
            ({"domain": vm, "node": str(node)}, kib * 1024)
            for vm, pages in sorted(look.after.pages.items())
            for node, kib in sorted(pages.items())
        ],
    )
    yield Family(
        "memory_remote_bytes",
        "gauge",
        "Memory of the VM's process that is not on the node of its network card.",
        list(_remote(look)),
    )
    counted = Counter(finding.vm for finding in found)
    yield Family(
        "findings",
        "gauge",
        "Findings of libvirt-tuner diagnose about a domain. An empty domain means the host.",
        [({"domain": name}, counted[name]) for name in sorted({"", *look.scene.vms, *counted})],
    )
    costs: dict[tuple[str, str], float] = {}
    for finding in found:
        who = finding.vm, finding.kind
        costs[who] = round(costs.get(who, 0) + finding.cost, 4)
    yield Family(
        "finding_cost_cpus",
        "gauge",
        "Cost of the findings of this kind, in CPUs.",
        [({"domain": vm, "kind": kind}, cost) for (vm, kind), cost in sorted(costs.items())],
    )


def _info(one: Standing) -> Labels:
    return {
        "domain": one.name,
        "uuid": one.uuid,
        "placement": one.placement or "none",
        "nodes": ",".join(map(str, one.nodes)),
        "tuned": "yes" if one.tuned else "no",
    }


def _threads(look: Interval) -> Iterator[Family]:
    """CPU time and run-queue wait by VM and kind of thread, since the threads were made."""
    tasks = [task for task in look.after.tasks.values() if task.vm and task.role in _ROLES]
    groups: dict[tuple[str, Role], list[Task]] = {}
    for task in sorted(tasks, key=lambda task: (task.vm, _ROLES.index(task.role))):
        groups.setdefault((task.vm, task.role), []).append(task)
    for name, what, attribute in (
        ("cpu_seconds_total", "Time that the VM's threads of this kind ran.", "run_ns"),
        (
            "run_queue_wait_seconds_total",
            "Time that the VM's threads of this kind waited for a CPU.",
            "wait_ns",
        ),
    ):
        samples = [
            ({"domain": vm, "thread": role}, sum(getattr(task, attribute) for task in group) / NS)
            for (vm, role), group in groups.items()
        ]
        yield Family(name, "counter", what, samples)


def _remote(look: Interval) -> Iterator[tuple[Labels, float]]:
    for name, vm in sorted(look.scene.vms.items()):
        home, pages = home_nodes(look, vm), look.after.pages.get(name)
        if home and pages is not None:
            away = sum(kib for node, kib in pages.items() if node not in home)
            yield {"domain": name}, away * 1024


def exposition(found: Iterable[Family]) -> str:
    """The text; a metric without samples is left out."""
    lines = []
    for family in found:
        if not family.samples:
            continue
        name = PREFIX + family.name
        lines += [f"# HELP {name} {_escaped_help(family.help)}", f"# TYPE {name} {family.type}"]
        for labels, value in family.samples:
            said = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{said}}} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


def escaped(value: str) -> str:
    """A label's value; what UTF-8 cannot hold is replaced."""
    text = re.sub(r'[\\"\n]', lambda found: _ESCAPES[found[0]], value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
