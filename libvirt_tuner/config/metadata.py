"""``<policy>`` in a domain's metadata, to a layer of settings: untrusted, so the schema sees it first."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from libvirt_tuner import resources
from libvirt_tuner.config import schema
from libvirt_tuner.config.values import Layer, did_you_mean, typed, value
from libvirt_tuner.errors import PolicyError

_RNG = "{http://relaxng.org/ns/structure/1.0}"
_DOCUMENTATION = "{http://relaxng.org/ns/compatibility/annotations/1.0}documentation"


def read(element: etree._Element, source: str = "metadata") -> Layer:
    """Read ``<policy>``; its attributes are Policy's, with dashes.

    Args:
        element: What :func:`libvirt_tuner.domainxml.metadata.policy_element` returns.
        source: What it was read from, for errors.

    Raises:
        PolicyError: With source and line, the value and the allowed values.
    """
    where = f"{source}, line {element.sourceline or 1}"
    _enforce(element, where)
    values = {}
    for name, text in element.attrib.items():
        key = str(name).replace("-", "_")
        values[key] = value(key, typed(key, str(text).strip()), where)
    return Layer(where, values)


def _enforce(element: etree._Element, where: str) -> None:
    grammar = etree.fromstring(resources.read("schemas/policy.rng"))
    rules = etree.RelaxNG(grammar)
    if rules.validate(element):
        return
    attributes = {str(found.get("name")): found for found in grammar.iter(f"{_RNG}attribute")}
    for name, text in element.attrib.items():
        if name not in attributes:
            raise PolicyError(
                "unknown attribute of <policy>",
                where=where,
                value=str(name),
                expected=schema.joined(list(attributes)),
                advice=did_you_mean(str(name), attributes),
            )
        if not rules.validate(etree.Element(element.tag, {str(name): str(text)})):
            forms = schema.joined(list(_forms(attributes[str(name)], grammar)))
            raise PolicyError(f"bad value of {name}", where=where, value=str(text), expected=forms)
    raise PolicyError("<policy> has content", where=where, expected="attributes only")


def _forms(pattern: etree._Element, grammar: etree._Element) -> Iterator[str]:
    """Yield what a pattern of the grammar accepts, in words: its values, and its data's documentation."""
    for node in pattern.iter(f"{_RNG}value", _DOCUMENTATION, f"{_RNG}ref"):
        if node.tag == f"{_RNG}ref":
            define = grammar.find(f"{_RNG}define[@name='{node.get('name')}']")
            if define is not None:
                yield from _forms(define, grammar)
        else:
            yield node.text or ""
