"""What AppArmor and SELinux say of the hook, on hosts described by a few files and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from libvirt_tuner.errors import HostError
from libvirt_tuner.install import confinement

HOOK = "/etc/libvirt/hooks/qemu"


@pytest.mark.parametrize(
    ("profile", "python", "told"),
    [
        pytest.param(None, "/opt/python/bin/python3", False, id="no AppArmor profile"),
        pytest.param("usr.sbin.libvirtd", "/usr/bin/env", False, id="a program of the system"),
        pytest.param("usr.sbin.libvirtd", "/opt/python/bin/python3", True, id="a Python of one's own"),
        pytest.param(
            "usr.sbin.virtqemud", "/opt/python/bin/python3", True, id="the modular daemon's profile"
        ),
    ],
)
def test_a_python_that_apparmor_forbids_is_said(
    tmp_path: Path, profile: str | None, python: str, told: bool
) -> None:
    (tmp_path / "sys/module/apparmor").mkdir(parents=True)
    (tmp_path / "etc/apparmor.d").mkdir(parents=True)
    if profile:
        (tmp_path / "etc/apparmor.d" / profile).write_text("")
    found = confinement.apparmor(tmp_path, python=python)
    assert (found is not None) is told
    if found:
        allow, load = found.remedy
        assert allow.startswith(f"echo '{python} PUx,' >> ")
        assert allow.endswith(f"/local/{profile}")
        assert load.endswith(f"apparmor_parser -r {tmp_path}/etc/apparmor.d/{profile}")


class Policy:
    """Answers of an SELinux policy; ``allowed`` are the domains that may execute hooks."""

    def __init__(self, *allowed: str, types: Sequence[str] = ("virtqemud_t", "virtd_t")) -> None:
        self.allowed = allowed
        self.types = types

    def __call__(self, command: Sequence[str]) -> str | None:
        if command[0] == "matchpathcon":
            return "system_u:object_r:virt_hook_t:s0\n"
        if command[0] == "seinfo":
            known = command[2] in self.types
            return f"\nTypes: {int(known)}\n" + (f"   {command[2]}\n" if known else "")
        domain = command[command.index("-s") + 1]
        if domain not in self.types:
            return None  # "not a valid type attribute"
        return f"allow {domain} virt_hook_t:file execute;\n" if domain in self.allowed else ""


def enforcing(tmp_path: Path, value: str = "1") -> Path:
    file = tmp_path / confinement.SELINUX
    file.parent.mkdir(parents=True)
    file.write_text(value)
    return tmp_path


def test_no_selinux(tmp_path: Path) -> None:
    assert confinement.selinux(HOOK, tmp_path, ask=Policy()) is None


def test_permissive(tmp_path: Path) -> None:
    assert confinement.selinux(HOOK, enforcing(tmp_path, "0"), ask=Policy()) is None


def test_allowed(tmp_path: Path) -> None:
    assert confinement.selinux(HOOK, enforcing(tmp_path), ask=Policy("virtqemud_t", "virtd_t")) is None


def test_only_the_domains_that_the_policy_has_count(tmp_path: Path) -> None:
    policy = Policy("virtd_t", types=("virtd_t",))
    assert confinement.selinux(HOOK, enforcing(tmp_path), ask=policy) is None


def test_forbidden_is_refused_with_the_rule_that_allows_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="virtqemud_t execute files of type virt_hook_t") as caught:
        confinement.selinux(HOOK, enforcing(tmp_path), ask=Policy("virtd_t"))
    write, load, again = caught.value.remedy
    assert "(allow virtqemud_t virt_hook_t (file (execute execute_no_trans map)))" in write
    assert "(allow virtd_t" not in write
    assert load == f"semodule -i {write.rpartition(' > ')[2]}"
    assert again == "libvirt-tuner install"


def test_a_search_that_fails_is_a_warning(tmp_path: Path) -> None:
    policy = Policy("virtqemud_t", "virtd_t")
    said = confinement.selinux(
        HOOK, enforcing(tmp_path), ask=lambda command: None if command[0] == "sesearch" else policy(command)
    )
    assert said is not None
    assert "could not be read" in said.what


def test_a_policy_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    said = confinement.selinux(HOOK, enforcing(tmp_path), ask=lambda command: None)
    assert said is not None
    assert said.remedy == ("dnf install setools-console libselinux-utils",)
