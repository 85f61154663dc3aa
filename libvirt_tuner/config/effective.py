"""The effective policy of one domain, with the origin of each setting. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from libvirt_tuner.config import metadata
from libvirt_tuner.config.policy import Config, Policy, merge
from libvirt_tuner.errors import PolicyError

if TYPE_CHECKING:
    from lxml.etree import _Element


@frozen(repr=False)
class Effective:
    """A policy with the origin of its settings.

    Attributes:
        policy: As :func:`libvirt_tuner.config.policy.resolve` has it.
        origins: Setting to its layer (``[policy]``, ``[[domain]] web-*``, ``metadata``) unless built in.
        problems: What is wrong with the metadata.
    """

    policy: Policy
    origins: dict[str, str]
    problems: tuple[PolicyError, ...] = ()


def effective(name: str, config: Config, element: _Element | None) -> Effective:
    """Explain the policy for one domain.

    Args:
        name: The domain's name.
        config: From :func:`libvirt_tuner.config.policy.check`.
        element: ``<policy>`` from the domain's metadata, or None.
    """
    origins = {key: layer.where for layer in config.layers if layer.serves(name) for key in layer.values}
    policy = merge(name, config.layers)
    if element is None:
        return Effective(policy, origins)
    values, problems = metadata.read(element, policy, config.limits, f"metadata of {name}")
    policy = evolve(policy, **values)  # type: ignore[arg-type]
    return Effective(policy, origins | dict.fromkeys(values, "metadata"), problems)
