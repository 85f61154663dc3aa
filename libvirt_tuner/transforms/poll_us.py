"""vhost's busy polling, ``poll-us``. libvirt has no setting for it, so QEMU's ``-set`` is used.

``-set`` only works for options in QEMU's own syntax. libvirt writes ``-netdev`` as JSON where QEMU takes
that (QEMU >= 7.2: ``QEMU_CAPS_NETDEV_JSON`` hangs on the dgram netdev, src/qemu/qemu_capabilities.c), and
QEMU then ends with 'there is no netdev "hostnet0" defined'. ``<qemu:capabilities>`` makes libvirt write the
old syntax. libvirt knows the name ``netdev.json`` since 7.9, and refuses unknown names. Before 7.9 it did not
write JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from libvirt_tuner.domainxml import edit, parts, read
from libvirt_tuner.domainxml.edit import QEMU_NS
from libvirt_tuner.errors import ArgumentError
from libvirt_tuner.transforms import _vnics
from libvirt_tuner.transforms._transform import Fits, Stateless, Transform, check_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_COMMANDLINE, _ARG = f"{{{QEMU_NS}}}commandline", f"{{{QEMU_NS}}}arg"
_CAPABILITIES, _DEL = f"{{{QEMU_NS}}}capabilities", f"{{{QEMU_NS}}}del"
JSON = "netdev.json"
FIRST_JSON_QEMU, FIRST_JSON_LIBVIRT = (7, 2), (7, 9)
# QEMU: poll-us of 2.7 (qapi/net.json). libvirt: <qemu:commandline> of 0.8.3.
FIRST_QEMU, FIRST_LIBVIRT = (2, 7), (0, 8, 3)
LARGEST = 1_000_000
# qemu_set_option (QEMU, softmmu/vl.c) reads an id of up to 63 characters.
_LONGEST_ID = 63


def poll_us(
    value: int | None,
    *,
    libvirt: tuple[int, ...] = (9, 0, 0),
    qemu: tuple[int, ...] = (7, 2, 0),
    mac: _vnics.Names = None,
    alias: _vnics.Names = None,
    index: _vnics.Positions = None,
    nics: _vnics.Nics = None,
) -> Transform:
    """Let the vhost workers of every virtio NIC, or of the selected ones, poll. None removes it.

    It takes effect at the next start. libvirt then marks the domain as tainted ("custom-argv").

    Args:
        value: Microseconds a worker may poll, 1 to 1000000.
        libvirt, qemu: Versions for which the document is written.
        mac, alias, index, nics: Interfaces to change, see :func:`libvirt_tuner.transforms.nic_setting`.

    Raises:
        ArgumentError: A bad value or selection, or versions that cannot set it. On a document:
            :class:`MissingDeviceError` if it has no such interface, or if a selected one has no vhost worker.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (is_number and 1 <= value <= LARGEST):
        raise ArgumentError(
            "bad poll-us", where="poll_us", value=value, expected=f"1 to {LARGEST} microseconds"
        )
    check_version(libvirt, "libvirt")
    check_version(qemu, "qemu")
    if value is not None and (qemu < FIRST_QEMU or libvirt < FIRST_LIBVIRT):
        versions = f"QEMU {_dotted(qemu)}, libvirt {_dotted(libvirt)}"
        raise ArgumentError(
            "no poll-us", where="poll_us", value=versions, expected="QEMU >= 2.7, libvirt >= 0.8.3"
        )
    keep_json_off = qemu >= FIRST_JSON_QEMU and libvirt >= FIRST_JSON_LIBVIRT
    chosen = _vnics.choice(mac, alias, index, nics)
    text = f"poll-us {value} on {chosen}" if value else f"remove poll-us from {chosen}"
    return Transform("poll_us", (value, chosen, keep_json_off), False, text, STORE, _wanted)


