"""All errors that this package raises on purpose. Imports nothing."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "ConnectionFailed",
    "CpusetError",
    "DeniedError",
    "DomainXmlError",
    "HostError",
    "LedgerError",
    "MissingDeviceError",
    "MissingError",
    "PolicyError",
    "RejectedError",
    "TunerError",
    "UnsupportedError",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    ConnectionProblem = Literal["missing", "busy", "lost", "unsupported", "hook", "refused"]


class TunerError(Exception):
    """The base class: says what is wrong, where, with which value, and what was expected.

    Args:
        problem: What is wrong, in a few words, without a full stop.
        where: An xpath, ``file:line``, a path under /sys or /proc, or a command line option.
        value: The bad value; shown with ``repr`` and cut to 80 characters.
        expected: The accepted form or values.
        advice: What to do, if ``expected`` does not say it.
        remedy: Commands that fix it, one each, to be pasted into a shell; not part of the message.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str = "",
        value: object = None,
        expected: str = "",
        advice: str = "",
        remedy: tuple[str, ...] = (),
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.value = value
        self.expected = expected
        self.advice = advice
        self.remedy = remedy

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TunerError) and type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), str(self)))

    def __str__(self) -> str:
        text = printable(f"{self.where}: {self.problem}" if self.where else self.problem)
        if self.value is not None:
            text += f": got {_shortened(repr(self.value))}"
        if self.expected:
            text += f", expected {self.expected}"
        if self.advice:
            text += f" ({self.advice})"
        return text


class ArgumentError(TunerError, ValueError):
    """A function got a bad value; ``where`` is the function or the parameter."""


class CpusetError(ArgumentError):
    """A cpulist, nodeset or hex mask that cannot be read."""


class DomainXmlError(TunerError, ValueError):
    """A domain document that is malformed, hostile, or not valid; ``where`` is an xpath or a line."""

    consequence = "ignored"


class MissingDeviceError(DomainXmlError):
    """The document has no such vCPU, iothread, cell or interface, or it cannot have the setting."""


class PolicyError(TunerError, ValueError):
    """A config file or metadata element has an unknown key, a bad value, or a setting that is not allowed
    there.

    Attributes:
        layer: ``file``, ``metadata``, or ``limits`` for a setting that the file does not allow in metadata.
    """

    layer = ""

    @property
    def consequence(self) -> str:
        """What the mistake has as its consequence."""
        if self.layer == "limits":
            return "this setting is ignored"
        if self.layer == "metadata":
            return "the domain is not changed until this is fixed"
        return "domains are not changed until this is fixed"


class HostError(TunerError):
    """Reading or changing the host failed; ``where`` is the path, ``errno`` the kernel's answer."""

    def __init__(self, problem: str, *, errno: int = 0, **details: object) -> None:
        super().__init__(problem, **details)  # type: ignore[arg-type]
        self.errno = errno


class MissingError(HostError):
    """The file or device is not there (ENOENT, ENODEV)."""


class DeniedError(HostError):
    """Not permitted: root is needed (EACCES, EPERM outside managed interrupts)."""


class UnsupportedError(HostError):
    """The kernel does not allow this for this object (EIO or EPERM on a managed interrupt)."""


class RejectedError(HostError):
    """The kernel refused the value (EINVAL, ENOSPC), or accepted it but did not apply it."""


class LedgerError(TunerError):
    """The ledger under /run cannot be read, is damaged, or its lock was not free in time."""


class ConnectionFailed(TunerError):
    """libvirt refused a call; ``problem`` ends with libvirt's own message.

    ``kind`` is ``missing`` (no such domain), ``busy`` (another job holds the domain), ``lost`` (the daemon is
    away), ``unsupported``, ``hook`` (libvirt's hook script failed), or ``refused``.
    """

    def __init__(self, problem: str, *, kind: ConnectionProblem = "refused", **details: object) -> None:
        super().__init__(problem, **details)  # type: ignore[arg-type]
        self.kind = kind

    @property
    def try_again(self) -> bool:
        """Whether the same call may succeed a moment later."""
        return self.kind in ("busy", "lost")


def printable(text: str) -> str:
    """The text with control characters, line separators and bidirectional marks escaped, for a log's line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _shortened(text: str) -> str:
    """Cut to 80 characters, so that a megabyte of bad input is still one log line."""
    return text if len(text) <= 80 else f"{text[:77]}..."
