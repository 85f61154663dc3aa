"""Our record in a document's metadata, read strictly: metadata is anyone's to write. ``record`` writes it."""

from __future__ import annotations

from lxml import etree

from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.domainxml.edit import RECORD_NS
from libvirt_tuner.errors import DomainXmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

RECORD_TAG = f"{{{RECORD_NS}}}record"
SETTING_TAG = f"{{{RECORD_NS}}}setting"
_LONGEST_VALUE = 4096
_MOST_SETTINGS = 65536
_KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=:._-")


def record_element(root: Element) -> Element | None:
    """Our record within ``/domain/metadata``, None when there is none."""
    metadata = xmlread.child(root, "metadata")
    return None if metadata is None else xmlread.child(metadata, RECORD_TAG)


def recorded(root: Element) -> dict[tuple[str, str], str | None]:
    """What this tool wrote: ``(transform, key)`` to the value (None: it took the setting out).

    Settings the user has since taken over are left out.

    Raises:
        DomainXmlError: The record is damaged.
    """
    return {
        (setting.get("transform", ""), setting.get("key", "")): setting.get("value")
        for setting in record_settings(root)
        if setting.get("owner") is None
    }


def record_settings(root: Element) -> list[Element]:
    """The record's ``<setting>`` elements, each checked: metadata is anyone's to write.

    Raises:
        DomainXmlError: Not as schemas/record.rng has it.
    """
    element = record_element(root)
    settings = [] if element is None else list(element.iterchildren(etree.Element))
    if len(settings) > _MOST_SETTINGS:
        raise DomainXmlError("record is too long", where="/domain/metadata/record", value=len(settings))
    for position, setting in enumerate(settings, 1):
        _check_setting(setting, f"/domain/metadata/record/setting[{position}]")
    return settings


def _check_setting(setting: Element, where: str) -> None:
    if setting.tag != SETTING_TAG or len(setting):
        raise DomainXmlError("damaged record", where=where, value=setting.tag, expected="an empty <setting>")
    unknown = set(setting.attrib) - {"transform", "key", "value", "was", "owner"}
    if unknown or not setting.get("transform") or not setting.get("key"):
        raise DomainXmlError(
            "damaged record", where=where, value=sorted(unknown), expected="transform and key"
        )
    if setting.get("owner") not in (None, "user"):
        raise DomainXmlError(
            "damaged record", where=f"{where}/@owner", value=setting.get("owner"), expected="user"
        )
    if not _KEY_CHARACTERS.issuperset(setting.get("key", "")):
        raise DomainXmlError(
            "damaged record", where=f"{where}/@key", value=setting.get("key"), expected="a key"
        )
    if any(len(value) > _LONGEST_VALUE for value in setting.attrib.values()):
        raise DomainXmlError(
            "damaged record", where=where, expected=f"at most {_LONGEST_VALUE} characters a value"
        )


POLICY_NS = "https://libvirt-tuner.org/policy/1"


def policy_element(root: Element) -> Element | None:
    """Our policy within ``/domain/metadata``, None when there is none."""
    metadata = xmlread.child(root, "metadata")
    return None if metadata is None else xmlread.child(metadata, f"{{{POLICY_NS}}}policy")