class _Store(Stateless):
    """Netdev id to microseconds, and ``netdev.json`` to ``del`` if that capability is removed.

    ``netdev.json`` stays removed while another ``-set netdev.`` needs it. Else the domain would not start.
    """

    def read(self, root: Element) -> dict[str, str]:
        settings = {netdev: value for netdev, value, _ in _settings(root)}
        return settings | ({JSON: "del"} if _deletion(root) is not None else {})

    def write_all(self, root: Element, settings: Mapping[str, str | None]) -> None:
        present = {netdev: args for netdev, _, args in _settings(root)}
        for key, value in settings.items():
            if key != JSON:
                _set(root, key, value, present.get(key))
        if JSON in settings:
            _write_deletion(root, settings[JSON])

    def same(self, one: str, other: str) -> bool:
        return one == other

    def fits(self, root: Element) -> Fits:
        known = frozenset(f"host{alias}" for alias in parts.next_aliases(root) if alias)
        return lambda key, value: (
            (value is None and (key == JSON or key in known))
            or (key == JSON and value == "del")
            or (key in known and value is not None and _vnics.is_number(value))
        )

    def containers(self, root: Element) -> dict[str, Element]:
        found = ((tag, read.child(root, tag)) for tag in (_COMMANDLINE, _CAPABILITIES))
        return {tag: element for tag, element in found if element is not None}


def _set(root: Element, key: str, value: str | None, found: tuple[Element, Element] | None) -> None:
    if value is None:
        for arg in found or ():
            edit.discard(arg)
    elif found is not None:
        found[1].set("value", f"netdev.{key}.poll-us={value}")
    else:
        commandline = edit.ensure(root, _COMMANDLINE)
        edit.insert(commandline, edit.new(_ARG, value="-set"))
        edit.insert(commandline, edit.new(_ARG, value=f"netdev.{key}.poll-us={value}"))


def _write_deletion(root: Element, value: str | None) -> None:
    found = _deletion(root)
    if value is None and found is not None and not _needs_plain_netdev(root):
        edit.discard(found)
    elif value is not None and found is None:
        edit.insert(edit.ensure(root, _CAPABILITIES), edit.new(_DEL, capability=JSON))


def _deletion(root: Element) -> Element | None:
    deletions = read.each(root, _CAPABILITIES, _DEL)
    return next((one for one in deletions if one.get("capability") == JSON), None)


def _needs_plain_netdev(root: Element) -> bool:
    return any(arg.get("value", "").startswith("netdev.") for arg in _args(root))


def _args(root: Element) -> list[Element]:
    return list(read.each(root, _COMMANDLINE, _ARG))


def _settings(root: Element) -> Iterator[tuple[str, str, tuple[Element, Element]]]:
    """Netdev id, value and the two arguments, of every ``-set netdev.ID.poll-us=VALUE``."""
    args = _args(root)
    for option, setting in pairwise(args):
        text = setting.get("value", "")
        if option.get("value") == "-set" and text.startswith("netdev."):
            name, _, value = text.removeprefix("netdev.").partition("=")
            if name.endswith(".poll-us"):
                yield name.removesuffix(".poll-us"), value, (option, setting)


def _problem(interface: Element) -> str:
    if not _vnics.is_virtio(interface) or interface.get("type") not in parts.VHOST_TYPES:
        return "only a virtio interface on a tap or macvtap has a vhost worker that can poll"
    if read.attribute(interface, "driver", "name") == "qemu":
        return "with driver name='qemu' no vhost worker polls"
    if len(read.attribute(interface, "alias", "name")) + len("host") > _LONGEST_ID:
        return f"alias is too long for QEMU's -set ({_LONGEST_ID} characters with 'host' before it)"
    return ""


def _wanted(
    root: Element, value: int | None, chosen: _vnics.Choice, keep_json_off: bool
) -> dict[str, str | None]:
    if value is None:
        return _unwanted(root, chosen)
    aliases = parts.next_aliases(root)
    served = _vnics.selected(root, chosen, _problem)
    wanted: dict[str, str | None] = {f"host{aliases[at]}": str(value) for at, _ in served}
    return wanted | ({JSON: "del"} if keep_json_off and wanted else {})


def _unwanted(root: Element, chosen: _vnics.Choice) -> dict[str, str | None]:
    """Return nothing without poll-us, so that the user's own deletion of ``netdev.json`` stays."""
    present = [netdev for netdev, _, _ in _settings(root)]
    if not chosen.every:
        aliases = parts.next_aliases(root)
        ids = {f"host{aliases[at]}" for at, _ in _vnics.selected(root, chosen, _problem)}
        present = [netdev for netdev in present if netdev in ids]
    return dict.fromkeys([*present, JSON] if present else [])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


STORE = _Store()
