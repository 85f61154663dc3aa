"""Fixtures and options of the laboratory's scenarios.

==================== ======================================================================================
fixture              what a scenario gets
==================== ======================================================================================
``bare``             a hypervisor without the project
``lab``              a hypervisor with the project installed
``shared_lab``       the same, shared by the scenarios of a module
``peers``            two with the project, the second's NICs on the other nodes (see :mod:`tests.lab.site`)
``network``          the namespace outside, where ``lan`` has 10.77.0.1/24
``results``          where measured scenarios put their figures
==================== ======================================================================================

Each comes from a saved state in a few seconds: a scenario finds a freshly booted machine, whatever the one
before it did.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.lab import image, project, site, state
from tests.lab.hypervisor import Hypervisor
from tests.lab.network import Network
from tests.lab.progress import say, unwind_when_stopped
from tests.lab.results import Results
from tests.lab.state import State

RESULTS = pytest.StashKey[Results]()
COUNTS = pytest.StashKey[dict[str, int]]()

States = Callable[[int], State]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--release",
        action="append",
        choices=image.RELEASES,
        help="hypervisor to run on; may be repeated; default: each",
    )
    parser.addoption(
        "--write-results", action="store_true", help="write docs/results.md and docs/results.json"
    )
    parser.addoption("--rounds", type=int, default=5, help="of measured scenarios; default: 5")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "measured: measures, and takes minutes")
    config.addinivalue_line(
        "markers", "thorough: more of what another scenario shows already, and takes minutes"
    )
    config.stash[RESULTS] = Results()
    unwind_when_stopped()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        releases = metafunc.config.getoption("--release") or image.RELEASES
        metafunc.parametrize("release", releases, scope="session")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.failed:
        say(f"{report.nodeid.rpartition('/')[2]}: {report.outcome}, {report.duration:.0f} s")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [report for known in terminalreporter.stats.values() for report in known]
    if rows := scenarios(report for report in reports if isinstance(report, pytest.TestReport)):
        terminalreporter.section("scenarios")
        width = max(len(name) for name, *_ in rows)
        for name, release, outcome, seconds in rows:
            terminalreporter.write_line(f"{name:<{width}}  {release:<8}  {outcome:<7}  {seconds:>4.0f} s")
    results = config.stash[RESULTS]
    if results.measurements:
        terminalreporter.section("figures")
        for line in results.lines():
            terminalreporter.write_line(line)
        if config.getoption("--write-results"):
            results.write(project.ROOT / "docs")
    config.stash[COUNTS] = {
        name: len(terminalreporter.getreports(name)) for name in ("passed", "failed", "error", "skipped")
    }


def scenarios(reports: Iterable[pytest.TestReport]) -> list[tuple[str, str, str, float]]:
    """Return a row for each scenario: name, release, what came of it, seconds with those of its set-up."""
    rows: dict[str, tuple[str, str, str, float]] = {}
    for report in reports:
        name, _, parameters = report.nodeid.rpartition("/")[2].removesuffix("]").partition("[")
        release, _, case = parameters.partition("-")
        name = f"{name}[{case}]" if case else name
        _, _, outcome, seconds = rows.get(report.nodeid, (name, release, "passed", 0.0))
        outcome = outcome if report.passed else report.outcome
        rows[report.nodeid] = (name, release, outcome, seconds + report.duration)
    return sorted(rows.values())


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Close with one line that a script can read."""
    if counts := config.stash.get(COUNTS, None):
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        print(f"{counts['passed']} passed, {counts['failed'] + counts['error']} failed{skipped}", flush=True)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    outside = site.outside()
    yield outside
    outside.close()


@pytest.fixture(scope="session")
def package() -> Path:
    return project.build_package()


@pytest.fixture(scope="session")
def states(release: str, network: Network, package: Path) -> Iterator[States]:
    """Hypervisors by number, with the project installed; each is made when it is first asked for."""
    made: dict[int, State] = {}

    def get(number: int) -> State:
        if number not in made:
            setup = site.hypervisor(image.ensure(release), number)
            directory = Path(scratch) / str(number)
            made[number] = state.derive(setup, network, directory, lambda hv: project.install(hv, package))
        return made[number]

    # A state has half a gigabyte, and /tmp may be memory.
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/var/tmp") as scratch:
        yield get


@pytest.fixture
def bare(release: str, network: Network) -> Iterator[Hypervisor]:
    hypervisor = state.fresh(site.hypervisor(image.ensure(release), 1), network)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
def lab(states: States, network: Network) -> Iterator[Hypervisor]:
    hypervisor = state.resume(states(1), network)
    yield hypervisor
    hypervisor.close()


@pytest.fixture(scope="module")
def shared_lab(states: States, network: Network) -> Iterator[Hypervisor]:
    hypervisor = state.resume(states(1), network)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
def peers(states: States, network: Network) -> Iterator[tuple[Hypervisor, Hypervisor]]:
    first = state.resume(states(1), network)
    try:
        second = state.resume(states(2), network)
        yield first, second
        second.close()
    finally:
        first.close()


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    return pytestconfig.stash[RESULTS]
