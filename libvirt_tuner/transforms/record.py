"""The record of each value that this tool wrote into a domain document, in the document's metadata.

    <tuner:record xmlns:tuner="https://libvirt-tuner.org/record/1" macs="52:54:00:11:22:01">
      <tuner:setting transform="vcpupin" key="0" value="20"/>

``was`` is the earlier value (missing: there was no such setting), ``value`` is ours (missing: we removed it).
``owner="user"`` marks a setting that the user changed or removed after us: it belongs to the user. ``macs``
are those of the interfaces, in order: a clone has others. ``kept`` names elements that were empty before us.
The grammar is schemas/record.rng.

Anybody can write metadata. So a setting counts only if its transform is known, its key exists in this
document, and the setting can have its values. Others are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

from attrs import evolve, frozen
from lxml import etree

from libvirt_tuner.domainxml import document, edit, metadata, read
from libvirt_tuner.errors import ArgumentError, DomainXmlError
from libvirt_tuner.transforms import ORDER, STORES
from libvirt_tuner.transforms._transform import (
    Change,
    Fits,
    Recordable,
    Store,
    differing,
    flattened,
    is_same,
)
from libvirt_tuner.transforms._vnics import keys as interface_keys
from libvirt_tuner.transforms._vnics import macs as interface_macs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

Name = tuple[str, str]
# Value in ``kept`` for an element that was written as ``<a></a>``. It is not a hex number.
_PAIR = "pair"


@frozen(repr=False)
class Entry:
    """One setting: our value, the earlier value, and whether it belongs to the user now."""

    value: str | None
    was: str | None = None
    is_users: bool = False


@frozen(repr=False)
class _Record:
    """A document's record: valid entries, settings of unknown transforms, and problems of others."""

    entries: dict[Name, Entry]
    strangers: tuple[Element, ...]
    bad: tuple[str, ...]


def entries(root: Element, others: Iterable[Change] = ()) -> dict[Name, Entry]:
    """Return ``(transform, key)`` to entry, for all valid entries.

    Args:
        root: The domain.
        others: Your own transforms that may have been recorded.
    """
    return _read(root, _stores(_recordable(others))).entries


def problems(root: Element, others: Iterable[Change] = ()) -> tuple[str, ...]:
    """Return parts of the record that do not fit this document and are ignored."""
    record = _read(root, _stores(_recordable(others)))
    unknown = {setting.get("transform", "") for setting in record.strangers}
    return (*record.bad, *(f"transform {name!r} is not known" for name in sorted(unknown)))


def apply(root: Element, transforms: Iterable[Change], *, complete: Collection[str] = ()) -> bool:
    """Run the transforms and record what they wrote; True if the document changed.

    A setting that the user changed or removed after us belongs to the user and is not changed. A setting of
    ours that its transform no longer wants gets its earlier value.

    Args:
        root: The domain, changed in place.
        transforms: In order; each is :class:`~libvirt_tuner.transforms.Recordable`.
        complete: Names of transforms for which ``transforms`` is complete: if one is not given, our settings
            of it are reverted.

    Raises:
        DomainXmlError: A transform cannot be applied. The document is unchanged then.
        TypeError: One of them is not a transform, or cannot be recorded.
    """
    document.check(root)
    flat = _recordable(transforms)
    stores = _stores(flat)
    record = _read(root, stores)
    before, now = record.entries, _with_users_changes(root, record.entries, stores)
    kept = _kept(root, stores)
    given = {transform.name for transform in flat}
    wanted: dict[str, dict[str, str | None]] = {
        name: {} for name in stores if name in given or name in complete
    }
    for name, settings in _wanted(root, flat, now, stores):
        wanted[name] |= settings
    for name, settings in wanted.items():
        _check(root, name, stores[name], {key: settings[key] for key in settings if (name, key) not in now})
    changed = False
    with _guarded(root, kept, stores):
        for name, settings in wanted.items():
            changed |= _write(root, name, stores[name], settings, now)
        if now != before:
            _write_record(root, now, record.strangers, kept)
            changed = True
    return changed


