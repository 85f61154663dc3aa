"""Files that come with the package: the schemas and the hook script."""

from __future__ import annotations

from libvirt_tuner.errors import TunerError

KINDS = ("schemas", "hooks")


def path(name: str) -> str:
    """Return the absolute path of a file that comes with the package.

    In a checkout, ``libvirt_tuner/schemas`` and ``libvirt_tuner/hooks`` are symbolic links to the top level.
    In an installed wheel they are directories. The same path works for both.

    Args:
        name: ``schemas/policy.rng``, ``hooks/qemu``...

    Raises:
        TunerError: ``name`` is not below one of :data:`KINDS`.
    """
    kind, _, rest = name.partition("/")
    if kind not in KINDS or not rest or ".." in rest:
        raise TunerError("no such resource", value=name, expected="schemas/NAME or hooks/NAME")
    return f"{__file__.rpartition('/')[0]}/{name}"


def read(name: str) -> bytes:
    """Return a resource's content. Arguments and errors are those of :func:`path`."""
    with open(path(name), "rb") as file:
        return file.read()
