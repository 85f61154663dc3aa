"""Transforms of libvirt domain XML and a hook that tune VMs for network speed.

The names of ``__all__`` here, in :mod:`libvirt_tuner.transforms` and in :mod:`libvirt_tuner.errors` are the
public API (docs/api.md); everything else may change with any version.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libvirt_tuner.config.policy import Policy
    from libvirt_tuner.domainxml.spec import Vnic
    from libvirt_tuner.errors import ArgumentError, DomainXmlError, MissingDeviceError, TunerError
    from libvirt_tuner.library import plan, read_host, recorded, revert, tune
    from libvirt_tuner.planning.plan import Held, Placement, Plan, Reason
    from libvirt_tuner.topology import HostTopology
    from libvirt_tuner.transforms import Chain, Change, Transform, compose, rewritten

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """Import the name on first use, so that importing the package costs the hook nothing."""
        from importlib import import_module

        if name == "__version__":
            return import_module("importlib.metadata").version("libvirt-tuner")
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"libvirt_tuner.{_WHERE[name]}"), name)
        return value


_WHERE = {
    **dict.fromkeys(("ArgumentError", "DomainXmlError", "MissingDeviceError", "TunerError"), "errors"),
    **dict.fromkeys(("Chain", "Change", "Transform", "compose", "rewritten"), "transforms"),
    **dict.fromkeys(("plan", "read_host", "recorded", "revert", "tune"), "library"),
    **dict.fromkeys(("Placement", "Plan", "Reason", "Held"), "planning.plan"),
    "HostTopology": "topology",
    "Policy": "config.policy",
    "Vnic": "domainxml.spec",
}

__all__ = [
    "ArgumentError",
    "Chain",
    "Change",
    "DomainXmlError",
    "Held",
    "HostTopology",
    "MissingDeviceError",
    "Placement",
    "Plan",
    "Policy",
    "Reason",
    "Transform",
    "TunerError",
    "Vnic",
    "__version__",
    "compose",
    "plan",
    "read_host",
    "recorded",
    "revert",
    "rewritten",
    "tune",
]