def revert(root: Element, others: Iterable[Change] = ()) -> bool:
    """Restore the earlier values and remove the record. Returns True if there was one.

    Settings that the user changed after us stay. Settings of transforms that are neither in this package nor
    among ``others`` stay and stay recorded.
    """
    document.check(root)
    element = metadata.record_element(root)
    if element is None:
        return False
    stores = _stores(_recordable(others))
    record = _read(root, stores)
    now = _with_users_changes(root, record.entries, stores)
    kept = _kept(root, stores)
    with _guarded(root, kept, stores):
        for transform in reversed(stores):
            back = {
                key: entry.was
                for (name, key), entry in now.items()
                if name == transform and not entry.is_users
            }
            if back:
                stores[transform].write_all(root, back)
        _write_record(root, {}, record.strangers, kept)
    return True


def _check(root: Element, transform: str, store: Store, wanted: Mapping[str, str | None]) -> None:
    """What is to be replaced can be put back: the record takes no value that its setting cannot have.

    Raises:
        DomainXmlError: It cannot.
    """
    current, fits = store.read(root), store.fits(root)
    for key in differing(store, current, wanted):
        value = current.get(key)
        if not fits(key, value):
            raise DomainXmlError(
                "cannot replace a value that is not valid", where=f"{transform} {key}", value=value
            )


def _wanted(
    root: Element, flat: Collection[Recordable], now: Mapping[Name, Entry], stores: Mapping[str, Store]
) -> Iterator[tuple[str, dict[str, str | None]]]:
    """The settings that each transform wants, with its name.

    "Every pin out" names those that are there: of ours those that were, and what one before it has put in.
    """
    taken = [name for name, entry in now.items() if entry.value is None and not entry.is_users]
    is_simple = not taken and len({transform.name for transform in flat}) == len(flat)
    scratch = root if is_simple else deepcopy(root)
    for name, key in taken:
        stores[name].write_all(scratch, {key: now[name, key].was})
    for transform in flat:
        settings = transform.wanted(scratch)
        yield transform.name, settings
        if not is_simple:
            transform.store.write_all(scratch, settings)


def _recordable(transforms: Iterable[Change]) -> list[Recordable]:
    flat = flattened(transforms)
    for transform in flat:
        if not hasattr(transform, "store") or not hasattr(transform, "wanted"):
            raise TypeError(
                f"{transform!r} cannot be recorded: it has no store or no wanted(); "
                "make it with libvirt_tuner.transforms.nic_setting, pin_setting or domain_setting"
            )
    return cast("list[Recordable]", flat)


def _stores(transforms: Iterable[Recordable]) -> dict[str, Store]:
    """Return our transforms in order, then the others.

    Raises:
        ArgumentError: Two have the same name.
    """
    stores: dict[str, Store] = dict(STORES)
    for transform in transforms:
        if stores.setdefault(transform.name, transform.store) != transform.store:
            raise ArgumentError(
                "another transform has that name",
                where="name",
                value=transform.name,
                expected="a name of its own",
            )
    return stores


def _write(
    root: Element, transform: str, store: Store, wanted: Mapping[str, str | None], now: dict[Name, Entry]
) -> bool:
    """Write one transform's settings, and update ``now``."""
    current = store.read(root)
    ours = {key: entry for (name, key), entry in now.items() if name == transform}
    free = {key: value for key, value in wanted.items() if key not in ours or not ours[key].is_users}
    stale = {key: entry.was for key, entry in ours.items() if key not in wanted and not entry.is_users}
    missing = differing(store, current, {**free, **stale})
    if missing:
        store.write_all(root, missing)
    for key in stale:
        del now[transform, key]
    for key, value in free.items():
        entry = ours.get(key)
        if entry is not None and is_same(store, value, entry.was):
            del now[transform, key]
        elif entry is not None:
            now[transform, key] = evolve(entry, value=value)
        elif key in missing:
            now[transform, key] = Entry(value, current.get(key))
    return bool(missing)


def _with_users_changes(
    root: Element, recorded: Mapping[Name, Entry], stores: Mapping[str, Store]
) -> dict[Name, Entry]:
    current = {name: stores[name].read(root) for name in {name for name, _ in recorded}}
    return {
        (name, key): entry
        if is_same(stores[name], current[name].get(key), entry.value)
        else evolve(entry, is_users=True)
        for (name, key), entry in recorded.items()
    }


