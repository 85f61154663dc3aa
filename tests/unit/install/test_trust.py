"""Who else than root can change what root runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from libvirt_tuner import install
from libvirt_tuner.errors import HostError
from libvirt_tuner.install import trust

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
USER = 1000


def tree(tmp_path: Path) -> tuple[str, list[str]]:
    """An interpreter that is a link, and a directory with a package."""
    package = tmp_path / "lib" / "libvirt_tuner" / "inner"
    package.mkdir(parents=True)
    (package / "module.py").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "real").touch()
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to("../bin/real")
    return str(tmp_path / "venv" / "python"), [str(tmp_path / "lib")]


def test_roots_own(tmp_path: Path) -> None:
    assert list(trust.writable(*tree(tmp_path))) == []


def test_the_distributions_python() -> None:
    assert list(trust.writable("/usr/bin/python3", ["/usr/lib/python3/dist-packages"])) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("venv", lambda path: os.chown(path, USER, 0), id="directory of the link"),
        pytest.param("bin", lambda path: os.chown(path, USER, 0), id="directory of the interpreter"),
        pytest.param("bin/real", lambda path: os.chown(path, USER, 0), id="interpreter"),
        pytest.param("lib", lambda path: path.chmod(0o757), id="import directory"),
        pytest.param("lib/libvirt_tuner", lambda path: path.chmod(0o777), id="package"),
        pytest.param("lib/libvirt_tuner/inner/module.py", lambda path: os.chown(path, USER, 0), id="module"),
        pytest.param("lib/libvirt_tuner/inner/module.py", lambda path: path.chmod(0o666), id="module's mode"),
        pytest.param(".", lambda path: os.chown(path, USER, 0), id="parent"),
    ],
)
def test_others_can_change_it(tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    arguments = tree(tmp_path)
    change(tmp_path / name)
    (found, *_) = trust.writable(*arguments)
    assert found.startswith(str(tmp_path)) or str(tmp_path) in found


def test_sticky_parent_is_fine(tmp_path: Path) -> None:
    arguments = tree(tmp_path)
    tmp_path.chmod(0o1777)
    assert list(trust.writable(*arguments)) == []


def test_group_of_root_may_write(tmp_path: Path) -> None:
    arguments = tree(tmp_path)
    (tmp_path / "lib").chmod(0o775)
    assert list(trust.writable(*arguments)) == []


def test_group_with_members_may_not(tmp_path: Path) -> None:
    arguments = tree(tmp_path)
    (tmp_path / "lib").chmod(0o775)
    os.chown(tmp_path / "lib", 0, 65534)  # nobody's own group
    (found,) = trust.writable(*arguments)
    assert re.search(r"\bnobody\b.* can write to", found)


def test_installing_it_is_refused(tmp_path: Path) -> None:
    python, paths = tree(tmp_path)
    os.chown(tmp_path / "lib", USER, 0)
    with pytest.raises(HostError, match="other users can change") as caught:
        install.refuse_writable(python, paths)
    assert "--allow-writable" in caught.value.advice


def test_the_packages_are_in_the_directories_that_are_looked_at() -> None:
    paths = install.import_paths()
    found = {name for name in trust.PACKAGES for path in paths if Path(path, name).is_dir()}
    assert found == set(trust.PACKAGES)
