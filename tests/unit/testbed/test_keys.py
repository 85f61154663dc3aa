from __future__ import annotations

from pathlib import Path

import pytest

from libvirt_tuner.errors import DeniedError, HostError, MissingError, RejectedError, TunerError
from libvirt_tuner.host.sysfs import Sysfs
from libvirt_tuner.testbed import keys as testbedkeys

ONE, OTHER = "0x" + "1a" * 20, "0x" + "2B" * 20
GOOD = f"# a remark\n\nserver-to-client {ONE}\nclient-to-server  {OTHER}\n"


def written(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def test_read(tmp_path: Path) -> None:
    keys = testbedkeys.read(written(tmp_path, GOOD))
    assert keys.by_way == {"server-to-client": ONE, "client-to-server": OTHER}
    assert len(keys.fingerprint) == 16


def test_not_in_the_repr(tmp_path: Path) -> None:
    keys = testbedkeys.read(written(tmp_path, GOOD))
    assert ONE[2:] not in repr(keys)
    assert OTHER[2:] not in repr(keys)


def test_fingerprint_is_that_of_the_keys(tmp_path: Path) -> None:
    first = testbedkeys.read(written(tmp_path, GOOD))
    assert testbedkeys.read(written(tmp_path, GOOD.upper().lower())).fingerprint == first.fingerprint
    changed = GOOD.replace("1a1a", "1a1b")
    assert testbedkeys.read(written(tmp_path, changed)).fingerprint != first.fingerprint


def test_made_once_readable_by_nobody_else_and_never_twice(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    testbedkeys.make(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    keys = testbedkeys.read(str(path))
    assert [len(key) for key in keys.by_way.values()] == [42, 42]
    with pytest.raises(HostError, match="File exists"):
        testbedkeys.make(str(path))
    other = tmp_path / "other"
    testbedkeys.make(str(other))
    assert testbedkeys.read(str(other)).fingerprint != keys.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(f"server-to-client {ONE}\n", "no key client-to-server", id="one missing"),
        pytest.param(GOOD + f"server-to-client {OTHER}\n", ":5: the same direction twice", id="twice"),
        pytest.param(GOOD.replace(OTHER, ONE.upper().replace("X", "x")), "the same key", id="one key"),
        pytest.param(GOOD.replace(ONE, ONE[:-2]), ":3: not a key", id="a byte short"),
        pytest.param(GOOD.replace(ONE, ONE[2:]), ":3: not a key", id="without 0x"),
        pytest.param(GOOD.replace(ONE, f"{ONE}\\nlink"), ":3: not a key", id="something behind"),
        pytest.param(GOOD.replace("server-to", "there-to"), ":3: not a key", id="a direction nobody knows"),
        pytest.param("\0\xff", ":1: not a key", id="no text"),
    ],
)
def test_mistakes_are_named_without_the_content(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TunerError) as caught:
        testbedkeys.read(written(tmp_path, text))
    assert message in str(caught.value)
    for secret in (ONE[2:-2], OTHER[2:-2]):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("mode", [pytest.param(0o640, id="group"), pytest.param(0o604, id="others")])
def test_others_may_not_read_it(tmp_path: Path, mode: int) -> None:
    with pytest.raises(DeniedError, match="other users can read the keys: got 'mode 06"):
        testbedkeys.read(written(tmp_path, GOOD, mode))


def test_no_link_no_directory_nothing(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(written(tmp_path, GOOD))
    with pytest.raises(DeniedError, match="cannot open"):
        testbedkeys.read(str(link))
    with pytest.raises(DeniedError):
        testbedkeys.read(str(tmp_path))
    with pytest.raises(MissingError, match="--make-keys"):
        testbedkeys.read(str(tmp_path / "none"))


class TestUsed:
    """One key for two testbeds would give the same key stream twice."""

    @pytest.mark.parametrize(
        ("again", "refused"),
        [
            pytest.param(GOOD, True, id="the same"),
            pytest.param(
                GOOD.upper()
                .replace("X", "x")
                .replace("SERVER-TO-CLIENT", "server-to-client")
                .replace("CLIENT-TO-SERVER", "client-to-server"),
                True,
                id="spelled otherwise",
            ),
            pytest.param(f"server-to-client {OTHER}\nclient-to-server {ONE}\n", True, id="changed places"),
            pytest.param(f"server-to-client {ONE}\nclient-to-server 0x{'3c' * 20}\n", True, id="one of them"),
            pytest.param(
                f"server-to-client 0x{'4d' * 20}\nclient-to-server 0x{'3c' * 20}\n", False, id="others"
            ),
        ],
    )
    def test_is_refused(self, tmp_path: Path, again: str, refused: bool) -> None:
        sysfs = Sysfs(str(tmp_path))
        (tmp_path / "var/lib").mkdir(parents=True)
        first = testbedkeys.read(written(tmp_path, GOOD))
        testbedkeys.check_unused(sysfs, first, "keys")
        testbedkeys.note_used(sysfs, first)
        later = testbedkeys.read(written(tmp_path, again))
        if refused:
            with pytest.raises(RejectedError, match="used before"):
                testbedkeys.check_unused(sysfs, later, "keys")
        else:
            testbedkeys.check_unused(sysfs, later, "keys")

    def test_keys_are_not_in_what_is_remembered(self, tmp_path: Path) -> None:
        (tmp_path / "var/lib").mkdir(parents=True)
        testbedkeys.note_used(Sysfs(str(tmp_path)), testbedkeys.read(written(tmp_path, GOOD)))
        found = tmp_path / "var/lib/libvirt-tuner/testbed-keys-used"
        assert found.stat().st_mode & 0o777 == 0o600
        assert not [key for key in (ONE, OTHER) if key[2:].lower() in found.read_text()]
        assert len(found.read_text().splitlines()) == 2

    def test_what_cannot_be_read_is_not_unused(self, tmp_path: Path) -> None:
        (tmp_path / "var/lib/libvirt-tuner/testbed-keys-used").mkdir(parents=True)
        with pytest.raises(HostError):
            testbedkeys.check_unused(Sysfs(str(tmp_path)), testbedkeys.read(written(tmp_path, GOOD)), "keys")
