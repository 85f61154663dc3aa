"""Checks whether users other than root can change what the hook and the service run."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = ("libvirt_tuner", "lxml", "attr", "attrs")
"""Packages that the hook imports."""
_ACL_USER, _ACL_GROUP, _ACL_WRITE = 0x02, 0x08, 0x02  # linux/posix_acl.h


def writable(python: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield, for each file or directory that root would run or import from, who else can change it.

    Checks the interpreter with all links to it, the import directories, every file of :data:`PACKAGES` in
    them, and all their parents. In a parent with the sticky bit (``/tmp``), nobody can replace files of root.

    Args:
        python: The interpreter.
        paths: Directories for ``sys.path``.
    """
    seen: set[Path] = set()
    for path in (*_links(Path(python)), *map(Path, paths)):
        yield from _with_parents(path, seen)
    for directory in map(Path, paths):
        for name in PACKAGES:
            yield from _tree(directory / name, seen)


def _links(path: Path) -> Iterator[Path]:
    """Yield the path and the target of each link on it."""
    for _ in range(40):  # the kernel's own limit, path_resolution(7)
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def _with_parents(path: Path, seen: set[Path]) -> Iterator[str]:
    spelled = Path(os.path.abspath(path))
    for each in {spelled: None, **dict.fromkeys(spelled.parents), **_resolved(path)}:
        if each not in seen:
            seen.add(each)
            yield from _complaint(each, parent=each not in (spelled, path))


def _resolved(path: Path) -> dict[Path, None]:
    real = path.resolve()
    return dict.fromkeys((real, *real.parents))


def _tree(top: Path, seen: set[Path]) -> Iterator[str]:
    for directory, _, names in os.walk(top, followlinks=True):
        for each in (Path(directory), *(Path(directory) / name for name in names)):
            if each not in seen:
                seen.add(each)
                yield from _complaint(each, parent=False)


def _complaint(path: Path, *, parent: bool) -> Iterator[str]:
    try:
        state = path.stat()
    except FileNotFoundError:
        return
    if state.st_uid != 0:
        yield f"{path} belongs to {_user(state.st_uid)}"
    elif parent and state.st_mode & stat.S_ISVTX:
        return
    elif state.st_mode & stat.S_IWOTH:
        yield f"everybody can write to {path}"
    elif state.st_mode & stat.S_IWGRP and (members := (*_members(state.st_gid), *_listed(path))):
        yield f"{', '.join(dict.fromkeys(members))} can write to {path}"


def _listed(path: Path) -> Iterator[str]:
    """Yield the users and members of groups that an access control list lets write (acl(5)).

    The mode then shows the most that any of them may do as the group's part.
    """
    try:
        entries = os.getxattr(path, "system.posix_acl_access")[4:]
    except OSError:
        return  # it has none
    for tag, permissions, number in struct.iter_unpack("<HHI", entries):
        if permissions & _ACL_WRITE and tag == _ACL_USER and number:
            yield _user(number)
        elif permissions & _ACL_WRITE and tag == _ACL_GROUP:
            yield from _members(number)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _members(gid: int) -> tuple[str, ...]:
    """Return the members of a group except root. Debian's ``staff``, which may write below /usr/local, is
    empty by default."""
    try:
        listed = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return (f"group {gid}",)
    primary = {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return tuple(sorted((listed | primary) - {"root"}))
