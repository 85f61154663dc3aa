"""Reads our record in a document's metadata strictly, because anybody can write metadata.

:mod:`libvirt_tuner.transforms.record` writes it.
"""

from __future__ import annotations

from lxml import etree

from libvirt_tuner.domainxml.read import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

RECORD_NS = "https://libvirt-tuner.org/record/1"
RECORD_TAG = f"{{{RECORD_NS}}}record"
SETTING_TAG = f"{{{RECORD_NS}}}setting"
_LONGEST_VALUE = 4096
_MOST_SETTINGS = 65536
_ATTRIBUTES = frozenset({"transform", "key", "value", "was", "owner"})
_KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=:._-")


def record_element(root: Element) -> Element | None:
    """Our record within ``/domain/metadata``, None when there is none."""
    return find(root, "metadata", RECORD_TAG)


def recorded(root: Element) -> tuple[dict[tuple[str, str], str | None], tuple[str, ...]]:
    """Return what this tool wrote, ``(transform, key)`` to value (None: removed), and the damaged settings.

    Settings that the user has changed since then are not included.
    """
    settings, problems = record_settings(root)
    found = {
        (setting.get("transform", ""), setting.get("key", "")): setting.get("value")
        for setting in settings
        if setting.get("owner") is None
    }
    return found, tuple(problems)


def record_settings(root: Element) -> tuple[list[Element], list[str]]:
    """Return the record's ``<setting>`` elements that match schemas/record.rng, and the problems of the
    others."""
    element = record_element(root)
    settings = [] if element is None else list(element.iterchildren(etree.Element))
    if len(settings) > _MOST_SETTINGS:
        return [], [f"{len(settings)} settings in the record, at most {_MOST_SETTINGS} are read"]
    good, problems = [], []
    for position, setting in enumerate(settings, 1):
        problem = _problem(setting)
        if problem:
            problems.append(f"setting {position} of the record: {problem}")
        else:
            good.append(setting)
    return good, problems


def _problem(setting: Element) -> str:
    """Why the setting is damaged, "" when it is not."""
    if setting.tag != SETTING_TAG or len(setting):
        return "it is not an empty <setting>"
    if not _ATTRIBUTES.issuperset(setting.attrib):
        return "it has an unknown attribute"
    if not setting.get("transform") or not setting.get("key"):
        return "it has no transform or no key"
    if setting.get("owner") not in (None, "user"):
        return "its owner is not 'user'"
    if not _KEY_CHARACTERS.issuperset(setting.get("key", "")):
        return "its key has invalid characters"
    if any(len(value) > _LONGEST_VALUE for value in setting.attrib.values()):
        return f"a value has more than {_LONGEST_VALUE} characters"
    return ""


POLICY_NS = "https://libvirt-tuner.org/policy/1"


def policy_element(root: Element) -> Element | None:
    """Our policy within ``/domain/metadata``, None when there is none."""
    return find(root, "metadata", f"{{{POLICY_NS}}}policy")
