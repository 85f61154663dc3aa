"""What this tool wrote into a domain document, value by value, in the document's own metadata.

    <tuner:record xmlns:tuner="https://libvirt-tuner.org/record/1">
      <tuner:setting transform="vcpupin" key="0" value="20"/>

``was`` is the value before (none: there was no such setting), ``value`` ours (none: we took it out).
``owner="user"`` marks a setting the user changed or took out after us: theirs from then on. The grammar is
schemas/record.rng.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from attrs import evolve, frozen
from lxml import etree

from libvirt_tuner.domainxml import edit as xmledit
from libvirt_tuner.domainxml import metadata
from libvirt_tuner.domainxml import read as xmlread
from libvirt_tuner.errors import DomainXmlError
from libvirt_tuner.transforms import ORDER, STORES, Chain, Transform, differing
from libvirt_tuner.transforms._vnics import keys as interface_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

Name = tuple[str, str]
_WHERE = "/domain/metadata/record"
# Containers a transform's write makes and takes away again; one that stood there empty must stay.
_CONTAINERS = (
    "metadata",
    "cputune",
    "numatune",
    *(f"{{{xmledit.QEMU_NS}}}{name}" for name in ("commandline", "capabilities", "override")),
)


@frozen(repr=False)
class Entry:
    """One setting: our value, the value before, and whether it is the user's by now."""

    value: str | None
    was: str | None = None
    is_users: bool = False


def read(root: Element) -> Mapping[Name, str | None]:
    """``(transform, key)`` to what we wrote, None where we took a setting out; without what is the user's.

    Raises:
        DomainXmlError: The record is damaged.
    """
    return {name: entry.value for name, entry in _entries(root).items() if not entry.is_users}


def apply(root: Element, transforms: Iterable[Transform | Chain], *, complete: Collection[str] = ()) -> bool:
    """Run the transforms and record what they wrote; True if the document changed.

    A setting we wrote and the user has changed or taken out since is theirs: it is left alone. One of ours
    that its transform no longer wants goes back to what it was.

    Args:
        root: The domain, changed in place.
        transforms: In the order to run.
        complete: Names of transforms of which these are all there is to want: where none is given, our
            settings go back.

    Raises:
        DomainXmlError: The record is damaged, or a transform cannot serve the document; it is
            as it was then.
    """
    before = _entries(root)
    kept = _kept(root)
    entries = _with_users_changes(root, before)
    flat = _flat(transforms)
    given = {transform.name for transform in flat}
    names = [name for name in ORDER if name in given or name in complete]
    wanted: dict[str, dict[str, str | None]] = {name: {} for name in names}
    for transform in flat:
        wanted[transform.name] |= transform.wanted(root)
    changed = False
    for name, settings in wanted.items():
        changed |= _write(root, name, settings, entries)
    if entries != before:
        _write_record(root, entries, kept)
        changed = True
    return changed


def revert(root: Element) -> bool:
    """Put back what was there before us, and take the record out; True if there was one.

    Settings the user changed after us stay as the user has them.

    Raises:
        DomainXmlError: The record is damaged.
    """
    record = metadata.record_element(root)
    if record is None:
        return False
    entries = _with_users_changes(root, _entries(root))
    guards = [_guarded(root, tag, text) for tag, text in _kept(root).items()]
    for transform in reversed(ORDER):
        back = {
            key: entry.was
            for (name, key), entry in entries.items()
            if name == transform and not entry.is_users
        }
        if back:
            STORES[transform].write_all(root, back)
    xmledit.discard(record)
    for guard, text in filter(None, guards):
        container = guard.getparent()
        xmledit.remove(guard)
        if container is not None and not len(container):
            container.text = text
    return True


