from __future__ import annotations

import json

import pytest

from libvirt_tuner.errors import LedgerError
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Held, Placement
from libvirt_tuner.topology import Binding


def cpus(*ids: int) -> frozenset[int]:
    return frozenset(ids)


DEDICATED = Placement(
    domain="web-1",
    uuid="c1b4a6c8-0f0a-4d8e-9a53-0d3b8a4b7f10",
    placement="dedicated",
    nodes=(0, 4),
    vcpupin={0: cpus(20), 1: cpus(22)},
    emulatorpin=cpus(16, 18),
    iothreadpin={1: cpus(16, 18)},
    vhost=(18, 18),
    numatune=Binding("strict", cpus(0)),
    memnodes={0: Binding("strict", cpus(0)), 1: Binding("preferred", cpus(4))},
    holds=Held(cpus(20, 22), cpus(16, 18)),
    vcpus={0: cpus(20), 1: cpus(22), 2: cpus()},
    reach=cpus(0, 2),
    claimed=True,
)


@pytest.mark.parametrize(
    "placement",
    [pytest.param(Placement("web-1"), id="nothing planned"), pytest.param(DEDICATED, id="dedicated")],
)
def test_what_is_written_is_read_again(placement: Placement) -> None:
    assert stored.from_dict(json.loads(json.dumps(stored.to_dict(placement)))) == placement


def test_cpus_are_written_as_libvirt_spells_them() -> None:
    written = stored.to_dict(DEDICATED)
    assert written["vcpupin"] == {"0": "20", "1": "22"}
    assert written["numatune"] == ["strict", "0"]
    assert written["holds"] == {"vcpus": "20,22", "emulators": "16,18"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("placement", "best", id="unknown placement"),
        pytest.param("placement", 1, id="placement of another type"),
        pytest.param("vcpupin", {"x": "1"}, id="vcpu id is no number"),
        pytest.param("vcpupin", {"0": "9-1"}, id="bad cpulist"),
        pytest.param("vcpupin", ["0"], id="pins are no mapping"),
        pytest.param("vhost", [True], id="a bool is no CPU"),
        pytest.param("numatune", ["strict"], id="no nodeset"),
        pytest.param("numatune", ["strict", "0", "1"], id="more than a nodeset"),
        pytest.param("emulatorpin", 16, id="CPU that is no cpulist"),
        pytest.param("holds", {}, id="holds nothing at all"),
        pytest.param("claimed", 1, id="a number is no bool"),
        pytest.param("surplus", 1, id="unknown key"),
    ],
)
def test_anything_else_is_refused(key: str, value: object) -> None:
    with pytest.raises(LedgerError, match="not a plan"):
        stored.from_dict({**stored.to_dict(DEDICATED), key: value})


def test_a_missing_key_is_refused() -> None:
    written = stored.to_dict(DEDICATED)
    del written["vhost"]
    with pytest.raises(LedgerError, match="vhost"):
        stored.from_dict(written)
