"""The kernel command line, read as the kernel reads it, and written."""

from __future__ import annotations

import pytest

from libvirt_tuner import cpuset
from libvirt_tuner.errors import HostError
from libvirt_tuner.hostcheck import kernel_line
from tests.unit import builders

EMPTY = kernel_line.Isolation()


def read(line: str) -> kernel_line.Isolation:
    return kernel_line.parse(line, last=31)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param("BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet", id="nothing of ours"),
        pytest.param("isolcpus nohz_full", id="no value"),
        pytest.param("xisolcpus=2-7", id="another name"),
    ],
)
def test_nothing_isolated(line: str) -> None:
    assert read(line) == EMPTY


@pytest.mark.parametrize(
    ("line", "domain", "nohz", "managed", "noiseless"),
    [
        pytest.param("isolcpus=2-7", "2-7", "", "", "", id="domain is the default"),
        pytest.param("isolcpus=nohz,2-7", "", "2-7", "", "", id="nohz alone does not isolate"),
        pytest.param("isolcpus=nohz,domain,2-7", "2-7", "2-7", "", "", id="nohz and domain"),
        pytest.param("isolcpus=managed_irq,2-7", "", "", "2-7", "", id="managed_irq alone"),
        pytest.param("isolcpus=nohz,domain,managed_irq,2 nohz_full=2", "2", "2", "2", "2", id="all"),
        pytest.param("isolcpus=no_hz,domain,16,18", "16,18", "", "", "", id="unknown flag is skipped"),
        pytest.param("isolcpus=no_hz,16,18", "16,18", "", "", "", id="only an unknown flag"),
        pytest.param("isolcpus=0-3", "0-3", "", "", "", id="the boot CPU too"),
        pytest.param("isolcpus=0-N", "1-31", "", "", "", id="unless no other is left"),
        pytest.param("nohz_full=0-3", "", "1-3", "", "1-3", id="not for nohz_full"),
        pytest.param("isolcpus=30-N", "30-31", "", "", "", id="N is the last"),
        pytest.param("isolcpus=2-15:1/2", "2,4,6,8,10,12,14", "", "", "", id="strided"),
        pytest.param("isolcpus=2-3 nohz_full=4-5", "2-3", "4-5", "", "4-5", id="different kinds may differ"),
        pytest.param("isolcpus=nohz,2-3 nohz_full=4-5", "", "2-3", "", "", id="the second contradicts"),
        pytest.param("isolcpus=2-3 isolcpus=4-5", "2-3", "", "", "", id="the first isolcpus wins"),
        pytest.param("isolcpus=nohz,domain1,3,5", "", "", "", "", id="flag with a digit: all ignored"),
        pytest.param("isolcpus=2-", "", "", "", "", id="no cpulist"),
        pytest.param("isolcpus=2-64", "", "", "", "", id="beyond the last CPU"),
        pytest.param("nohz-full=2-3", "", "2-3", "", "2-3", id="dash for underscore"),
    ],
)  # fmt: skip
def test_what_is_isolated(line: str, domain: str, nohz: str, managed: str, noiseless: str) -> None:
    found = read(line)
    sets = (found.domain, found.nohz, found.managed_irq, found.noiseless)
    assert sets == tuple(map(cpuset.parse, (domain, nohz, managed, noiseless)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("isolcpus=no_hz,domain,16", ["no_hz"], id="flag"),
        pytest.param("isolcpus=no_hz,mwait,16", ["no_hz", "mwait"], id="two flags"),
        pytest.param("isolcpus=nohz,domain1,3", ["isolcpus=nohz,domain1,3"], id="whole parameter"),
        pytest.param("isolcpus=nohz", ["isolcpus=nohz"], id="flag and no list"),
        pytest.param("isolcpus=nohz,2 nohz_full=3", ["nohz_full=3"], id="contradiction"),
        pytest.param("irqaffinity=x", ["irqaffinity=x"], id="irqaffinity"),
        pytest.param("rcu_nocbs=5-2", ["rcu_nocbs=5-2"], id="rcu_nocbs"),
        pytest.param("isolcpus=nohz,domain,2 nohz_full=2 irqaffinity=0 rcu_nocbs=2", [], id="none"),
    ],
)
def test_what_the_kernel_skips(line: str, words: list[str]) -> None:
    assert [skipped.word for skipped in read(line).skipped] == words


def test_interrupts_and_callbacks() -> None:
    found = read("irqaffinity=4-7 rcu_nocbs=all isolcpus=9")
    assert found.irqaffinity == builders.cpus(0, 4, 5, 6, 7)
    assert found.rcu_nocbs == frozenset(range(32))
    assert found.given == ("irqaffinity", "rcu_nocbs", "isolcpus")


def test_words_are_read_back_as_they_were_meant() -> None:
    cpus, possible = cpuset.parse("20-30:1/2,31"), frozenset(range(32))
    found = read(" ".join(kernel_line.words(cpus, possible)))
    assert found.domain == found.managed_irq == found.nohz == found.noiseless == cpus
    assert found.irqaffinity == possible - cpus
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("cpus", "problem"),
    [
        pytest.param("0-3", "cannot be isolated", id="CPU 0"),
        pytest.param("", "cannot be isolated", id="none"),
        pytest.param("4-9", "no such CPU", id="beyond"),
    ],
)
def test_cpus_that_cannot_be_isolated(cpus: str, problem: str) -> None:
    with pytest.raises(HostError, match=problem):
        kernel_line.words(cpuset.parse(cpus), frozenset(range(8)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", "NEW", id="empty"),
        pytest.param("ro quiet", "ro quiet NEW", id="appended"),
        pytest.param("ro isolcpus=2 quiet nohz_full=2 irqaffinity=0", "ro quiet NEW", id="replaced"),
        pytest.param("ro nohz-full=2", "ro NEW", id="dash"),
        pytest.param("ro rcu_nocbs=2 isolated=1", "ro rcu_nocbs=2 isolated=1 NEW", id="others stay"),
        pytest.param("ro -- single", "ro NEW -- single", id="before what is init's"),
    ],
)
def test_the_rest_of_the_line_stays(before: str, after: str) -> None:
    assert kernel_line.line(before, ["NEW"]) == after


@pytest.mark.parametrize(
    ("line", "isolated", "nohz_full", "default_smp_affinity"),
    [
        pytest.param(
            "isolcpus=no_hz,domain,managed_irq,2-3,6-N nohz_full=4-5 irqaffinity=4-5", "2-3,6-7", "4-5", "31",
            id="skipped flag, N, and the boot CPU",
        ),
        pytest.param("isolcpus=nohz,2-3 nohz_full=4-5 rcu_nocbs=6", "", "2-3", "ff", id="must match"),
        pytest.param("isolcpus=nohz,domain1,3 nohz-full=0-3", "", "1-3", "ff", id="invalid flag, dash"),
    ],
)  # fmt: skip
def test_as_linux_does(line: str, isolated: str, nohz_full: str, default_smp_affinity: str) -> None:
    """The files of these names after Linux 6.12 was booted on 8 CPUs with each line."""
    found = kernel_line.parse(line, last=7)
    assert found.domain == cpuset.parse(isolated)
    assert found.nohz == cpuset.parse(nohz_full)
    everywhere = frozenset(range(8))
    default = everywhere if found.irqaffinity is None else found.irqaffinity
    assert default == cpuset.parse_mask(default_smp_affinity)
