"""What the owner of the host and of the domain wants: built-in defaults < config file < metadata.

Pure: the caller reads the config file and hands over its text. On a host without one and for a domain
without metadata of ours, which is what the hook meets most, nothing but attrs is imported.
"""

from __future__ import annotations

from attrs import evolve, frozen

from libvirt_tuner.config.values import Layer
from libvirt_tuner.errors import PolicyError
from libvirt_tuner.topology import Cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxml.etree import _Element

CONFIG_FILE = "/etc/libvirt-tuner.toml"


@frozen(repr=False)
class Policy:
    """The effective policy for one domain.

    Attributes:
        select: False leaves the domain alone altogether.
        placement: ``dedicated`` (1:1, falling back), ``shared`` (float over the cell) or ``keep``.
        housekeeping: CPUs left to the host; None lets the planner choose.
        emulator_cpus: How many CPUs emulator and vhost get, or exactly which; None: planner's choice.
        numa_memory: ``auto``, ``strict``, ``preferred`` or ``keep``.
        rx_queue_size: Ring entries for virtio NICs (256..1024, a power of two); None leaves them.
        poll_us: Microseconds of vhost busy polling; None is off.
        mtu: ``auto``, ``keep``, or the guest's MTU in bytes.
        uplink: Device to take as the domain's uplink; None follows the vNICs.
        irq: ``steer`` or ``keep``.
        rps: ``keep`` or ``steer`` (RPS/XPS masks).
        strict: ``prepare`` may refuse the start when the policy cannot be met.
    """

    select: bool = True
    placement: str = "dedicated"
    housekeeping: Cpus | None = None
    emulator_cpus: int | Cpus | None = None
    numa_memory: str = "auto"
    rx_queue_size: int | None = 1024
    poll_us: int | None = None
    mtu: str | int = "auto"
    uplink: str | None = None
    irq: str = "steer"
    rps: str = "keep"
    strict: bool = False


@frozen(repr=False)
class Config:
    """A config file's layers: ``[policy]``, then each ``[[domain]]`` in the order of the file."""

    layers: tuple[Layer, ...] = ()


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
    """Read a config file as far as it is good, and return its mistakes beside it.

    A table with a mistake in it is left out as a whole; so is all of a file that is not TOML.
    """
    from libvirt_tuner.config import file as configfile

    layers, errors = configfile.read(text, file)
    return Config(layers), errors


def for_domain(name: str, config: Config | None = None, element: _Element | None = None) -> Policy:
    """Return the policy in effect for one domain.

    Args:
        name: The domain's name.
        config: From :func:`load`; None for the built-in defaults.
        element: ``<policy>`` from the domain's metadata, or None.

    Raises:
        PolicyError: The metadata is not valid.
    """
    layers = (config or Config()).layers
    return merge(name, layers if element is None else (*layers, _from_metadata(name, element)))


def resolve(
    name: str, config_text: str | None, element: _Element | None, file: str = CONFIG_FILE
) -> tuple[Policy, tuple[PolicyError, ...]]:
    """Return the policy in effect as far as its layers are good, and what is wrong with the others.

    For callers that have to go on, such as the hook; :func:`load` and :func:`for_domain` raise.

    Args:
        name: The domain's name.
        config_text: Content of the config file; None when there is none.
        element: ``<policy>`` from the domain's metadata, or None.
        file: The config file's name, for errors.
    """
    config, errors = (Config(), ()) if config_text is None else check(config_text, file)
    try:
        return for_domain(name, config, element), errors
    except PolicyError as error:
        return for_domain(name, config), (*errors, error)


def merge(name: str, layers: tuple[Layer, ...]) -> Policy:
    """Lay the layers that serve the domain over the built-in defaults, the last one on top."""
    policy = Policy()
    for layer in layers:
        if layer.serves(name):
            policy = evolve(policy, **layer.values)  # type: ignore[arg-type]
    return policy


def _from_metadata(name: str, element: _Element) -> Layer:
    from libvirt_tuner.config import metadata

    return metadata.read(element, f"metadata of {name}")
