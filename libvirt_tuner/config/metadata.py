"""Parses ``<policy>`` in a domain's metadata into settings. It is untrusted, and limited by ``[limits]``."""

from __future__ import annotations

from lxml import etree

from libvirt_tuner.config.limits import Limits
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.config.settings import LISTABLE, SETTINGS, did_you_mean, joined
from libvirt_tuner.config.values import AtMost
from libvirt_tuner.errors import PolicyError


def read(
    element: etree._Element, policy: Policy, limits: Limits | None, source: str = "metadata"
) -> tuple[dict[str, object], tuple[PolicyError, ...]]:
    """Read ``<policy>``; its attributes are Policy's, with dashes.

    Args:
        element: What :func:`libvirt_tuner.domainxml.metadata.policy_element` returns.
        policy: What the built-in defaults and the config file give the domain.
        limits: Of the config file; None for the built-in ones.
        source: What it was read from, for errors.

    Returns:
        The settings and the problems. If the element has a mistake, all of it is ignored. A setting that is
        not allowed is ignored alone.
    """
    where = f"{source}, line {element.sourceline or 1}"
    try:
        given = _given(element, where)
    except PolicyError as error:
        error.layer = "metadata"
        return {}, (error,)
    limits = limits or Limits()
    values: dict[str, object] = {}
    problems: list[PolicyError] = []
    for name, value in given.items():
        try:
            limits.check(name, value, policy, where)
            values[name] = _bounded(name, value, policy)
        except PolicyError as error:
            problems.append(error)
    return values, tuple(problems)


def _bounded(name: str, value: object, policy: Policy) -> object:
    """An MTU of the metadata's own may only lower; one that the file has too stays the file's."""
    return AtMost(value) if name == "mtu" and isinstance(value, int) and value != policy.mtu else value


def _given(element: etree._Element, where: str) -> dict[str, object]:
    texts = (element.text, *(child.tail for child in element))
    if any(isinstance(child.tag, str) for child in element) or any((text or "").strip() for text in texts):
        raise PolicyError("<policy> has content", where=where, expected="attributes only")
    return {
        name: SETTINGS[name].read_text(str(text), where)
        for name, text in ((_name(str(attribute), where), text) for attribute, text in element.attrib.items())
    }


def _name(attribute: str, where: str) -> str:
    """Return the setting of an attribute. Settings that are only for the file are refused later."""
    by_attribute = {one.attribute: name for name, one in SETTINGS.items()}
    if attribute not in by_attribute:
        allowed = [SETTINGS[name].attribute for name in LISTABLE]
        raise PolicyError(
            "unknown attribute of <policy>",
            where=where,
            value=attribute,
            expected=joined(allowed),
            advice=did_you_mean(attribute, allowed),
        )
    return by_attribute[attribute]
