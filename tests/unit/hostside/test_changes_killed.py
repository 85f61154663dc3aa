"""Whatever order things happen in, and wherever a process is killed, everything is given back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libvirt_tuner import cpuset
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.hostside import changes as apply
from libvirt_tuner.hostside.ledger import Ledger
from tests.unit.hostside.kernel import (
    MOVES,
    PRIORS,
    SMALLER,
    STEERED,
    TO_6,
    TO_7,
    assert_as_before,
    changes,
    make_host,
    start,
    stop,
)


def _lives(root: str) -> None:
    sysfs = Sysfs(root)
    start(sysfs, "a", TO_6, MOVES[2], STEERED)
    start(sysfs, "b", TO_7, SMALLER)
    start(sysfs, "a", MOVES[3])
    stop(sysfs, "b")
    stop(sysfs, "a")


def _killed_at(step: int, life: Callable[[str], None], root: str) -> bool:
    """Run ``life`` in a child that gets SIGKILL just before its ``step``-th file operation; whether so."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.mkdir", "fcntl.flock"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            life(root)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _recover(sysfs: Sysfs) -> None:
    with Ledger(sysfs).locked() as book:
        apply.give_back_stale(sysfs, book, lambda _: False, now=0.0)


def _another_domain(sysfs: Sysfs) -> None:
    """The next thing that happens is no clean-up but a start, which wants the same interrupts elsewhere."""
    start(sysfs, "c", MOVES[0], MOVES[3], SMALLER)
    _recover(sysfs)


@pytest.mark.parametrize(
    "after", [pytest.param(_recover, id="clean-up"), pytest.param(_another_domain, id="start-clean-up")]
)
def test_killed_anywhere_everything_comes_back(after: Callable[[Sysfs], None]) -> None:
    step = 0
    killed = True
    while killed:
        step += 1
        with TemporaryDirectory() as directory:
            host = make_host(Path(directory))
            killed = _killed_at(step, _lives, directory)
            after(Sysfs(directory))
            assert_as_before(host)
    assert step > 50


def test_killed_while_cleaning_up_everything_comes_back() -> None:
    step = 0
    killed = True
    while killed:
        step += 1
        with TemporaryDirectory() as directory:
            host = make_host(Path(directory))
            sysfs = Sysfs(directory)
            start(sysfs, "a", TO_6, MOVES[2], SMALLER)
            killed = _killed_at(step, lambda root: _recover(Sysfs(root)), directory)
            _recover(sysfs)
            assert_as_before(host)
    assert step > 10


DOMAINS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), DOMAINS, st.lists(st.sampled_from(MOVES), max_size=4)),
        st.tuples(st.just("stop"), DOMAINS, st.none()),
        st.tuples(st.just("else"), st.sampled_from(("45", "46", "47")), st.sampled_from(("0", "1", "0-1"))),
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(steps=STEPS)
def test_any_order_ends_as_if_we_had_never_been(steps: list[tuple[str, str, object]]) -> None:
    with TemporaryDirectory() as directory:
        host = make_host(Path(directory))
        sysfs = Sysfs(directory)
        without_us = {
            irq: cpuset.parse(PRIORS[f"proc/irq/{irq}/smp_affinity_list"]) for irq in ("45", "46", "47")
        }
        for action, who, what in steps:
            if action == "start":
                assert isinstance(what, list)
                assert all(outcome.ok for outcome in start(sysfs, who, *what))
            elif action == "stop":
                stop(sysfs, who)
            else:
                sysfs.write(f"/proc/irq/{who}/smp_affinity_list", str(what))
                without_us[who] = cpuset.parse(str(what))
        stop(sysfs, "a", "b", "c")
        found = {
            irq: cpuset.parse((host / f"proc/irq/{irq}/smp_affinity_list").read_text()) for irq in without_us
        }
        assert found == without_us
        assert changes(sysfs) == {}
