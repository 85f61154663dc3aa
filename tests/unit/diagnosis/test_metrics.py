"""Metrics: the format's rules, read back by a parser of our own, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from libvirt_tuner.diagnosis import metrics
from libvirt_tuner.diagnosis.diagnose import diagnose
from libvirt_tuner.diagnosis.metrics import Family, Standing
from libvirt_tuner.diagnosis.sample import Interval
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside.scene import read_scene, sampler
from tests import samples

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
Value = tuple[dict[str, str], float]


def parse(text: str) -> dict[str, list[Value]]:
    """Samples by metric; the rules of "Exposition formats" that concern a file without timestamps.

    HELP, then TYPE, once for each metric and before its samples, which stand together; each set of labels
    once; every line ends with a line feed.
    """
    assert text == "" or text.endswith("\n")
    found: dict[str, list[Value]] = {}
    told: dict[str, str] = {}
    current, typed = "", False
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            current, _, words = line.removeprefix("# HELP ").partition(" ")
            assert NAME.fullmatch(current), line
            assert words
            assert current not in told
            told[current], typed, found[current] = words, False, []
        elif line.startswith("# TYPE "):
            name, _, kind = line.removeprefix("# TYPE ").partition(" ")
            assert name == current
            assert not typed
            assert not found[name]
            assert kind in ("gauge", "counter")
            assert name.endswith("_total") == (kind == "counter")
            typed = True
        else:
            name, labels, value = sample(line)
            assert typed
            assert name == current
            assert labels not in [each for each, _ in found[name]]
            found[name].append((labels, value))
    return found


def sample(line: str) -> tuple[str, dict[str, str], float]:
    name = NAME.match(line)
    assert name is not None
    rest = line[name.end() :]
    assert rest.startswith("{")
    at, labels = 1, {}
    while rest[at] != "}":
        label = LABEL.match(rest, at)
        assert label is not None
        assert label[1] not in labels
        labels[label[1]] = re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), label[2])
        at = label.end() + (rest[label.end()] == ",")
    return name[0], labels, float(rest[at + 1 :].removeprefix(" "))


def look(case: samples.Case, target: Path) -> Interval:
    """The two samples of a case."""
    samples.write(case, target)
    scene, _ = read_scene(Sysfs(str(target)))
    eyes = sampler(Sysfs(str(target)), scene)
    first = eyes.look(Sysfs(str(target / "samples/1")))
    return Interval(scene, first, eyes.look(Sysfs(str(target / "samples/2")), memory=True))


def told(case: samples.Case, target: Path, *standings: Standing) -> dict[str, list[Value]]:
    seen = look(case, target)
    return parse(metrics.exposition(metrics.families(seen, diagnose(seen), standings)))


def test_nothing_is_no_text() -> None:
    assert metrics.exposition([Family("x", "gauge", "Nothing.", [])]) == ""


def test_a_healthy_vm(tmp_path: Path) -> None:
    found = told(samples.HEALTHY, tmp_path / "host", Standing("vlinux1", "u", "dedicated", (0,), tuned=True))
    assert found["libvirt_tuner_domain_info"] == [
        (
            {"domain": "vlinux1", "uuid": "u", "placement": "dedicated", "nodes": "0", "tuned": "yes"},
            1,
        )
    ]
    assert found["libvirt_tuner_findings"] == [({"domain": ""}, 0), ({"domain": "vlinux1"}, 0)]
    assert found["libvirt_tuner_status_differences"] == [({"domain": "vlinux1"}, 0)]
    assert "libvirt_tuner_finding_cost_cpus" not in found
    assert found["libvirt_tuner_memory_remote_bytes"] == [({"domain": "vlinux1"}, 0)]
    assert found["libvirt_tuner_memory_bytes"] == [({"domain": "vlinux1", "node": "0"}, 16 << 30)]


def test_times_are_those_of_the_threads(tmp_path: Path) -> None:
    """Six vCPUs at 60 % and 0.1 % of wait, in the 5 s that the second sample is after the first."""
    found = told(samples.HEALTHY, tmp_path / "host")
    times = {
        name: {labels["thread"]: value for labels, value in found[f"libvirt_tuner_{name}"]}
        for name in ("cpu_seconds_total", "run_queue_wait_seconds_total")
    }
    assert times["cpu_seconds_total"]["vcpu"] == pytest.approx(6 * 0.6 * 5)
    assert times["cpu_seconds_total"]["vhost"] == pytest.approx((2 * 0.3 + 3 * 0.01) * 5)
    assert times["run_queue_wait_seconds_total"]["vcpu"] == pytest.approx(6 * 0.001 * 5)
    assert set(times["cpu_seconds_total"]) == {"vcpu", "vhost", "emulator"}


def test_memory_on_another_node_is_remote(tmp_path: Path) -> None:
    found = told(samples.CASES["remote-memory"], tmp_path / "host")
    assert found["libvirt_tuner_memory_remote_bytes"] == [({"domain": "vlinux1"}, 8 << 30)]
    assert found["libvirt_tuner_findings"][1] == ({"domain": "vlinux1"}, 1)


def test_where_the_uplink_is_not_known_no_memory_is_remote(tmp_path: Path) -> None:
    seen = look(samples.CASES["remote-memory"], tmp_path / "host")
    vms = {name: evolve(vm, node=None, nodes=()) for name, vm in seen.scene.vms.items()}
    lost = Interval(evolve(seen.scene, vms=vms), seen.before, seen.after)
    assert "memory_remote_bytes" not in metrics.exposition(metrics.families(lost, (), ()))


def test_findings_are_counted_and_their_cost_summed(tmp_path: Path) -> None:
    seen = look(samples.CASES["seed-vhost-on-vcpu"], tmp_path / "host")
    (finding, *_) = diagnose(seen)
    cost = evolve(finding, cost=0.25)
    found = parse(metrics.exposition(metrics.families(seen, (cost, cost, evolve(cost, vm="")), ())))
    assert found["libvirt_tuner_findings"] == [({"domain": ""}, 1), ({"domain": "vlinux1"}, 2)]
    assert found["libvirt_tuner_finding_cost_cpus"] == [
        ({"domain": "", "kind": "vhost-on-vcpu"}, 0.25),
        ({"domain": "vlinux1", "kind": "vhost-on-vcpu"}, 0.5),
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("web", id="plain"),
        pytest.param('a "b" \\n c\\', id="quotes and backslashes"),
        pytest.param('x\n# TYPE evil counter\nevil{a="1"} 1', id="lines"),
        pytest.param("{},=\t\x1b\r", id="others"),
        pytest.param("größe 大", id="not ASCII"),
    ],
)
def test_a_name_comes_back_as_it_was(name: str) -> None:
    family = Family("domain_info", "gauge", "A \\ and\na line.", [({"domain": name, "more": "x"}, 1)])
    text = metrics.exposition([family])
    assert parse(text) == {"libvirt_tuner_domain_info": [({"domain": name, "more": "x"}, 1.0)]}
    assert len(text.split("\n")) == 4


def test_what_is_no_utf8_is_replaced() -> None:
    assert metrics.escaped("a\udcff").encode() == b"a?"


def broken() -> Iterator[tuple[str, str]]:
    good = metrics.exposition([Family("x", "gauge", "X.", [({"a": "1"}, 1), ({"a": "2"}, 2)])])
    yield "no end of line", good[:-1]
    yield "a set of labels twice", good.replace('"2"', '"1"')
    yield "no TYPE", good.replace("# TYPE libvirt_tuner_x gauge\n", "")
    yield "a counter without _total", good.replace("gauge", "counter")
    yield "a quote", good.replace('"1"', '"""')


@pytest.mark.parametrize(("why", "text"), list(broken()))
def test_the_parser_refuses_what_is_wrong(why: str, text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        parse(text)
