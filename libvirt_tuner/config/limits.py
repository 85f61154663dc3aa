"""``[limits]`` of the config file: the settings that are allowed in a domain's metadata.

Everybody who may define a domain can write its metadata. But CPUs, nodes and interrupts of the host are
shared with other domains. So the built-in limits allow only settings that affect the domain alone.
"""

from __future__ import annotations

from attrs import frozen

from libvirt_tuner.config.policy import CONFIG_FILE, Policy
from libvirt_tuner.config.settings import SETTINGS, Setting, table
from libvirt_tuner.config.values import setting
from libvirt_tuner.errors import PolicyError


@frozen(repr=False)
class Limits:
    """The limits for metadata. Each attribute is a key of ``[limits]``."""

    metadata: frozenset[str] = setting(
        frozenset(name for name, one in SETTINGS.items() if one.metadata == "yes"),
        list,
        help="Settings that are allowed in a domain's metadata. Others are ignored and reported. Metadata may"
        " always set select = false.",
    )
    mtu: int = setting(
        1500,
        range(68, 65536),
        unit="bytes",
        help='Largest MTU that metadata may set, in bytes, where mtu is "auto" or "keep" in this file. Where'
        ' it is a number, metadata may only lower it. Where it is "jumbo", metadata may set any. A number in'
        " metadata never raises the guest's MTU above what the path carries or the network asks for.",
    )
    poll_us: int = setting(
        200,
        range(1_000_001),
        unit="microseconds",
        help="Largest poll_us that metadata may set, in microseconds. A larger poll_us in this file"
        " raises the limit.",
    )

    def check(self, name: str, value: object, policy: Policy, where: str) -> None:
        """Check that metadata may give the setting this value.

        Args:
            name: The setting.
            value: As Policy holds it.
            policy: What the built-in defaults and the config file give the domain.
            where: For the error.

        Raises:
            PolicyError: It may not. :attr:`~libvirt_tuner.errors.PolicyError.layer` is ``limits``.
        """
        if name == "select" and value is False:
            return
        attribute = SETTINGS[name].attribute
        if SETTINGS[name].metadata == "never":
            raise _refusal(f"{attribute} can only be set in {CONFIG_FILE}", where)
        if value == getattr(policy, name):
            return
        if name not in self.metadata:
            advice = f"list {name} in metadata under [limits] of {CONFIG_FILE} to allow it"
            if self is NOTHING:
                advice = f"fix {CONFIG_FILE} or its [limits] first: nothing is allowed until then"
            raise _refusal(f"{attribute} may not be set in metadata", where, advice=advice)
        expected = self._bound(name, value, policy)
        if expected:
            advice = f"see [limits] in {CONFIG_FILE}"
            raise _refusal(f"{attribute} is over its limit", where, value, expected, advice)

    def _bound(self, name: str, value: object, policy: Policy) -> str:
        """Return what is allowed instead of the value; "" if the value is allowed."""
        if name == "poll_us":
            most = max(self.poll_us, policy.poll_us or 0)
            return "" if value is None or (isinstance(value, int) and value <= most) else f"at most {most}"
        if name != "mtu" or value in ("keep", policy.mtu) or policy.mtu == "jumbo":
            return ""
        most = policy.mtu if isinstance(policy.mtu, int) else self.mtu
        words = "keep" if isinstance(policy.mtu, int) else "auto, keep"
        fits = value <= most if isinstance(value, int) else value == "auto" and words != "keep"
        return "" if fits else f"{words} or at most {most} bytes"


LIMITS: dict[str, Setting] = table(Limits)
#: In force while ``[limits]`` of the file cannot be read.
NOTHING = Limits(metadata=frozenset())


def _refusal(
    problem: str, where: str, value: object = None, expected: str = "", advice: str = ""
) -> PolicyError:
    error = PolicyError(problem, where=where, value=value, expected=expected, advice=advice)
    error.layer = "limits"
    return error
