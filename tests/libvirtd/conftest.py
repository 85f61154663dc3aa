"""The private libvirtd, started once for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libvirtd.daemon import PrivateDaemon, missing_programs

ASSETS = Path(__file__).with_name("assets")


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[PrivateDaemon]:
    """One private libvirtd; tests take it through ``daemon``."""
    lacking = missing_programs()
    if lacking:
        pytest.fail(f"the private libvirtd needs {', '.join(lacking)}")
    with PrivateDaemon() as started:
        yield started


@pytest.fixture
def daemon(shared_daemon: PrivateDaemon) -> Iterator[PrivateDaemon]:
    """The private libvirtd without domains, hooks, config or records of an earlier test."""
    shared_daemon.clean()
    yield shared_daemon
    shared_daemon.clean()


@pytest.fixture
def recorder(daemon: PrivateDaemon) -> str:
    """The recording hook, installed; its text."""
    text = (ASSETS / "recorder").read_text()
    daemon.install_hook(text)
    daemon.restart_libvirtd()
    return text
