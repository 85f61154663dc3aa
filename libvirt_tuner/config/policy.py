"""What the owner of the host and of the domain asks for: built-in defaults < config file < metadata.

Pure: the caller reads the config file and hands over its text. On a host without one and for a domain
without metadata of ours, which is what the hook meets most, nothing but attrs is imported.

:class:`Policy` is the table of settings: name, values, default and help text of each stand there once. The
checks of file and metadata, ``schemas/``, the example file and docs/policy.md come from it
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
        help="false leaves the domains alone. A domain's metadata may always set false.",
    )
    placement: str = setting(
        "auto",
        *("auto", "dedicated", "shared", "keep"),
        metadata="yes",
        help='"auto": each vCPU gets a CPU of its own while there is room for every vCPU that runs; when'
        ' there is not, all domains of placement "auto" share the CPUs. "dedicated": each vCPU gets a CPU of'
        ' its own and keeps it. "shared": all vCPUs float over the NUMA node. "keep": no pins.',
    )
    housekeeping: Cpus | None = setting(
        None,
        *("auto", frozenset),
        none=("auto",),
        metadata="never",
        help='CPUs left to the host, as a cpulist ("0-1,32"), or "auto".',
    )
    emulator_cpus: int | Cpus | None = setting(
        None,
        *("auto", range(1, 1025), frozenset),
        unit="CPUs",
        none=("auto",),
        help='CPUs of the emulator and the vhost workers: how many, or which ones as a cpulist ("16,18"), or'
        ' "auto".',
    )
    numa_memory: str = setting(
        "auto",
        *("auto", "strict", "preferred", "keep"),
        help='How firmly memory is bound to the NUMA node. "auto": huge pages strict, ordinary pages'
        ' preferred. "strict": other nodes are never used. "preferred": other nodes are used when the node is'
        ' full. "keep": memory is not bound.',
    )
    rx_queue_size: int | None = setting(
        1024,
        *(256, 512, 1024, "keep", False),
        unit="entries",
        none=("keep", False),
        metadata="yes",
        help='Receive ring of virtio NICs, in entries, or "keep". A longer ring absorbs bursts; it does not'
        " raise throughput.",
    )
    tx_queue_size: int | None = setting(
        None,
        *(256, 512, 1024, "keep", False),
        unit="entries",
        none=("keep", False),
        metadata="yes",
        help='Transmit ring of virtio NICs, in entries, or "keep". More than 256 is set on vhost-user and'
        " vDPA NICs only: QEMU 8.1 and later refuse to start with it on a tap or macvtap.",
    )
    queues: int | str | None = setting(
        None,
        *("keep", "vcpus", range(1, 257)),
        unit="queue pairs",
        none=("keep",),
        metadata="yes",
        help='Queue pairs of virtio NICs: a number, "vcpus" (one per vCPU), or "keep". A NIC never gets more'
        " queue pairs than the domain has vCPUs when it boots. Each queue pair has a vhost worker.",
    )
    poll_us: int | None = setting(
        None,
        *(range(1_000_001), False),
        unit="microseconds",
        none=(0, False),
        metadata="yes",
        help="Busy polling of the vhost workers, in microseconds; 0 is off. It is set on QEMU's command line,"
        " so libvirt marks the domain as tainted (custom-argv).",
    )
    mtu: str | int = setting(
        "auto",
        *("auto", "keep", "jumbo", range(68, 65536)),
        unit="bytes",
        metadata="yes",
        help='The guest\'s MTU, in bytes, or a word. "auto": what the path to the wire leaves room for, at'
        ' most 1500 unless the network asks for more. "jumbo": all that the path leaves room for. "keep": the'
        " MTU is not set.",
    )
    uplink: str | None = setting(
        None,
        *("auto", str),
        none=("auto",),
        help='The network device through which the domain\'s packets leave; its NUMA node counts. "auto":'
        " found from the domain's own NICs.",
    )
    irq: str = setting(
        "steer",
        *("steer", "keep"),
        help='Interrupts of the uplink. "steer": moved off the CPUs of vCPUs. "keep": not moved.',
    )
    rps: str = setting(
        "keep",
        *("keep", "steer"),
        help='RPS and XPS masks of the uplink. "steer": CPUs of vCPUs are taken out. "keep": not changed.',
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
        help="How long the service leaves a new definition alone, in seconds, so that the program that"
        " defined it can read it back unchanged. 0: the definition is changed at once.",
    )
    strict: bool = setting(
        False,
        bool,
        metadata="never",
        help="true: the hook refuses a start for which the policy cannot be met.",
    )

    def __attrs_post_init__(self) -> None:
        """Check what differs from the defaults; ``"keep"``, ``0`` and such are held as None.

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
    """Read a config file as far as it is good, and return its mistakes with it.

    A table with a mistake in it is left out as a whole; so is all of a file that is not TOML. While
    ``[limits]`` cannot be read, metadata may set nothing.
    """
    from libvirt_tuner.config import file as configfile

    layers, limits, errors = configfile.read(text, file)
    return Config(layers, limits), errors


def for_domain(name: str, config: Config | None = None, element: _Element | None = None) -> Policy:
    """Return the policy in effect for one domain.

    Args:
        name: The domain's name.
        config: From :func:`load`; None for the built-in defaults.
        element: ``<policy>`` from the domain's metadata, or None.

    Raises:
        PolicyError: The metadata is not valid, or sets what it may not.
    """
    policy, problems = _for_domain(name, config or Config(), element)
    if problems:
        raise problems[0]
    return policy


def resolve(
    name: str, config_text: str | None, element: _Element | None, file: str = CONFIG_FILE
) -> tuple[Policy, tuple[PolicyError, ...]]:
    """Return the policy in effect as far as its layers are good, and what is wrong with the others.

    For callers that have to go on, such as the hook; :func:`load` and :func:`for_domain` raise.
    :attr:`~libvirt_tuner.errors.PolicyError.layer` says which layer each problem is in: ``file`` (that table
    is left out), ``metadata`` (all of it is left out) or ``limits`` (that setting of metadata is left out).

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
    """Whether a ``[[domain]]`` table of the config file says ``select = true`` for this domain."""
    layers = check(config_text)[0].layers if config_text else ()
    named = (layer for layer in layers if layer.match != "*" and layer.serves(name))
    return any(layer.values.get("select") is True for layer in named)


def merge(name: str, layers: tuple[Layer, ...]) -> Policy:
    """Lay the layers that serve the domain over the built-in defaults, the last one on top."""
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
