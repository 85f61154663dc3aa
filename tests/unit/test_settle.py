"""What can be told without a daemon that runs domains; the rest is in tests/libvirtd."""

from __future__ import annotations

import time
from typing import Literal

import pytest

from libvirt_tuner import settle
from libvirt_tuner.errors import ConnectionFailed, TunerError

URI = "test:///default"
RUNNING = "6695eb01-f6a4-8304-79aa-97f2502e193f"


class TestPatiently:
    @pytest.mark.parametrize("kind", ["busy", "lost"])
    def test_tries_again(self, kind: Literal["busy", "lost"]) -> None:
        failures = [ConnectionFailed("not yet", kind=kind)] * 2

        def call() -> None:
            if failures:
                raise failures.pop()

        settle.patiently(call, time.monotonic() + 5)
        assert not failures

    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(ConnectionFailed("no", kind="refused"), id="refused"),
            pytest.param(ConnectionFailed("gone", kind="missing"), id="no such domain"),
            pytest.param(TunerError("no"), id="not libvirt's"),
        ],
    )
    def test_does_not_try_again(self, error: TunerError) -> None:
        calls = []

        def call() -> None:
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            settle.patiently(call, time.monotonic() + 5)
        assert calls == [1]

    def test_gives_up_in_time(self) -> None:
        def call() -> None:
            raise ConnectionFailed("not yet", kind="busy")

        began = time.monotonic()
        with pytest.raises(ConnectionFailed):
            settle.patiently(call, began + 0.5)
        assert time.monotonic() - began <= 0.5


@pytest.mark.parametrize(
    ("uuid", "uri"),
    [
        pytest.param("00000000-0000-0000-0000-000000000000", URI, id="no such domain"),
        pytest.param(RUNNING, "qemu+unix:///system?socket=/nonexistent", id="no daemon"),
        pytest.param(RUNNING, "nonsense:///", id="no such driver"),
    ],
)
def test_main_ends_with_0(uuid: str, uri: str) -> None:
    assert settle.main(uuid, uri=uri, patience=0.2) == 0
