"""The policy: built-in defaults < config file < metadata.

Pure: the caller reads the config file and passes its text. Without a config file and metadata (the usual case
for the hook), only attrs is imported.

:class:`Policy` is the table of settings, with name, values, default and help text of each. The checks of file
and metadata, ``schemas/``, the example file and docs/policy.md are generated from it
(:mod:`libvirt_tuner.config.settings`, :mod:`libvirt_tuner.config.reference`).
"""

from __future__ import annotations

from typing import NamedTuple

from attrs import evolve, fields, frozen

from libvirt_tuner.config.values import Layer, setting
from libvirt_tuner.errors import PolicyError
from libvirt_tuner.topology import Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element

    from libvirt_tuner.config.limits import Limits

CONFIG_FILE = "/etc/libvirt-tuner.toml"


@frozen(repr=False)
class Policy:
    """The effective policy for one domain; each attribute is a setting."""

    select: bool = setting(
        True,
        bool,
        help="false: the domains are not tuned. A domain's metadata may always set false.",
    )
    placement: str = setting(
        "auto",
        *("auto", "dedicated", "shared", "keep"),
        metadata="yes",
        help='"auto": each vCPU gets its own CPU while the host has a CPU for every running vCPU. Otherwise'
        ' all domains with "auto" share the CPUs. "dedicated": each vCPU gets its own CPU and keeps it.'
        ' "shared": the vCPUs share CPUs near the network card with other domains. "keep": no pins.',
    )
    housekeeping: Cpus | None = setting(
        None,
        *("auto", frozenset),
        none=("auto",),
        metadata="never",
        help='CPUs for the host itself, as a cpulist ("0-1,32"), or "auto". No vCPU is pinned to'
        " CPUs listed here.",
    )
    emulator_cpus: int | Cpus | None = setting(
        None,
        *("auto", range(1, 1025), frozenset),
        unit="CPUs",
        none=("auto",),
        help='CPUs for the emulator and the vhost workers: a number of CPUs, a cpulist ("16,18"), or "auto".',
    )
    numa_memory: str = setting(
        "auto",
        *("auto", "strict", "preferred", "keep"),
        help='How memory is bound to the NUMA node. "auto": strict for huge pages, preferred for ordinary'
        ' pages. "strict": other nodes are never used. "preferred": other nodes are used when the node is'
        ' full. "keep": memory is not bound.',
    )
    rx_queue_size: int | None = setting(
        1024,
        *(256, 512, 1024, "keep", False),
        unit="entries",
        none=("keep", False),
        metadata="yes",
        help='Receive ring of virtio NICs, in entries, or "keep". A larger ring absorbs bursts. It does not'
        " raise throughput.",
    )
    tx_queue_size: int | None = setting(
        None,
        *(256, 512, 1024, "keep", False),
        unit="entries",
        none=("keep", False),
        metadata="yes",
        help='Transmit ring of virtio NICs, in entries, or "keep". More than 256 is only set on'
        " vhost-user and"
        " vDPA NICs, because QEMU 8.1 and later refuse to start with it on a tap or macvtap.",
    )
    queues: int | str | None = setting(
        None,
        *("keep", "vcpus", range(1, 257)),
        unit="queue pairs",
        none=("keep",),
        metadata="yes",
        help='Queue pairs of virtio NICs: a number, "vcpus" (one per vCPU), or "keep". A NIC never gets more'
        " queue pairs than the domain has vCPUs at boot. Each queue pair has a vhost worker.",
    )
    poll_us: int | None = setting(
        None,
        *(range(1_000_001), False),
        unit="microseconds",
        none=(0, False),
        metadata="yes",
        help="Busy polling of the vhost workers, in microseconds; 0: off. It is set on QEMU's"
        " command line, so"
        " libvirt marks the domain as tainted (custom-argv).",
    )
    mtu: str | int = setting(
        "auto",
        *("auto", "keep", "jumbo", range(68, 65536)),
        unit="bytes",
        metadata="yes",
        help='MTU of the guest: bytes, "auto", "jumbo" or "keep". "auto": the largest MTU without'
        ' fragmentation on the path to the wire, at most 1500 unless the network asks for more. "jumbo":'
        ' the same without that limit. "keep": the MTU is not set.',
    )
    uplink: str | None = setting(
        None,
        *("auto", str),
        none=("auto",),
        help="The network device through which the packets of the domain leave. The domain is"
        " placed on its NUMA"
        ' node. "auto": it is found from the NICs of the domain.',
    )
    irq: str = setting(
        "steer",
        *("steer", "keep"),
        help='Interrupts of the uplink. "steer": they are moved off the CPUs of vCPUs. "keep": they'
        " are not moved.",
    )
    rps: str = setting(
        "keep",
        *("keep", "steer"),
        help='RPS and XPS masks of the uplink. "steer": CPUs of vCPUs are removed from them.'
        ' "keep": they are not'
        " changed.",
    )
    isolate: str = setting(
        "off",
        *("off", "cgroup"),
        metadata="never",
        help='"cgroup": while the domain has CPUs of its own, systemd keeps system.slice, user.slice and'
        " init.scope off those of its vCPUs (AllowedCPUs, at run time; cgroup v2)."
        ' "off": they may run there.',
    )
    settle_seconds: int = setting(
        5,
        range(3601),
        unit="seconds",
        metadata="never",
        help="How long the service waits before it changes a new definition, in seconds. The"
        " program that defined"
        " it can read it back unchanged in that time. 0: the definition is changed at once.",
    )
    strict: bool = setting(
        False,
        bool,
        metadata="never",
        help='true: the start of a domain with placement "auto" or "dedicated" fails if it would'
        " not get its own"
        " CPUs.",
    )

    def __attrs_post_init__(self) -> None:
        """Check values that differ from the defaults. ``"keep"``, ``0`` and similar are stored as None.

        Raises:
            PolicyError: A value that the setting cannot have.
        """
        given = {name: value for name, value in _values(self).items() if value != _DEFAULTS.get(name, value)}
        if given:
            from libvirt_tuner.config.settings import SETTINGS

            for name, value in given.items():
                if not SETTINGS[name].holds(value):
                    expected = SETTINGS[name].expected()
                    raise PolicyError("bad value", where=f"Policy({name}=)", value=value, expected=expected)
                if isinstance(value, set):
                    object.__setattr__(self, name, frozenset(value))
                elif value in SETTINGS[name].none:
                    object.__setattr__(self, name, None)


