"""Who else than root can change what root runs."""

from __future__ import annotations

import errno
import os
import re
import struct
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


ACL_HEAD = struct.pack("<I", 2)
OWNER, GROUP, MASK, OTHER = (
    (tag, 0o7 if tag != 0x20 else 0o5, 0xFFFFFFFF) for tag in (0x01, 0x04, 0x10, 0x20)
)


def grant(path: Path, tag: int, permissions: int, number: int) -> None:
    """As ``setfacl -m``."""
    entries = sorted((OWNER, GROUP, MASK, OTHER, (tag, permissions, number)))
    data = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", ACL_HEAD + data)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this file system has no access control lists")
        raise


@pytest.mark.parametrize(
    ("tag", "permissions", "number", "said"),
    [
        pytest.param(0x02, 0o7, USER, True, id="a user may write"),
        pytest.param(0x02, 0o5, USER, False, id="a user may read"),
        pytest.param(0x02, 0o7, 0, False, id="root may write"),
        pytest.param(0x08, 0o7, 54321, True, id="an unknown group may write"),
        pytest.param(0x08, 0o5, 54321, False, id="a group may read"),
    ],
)
def test_access_control_lists(tmp_path: Path, tag: int, permissions: int, number: int, said: bool) -> None:
    arguments = tree(tmp_path)
    grant(tmp_path / "lib/libvirt_tuner", tag, permissions, number)
    found = list(trust.writable(*arguments))
    assert [f"can write to {tmp_path}/lib/libvirt_tuner" in each for each in found] == [True] * said


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