def _read(root: Element, stores: Mapping[str, Store]) -> _Record:
    settings, bad = metadata.record_settings(root)
    found: dict[Name, Entry] = {}
    strangers = []
    fits: dict[str, Fits] = {}
    key_now = _keys_now(root) if settings else str
    for setting in settings:
        name, spelled = setting.get("transform", ""), setting.get("key", "")
        if name not in stores:
            strangers.append(setting)
            continue
        if name not in fits:
            fits[name] = stores[name].fits(root)
        key, value, was = key_now(spelled), setting.get("value"), setting.get("was")
        if (name, key) not in found and fits[name](key, value) and fits[name](key, was):
            found[name, key] = Entry(value, was, setting.get("owner") == "user")
        else:
            bad.append(f"{name} of {spelled}: not a setting of this domain, or recorded twice")
    return _Record(found, tuple(strangers), tuple(bad))


def _keys_now(root: Element) -> Callable[[str], str]:
    """Return the current key for a recorded one.

    An interface recorded by position gets a MAC when libvirt defines the domain. The interfaces of a clone
    have new MACs, and the order of the original.
    """
    keys = interface_keys(root)
    renamed = {f"index={at}": key for at, key in enumerate(keys)}
    record = metadata.record_element(root)
    old = [] if record is None else record.get("macs", "").split(" ")
    if len(old) == len(keys) and not {*filter(None, old)} & {*interface_macs(root)}:
        renamed |= {f"mac={mac}": key for mac, key in zip(old, keys, strict=True)}
    return lambda key: renamed.get(key, key)


def _write_record(
    root: Element, now: Mapping[Name, Entry], strangers: Collection[Element], kept: Mapping[str, str]
) -> None:
    record = metadata.record_element(root)
    if not now and not strangers:
        if record is not None:
            edit.discard(record)
        return
    if record is None:
        record = edit.insert(edit.ensure(root, "metadata"), edit.new(metadata.RECORD_TAG))
        if kept:
            record.set("kept", " ".join(f"{label}={text}" for label, text in kept.items()))
    if any(key.startswith("mac=") for _, key in now):
        record.set("macs", " ".join(interface_macs(root)))
    for setting in reversed(record):
        edit.remove(setting)
    edit.insert_all(record, [*(_setting(*name, entry) for name, entry in now.items()), *strangers])


def _setting(transform: str, key: str, entry: Entry) -> Element:
    setting = edit.new(metadata.SETTING_TAG, transform=transform, key=key)
    for name, value in (("value", entry.value), ("was", entry.was)):
        if value is not None:
            setting.set(name, value)
    if entry.is_users:
        setting.set("owner", "user")
    return setting


def _containers(root: Element, stores: Mapping[str, Store]) -> dict[str, Element]:
    """Return elements that a write may remove because they become empty, by a label."""
    found: dict[str, Element] = {}
    place = read.child(root, "metadata")
    if place is not None:
        found["metadata"] = place
    for store in stores.values():
        found |= store.containers(root)
    return found


def _kept(root: Element, stores: Mapping[str, Store]) -> dict[str, str]:
    """Return containers that were empty before us: label to their white space in hex, or ``pair``."""
    record = metadata.record_element(root)
    if record is not None:
        return dict(item.rpartition("=")[::2] for item in record.get("kept", "").split())
    bare = {label: one for label, one in _containers(root, stores).items() if edit.is_bare(one)}
    pairs = document.are_pairs(root, list(bare.values()))
    return {
        label: _PAIR if pair and not element.text else (element.text or "").encode().hex()
        for (label, element), pair in zip(bare.items(), pairs, strict=True)
    }


@contextmanager
def _guarded(root: Element, kept: Mapping[str, str], stores: Mapping[str, Store]) -> Iterator[None]:
    """Put a comment into each of ``kept`` while empty elements are removed."""
    guards = []
    containers = _containers(root, stores) if kept else {}
    for label, spelled in kept.items():
        element, text = containers.get(label), _white_space(spelled)
        if element is not None and text is not None:
            guards.append((edit.insert(element, etree.Comment("kept")), text or None, spelled == _PAIR))
    yield
    for guard, text, pair in guards:
        element = guard.getparent()
        edit.remove(guard)
        if element is not None and not edit.has_children(element):
            element.text = "" if pair else text


def _white_space(spelled: str) -> str | None:
    """Return the earlier content of an element in ``kept``; None if it is not white space."""
    try:
        text = "" if spelled == _PAIR else bytes.fromhex(spelled).decode()
    except ValueError:
        return None
    return None if text.strip(" \t\r\n") else text


__all__ = ["ORDER", "Entry", "apply", "entries", "problems", "revert"]