def _values(policy: Policy) -> dict[str, object]:
    return {column.name: getattr(policy, column.name) for column in fields(Policy)}


_DEFAULTS: dict[str, object] = {}
_DEFAULTS.update(_values(Policy()))


class Config(NamedTuple):
    """A config file: ``[policy]`` and each ``[[domain]]`` in order; ``[limits]``, None for the built-in."""

    layers: tuple[Layer, ...] = ()
    limits: Limits | None = None


def load(text: str, file: str = CONFIG_FILE) -> Config:
    """Read a config file.

    Args:
        text: The file's content, TOML.
        file: Its name, for errors.

    Raises:
        PolicyError: The first mistake, with ``file:line``, the value and the allowed values.
    """
    config, errors = check(text, file)
    if errors:
        raise errors[0]
    return config


def check(text: str, file: str = CONFIG_FILE) -> tuple[Config, tuple[PolicyError, ...]]:
    """Read the valid tables of a config file, and return its mistakes too.

    A table with a mistake is ignored as a whole. A file that is not TOML is ignored completely. While
    ``[limits]`` cannot be read, metadata may set nothing.
    """
    from libvirt_tuner.config import file as configfile

    layers, limits, errors = configfile.read(text, file)
    return Config(layers, limits), errors


def for_domain(name: str, config: Config | None = None, element: _Element | None = None) -> Policy:
    """Return the effective policy of one domain.

    Args:
        name: The domain's name.
        config: From :func:`load`; None for the built-in defaults.
        element: ``<policy>`` from the domain's metadata, or None.

    Raises:
        PolicyError: The metadata is not valid, or has a setting that is not allowed.
    """
    policy, problems = _for_domain(name, config or Config(), element)
    if problems:
        raise problems[0]
    return policy


def resolve(
    name: str, config_text: str | None, element: _Element | None, file: str = CONFIG_FILE
) -> tuple[Policy, tuple[PolicyError, ...]]:
    """Return the effective policy of the valid layers, and the problems of the others.

    For callers that must continue, such as the hook. :func:`load` and :func:`for_domain` raise instead.
    :attr:`~libvirt_tuner.errors.PolicyError.layer` says which layer has the problem: ``file`` (that table is
    ignored), ``metadata`` (all of it is ignored) or ``limits`` (that setting of the metadata is ignored).

    Args:
        name: The domain's name.
        config_text: Content of the config file; None when there is none.
        element: ``<policy>`` from the domain's metadata, or None.
        file: The config file's name, for errors.
    """
    config, errors = (Config(), ()) if config_text is None else check(config_text, file)
    policy, problems = _for_domain(name, config, element)
    return policy, (*errors, *problems)


def selected_by_name(name: str, config_text: str | None) -> bool:
    """Return whether a ``[[domain]]`` table of the config file has ``select = true`` for this domain."""
    layers = check(config_text)[0].layers if config_text else ()
    named = (layer for layer in layers if layer.match != "*" and layer.serves(name))
    return any(layer.values.get("select") is True for layer in named)


def merge(name: str, layers: tuple[Layer, ...]) -> Policy:
    """Apply the matching layers over the built-in defaults, in order."""
    policy = Policy()
    for layer in layers:
        if layer.serves(name):
            policy = evolve(policy, **layer.values)  # type: ignore[arg-type]
    return policy


def _for_domain(
    name: str, config: Config, element: _Element | None
) -> tuple[Policy, tuple[PolicyError, ...]]:
    if element is None:
        return merge(name, config.layers), ()
    from libvirt_tuner.config.effective import effective

    found = effective(name, config, element)
    return found.policy, found.problems