def _write(
    root: Element, transform: str, wanted: Mapping[str, str | None], entries: dict[Name, Entry]
) -> bool:
    """Write one transform's settings; ``entries`` is brought up to date."""
    store = STORES[transform]
    current = store.read(root)
    ours = {key: entry for (name, key), entry in entries.items() if name == transform}
    free = {key: value for key, value in wanted.items() if key not in ours or not ours[key].is_users}
    stale = {key: entry.was for key, entry in ours.items() if key not in wanted and not entry.is_users}
    missing = differing(store, current, {**free, **stale})
    if missing:
        store.write_all(root, missing)
    for key in stale:
        del entries[transform, key]
    for key, value in free.items():
        entry = ours.get(key)
        if entry is not None and _is_same(transform, value, entry.was):
            del entries[transform, key]
        elif entry is not None:
            entries[transform, key] = evolve(entry, value=value)
        elif key in missing:
            entries[transform, key] = Entry(value, current.get(key))
    return bool(missing)


def _with_users_changes(root: Element, entries: Mapping[Name, Entry]) -> dict[Name, Entry]:
    current = {name: STORES[name].read(root) for name in {name for name, _ in entries}}
    return {
        (name, key): entry
        if _is_same(name, current[name].get(key), entry.value)
        else evolve(entry, is_users=True)
        for (name, key), entry in entries.items()
    }


def _is_same(transform: str, one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or STORES[transform].same(one, other)


def _flat(transforms: Iterable[Transform | Chain]) -> list[Transform]:
    flat: list[Transform] = []
    for transform in transforms:
        flat.extend(transform.transforms if isinstance(transform, Chain) else (transform,))
    return flat


def _entries(root: Element) -> dict[Name, Entry]:
    entries: dict[Name, Entry] = {}
    for setting in metadata.record_settings(root):
        name = (setting.get("transform", ""), _key_now(root, setting.get("key", "")))
        if name[0] not in STORES or name in entries:
            problem = "setting twice in the record" if name in entries else "unknown transform in the record"
            raise DomainXmlError(problem, where=_WHERE, value=name, expected=", ".join(ORDER))
        entries[name] = Entry(setting.get("value"), setting.get("was"), setting.get("owner") == "user")
    return entries


def _key_now(root: Element, key: str) -> str:
    """An interface recorded by position has a MAC once libvirt has defined the domain."""
    position = key.removeprefix("index=")
    if position == key or not position.isdecimal():
        return key
    keys = interface_keys(root)
    return keys[int(position)] if int(position) < len(keys) else key


def _write_record(root: Element, entries: Mapping[Name, Entry], kept: Mapping[str, str | None]) -> None:
    record = metadata.record_element(root)
    if not entries:
        if record is not None:
            xmledit.discard(record)
        return
    if record is None:
        record = xmledit.insert(xmledit.ensure(root, "metadata"), xmledit.new(metadata.RECORD_TAG))
        if kept:
            record.set("kept", " ".join(f"{tag}={(text or '').encode().hex()}" for tag, text in kept.items()))
    for setting in list(record):
        xmledit.remove(setting)
    for (transform, key), entry in entries.items():
        setting = xmledit.new(metadata.SETTING_TAG, transform=transform, key=key)
        for name, value in (("value", entry.value), ("was", entry.was)):
            if value is not None:
                setting.set(name, value)
        if entry.is_users:
            setting.set("owner", "user")
        xmledit.insert(record, setting)


def _kept(root: Element) -> dict[str, str | None]:
    """Containers that stood there empty before us, and their white space."""
    record = metadata.record_element(root)
    if record is None:
        found = ((tag, xmlread.child(root, tag)) for tag in _CONTAINERS)
        return {tag: one.text for tag, one in found if one is not None and xmledit.is_bare(one)}
    kept: dict[str, str | None] = {}
    for item in record.get("kept", "").split():
        tag, _, spelled = item.rpartition("=")
        try:
            text = bytes.fromhex(spelled).decode() or None
        except ValueError:
            text = "?"
        if tag not in _CONTAINERS or (text and text.strip(" \t\r\n")):
            raise DomainXmlError("damaged record", where=f"{_WHERE}/@kept", value=item)
        kept[tag] = text
    return kept


def _guarded(root: Element, tag: str, text: str | None) -> tuple[Element, str | None] | None:
    """A comment that keeps the container from being taken away as empty."""
    container = xmlread.child(root, tag)
    return None if container is None else (xmledit.insert(container, etree.Comment("kept")), text)
