"""Transforms of libvirt domain XML, and a hook, that place a VM where its network card is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.transforms import compose

__all__ = ["compose"]


def __getattr__(name: str) -> object:
    """``compose`` on first use: importing the package alone must cost the hook nothing."""
    if name == "compose":
        from libvirt_tuner.transforms import compose

        return compose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
